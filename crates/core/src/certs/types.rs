//! What goes in and out about certificates: orders, what became of them, what is held. No keys are in here.

use std::sync::Arc;
use std::time::Duration;

use relais_config::{Authority, Challenge, DnsChallenge, KeyKind};
use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// One certificate to order now. Answered with `Event::Issued` or `Event::OrderFailed` with the same `id`.
#[derive(Debug, Clone, PartialEq)]
pub struct CertOrder {
    /// Given back in the answer.
    pub id: u64,
    /// The certificate's name: the first of its hosts.
    pub name: Arc<str>,
    /// What it shall cover: names, a wildcard, or an address (IPv6 without brackets).
    pub hosts: Vec<String>,
    /// From whom.
    pub authority: Arc<Authority>,
    /// Contact of the account.
    pub email: Option<String>,
    /// Ways to prove the hosts, in order of trial. Never empty.
    pub challenges: Vec<Challenge>,
    /// Who changes the DNS, when `dns-01` is among them.
    pub dns: Option<Arc<DnsChallenge>>,
    /// Kind of key.
    pub key: KeyKind,
    /// Take the key of the certificate before, when there is one.
    pub reuse_key: bool,
    /// The CA's profile.
    pub profile: Option<String>,
    /// ARI id of the certificate it replaces (RFC 9773, section 5).
    pub replaces: Option<String>,
    /// After so long it is given up, whatever it does.
    pub timeout: Duration,
}

/// A certificate that is durable: what the store holds, or an order brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldCertificate {
    /// Its name: the first of its hosts.
    pub name: Arc<str>,
    /// What it covers.
    pub hosts: Vec<String>,
    /// Who signed it: a name of `[authority.NAME]`.
    pub authority: Arc<str>,
    /// Valid from.
    pub not_before: Instant,
    /// Valid until.
    pub not_after: Instant,
    /// Its id for renewal information (RFC 9773, section 4.1); `None`: it has none.
    pub ari_id: Option<String>,
    /// SHA-256 of the leaf, as hex.
    pub fingerprint: String,
}

/// Why an order brought no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderFault {
    /// Whose fault it is.
    pub kind: FaultKind,
    /// The CA's own sentence where it said one, else ours.
    pub said: String,
    /// What is likely behind it, and the way out.
    pub likely: Option<String>,
    /// The CA's word on when to come again, from now.
    pub retry_after: Option<Duration>,
    /// The challenge that failed, so that another one is tried first.
    #[serde(skip)]
    pub challenge: Option<Challenge>,
}

impl OrderFault {
    /// With nothing but a sentence.
    #[must_use]
    pub fn new(kind: FaultKind, said: impl Into<String>) -> Self {
        Self { kind, said: said.into(), likely: None, retry_after: None, challenge: None }
    }

    /// And with what is likely behind it.
    #[must_use]
    pub fn likely(mut self, likely: impl Into<String>) -> Self {
        self.likely = Some(likely.into());
        self
    }
}

impl std::fmt::Display for OrderFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.said)?;
        match &self.likely {
            Some(likely) => write!(f, "; {likely}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for OrderFault {}

/// Whose fault it is that there is no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The CA cannot be reached, hangs or is broken: another CA may do.
    Unreachable,
    /// The CA allows no more for now.
    RateLimited,
    /// The CA will not, as long as things are as they are: its rules, CAA, the account.
    Refused,
    /// The CA could not validate that the name is ours.
    Challenge,
    /// The record for `dns-01` could not be written.
    Dns,
    /// Something of ours: a key that cannot be made, an account that cannot be kept.
    Internal,
}

impl FaultKind {
    /// Whether the CA said it; a CA that could not be asked, a DNS that could not be written and faults of our own say nothing.
    #[must_use]
    pub const fn is_said(self) -> bool {
        matches!(self, FaultKind::RateLimited | FaultKind::Refused | FaultKind::Challenge)
    }

    /// The word in metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            FaultKind::Unreachable => "unreachable",
            FaultKind::RateLimited => "rate_limited",
            FaultKind::Refused => "refused",
            FaultKind::Challenge => "challenge",
            FaultKind::Dns => "dns",
            FaultKind::Internal => "internal",
        }
    }
}

/// When the CA wants a certificate renewed (RFC 9773, section 4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalWindow {
    /// Not before.
    pub start: Instant,
    /// Not after.
    pub end: Instant,
    /// A page that says why.
    pub explanation: Option<String>,
}

/// An answer about renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalAnswer {
    /// The window.
    pub window: RenewalWindow,
    /// When to ask again; `None`: in 6 h. Not before 1 min, not after 1 day.
    pub retry_after: Option<Duration>,
    /// What time it is at the CA (the `Date` of its answer), now: proof against a clock of ours that is wrong.
    pub date: Option<Instant>,
}

/// A question about renewal. Answered with `Event::RenewalInfo` with the same `id`.
#[derive(Debug, Clone, PartialEq)]
pub struct RenewalQuestion {
    /// Given back in the answer.
    pub id: u64,
    /// Which certificate.
    pub name: Arc<str>,
    /// Its id there.
    pub ari_id: String,
    /// Whom.
    pub authority: Arc<Authority>,
}

/// What there is already. Told at start, before any event that could lead to an order: until then nothing is ordered. Told
/// again when something was imported, and with a new config before its `Event::Reload`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Everything the store holds; also of hosts the config does not name.
    pub held: Vec<HeldCertificate>,
    /// Hosts that files of `[certificate.NAME]` cover: nothing is ordered for them.
    pub covered: Vec<String>,
    /// Names whose order the end of the last process cut short, and that can go on where it stood: looked at the first
    /// time only.
    pub begun: Vec<Arc<str>>,
}
