//! Which sockets have something to read, or room to write: polls in rings of the shard's own.
//!
//! The runtime's streams arm a poll anew for each wait and keep half a kilobyte of bookkeeping for it. Here a poll is
//! armed once per socket and goes on reporting (multishot, Linux 5.13; before, it is armed again after each report),
//! and what is kept for it is a flag in the connection's row. A report says which socket to try; reading and writing
//! are non-blocking calls of the connection's turn.
//!
//! To cancel a poll, the kernel walks one of at most 256 chains of a ring. So a ring takes a bounded number of sockets,
//! by slot, and a shard has as many rings as its slots need.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::event::{EventfdFlags, PollFlags, eventfd};

use crate::config::{POLL_COMPLETIONS, POLL_SUBMISSIONS, POLLS_PER_RING};
use crate::engine::driver::{Report, Watched};
use crate::engine::table::Key;
use crate::sys;

/// The polls of one shard.
pub(crate) struct Poller {
    rings: Vec<Ring>,
    /// The kernel adds to it when a ring has reports.
    signal: OwnedFd,
    multishot: bool,
}

struct Ring {
    ring: IoUring,
    /// What is to be submitted.
    waiting: Vec<squeue::Entry>,
    /// Reports come only when they are asked for: the kernel collects them meanwhile.
    deferred: bool,
    /// Polls and cancellations whose last completion has not come.
    open: usize,
}

/// A connection's slot is below this, so that a token has a bit for the direction.
const SLOTS_MAX: u32 = 1 << 31;
const WRITE: u64 = 1 << 63;
/// The slot that stands for listeners.
const LISTENERS: u32 = SLOTS_MAX - 1;
/// Marks what reports nothing of interest: how a cancellation went.
const IGNORED: u64 = u64::MAX;

/// What is watched for, as the kernel hands it back with a report.
fn token(watched: Watched) -> u64 {
    let pack = |slot: u32, generation: u32| u64::from(slot) << 32 | u64::from(generation);
    match watched {
        Watched::Read(key) => pack(key.slot, key.generation()),
        Watched::Write(key) => pack(key.slot, key.generation()) | WRITE,
        Watched::Accept(number) => pack(LISTENERS, number),
    }
}

fn from_token(token: u64) -> Option<Watched> {
    if token == IGNORED {
        return None;
    }
    let (slot, low) = (((token & !WRITE) >> 32) as u32, token as u32);
    Some(match (slot, token & WRITE) {
        (LISTENERS, _) => Watched::Accept(low),
        (slot, 0) => Watched::Read(Key::new(slot, low)),
        (slot, _) => Watched::Write(Key::new(slot, low)),
    })
}

fn events(watched: Watched) -> PollFlags {
    match watched {
        Watched::Read(_) => PollFlags::IN | PollFlags::RDHUP,
        Watched::Write(_) => PollFlags::OUT,
        Watched::Accept(_) => PollFlags::IN,
    }
}

/// Whether one poll goes on reporting. Who waits for room to write waits once.
fn is_lasting(watched: Watched) -> bool {
    !matches!(watched, Watched::Write(_))
}

fn ring_of(watched: Watched) -> usize {
    match watched {
        Watched::Read(key) | Watched::Write(key) => key.slot as usize / POLLS_PER_RING,
        Watched::Accept(_) => 0,
    }
}

