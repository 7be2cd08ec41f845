//! A plan carried out: the load that it is about, and the report of it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::LoadError;
use super::churn::{ChurnPlan, ChurnResult, ChurnWorker};
use super::coordinator::{lead, nothing_is_outstanding, steady};
use super::crew::Work;
use super::echo::{Echo, EchoResult};
use super::fanout::{Fanout, FanoutResult};
use super::idle::{Idle, IdleResult};
use super::part::Part;
use super::plan::{FanoutPlan, Load, Plan};
use super::process;
use super::ramp;
use super::report::{self, Report};
use super::scenario::Scenario;

/// Carries out a plan. `interrupted` ends it early.
pub(super) fn execute(plan: Plan, interrupted: &AtomicBool) -> Result<Report, LoadError> {
    let plan = &Arc::new(plan);
    match &plan.load {
        Load::Idle { topic } => {
            let run = lead(plan, None, Idle::is_settled, idle(topic), interrupted)?;
            Ok(report::idle::report(plan, run))
        }
        Load::Echo { message_bytes } => {
            let run = lead(plan, None, Echo::is_settled, echo(*message_bytes), interrupted)?;
            Ok(report::echo::report(plan, *message_bytes, run))
        }
        Load::Fanout(own) => {
            let run = lead(plan, Some(&own.publish), Fanout::is_settled, fanout(own), interrupted)?;
            Ok(report::fanout::report(plan, own, run))
        }
        Load::Churn(own) => {
            let run = lead(plan, own.publish.as_ref(), nothing_is_outstanding, churn(own), interrupted)?;
            Ok(report::churn::report(plan, own, run))
        }
        Load::Ramp(ramp) => {
            let (run, climb) = ramp::climb(plan, ramp, interrupted)?;
            Ok(report::ramp::report(plan, ramp, run, climb))
        }
    }
}

/// Does this process's part of a plan that another process leads.
pub(super) fn take_part(plan: Plan, part: Part) {
    let plan = &Arc::new(plan);
    match &plan.load {
        Load::Idle { topic } => process::take_part(plan, part, idle(topic)),
        Load::Echo { message_bytes } => process::take_part(plan, part, echo(*message_bytes)),
        Load::Fanout(own) => process::take_part(plan, part, fanout(own)),
        Load::Churn(own) => process::take_part(plan, part, churn(own)),
        Load::Ramp(_) => unreachable!("the command line of a ramp has no --part"),
    }
}

fn idle(topic: &str) -> impl Work<IdleResult> {
    let topic = topic.to_owned();
    steady(move |plan| Idle::new(plan, &topic))
}

fn echo(message_bytes: usize) -> impl Work<EchoResult> {
    steady(move |plan| Echo::new(plan, message_bytes))
}

fn fanout(own: &FanoutPlan) -> impl Work<FanoutResult> {
    let own = own.clone();
    steady(move |plan| Fanout::new(plan, &own))
}

fn churn(own: &ChurnPlan) -> impl Work<ChurnResult> {
    let own = own.clone();
    move |post| ChurnWorker::new(post, &own)?.run()
}
