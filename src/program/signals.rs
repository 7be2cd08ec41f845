//! Signals to `corecast serve`: what each of them does, whatever else the process is busy with.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corecast::ServerHandle;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::{FAULT, log};

/// Those that would end a process which doesn't take them. SIGPIPE is ignored from the start on, as in every Rust program.
const TAKEN: [i32; 5] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2];

/// What signals have asked for, and the server that it is asked of.
#[derive(Default)]
struct Asked {
    is_drain: bool,
    server: Option<(ServerHandle, Duration)>,
}

impl Asked {
    fn carry_out(&self) {
        if let (true, Some((handle, over))) = (self.is_drain, &self.server) {
            handle.drain(*over);
        }
    }
}

/// Takes signals from now on.
pub(crate) struct Taken(Arc<Mutex<Asked>>);

impl Taken {
    /// Takes them before there is a server: one that asks for a drain meanwhile is carried out as soon as there is one,
    /// and a second one ends the program.
    ///
    /// # Errors
    /// The system's word.
    pub(crate) fn take() -> io::Result<Taken> {
        let mut signals = Signals::new(TAKEN)?;
        let asked = Arc::new(Mutex::new(Asked::default()));
        let taken = Taken(Arc::clone(&asked));
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut told = Vec::new();
            for signal in &mut signals {
                follow(signal, &asked, &mut told);
            }
        })?;
        Ok(taken)
    }

    /// Names the server that a signal drains.
    pub(crate) fn apply_to(&self, handle: ServerHandle, over: Duration) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.server = Some((handle, over));
        asked.carry_out();
    }
}

/// Does what a signal asks for. `told`: those of which it was said that they do nothing.
fn follow(signal: i32, asked: &Mutex<Asked>, told: &mut Vec<i32>) {
    let name = signal_name(signal).unwrap_or("signal");
    if signal == SIGINT || signal == SIGTERM {
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_drain {
            tracing::warn!("second signal ({name}): exiting without draining");
            log::exit(FAULT);
        }
        tracing::info!("signal ({name}): draining; a second one exits at once");
        asked.is_drain = true;
        asked.carry_out();
    } else if !told.contains(&signal) {
        told.push(signal);
        match signal {
            SIGHUP => tracing::warn!(
                "{name} is ignored: settings are read only at the start; restart the server to change them"
            ),
            _ => tracing::info!("{name} is ignored"),
        }
    }
}
