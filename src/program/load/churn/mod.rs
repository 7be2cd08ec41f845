//! Churn: subscribers that come, stay a while and leave, at a rate that the server has no say in.
//!
//! What a subscriber must get is judged by its visit (`visit`); what it is about to do and hears, by the visitor
//! (`visitor`); the poll loop that leads visitors in and out is the worker (`worker`).

mod plan;
mod visit;
mod visitor;
mod worker;

pub(super) use plan::ChurnPlan;
pub(super) use visit::{Judged, Visit};
pub(super) use worker::ChurnWorker;

use serde::{Deserialize, Serialize};

use super::deliveries::Deliveries;
use super::latency::Latency;

/// What one thread has seen.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ChurnResult {
    /// Connects that were begun.
    pub(super) begun: u64,
    /// Connects that were due but not begun, because as many connections were open as may be.
    pub(super) not_begun: u64,
    /// How long after they were due connects were begun.
    pub(super) begun_late: Latency,
    /// Connections that ended with a shutdown that the server answered with its own.
    pub(super) left_clean: u64,
    /// Connections that ended with a reset.
    pub(super) left_abrupt: u64,
    /// Connections whose shutdown the server did not answer.
    pub(super) not_closed: u64,
    /// From the shutdown to the server's own.
    pub(super) close: Latency,
    pub(super) deliveries: Deliveries,
    /// What the visits that are over got.
    pub(super) judged: Judged,
}
