//! What an order tells while it is under way: for the log, and what must be kept before it goes on. Touches nothing.

use instant_acme::OrderStatus;
use relais_core::config::{Challenge, Secret};
use tokio::sync::{mpsc, oneshot};

use super::dns::Undo;
use super::fault::{FaultKind, OrderFault};
use super::order::Begun;

/// One step of an order. `Display` is its line in the log.
#[derive(Debug)]
pub enum Step {
    /// The account as it must be kept now, durably. The order goes on when `kept` is answered; dropping it ends the order.
    KeepAccount {
        /// Replaces what was kept before.
        account: Secret,
        /// Answered when it is on the disk.
        kept: oneshot::Sender<()>,
    },
    /// DNS records that are about to be written: to be noted durably, so that they are removed ([`super::dns::Dns::clean`])
    /// even after a kill. The order goes on when `kept` is answered; dropping it ends the order.
    KeepRecords {
        /// To be noted beside all others.
        records: Vec<Undo>,
        /// Answered when they are on the disk.
        kept: oneshot::Sender<()>,
    },
    /// DNS records that need not be noted any longer.
    RecordsRemoved {
        /// These are gone.
        records: Vec<Undo>,
        /// These may still be there, because removing them failed: for the next start.
        left: Vec<Undo>,
    },
    /// The CA has taken the order: to be kept durably, with the key, so that it goes on after a kill. It goes on when
    /// `kept` is answered; dropping it ends the order.
    Placed {
        /// All that is needed.
        begun: Begun,
        /// Answered when it is on the disk.
        kept: oneshot::Sender<()>,
    },
    /// An order that was cut short goes on.
    Resumed {
        /// Its URL there.
        url: String,
        /// How far it was.
        status: OrderStatus,
    },
    /// The answer to a challenge is up, and the CA is told so.
    Answering {
        /// Which name it proves.
        host: String,
        /// How.
        challenge: Challenge,
    },
    /// Every name is proven.
    Proven,
    /// The certificate is asked for.
    Finalized,
    /// The order goes on without what the CA did not want.
    Without {
        /// `replaces`, `profile` or `the order begun before`.
        what: &'static str,
        /// Why, in the CA's words where it said any.
        why: String,
    },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KeepAccount { .. } => f.write_str("account to be kept"),
            Self::KeepRecords { records, .. } => write!(f, "{} DNS records to be written", records.len()),
            Self::RecordsRemoved { records, left } if left.is_empty() => {
                write!(f, "{} DNS records removed", records.len())
            }
            Self::RecordsRemoved { left, .. } => write!(f, "{} DNS records could not be removed", left.len()),
            Self::Placed { begun, .. } => write!(f, "order placed: {}", begun.url),
            Self::Resumed { url, status } => write!(f, "order goes on ({status:?}): {url}"),
            Self::Answering { host, challenge } => write!(f, "challenge answered: {} for {host}", challenge.as_str()),
            Self::Proven => f.write_str("every name is proven"),
            Self::Finalized => f.write_str("certificate asked for"),
            Self::Without { what, why } => write!(f, "ordering without `{what}`: {why}"),
        }
    }
}

/// Where the steps go.
#[derive(Debug, Clone)]
pub struct Steps(mpsc::UnboundedSender<Step>);

impl Steps {
    /// With the end the caller reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Step>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// For the log: nobody listening is no fault.
    pub(super) fn tell(&self, step: Step) {
        let _ = self.0.send(step);
    }

    /// Waits until the account is kept.
    pub(super) async fn keep_account(&self, account: Secret) -> Result<(), OrderFault> {
        self.keep(|kept| Step::KeepAccount { account, kept }, "the account could not be kept, so it is not used").await
    }

    /// Waits until the order is kept.
    pub(super) async fn keep_order(&self, begun: Begun) -> Result<(), OrderFault> {
        self.keep(|kept| Step::Placed { begun, kept }, "the order could not be kept, so it is given up").await
    }

    /// Waits until the records are noted.
    pub(super) async fn keep_records(&self, records: Vec<Undo>) -> Result<(), OrderFault> {
        let lost = "the DNS records could not be noted, so they are not written";
        self.keep(|kept| Step::KeepRecords { records, kept }, lost).await
    }

    async fn keep(&self, step: impl FnOnce(oneshot::Sender<()>) -> Step, lost: &str) -> Result<(), OrderFault> {
        let lost = || OrderFault::new(FaultKind::Internal, lost);
        let (kept, answer) = oneshot::channel();
        self.0.send(step(kept)).map_err(|_| lost())?;
        answer.await.map_err(|_| lost())
    }
}
