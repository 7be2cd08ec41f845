//! The control plane as `corecast serve` uses it: there, switched off, or left out of the build.

use corecast::{Config, ServerHandle};

/// What went wrong, with its exit code.
type Failure = (u8, String);

#[cfg(feature = "control")]
mod with_control {
    use corecast::ControlAddr;
    use corecast::control::{Bound, Control, ControlError, ControlOptions};

    use super::{Config, Failure, ServerHandle};
    use crate::{FAULT, USAGE};

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
            self.0.map(|bound| bound.start(handle.clone())).transpose().map(Running).map_err(failure)
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
            ControlError::Bind { .. } | ControlError::Thread(_) => FAULT,
        };
        (code, error.to_string())
    }
}

#[cfg(not(feature = "control"))]
mod without_control {
    use super::{Config, Failure, ServerHandle};

    /// There is none in this build.
    pub(crate) struct Plane;

    /// There is none in this build.
    pub(crate) struct Running;

    impl Plane {
        pub(crate) fn bind(config: &Config) -> Result<Self, Failure> {
            // A default is no wish.
            if !config.control.is_off() && config.control != Config::default().control {
                tracing::warn!(
                    "this program was built without the control plane; control = {} is ignored",
                    config.control
                );
            }
            Ok(Plane)
        }

        pub(crate) fn check(config: &Config) -> Result<(), Failure> {
            Plane::bind(config).map(drop)
        }

        pub(crate) fn start(self, _: &ServerHandle) -> Result<Running, Failure> {
            Ok(Running)
        }
    }

    impl Running {
        pub(crate) fn place(&self) -> Option<String> {
            None
        }

        pub(crate) fn stop(self) {}
    }
}

#[cfg(feature = "control")]
pub(crate) use with_control::{Plane, Running};
#[cfg(not(feature = "control"))]
pub(crate) use without_control::{Plane, Running};
