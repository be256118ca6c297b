//! One certificate in use: what it covers, where it came from, and its key. Touches nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use relais_core::Instant;
use rustls::sign::CertifiedKey;

use crate::clock;
use crate::staple::Stapled;

/// Where a certificate came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertSource {
    /// `[certificate.NAME]` files.
    Files,
    /// Ordered from a public CA.
    Acme,
    /// The built-in local CA.
    Internal,
}

/// One certificate in use, for `status` and metrics.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CertInfo {
    /// `[certificate.NAME]`, the host it was made for, or `default`.
    pub name: String,
    /// The names and addresses it covers, lower case.
    pub hosts: Vec<String>,
    /// Where it came from.
    pub source: CertSource,
    /// Who signed it.
    pub issuer: String,
    /// Its file; `None`: made by the local CA or ordered, held in memory.
    pub file: Option<PathBuf>,
    /// End of its validity.
    pub not_after: Instant,
    /// What is wrong with it now: `expired 3 days ago`. It is served nonetheless.
    pub problem: Option<String>,
}

/// A certificate with its key. The key never leaves this crate.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) name: String,
    pub(crate) source: CertSource,
    pub(crate) hosts: Vec<String>,
    pub(crate) issuer: String,
    pub(crate) file: Option<PathBuf>,
    pub(crate) not_before: Instant,
    pub(crate) not_after: Instant,
    pub(crate) key: Arc<CertifiedKey>,
    /// A client was shown it lately.
    pub(crate) shown: AtomicBool,
    /// It asks for a proof that it has not been taken back.
    pub(crate) must_staple: bool,
    /// The key with that proof.
    pub(crate) stapled: ArcSwapOption<Stapled>,
}

impl Certificate {
    /// Whether clients with a right clock accept its dates.
    pub(crate) fn is_current(&self, now: Instant) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// What a handshake shows.
    pub(crate) fn shown_as(&self, now: Instant) -> Arc<CertifiedKey> {
        match self.must_staple.then(|| self.stapled.load_full()).flatten() {
            Some(stapled) if now < stapled.proof.until => Arc::clone(&stapled.key),
            _ => Arc::clone(&self.key),
        }
    }

    /// A client asks for it.
    pub(crate) fn asked(&self) {
        // Read first: all workers share this, and mostly it is set already.
        if !self.shown.load(Relaxed) {
            self.shown.store(true, Relaxed);
        }
    }

    /// Whether a client asked for it since the last call.
    pub(crate) fn take_asked(&self) -> bool {
        self.shown.swap(false, Relaxed)
    }

    /// Whether an IP address is among what it covers.
    pub(crate) fn covers_address(&self) -> bool {
        self.hosts.iter().any(|host| host.parse::<std::net::IpAddr>().is_ok())
    }

    /// What is wrong with its dates.
    pub(crate) fn problem(&self, now: Instant) -> Option<String> {
        if now > self.not_after {
            Some(format!("expired {} ago", clock::words(now.since(self.not_after))))
        } else if now < self.not_before {
            Some(format!("not valid before {}", clock::date(self.not_before)))
        } else {
            None
        }
    }

    pub(crate) fn info(&self, now: Instant) -> CertInfo {
        CertInfo {
            name: self.name.clone(),
            hosts: self.hosts.clone(),
            source: self.source,
            issuer: self.issuer.clone(),
            file: self.file.clone(),
            not_after: self.not_after,
            problem: self.problem(now),
        }
    }
}
