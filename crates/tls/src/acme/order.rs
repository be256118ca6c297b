//! One order from its placing to the certificate (RFC 8555, section 7.4). Talks to the CA; decides nothing about when,
//! keeps nothing, and can be cut off anywhere: what was put up comes down, what must not be lost was kept before.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{Account, CertificateIdentifier, Error, Identifier, NewOrder, Order, OrderStatus};
use relais_core::config::{Challenge, KeyKind, Secret};
use serde::{Deserialize, Serialize};

use super::account;
use super::answer;
use super::board::Board;
use super::ca::Ca;
use super::dns::Dns;
use super::fault::{self, FaultKind, OrderFault};
use super::key;
use super::product::{self, Product};
use super::step::{Step, Steps};
use super::wire::{Tries, Wire, persist};

/// Pause before the CA is asked for the first time how far it is; longer each time.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// Longest of these pauses.
const LAST_LOOK: Duration = Duration::from_secs(5);

/// What to order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Names, wildcards and addresses of the certificate. Not empty.
    pub hosts: Vec<String>,
    /// Ways to prove them: for each host the first that it and the CA allow.
    pub challenges: Vec<Challenge>,
    /// Kind of key.
    pub key: KeyKind,
    /// A key, PEM, that is used again when it is of that kind.
    pub reuse_key: Option<Secret>,
    /// The CA's profile; left out when the CA knows none at all.
    pub profile: Option<String>,
    /// ARI id of the certificate this one replaces (RFC 9773, section 5); left out when the CA wants none of it.
    pub replaces: Option<String>,
    /// An order for the same that was cut short: it goes on where it stands, as long as the CA knows it.
    pub begun: Option<Begun>,
}

/// An order that the CA has taken: all that is needed to go on with it after a crash. `Debug` does not show the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Its URL at the CA.
    pub url: String,
    /// The key the certificate is for, PKCS#8, PEM.
    #[serde(with = "crate::secret")]
    pub key_pem: Secret,
}

/// Who orders.
pub(super) struct Desk<'a> {
    pub(super) ca: &'a Ca,
    pub(super) job: &'a Job,
    pub(super) board: &'a Arc<Board>,
    pub(super) dns: Option<&'a Dns>,
    pub(super) steps: &'a Steps,
    pub(super) wire: Wire,
}

/// Orders one certificate. `account` is what was kept of an account at this CA; a new or changed one is handed out by
/// [`Step::KeepAccount`] before it is used, and so are the DNS records of `dns-01` ([`Step::KeepRecords`]). While there is
/// no account, one order at a time: two would make two accounts.
///
/// # Errors
/// Why there is none. Takes at most [`super::Patience::order`], and [`super::Patience::records`] more where it may write
/// DNS records.
pub async fn order(
    ca: &Ca,
    job: &Job,
    account: Option<&Secret>,
    board: &Arc<Board>,
    dns: Option<&Dns>,
    steps: &Steps,
) -> Result<Product, OrderFault> {
    let wire = ca.wire()?;
    let desk = Desk { ca, job, board, dns, steps, wire };
    let writes = dns.is_some() && job.challenges.contains(&Challenge::Dns01);
    let within = ca.patience.order + if writes { ca.patience.records } else { Duration::ZERO };
    match tokio::time::timeout(within, desk.order(account)).await {
        Ok(result) => result,
        Err(_) => {
            Err(OrderFault::new(FaultKind::Unreachable, format!("the CA did not finish the order in {within:?}")))
        }
    }
}

