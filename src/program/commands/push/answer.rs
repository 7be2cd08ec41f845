//! What the server says of a message, and how it is shown.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::commands::problem::{Problem, WORD_CHARS_MAX};
use crate::commands::text::{grouped, micros};
use crate::printable;

/// Reasons that are shown at the most; the server has fewer.
const REASONS_SHOWN: usize = 32;

/// The answer to one message.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Said {
    /// It was not published, or its receipt is lost.
    Problem(Problem),
    /// What became of it.
    Receipt(Receipt),
    /// It is on its way.
    Accepted {
        /// The publish.
        id: String,
    },
}

/// What became of a message.
#[derive(Debug, Deserialize)]
pub(super) struct Receipt {
    id: String,
    matched: u64,
    written: u64,
    queued: u64,
    dropped: BTreeMap<String, u64>,
    shards: u64,
    first_write_us: Option<u64>,
    last_write_us: Option<u64>,
}

impl Receipt {
    /// In one line: `281474976710657: 3 matched = 2 written + 1 queued + 0 dropped; …`.
    pub(super) fn line(&self) -> String {
        let dropped: u64 = self.dropped.values().sum();
        let reasons: Vec<_> = self
            .dropped
            .iter()
            .filter(|(_, count)| **count > 0)
            .take(REASONS_SHOWN)
            .map(|(reason, count)| format!("{} {}", printable::line(reason, WORD_CHARS_MAX), grouped(*count)))
            .collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        let times = match (self.first_write_us, self.last_write_us) {
            (Some(first), Some(last)) => format!("; first write after {}, last after {}", micros(first), micros(last)),
            _ => String::new(),
        };
        let shards = format!("{} shard{}", self.shards, if self.shards == 1 { "" } else { "s" });
        format!(
            "{}: {} matched on {shards} = {} written + {} queued + {} dropped{reasons}{times}",
            printable::line(&self.id, WORD_CHARS_MAX),
            grouped(self.matched),
            grouped(self.written),
            grouped(self.queued),
            grouped(dropped),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(json: &str) -> Said {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_receipt_reads_as_a_sum() {
        let Said::Receipt(receipt) = said(
            r#"{"id":"7","matched":10000,"written":9996,"queued":1,"dropped":{"queue-full":3,"closed":0},"shards":2,
                "first_write_us":12,"last_write_us":1500,"later":true}"#,
        ) else {
            panic!("not a receipt")
        };
        assert_eq!(
            receipt.line(),
            "7: 10,000 matched on 2 shards = 9,996 written + 1 queued + 3 dropped (queue-full 3); \
             first write after 12 µs, last after 1.5 ms"
        );
        let Said::Receipt(nobody) = said(
            r#"{"id":"8","matched":0,"written":0,"queued":0,"dropped":{},"shards":1,"first_write_us":null,
                "last_write_us":null}"#,
        ) else {
            panic!("not a receipt")
        };
        assert_eq!(nobody.line(), "8: 0 matched on 1 shard = 0 written + 0 queued + 0 dropped");
    }

    #[test]
    fn a_lost_receipt_is_a_problem_though_it_has_an_id() {
        assert!(matches!(said(r#"{"code":"late","detail":"…","id":"7","status":504}"#), Said::Problem(_)));
        assert!(matches!(said(r#"{"id":"7"}"#), Said::Accepted { .. }));
        assert!(serde_json::from_str::<Said>(r#"{"ok":true}"#).is_err());
    }
}
