//! The control plane, over HTTP.

mod access;
mod drain;
mod events;
mod history;
mod http;
mod metrics;
mod openapi;
mod publish;
mod receipts;
mod routes;
mod slow;

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;

use corecast::Config;
use corecast::control::{Control, ControlLimits, ControlOptions};

use crate::support::{self, Fixture};
use http::Http;

/// A server with its control plane.
struct Plane {
    server: Fixture,
    control: Option<Control>,
}

impl Plane {
    /// A hub with its control plane on a port that the kernel chooses.
    fn hub() -> Plane {
        Plane::over(Fixture::hub(support::config()))
    }

    fn over(server: Fixture) -> Plane {
        Plane::limited(server, ControlLimits::default())
    }

    fn limited(server: Fixture, limits: ControlLimits) -> Plane {
        let options = ControlOptions { addrs: vec!["127.0.0.1:0".parse().unwrap()], token_file: None, limits };
        let control = Control::start(server.clone(), &options).expect("the control plane starts");
        Plane { server, control: Some(control) }
    }

    /// One more control plane for the same server.
    fn second(&self) -> Control {
        let limits = ControlLimits::default();
        let options = ControlOptions { addrs: vec!["127.0.0.1:0".parse().unwrap()], token_file: None, limits };
        Control::start(self.server.clone(), &options).expect("the control plane starts")
    }

    fn addr(&self) -> SocketAddr {
        self.control.as_ref().expect("it runs").addr()
    }

    fn http(&self) -> Http {
        Http::connect(self.addr())
    }
}

impl Deref for Plane {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        &self.server
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            control.stop();
        }
    }
}

/// Settings for a control plane in the tests.
fn config() -> Config {
    support::config()
}

/// A tool that `.ci/setup` installs; `None`: it is not there. On CI it must be.
fn tool(name: &str, candidates: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let runs = |path: &PathBuf| Command::new(path).arg("--version").output().is_ok_and(|ran| ran.status.success());
    let found = candidates.into_iter().find(runs);
    support::is_here(name, found.is_some());
    found
}