impl Desk<'_> {
    async fn order(&self, held: Option<&Secret>) -> Result<Product, OrderFault> {
        let (account, kept) = account::open(self.ca, &self.wire, held, self.steps).await?;
        if let Some(begun) = &self.job.begun {
            match self.go_on(&account, begun).await {
                // It may be unreachable for a moment only: the order is not given up for that.
                Err(fault) if fault.kind != FaultKind::Unreachable => {
                    self.steps.tell(Step::Without { what: "the order begun before", why: fault.said });
                }
                result => return result,
            }
        }
        // Made while the CA takes the order: it takes seconds for RSA.
        let request = key::request(&self.job.hosts, self.job.key, self.job.reuse_key.as_ref());
        let (placed, request) = tokio::join!(self.place(&account), request);
        let request = request.map_err(|why| OrderFault::new(FaultKind::Internal, why))?;
        let (_account, mut order) = match placed {
            Err(Refused(_, true)) => {
                let account = account::reopen(self.ca, &self.wire, kept, self.steps).await?;
                let order = self.place(&account).await.map_err(|Refused(fault, _)| fault)?;
                (account, order)
            }
            Err(Refused(fault, false)) => return Err(fault),
            Ok(order) => (account, order),
        };
        let begun = Begun { url: order.url().to_string(), key_pem: request.key_pem.clone() };
        self.steps.keep_order(begun).await?;
        self.bring(&mut order, request).await
    }

    /// Takes up an order that was cut short.
    async fn go_on(&self, account: &Account, begun: &Begun) -> Result<Product, OrderFault> {
        let found = persist!(self.wire, true, account.order(begun.url.clone()));
        let mut order = found.map_err(|error| self.wire.fault(&error))?;
        self.steps.tell(Step::Resumed { url: begun.url.clone(), status: order.state().status });
        let request = key::request(&self.job.hosts, self.job.key, Some(&begun.key_pem)).await;
        let request = request.map_err(|why| OrderFault::new(FaultKind::Internal, why))?;
        self.bring(&mut order, request).await
    }

    /// From an order that the CA has taken to the certificate.
    async fn bring(&self, order: &mut Order, request: key::Request) -> Result<Product, OrderFault> {
        if order.state().status == OrderStatus::Pending {
            self.prove(order).await?;
        }
        let chain = self.finalize(order, &request.csr).await?;
        product::read(chain, request.key_pem, &self.job.hosts)
    }

    /// Places the order, without what the CA does not want of it.
    async fn place(&self, account: &Account) -> Result<Order, Refused> {
        let names: Vec<Identifier> = self.job.hosts.iter().map(|host| identifier(host)).collect();
        let profile = self.profile(account)?;
        let mut replaces = self.job.replaces.as_deref().and_then(certificate_id);
        loop {
            let mut new = NewOrder::new(&names);
            if let Some(profile) = profile {
                new = new.profile(profile);
            }
            if let Some(id) = &replaces {
                new = new.replaces(id.clone());
            }
            // Not `safe`: an order that was placed twice counts twice.
            match persist!(self.wire, false, account.new_order(&new)) {
                Ok(order) => return Ok(order),
                Err(error) if replaces.is_some() && is_about_replaces(&error) => {
                    let why = fault::of(&error).said;
                    self.steps.tell(Step::Without { what: "replaces", why });
                    replaces = None;
                }
                Err(error) => return Err(Refused(self.wire.fault(&error), account::is_unknown(&error))),
            }
        }
    }

    /// The profile to ask for. A CA without profiles has nothing to choose from; one with others is told the operator.
    fn profile(&self, account: &Account) -> Result<Option<&str>, Refused> {
        let Some(wanted) = self.job.profile.as_deref() else { return Ok(None) };
        let mut offered: Vec<&str> = account.profiles().map(|profile| profile.name).collect();
        if offered.contains(&wanted) {
            return Ok(Some(wanted));
        }
        if offered.is_empty() {
            self.steps.tell(Step::Without { what: "profile", why: "the CA has no profiles".to_string() });
            return Ok(None);
        }
        offered.sort_unstable();
        let fault = OrderFault::new(FaultKind::Refused, format!("the CA has no profile `{wanted}`"))
            .likely(format!("it has: {}", offered.join(", ")));
        Err(Refused(fault, false))
    }

    /// Answers the challenges and waits until the CA believes them.
    async fn prove(&self, order: &mut Order) -> Result<(), OrderFault> {
        // What is up stays up until the CA has decided.
        let answers = answer::put_up(self, order).await?;
        let result = self.believed(order, &answers).await;
        answers.take_down(self).await;
        result
    }

    async fn believed(&self, order: &mut Order, answers: &answer::Answers) -> Result<(), OrderFault> {
        answers.announce(self, order).await?;
        match self.until(order, |status| !matches!(status, OrderStatus::Pending)).await? {
            OrderStatus::Invalid => Err(answer::why_invalid(self, order, answers).await),
            _ => {
                self.steps.tell(Step::Proven);
                Ok(())
            }
        }
    }

    /// Asks for the certificate and waits for it: the chain, PEM.
    async fn finalize(&self, order: &mut Order, csr: &[u8]) -> Result<String, OrderFault> {
        // A proven order is asked for once more only when the first asking was lost on the way.
        for _ in 0..3 {
            if order.state().status != OrderStatus::Ready {
                break;
            }
            match persist!(self.wire, false, order.finalize_csr(csr)) {
                Ok(()) => self.steps.tell(Step::Finalized),
                Err(error @ Error::Api(_)) => return Err(self.wire.fault(&error)),
                Err(_) => drop(self.refresh(order).await?),
            }
        }
        match self.until(order, |status| matches!(status, OrderStatus::Valid | OrderStatus::Invalid)).await? {
            OrderStatus::Valid => {}
            _ => return Err(self.dead(order)),
        }
        let chain = persist!(self.wire, true, order.certificate()).map_err(|error| self.wire.fault(&error))?;
        chain
            .ok_or_else(|| OrderFault::new(FaultKind::Unreachable, "the CA finished the order and gave no certificate"))
    }

    /// Asks how far the order is until it is far enough, as often as the CA likes.
    async fn until(&self, order: &mut Order, enough: impl Fn(OrderStatus) -> bool) -> Result<OrderStatus, OrderFault> {
        let mut pause = FIRST_LOOK;
        // The state from the last call may be enough already: an order can be born ready.
        let mut status = order.state().status;
        while !enough(status) {
            tokio::time::sleep(pause).await;
            status = self.refresh(order).await?;
            // Longer than the whole order may take is cut off by its deadline.
            pause = self.wire.later().unwrap_or(pause * 3 / 2).clamp(FIRST_LOOK, self.ca.patience.order);
            if self.wire.later().is_none() {
                pause = pause.min(LAST_LOOK);
            }
        }
        Ok(status)
    }

    async fn refresh(&self, order: &mut Order) -> Result<OrderStatus, OrderFault> {
        let mut tries = Tries::default();
        let result = loop {
            match order.refresh().await {
                Ok(state) => break Ok(state.status),
                Err(error) if self.wire.again(&error, &mut tries, true).await => {}
                Err(error) => break Err(error),
            }
        };
        result.map_err(|error| self.wire.fault(&error))
    }

    /// Why an order is invalid, by its own word.
    pub(super) fn dead(&self, order: &mut Order) -> OrderFault {
        match &order.state().error {
            Some(problem) => self.wire.fault(&Error::Api(problem.clone())),
            None => OrderFault::new(FaultKind::Refused, "the CA gave up the order and said nothing"),
        }
    }
}

