//! The control plane as `corecast serve` uses it: there, or switched off.

use corecast::control::{Bound, Control, ControlError, ControlOptions};
use corecast::{Config, ControlAddr, ServerHandle};

use crate::{FAULT, USAGE, log};

/// What went wrong, with its exit code.
type Failure = (u8, String);

/// A control plane that answers nobody yet; `None`: it is switched off.
pub(crate) struct Plane(Option<Bound>);

/// A running one.
pub(crate) struct Running(Option<Control>);

impl Plane {
    /// Takes what it needs of the host, before a server is started in vain.
    pub(crate) fn bind(config: &Config) -> Result<Self, Failure> {
        let bound = ControlOptions::of(config).map(|options| Control::bind(&options)).transpose();
        let bound = bound.map_err(failure)?;
        bound.iter().flat_map(Bound::warnings).for_each(|warning| tracing::warn!("{warning}"));
        Ok(Plane(bound))
    }

    /// Looks whether one could be started, and takes nothing.
    pub(crate) fn check(config: &Config) -> Result<(), Failure> {
        let warnings = ControlOptions::of(config).map_or(Ok(Vec::new()), |options| options.check());
        warnings.map_err(failure)?.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(())
    }

    pub(crate) fn start(self, handle: &ServerHandle) -> Result<Running, Failure> {
        let start = |bound: Bound| bound.with_log_lines_dropped(log::lines_dropped).start(handle.clone());
        self.0.map(start).transpose().map(Running).map_err(failure)
    }
}

impl Running {
    /// Where it is; `None`: nowhere.
    pub(crate) fn place(&self) -> Option<String> {
        self.0.as_ref().map(|control| ControlAddr(control.addrs().to_vec()).to_string())
    }

    pub(crate) fn stop(self) {
        if let Some(control) = self.0 {
            control.stop();
        }
    }
}

fn failure(error: ControlError) -> Failure {
    let code = match error {
        ControlError::Open { .. } | ControlError::Token { .. } => USAGE,
        _ => FAULT,
    };
    (code, error.to_string())
}