impl Poller {
    /// The polls of a shard, on whose thread this must be called. `multishot`: polls go on reporting, where the kernel
    /// can do that.
    ///
    /// # Errors
    /// The kernel gives no descriptor or no ring.
    pub(crate) fn new(multishot: bool) -> io::Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC)?;
        let mut poller = Poller { rings: Vec::new(), signal, multishot };
        poller.add_ring()?;
        poller.multishot = multishot && poller.has_multishot()?;
        Ok(poller)
    }

    /// A second hold on the descriptor that becomes readable when there are reports to collect.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub(crate) fn signal(&self) -> io::Result<OwnedFd> {
        self.signal.try_clone()
    }

    /// Makes sure that the sockets of a slot can be watched.
    ///
    /// # Errors
    /// The kernel gives no further ring.
    pub(crate) fn reserve(&mut self, slot: u32) -> io::Result<()> {
        if slot >= LISTENERS {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "the connection table is full"));
        }
        while slot as usize / POLLS_PER_RING >= self.rings.len() {
            self.add_ring()?;
        }
        Ok(())
    }

    /// Gives back the rings that watch none of the first `slots` slots, once nothing is armed in them any more.
    pub(crate) fn release(&mut self, slots: u32) {
        let needed = (slots as usize).div_ceil(POLLS_PER_RING).max(1);
        while self.rings.len() > needed && self.rings.last().is_some_and(|ring| ring.open == 0) {
            self.rings.pop();
        }
    }

    /// Has the kernel report from the next [`submit`](Self::submit) on, at once if there is something already.
    pub(crate) fn watch(&mut self, watched: Watched, socket: BorrowedFd<'_>) {
        let poll = opcode::PollAdd::new(Fd(socket.as_raw_fd()), events(watched).bits().into());
        let poll = poll.multi(self.multishot && is_lasting(watched)).build().user_data(token(watched));
        self.push(watched, poll);
    }

    /// Ends an armed poll. Until the next [`submit`](Self::submit) it keeps the socket open, though its descriptor is
    /// closed.
    pub(crate) fn unwatch(&mut self, watched: Watched) {
        // Not `PollRemove`: that leaves a poll armed which is about to report.
        let cancel = opcode::AsyncCancel::new(token(watched)).build().user_data(IGNORED);
        self.push(watched, cancel);
    }

    fn push(&mut self, watched: Watched, entry: squeue::Entry) {
        // A slot's ring is there since it was reserved.
        if let Some(ring) = self.rings.get_mut(ring_of(watched)) {
            ring.waiting.push(entry);
            ring.open += 1;
        }
    }

    /// Hands to the kernel what was to be watched and no more watched.
    ///
    /// # Errors
    /// The kernel took nothing for now, for want of memory, or since reports wait; what is left stays for the next call.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        self.rings.iter_mut().try_for_each(Ring::submit)
    }

    /// Says whether the kernel is to signal what comes from now on. Who collects anyway does without: there would be one
    /// signal when a poll is woken, and another when its report is written down. What comes meanwhile is not signalled
    /// later, so whoever listens again collects once more before waiting.
    pub(crate) fn listen(&mut self, listens: bool) {
        for ring in &mut self.rings {
            let completions = ring.ring.completion();
            if listens { completions.enable_eventfd() } else { completions.disable_eventfd() }
        }
        // The kernel notes that something has come and then looks whether to signal it. Here it is the other way round.
        fence(Ordering::SeqCst);
    }

    /// Appends reports, at most as many as the rings hold; without any there is none for now.
    pub(crate) fn collect(&mut self, reports: &mut Vec<Report>) {
        for ring in &mut self.rings {
            ring.collect(reports);
        }
    }

    fn add_ring(&mut self) -> io::Result<()> {
        let ring = Ring::new()?;
        ring.ring.submitter().register_eventfd(self.signal.as_raw_fd())?;
        self.rings.push(ring);
        Ok(())
    }

    /// Tries a multishot poll on a descriptor that can be written to at any time.
    fn has_multishot(&mut self) -> io::Result<bool> {
        let probe = eventfd(0, EventfdFlags::CLOEXEC)?;
        let watched = Watched::Accept(u32::MAX);
        let poll = opcode::PollAdd::new(Fd(probe.as_raw_fd()), PollFlags::OUT.bits().into());
        self.push(watched, poll.multi(true).build().user_data(token(watched)));
        self.submit()?;
        let mut reports = Vec::new();
        self.collect(&mut reports);
        let lasting = reports.iter().any(|report| report.watched == watched && report.armed);
        if lasting {
            self.unwatch(watched);
            self.submit()?;
            self.collect(&mut reports);
        }
        Ok(lasting)
    }
}

impl Ring {
    /// A ring as good as the kernel has: one thread uses it (6.0), and reports gather until they are asked for (6.1).
    fn new() -> io::Result<Self> {
        let builder = || {
            let mut builder = IoUring::builder();
            builder.setup_cqsize(POLL_COMPLETIONS).dontfork();
            builder
        };
        let deferred =
            builder().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().build(POLL_SUBMISSIONS);
        if let Ok(ring) = deferred {
            return Ok(Ring { ring, waiting: Vec::new(), deferred: true, open: 0 });
        }
        let ring = builder().build(POLL_SUBMISSIONS)?;
        Ok(Ring { ring, waiting: Vec::new(), deferred: false, open: 0 })
    }