/// The order was not placed, and whether that is because the CA does not know the account.
struct Refused(OrderFault, bool);

pub(super) fn identifier(host: &str) -> Identifier {
    match host.parse() {
        Ok(ip) => Identifier::Ip(ip),
        Err(_) => Identifier::Dns(host.to_string()),
    }
}

fn certificate_id(text: &str) -> Option<CertificateIdentifier<'_>> {
    let (authority, serial) = text.split_once('.')?;
    Some(CertificateIdentifier { authority_key_identifier: authority.into(), serial: serial.into() })
}

/// A certificate that was replaced already, that the CA does not know, or a CA that knows no replacing: none of that is
/// a reason to have no certificate.
fn is_about_replaces(error: &Error) -> bool {
    match error {
        Error::Unsupported(_) => true,
        Error::Api(problem) => {
            let detail = problem.detail.as_deref().unwrap_or_default();
            matches!(fault::word(problem), "alreadyReplaced" | "conflict")
                || problem.status == Some(409)
                || (matches!(fault::word(problem), "malformed" | "unauthorized" | "serverInternal")
                    && ["replaces", "certificate", "predecessor"].iter().any(|word| detail.contains(word)))
        }
        // The CA ignored the field.
        Error::Other(fault) => fault.to_string().starts_with("replaces field mismatch"),
        _ => false,
    }
}
