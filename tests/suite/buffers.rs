//! Buffers that connections share one after the other: each client gets its own bytes back, and nobody else's.

use crate::support::{Client, Fixture, PLAIN, Random, config};

/// A client of the echo server with what it has still to send and to receive.
struct Talker {
    client: Client,
    name: usize,
    round: usize,
    /// The bytes of the message under way that are not sent yet.
    unsent: Vec<u8>,
    /// Messages that are sent whole, or under way, and not received yet.
    expected: Vec<Vec<u8>>,
}

impl Talker {
    /// Begins a message whose bytes say whose they are and where they stand.
    fn begin(&mut self, len: usize) {
        self.round += 1;
        let mut message = format!("{}.{}:", self.name, self.round).into_bytes();
        message.extend((message.len()..len).map(|at| b' ' + ((self.name * 31 + self.round * 7 + at) % 90) as u8));
        self.unsent = self.client.frame(&message);
        self.expected.push(message);
    }

    /// Sends some of the message under way and returns how many bytes.
    fn send_piece(&mut self, len: usize) -> usize {
        let rest = self.unsent.split_off(len.min(self.unsent.len()));
        let piece = std::mem::replace(&mut self.unsent, rest);
        self.client.send_raw(&piece);
        piece.len()
    }

    fn receive(&mut self) {
        for message in std::mem::take(&mut self.expected) {
            let got = self.client.recv_bytes();
            assert!(got == message, "sent {}, got {}", message.escape_ascii(), got.escape_ascii());
        }
    }
}

#[test]
fn clients_whose_messages_come_in_pieces_get_their_own_bytes_back() {
    const CLIENTS: usize = 60;
    const STEPS: usize = 6_000;
    // One shard, so that all of them share its buffers.
    let server = Fixture::echo(settings! { shards: Some(1), ..config() });
    let mut random = Random::new();
    let mut talkers: Vec<Talker> = (0..CLIENTS)
        .map(|name| {
            let client = server.client(PLAIN[name % 2]);
            Talker { client, name, round: 0, unsent: Vec::new(), expected: Vec::new() }
        })
        .collect();
    let mut sent = 0;
    for _ in 0..STEPS {
        let talker = &mut talkers[random.below(CLIENTS)];
        if talker.unsent.is_empty() {
            // Most are small, a few fill the server's buffers.
            const LENGTHS: [usize; 10] = [0, 10, 10, 50, 50, 200, 200, 1_000, 9_000, 60_000];
            let len = LENGTHS[random.below(LENGTHS.len())];
            talker.begin(len);
        }
        let most = if random.below(2) == 0 { talker.unsent.len() } else { talker.unsent.len().div_ceil(2) };
        sent += talker.send_piece(1 + random.below(most.max(1)));
        if random.below(4) > 0 {
            // The server has read this piece before another client's comes.
            server.wait_for_bytes_in(sent);
        }
        if talker.unsent.is_empty() && random.below(2) == 0 {
            talker.receive();
        }
    }
    for talker in &mut talkers {
        talker.send_piece(usize::MAX);
        talker.receive();
    }
    assert_eq!(server.conn_count(), CLIENTS);
}
