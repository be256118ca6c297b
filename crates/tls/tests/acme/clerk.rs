//! Who orders in these tests: keeps the account as the control loop does, and notes every step.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use relais_core::config::{Authority, AuthorityLimits, Challenge, KeyKind, Secret};
use relais_tls::CertStore;
use relais_tls::acme::dns::{Dns, Undo};
use relais_tls::acme::{self, Begun, Ca, Job, OrderFault, Patience, Product, Step, Steps};

use crate::fake::Fake;

/// Keeps the account and the log of one CA.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clerk {
    pub(crate) account: Arc<Mutex<Option<Secret>>>,
    /// Every text that was to be kept, in order.
    pub(crate) kept: Arc<Mutex<Vec<Secret>>>,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    /// The last order that the CA took.
    pub(crate) begun: Arc<Mutex<Option<Begun>>>,
    /// DNS records noted and not yet removed.
    pub(crate) records: Arc<Mutex<Vec<Undo>>>,
    /// Who writes them.
    pub(crate) dns: Option<Dns>,
    /// How many accounts are kept before keeping fails.
    pub(crate) fails_after: Arc<Mutex<Option<usize>>>,
}

impl Clerk {
    /// The end that orders speak to.
    pub(crate) fn steps(&self) -> Steps {
        let (steps, mut told) = Steps::new();
        let clerk = self.clone();
        tokio::spawn(async move {
            while let Some(step) = told.recv().await {
                clerk.log.lock().push(step.to_string());
                clerk.keep(step);
            }
        });
        steps
    }

    fn keep(&self, step: Step) {
        match step {
            Step::KeepAccount { account, kept } => {
                if self.fails_after.lock().is_some_and(|after| self.kept.lock().len() >= after) {
                    return;
                }
                self.kept.lock().push(account.clone());
                *self.account.lock() = Some(account);
                let _ = kept.send(());
            }
            Step::KeepRecords { records, kept } => {
                self.records.lock().extend(records);
                let _ = kept.send(());
            }
            Step::Placed { begun, kept } => {
                *self.begun.lock() = Some(begun);
                let _ = kept.send(());
            }
            Step::RecordsRemoved { records, .. } => self.records.lock().retain(|one| !records.contains(one)),
            _ => {}
        }
    }

    pub(crate) fn held(&self) -> Option<Secret> {
        self.account.lock().clone()
    }

    pub(crate) async fn order(&self, ca: &Ca, job: &Job, certs: &CertStore) -> Result<Product, OrderFault> {
        acme::order(ca, job, self.held().as_ref(), certs.board(), self.dns.as_ref(), &self.steps()).await
    }

    pub(crate) fn logged(&self) -> String {
        self.log.lock().join("\n")
    }
}

pub(crate) fn job(hosts: &[&str], challenge: Challenge) -> Job {
    Job {
        hosts: hosts.iter().map(|host| (*host).to_string()).collect(),
        challenges: vec![challenge],
        key: KeyKind::P256,
        reuse_key: None,
        profile: None,
        replaces: None,
        begun: None,
    }
}

pub(crate) fn authority(directory: String) -> Authority {
    Authority {
        name: "test".into(),
        directory,
        staging: None,
        root: None,
        external_account: None,
        profile: None,
        limits: AuthorityLimits::default(),
    }
}

/// The CA of our own.
pub(crate) fn ca_of(fake: &Fake) -> Ca {
    ca(authority(fake.directory()))
}

/// Short waits, for orders that are to end by them.
pub(crate) fn hurried(mut ca: Ca) -> Ca {
    ca.patience.order = Duration::from_millis(1_500);
    ca
}

pub(crate) fn ca(authority: Authority) -> Ca {
    let patience = Patience { call: Duration::from_secs(20), order: Duration::from_secs(90), ..Patience::default() };
    Ca { authority: Arc::new(authority), staging: false, email: Some("ops@a.test".to_string()), patience }
}
