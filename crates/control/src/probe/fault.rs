//! Turns what went wrong on the wire into the fleet's words. Whose fault it is matters: a shortage of our own (file
//! descriptors, memory) is no evidence against a backend.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use relais_core::Fault;

/// Why an attempt at a probe ended badly.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Evidence against the backend.
    Fault(Fault),
    /// Our own shortage: says nothing about the backend.
    Local(io::Error),
}

impl Trouble {
    /// As far as others are concerned: our own shortage looks like a connect nobody answered.
    pub(crate) fn fault(self) -> Fault {
        match self {
            Trouble::Fault(fault) => fault,
            Trouble::Local(_) => Fault::ConnectTimeout,
        }
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Trouble::Fault(fault)
    }
}

/// Letters of what a backend says that are kept.
const SAID: usize = 200;

/// How far a probe got: decides what its deadline means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting = 0,
    Asking = 1,
    /// Something came, but not what is wanted, and more may come.
    Hearing = 2,
}

/// How far a probe got and what it heard, as shared between a probe and its deadline.
#[derive(Debug, Default)]
pub(super) struct Progress {
    phase: AtomicU8,
    said: Mutex<Option<Arc<str>>>,
    /// How long the connect took, in microseconds; 0: not measured.
    connect: AtomicU64,
}

impl Progress {
    pub(super) fn reach(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// The connect was answered after `took`: one round trip.
    pub(super) fn connected(&self, took: Duration) {
        self.connect.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1), Relaxed);
    }

    /// How long the connect took, if it was measured.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        Some(self.connect.load(Relaxed)).filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// What running out of time means here.
    pub(super) fn overdue(&self) -> Fault {
        match self.phase.load(Relaxed) {
            0 => Fault::ConnectTimeout,
            1 => Fault::ResponseTimeout,
            _ => Fault::BodyMismatch,
        }
    }

    /// Notes what the backend or its check said, for people: one line, made harmless.
    pub(super) fn say(&self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        let plain = |line: &str| -> String {
            line.chars().take(SAID).map(|letter| if letter.is_control() { '.' } else { letter }).collect()
        };
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = line.map(|line| plain(line).into());
    }

    /// What was said.
    pub(super) fn said(&self) -> Option<Arc<str>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

// Linux and BSD agree on none of these being an answer of the peer.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
const ENOMEM: i32 = 12;
const ENOBUFS: i32 = if cfg!(target_os = "linux") { 105 } else { 55 };
const EAGAIN: i32 = if cfg!(target_os = "linux") { 11 } else { 35 };

/// Whether we ourselves are short of something.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM | ENOBUFS))
}

/// An error of `connect`.
pub(super) fn of_connect(error: io::Error) -> Trouble {
    if is_shortage(&error) {
        return Trouble::Local(error);
    }
    Trouble::Fault(match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => Fault::Refused,
        // A unix socket whose queue is full says EAGAIN: it lives, but takes nobody.
        _ if error.raw_os_error() == Some(EAGAIN) => Fault::ConnectTimeout,
        ErrorKind::TimedOut => Fault::ConnectTimeout,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Fault::Reset,
        _ => Fault::Unreachable,
    })
}

/// An error of the TLS handshake.
pub(super) fn of_handshake(error: &io::Error) -> Fault {
    of_io(error).unwrap_or(Fault::Tls)
}

/// An error of a connection that spoke no HTTP.
pub(super) fn of_stream(error: &io::Error) -> Fault {
    of_io(error).unwrap_or(Fault::Reset)
}

/// An error of an established connection; `None`: not the transport's.
fn of_io(error: &io::Error) -> Option<Fault> {
    match error.kind() {
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::NotConnected => Some(Fault::Reset),
        ErrorKind::TimedOut => Some(Fault::Unacknowledged),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Some(Fault::Unreachable),
        _ => error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()).then_some(Fault::Tls),
    }
}

/// An error of the HTTP exchange.
pub(super) fn of_http(error: &hyper::Error) -> Fault {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(fault) = inner.downcast_ref::<io::Error>().and_then(of_io) {
            return fault;
        }
        source = inner.source();
    }
    if error.is_parse() || error.is_parse_too_large() { Fault::Malformed } else { Fault::Reset }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(code: i32) -> Trouble {
        of_connect(io::Error::from_raw_os_error(code))
    }

    #[test]
    fn our_own_shortage_accuses_nobody() {
        for code in [EMFILE, ENFILE, ENOMEM, ENOBUFS] {
            assert!(matches!(connect(code), Trouble::Local(_)), "{code}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn connect_errors_have_their_words() {
        let cases = [(111, Fault::Refused), (113, Fault::Unreachable), (101, Fault::Unreachable)];
        let more =
            [(110, Fault::ConnectTimeout), (104, Fault::Reset), (2, Fault::Refused), (11, Fault::ConnectTimeout)];
        for (code, expected) in cases.into_iter().chain(more) {
            assert!(matches!(connect(code), Trouble::Fault(fault) if fault == expected), "{code}");
        }
    }

    #[test]
    fn a_deadline_means_what_the_phase_says() {
        let progress = Progress::default();
        assert_eq!(progress.overdue(), Fault::ConnectTimeout);
        progress.reach(Phase::Asking);
        assert_eq!(progress.overdue(), Fault::ResponseTimeout);
        progress.reach(Phase::Hearing);
        assert_eq!(progress.overdue(), Fault::BodyMismatch);
    }

    #[test]
    fn what_is_said_is_one_harmless_line() {
        let progress = Progress::default();
        assert_eq!(progress.said(), None);
        for (text, said) in
            [(b"\r\n  lag is 4 s \nmore".as_slice(), "lag is 4 s"), (b"a\x1b[2Jb\xff", "a.[2Jb\u{fffd}")]
        {
            progress.say(text);
            assert_eq!(progress.said().as_deref(), Some(said));
        }
        progress.say(b"\n");
        assert_eq!(progress.said(), None);
        progress.say(&[b'x'; 1000]);
        assert_eq!(progress.said().unwrap().len(), SAID);
    }
}