    fn submit(&mut self) -> io::Result<()> {
        // After an error the last call may have left some in the ring itself.
        while !self.waiting.is_empty() || !self.ring.submission().is_empty() {
            sys::push_polls(&mut self.ring, &mut self.waiting);
            self.ring.submit()?;
        }
        // A list that was long once needs not stay so.
        self.waiting.shrink_to(POLL_SUBMISSIONS as usize);
        Ok(())
    }

    fn collect(&mut self, reports: &mut Vec<Report>) {
        // The kernel looks at a few polls at a time (20, since 6.12), and not each has something to report. While some
        // are left it gives no signal, so they are gone through to the last, or until there is enough for now.
        let enough = reports.len() + POLL_COMPLETIONS as usize;
        while reports.len() < enough && self.has_more() {
            let before = reports.len();
            // What it can't do now it is asked for again at the next signal, or at the next tick.
            if sys::gather_completions(&self.ring).is_err() {
                break;
            }
            self.take_completions(reports);
            if reports.len() == before {
                // Either all that it looked at were woken in vain, or its flag came late and there is nothing any more:
                // then the flag stays, however often one asks, and a signal follows.
                self.gather_all();
                break;
            }
        }
        self.take_completions(reports);
    }

    /// Has the kernel look at all polls that it has put off, as if so many reports were waited for as there can be, but
    /// for no time.
    fn gather_all(&mut self) {
        let at_once = Timespec::new();
        let args = SubmitArgs::new().timespec(&at_once);
        // The error says that there were not so many.
        let _ = self.ring.submitter().submit_with_args(POLL_COMPLETIONS as usize, &args);
    }

    /// Whether the kernel has completions that it has not written down.
    fn has_more(&mut self) -> bool {
        let submissions = self.ring.submission();
        submissions.cq_overflow() || (self.deferred && submissions.taskrun())
    }

