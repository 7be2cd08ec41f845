//! Counts by reason, as JSON objects that have every reason as a key, in one order.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::message::{CloseReason, DropReason};
use crate::metrics::ShardMetrics;

macro_rules! counts {
    ($(#[doc = $doc:literal])* $name:ident of $reason:ty, $all:expr, $word:expr) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(super) struct $name([u64; $all.len()]);

        impl $name {
            /// The count of each reason.
            pub(super) fn from_fn(count: impl Fn($reason) -> u64) -> Self {
                $name($all.map(count))
            }

            /// Adds those of another.
            pub(super) fn add(&mut self, other: &Self) {
                self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
            }

            /// All together.
            pub(super) fn sum(&self) -> u64 {
                self.0.iter().sum()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let mut map = to.serialize_map(Some(self.0.len()))?;
                for (reason, count) in $all.iter().zip(self.0) {
                    map.serialize_entry($word(*reason), &count)?;
                }
                map.end()
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let count = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
                let add = |object: ObjectBuilder, reason: &$reason| {
                    let word = $word(*reason);
                    object.property(word, count()).required(word)
                };
                $all.iter().fold(ObjectBuilder::new(), add).into()
            }
        }

        impl ToSchema for $name {}
    };
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    MaxConnections,
    MaxMemory,
    Draining,
}

impl Refusal {
    pub(super) const ALL: [Refusal; 3] = [Refusal::MaxConnections, Refusal::MaxMemory, Refusal::Draining];

    pub(super) fn name(self) -> &'static str {
        match self {
            Refusal::MaxConnections => "max-connections",
            Refusal::MaxMemory => "max-memory",
            Refusal::Draining => "draining",
        }
    }

    pub(super) fn count(self, shard: &ShardMetrics) -> u64 {
        match self {
            Refusal::MaxConnections => shard.refused_full.get(),
            Refusal::MaxMemory => shard.refused_memory.get(),
            Refusal::Draining => shard.refused_draining.get(),
        }
    }
}

counts! {
    /// Messages that did not reach a client.
    Dropped of DropReason, DropReason::ALL, DropReason::name
}

counts! {
    /// Closed connections.
    Closed of CloseReason, CloseReason::ALL, CloseReason::name
}

counts! {
    /// Refused connections.
    Refused of Refusal, Refusal::ALL, Refusal::name
}
