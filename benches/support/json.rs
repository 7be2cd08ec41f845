//! JSON as markets and chats send it: names that come again, numbers and words that don't.

/// Numbers that a seed settles (the finishing steps of splitmix64).
fn number(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

/// Ticks of a market, of at least so many bytes.
pub(crate) fn market(bytes: usize, round: u64) -> String {
    const SYMBOLS: [&str; 12] =
        ["AAPL", "AMD", "AMZN", "GOOG", "IBM", "INTC", "META", "MSFT", "NFLX", "NVDA", "ORCL", "TSLA"];
    let mut text = format!(r#"{{"feed":"equities","sequence":{},"ticks":["#, 81_000_000 + round);
    for n in 0.. {
        let drawn = number(round << 20 | n);
        text += &format!(
            r#"{{"symbol":"{}","price":{}.{:02},"change":{}.{:02},"volume":{}}}"#,
            SYMBOLS[drawn as usize % SYMBOLS.len()],
            20 + (drawn >> 8) % 900,
            (drawn >> 20) % 100,
            (drawn >> 27) % 9,
            (drawn >> 32) % 100,
            (drawn >> 40) % 2_000_000,
        );
        if text.len() + 2 >= bytes {
            break;
        }
        text.push(',');
    }
    text + "]}"
}

/// Messages of a chat, of at least so many bytes.
pub(crate) fn chat(bytes: usize, round: u64) -> String {
    const WORDS: [&str; 32] = [
        "a",
        "again",
        "and",
        "at",
        "back",
        "been",
        "can",
        "deploy",
        "down",
        "from",
        "get",
        "has",
        "I",
        "is",
        "it",
        "later",
        "logs",
        "look",
        "of",
        "one",
        "please",
        "server",
        "someone",
        "soon",
        "thanks",
        "the",
        "think",
        "to",
        "was",
        "will",
        "yesterday",
        "you",
    ];
    let mut text = format!(r#"{{"room":"operations","cursor":{},"messages":["#, 4_000_000 + round);
    for n in 0.. {
        let drawn = number(round << 20 | n << 4);
        text += &format!(
            r#"{{"id":{},"user":"user{}","at":"2026-03-02T{:02}:{:02}:{:02}Z","text":""#,
            drawn % 100_000_000,
            (drawn >> 30) % 300,
            (drawn >> 40) % 24,
            (drawn >> 46) % 60,
            (drawn >> 53) % 60,
        );
        let words = (0..1 + drawn % 15).map(|word| WORDS[number(drawn ^ word) as usize % WORDS.len()]);
        text += &words.collect::<Vec<_>>().join(" ");
        text += r#""}"#;
        if text.len() + 2 >= bytes {
            break;
        }
        text.push(',');
    }
    text + "]}"
}
