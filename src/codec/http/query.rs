//! What a request's query asks for.

use percent_encoding::percent_decode;

use super::answer::Refusal;
use super::{Request, Site};
use crate::message::Topic;

impl Request<'_> {
    /// The values of `topic` in the query, each once.
    pub(super) fn topics(&self, site: &Site) -> Result<Vec<String>, Refusal> {
        let mut topics: Vec<String> = Vec::new();
        for pair in self.query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name != "topic" {
                continue;
            }
            // In a query a plus stands for a space, which no topic has; a plus itself is written %2B.
            let value = value.replace('+', " ");
            let topic: Vec<u8> = percent_decode(value.as_bytes()).collect();
            let topic = Topic::check(&topic, site.topic_bytes_max)
                .map_err(|error| Refusal::new(400, format!("a topic in the URL can't be used: {error}")))?;
            if !topics.iter().any(|known| known == topic) {
                topics.push(topic.to_owned());
            }
        }
        if topics.len() > site.topics_max {
            return Err(Refusal::new(400, format!("a connection may subscribe to at most {} topics", site.topics_max)));
        }
        Ok(topics)
    }
}
