//! The signals of `relais run`, one stream of what they ask for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGUSR2, as other proxies have it.
    Upgrade,
    /// SIGUSR1: the successor that was started serves.
    Succeeded,
}

/// Listens from its making on: a signal that comes before `next` is not lost and does not kill.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    upgrade: Signal,
    succeeded: Signal,
}

impl Signals {
    /// Needs a runtime around it.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            succeeded: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next one. Dropping the wait loses nothing.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.upgrade.recv() => Asked::Upgrade,
            _ = self.succeeded.recv() => Asked::Succeeded,
        }
    }
}