    fn take_completions(&mut self, reports: &mut Vec<Report>) {
        for completion in self.ring.completion() {
            let armed = cqueue::more(completion.flags());
            self.open -= usize::from(!armed);
            let Some(watched) = from_token(completion.user_data()) else { continue };
            let events = u32::try_from(completion.result()).map(|bits| PollFlags::from_bits_truncate(bits as u16));
            // A poll that failed is reported, too: the socket is tried, and says itself what is wrong with it. Linux 6.1
            // cancels a poll for whose report the ring has no room; who is told that it is armed no more arms it again.
            let hangup =
                events.is_ok_and(|events| events.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR));
            reports.push(Report { watched, hangup, armed });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, poll};
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    /// How long a look takes that waits for nothing.
    const NOW: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };

    fn key(slot: u32) -> Key {
        Key::new(slot, 7)
    }

    /// The reports that are there, waited for if there is none yet.
    fn reports(poller: &mut Poller) -> Vec<Report> {
        let mut reports = Vec::new();
        let started = Instant::now();
        while reports.is_empty() {
            assert!(started.elapsed() < Duration::from_secs(10), "no report came");
            poller.collect(&mut reports);
        }
        reports
    }

    fn none(poller: &mut Poller) {
        let mut reports = Vec::new();
        std::thread::sleep(Duration::from_millis(20));
        poller.collect(&mut reports);
        assert_eq!(reports, []);
    }

    #[test]
    fn a_token_names_what_it_was_made_of() {
        let keys = [Key::new(0, 0), Key::new(5, u32::MAX), Key::new(LISTENERS - 1, 1)];
        for interest in keys.into_iter().flat_map(|key| [Watched::Read(key), Watched::Write(key)]) {
            assert_eq!(from_token(token(interest)), Some(interest));
        }
        assert_eq!(from_token(token(Watched::Accept(3))), Some(Watched::Accept(3)));
        assert_eq!(from_token(IGNORED), None);
    }

    #[test]
    fn one_collection_finds_what_lies_behind_many_polls_that_have_nothing_to_report() {
        let mut poller = Poller::new(true).unwrap();
        let mut pairs: Vec<_> = (0..100).map(|_| pair()).collect();
        for (slot, (server, _)) in pairs.iter().enumerate() {
            poller.watch(Watched::Read(key(slot as u32)), server.as_fd());
        }
        poller.submit().unwrap();
        none(&mut poller);
        // They are woken twice and read before the kernel has looked at their polls: it finds nothing.
        for (server, client) in &mut pairs {
            for _ in 0..2 {
                client.write_all(b"x").unwrap();
                server.read_exact(&mut [0]).unwrap();
            }
        }
        pairs[99].1.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let mut reports = Vec::new();
        poller.collect(&mut reports);
        assert!(reports.iter().any(|report| report.watched == Watched::Read(key(99))), "{reports:?}");
    }

    #[test]
    fn one_poll_reports_as_often_as_something_comes() {
        let mut poller = Poller::new(true).unwrap();
        let (mut server, mut client) = pair();
        poller.watch(Watched::Read(key(1)), server.as_fd());
        poller.submit().unwrap();
        none(&mut poller);
        for _ in 0..3 {
            client.write_all(b"x").unwrap();
            let found = reports(&mut poller);
            assert_eq!(found, [Report { watched: Watched::Read(key(1)), hangup: false, armed: poller.multishot }]);
            server.read_exact(&mut [0]).unwrap();
            if !found[0].armed {
                poller.watch(Watched::Read(key(1)), server.as_fd());
                poller.submit().unwrap();
            }
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert!(reports(&mut poller)[0].hangup);
    }

    /// Whether a signal was given since the last time.
    fn was_signalled(poller: &Poller) -> bool {
        let mut polled = [PollFd::new(&poller.signal, PollFlags::IN)];
        let was_signalled = poll(&mut polled, Some(&NOW)).unwrap() > 0;
        was_signalled.then(|| rustix::io::read(&poller.signal, &mut [0; 8]).unwrap());
        was_signalled
    }

    #[test]
    fn who_collects_without_listening_is_not_signalled_for_it() {
        let mut poller = Poller::new(true).unwrap();
        let (mut server, mut client) = pair();
        poller.watch(Watched::Read(key(1)), server.as_fd());
        poller.submit().unwrap();
        was_signalled(&poller);
        let mut take = |poller: &mut Poller, server: &mut TcpStream| {
            client.write_all(b"x").unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let signalled_first = was_signalled(poller);
            poller.listen(false);
            let found = reports(poller);
            server.read_exact(&mut [0]).unwrap();
            if !found[0].armed {
                poller.watch(found[0].watched, server.as_fd());
                poller.submit().unwrap();
            }
            poller.listen(true);
            none(poller);
            (signalled_first, was_signalled(poller))
        };
        for _ in 0..3 {
            assert_eq!(take(&mut poller, &mut server), (true, false));
        }
    }

    #[test]
    fn what_came_while_nobody_listened_is_found_by_who_listens_again() {
        let mut poller = Poller::new(true).unwrap();
        let (server, mut client) = pair();
        poller.watch(Watched::Read(key(1)), server.as_fd());
        poller.submit().unwrap();
        was_signalled(&poller);
        poller.listen(false);
        client.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert!(!was_signalled(&poller));
        poller.listen(true);
        let mut found = Vec::new();
        poller.collect(&mut found);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn without_multishot_a_poll_reports_once_and_at_once_when_it_is_armed_again() {
        let mut poller = Poller::new(false).unwrap();
        let (server, mut client) = pair();
        client.write_all(b"x").unwrap();
        for _ in 0..2 {
            poller.watch(Watched::Read(key(1)), server.as_fd());
            poller.submit().unwrap();
            assert_eq!(reports(&mut poller), [Report { watched: Watched::Read(key(1)), hangup: false, armed: false }]);
        }
        none(&mut poller);
    }

    #[test]
    fn a_socket_without_room_is_reported_once_it_has_some() {
        let mut poller = Poller::new(true).unwrap();
        let (mut server, mut client) = pair();
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 65536]).is_ok() {}
        poller.watch(Watched::Write(key(2)), server.as_fd());
        poller.submit().unwrap();
        none(&mut poller);
        client.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut found = Vec::new();
        let started = Instant::now();
        while found.is_empty() {
            assert!(started.elapsed() < Duration::from_secs(10), "no report came");
            let _ = client.read(&mut buffer);
            poller.collect(&mut found);
        }
        assert_eq!(found, [Report { watched: Watched::Write(key(2)), hangup: false, armed: false }]);
    }

    #[test]
    fn an_unwatched_socket_closes_for_good() {
        let mut poller = Poller::new(true).unwrap();
        let (server, mut client) = pair();
        poller.watch(Watched::Read(key(3)), server.as_fd());
        poller.submit().unwrap();
        poller.unwatch(Watched::Read(key(3)));
        poller.submit().unwrap();
        drop(server);
        assert!(reports(&mut poller).iter().all(|report| !report.armed));
        none(&mut poller);
        // The client sees the end only if no poll holds the socket any more.
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_socket_closes_for_good_though_its_poll_is_about_to_report() {
        let mut poller = Poller::new(true).unwrap();
        let (server, mut client) = pair();
        poller.watch(Watched::Read(key(3)), server.as_fd());
        poller.submit().unwrap();
        client.write_all(b"x").unwrap();
        poller.unwatch(Watched::Read(key(3)));
        poller.submit().unwrap();
        drop(server);
        let mut late = Vec::new();
        (0..3).for_each(|_| poller.collect(&mut late));
        // What was not read makes it a reset.
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let end = client.read(&mut [0]).map_err(|error| error.kind());
        assert!(matches!(end, Ok(0) | Err(io::ErrorKind::ConnectionReset)), "{end:?} after {late:?}");
    }

    #[test]
    fn slots_beyond_one_ring_are_watched_in_the_next() {
        let mut poller = Poller::new(true).unwrap();
        let (server, mut client) = pair();
        let far = key(3 * POLLS_PER_RING as u32 + 1);
        poller.reserve(far.slot).unwrap();
        assert_eq!(poller.rings.len(), 4);
        poller.watch(Watched::Read(far), server.as_fd());
        poller.submit().unwrap();
        client.write_all(b"x").unwrap();
        assert_eq!(reports(&mut poller)[0].watched, Watched::Read(far));
        assert!(poller.reserve(LISTENERS).is_err());
    }

    #[test]
    fn a_ring_that_is_not_needed_goes_back_once_nothing_is_armed_in_it() {
        let mut poller = Poller::new(true).unwrap();
        let (server, mut client) = pair();
        let (far, ring) = (key(2 * POLLS_PER_RING as u32), POLLS_PER_RING as u32);
        poller.reserve(far.slot).unwrap();
        poller.watch(Watched::Read(far), server.as_fd());
        poller.release(far.slot + 1);
        assert_eq!(poller.rings.len(), 3, "its slot is in use");
        poller.release(ring + 1);
        assert_eq!(poller.rings.len(), 3, "a poll is to be armed");
        poller.submit().unwrap();
        client.write_all(b"x").unwrap();
        let armed = reports(&mut poller)[0].armed;
        poller.release(ring + 1);
        assert_eq!(poller.rings.len(), 2 + usize::from(armed), "a poll that goes on keeps its ring");
        poller.unwatch(Watched::Read(far));
        poller.submit().unwrap();
        (0..3).for_each(|_| poller.collect(&mut Vec::new()));
        poller.release(ring + 1);
        assert_eq!(poller.rings.len(), 2, "its slots and all before are in use");
        poller.release(0);
        assert_eq!(poller.rings.len(), 1, "listeners are watched there");
        poller.reserve(far.slot).unwrap();
        poller.watch(Watched::Read(far), server.as_fd());
        poller.submit().unwrap();
        assert_eq!(reports(&mut poller)[0].watched, Watched::Read(far));
    }

    #[test]
    fn more_sockets_than_a_submission_holds_are_all_watched() {
        all_report(2 * POLL_SUBMISSIONS as usize + 1);
    }

    #[test]
    fn more_sockets_than_a_ring_has_completions_for_all_report() {
        all_report(POLL_COMPLETIONS as usize + 1_000);
    }

    /// Watches so many at once, which all have something to report at once.
    fn all_report(count: usize) {
        let mut poller = Poller::new(true).unwrap();
        let (server, mut client) = pair();
        for slot in 0..count {
            poller.watch(Watched::Read(key(slot as u32)), server.as_fd());
        }
        poller.submit().unwrap();
        client.write_all(b"x").unwrap();
        let (mut found, started) = (Vec::new(), Instant::now());
        while found.len() < count {
            assert!(started.elapsed() < Duration::from_secs(10), "{} of {count} reports came", found.len());
            poller.collect(&mut found);
        }
    }
}
