//! One order from the fleet to the end: the account, the CA, the store, and then the workers. Talks to the CA and the
//! store; decides nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use relais_config::Config;
use relais_core::Event;
use relais_core::certs::{CertOrder, FaultKind, OrderFault, RenewalAnswer, RenewalQuestion, RenewalWindow};
use relais_core::config::{Authority, Secret};
use relais_store::Store;
use relais_tls::CertStore;
use relais_tls::acme::{self, Begun, Ca, Job, Patience, Product, Step, Steps};
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::begun::Orders;
use super::kept;
use super::records::{self, Records};

/// What orders need.
pub(crate) struct Desk {
    pub(super) store: Arc<Store>,
    pub(super) certs: Arc<CertStore>,
    pub(super) records: Records,
    pub(super) orders: Orders,
    /// By authority: who has no account yet opens one alone.
    pub(super) first: HashMap<Arc<str>, Arc<tokio::sync::Mutex<()>>>,
}

/// Held until an account is known to work.
pub(super) type Turn = Arc<Mutex<Option<OwnedMutexGuard<()>>>>;

impl Desk {
    /// The work of an order, which begins when `wait` is over, and what the fleet is told of it.
    pub(super) fn order(
        &mut self,
        mut order: CertOrder,
        config: Arc<Config>,
        wait: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = Event> + Send + 'static {
        let (store, certs, records) = (Arc::clone(&self.store), Arc::clone(&self.certs), self.records.clone());
        let orders = self.orders.clone();
        let turns = Arc::clone(self.first.entry(Arc::clone(&order.authority.name)).or_default());
        async move {
            let placed = Instant::now();
            wait.await;
            // Its time began when it was placed: after that the fleet takes it for lost, and places another.
            order.timeout = order.timeout.saturating_sub(placed.elapsed());
            let order = Arc::new(order);
            let (id, name) = (order.id, Arc::clone(&order.name));
            let account = &order.authority.name;
            let turn = if store.account(account).is_none() { Some(turns.lock_owned().await) } else { None };
            let keeper = Keeper {
                store: Arc::clone(&store),
                authority: Arc::clone(account),
                records,
                order: Some((Arc::clone(&order), orders.clone())),
                turn: Arc::new(Mutex::new(turn)),
            };
            let begun = orders.of(&order);
            let went_on = begun.is_some();
            match carry_out(&order, begun, &config, &certs, keeper).await {
                Ok(product) => {
                    let held = kept::held(&name, account, &product);
                    serve(&store, &certs, &name, account, &product).await;
                    orders.over(&name, None, went_on).await;
                    Event::Issued { id, held }
                }
                Err(fault) => {
                    orders.over(&name, Some(&fault), went_on).await;
                    Event::OrderFailed { id, name, fault }
                }
            }
        }
    }
}

/// Who keeps what an order must not lose.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) store: Arc<Store>,
    pub(super) authority: Arc<str>,
    pub(super) records: Records,
    /// The order that is noted when the CA has taken it; `None`: it leads to nothing that is kept.
    pub(super) order: Option<(Arc<CertOrder>, Orders)>,
    pub(super) turn: Turn,
}

async fn carry_out(
    order: &CertOrder,
    begun: Option<Begun>,
    config: &Config,
    certs: &CertStore,
    keeper: Keeper,
) -> Result<Product, OrderFault> {
    let store = Arc::clone(&keeper.store);
    let ca = ca(&order.authority, false, order.email.as_ref(), order.timeout);
    let dns = order.dns.as_ref().and_then(|_| records::dns(config));
    let job = Job {
        hosts: order.hosts.clone(),
        challenges: order.challenges.clone(),
        key: order.key,
        reuse_key: order.reuse_key.then(|| store.certificate(&order.name)).flatten().map(|kept| kept.key_pem),
        profile: order.profile.clone(),
        replaces: order.replaces.clone(),
        begun,
    };
    if dns.is_some() {
        drop(keeper.records.turn().await);
    }
    let (steps, told) = Steps::new();
    tokio::spawn(follow(told, Arc::clone(&order.name), keeper, true));
    let account = store.account(&order.authority.name);
    let ordered = acme::order(&ca, &job, account.as_ref(), certs.board(), dns.as_ref(), &steps);
    match tokio::time::timeout(order.timeout, ordered).await {
        Ok(result) => result,
        Err(_) => {
            Err(OrderFault::new(FaultKind::Unreachable, format!("the order was not done in {:?}", order.timeout)))
        }
    }
}

/// Keeps a certificate, and only then serves it. A disk that fails is an alarm, no reason to serve none.
pub(super) async fn serve(store: &Arc<Store>, certs: &Arc<CertStore>, name: &str, authority: &str, product: &Product) {
    let keep = kept::to_keep(name, authority, product);
    let issued = kept::to_serve(&keep);
    let disk = Arc::clone(store);
    match tokio::task::spawn_blocking(move || disk.keep_certificate(keep)).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::error!(name, "a certificate is served that may not survive a restart: {why}"),
        Err(error) => tracing::error!(name, %error, "a certificate could not be kept"),
    }
    for problem in certs.install_issued(&[issued]) {
        tracing::error!(name, "{problem}");
    }
}

/// One line per step; the account and DNS records are kept before they are used. `keeps_account`: false for an account
/// that is thrown away.
pub(super) async fn follow(
    mut told: mpsc::UnboundedReceiver<Step>,
    name: Arc<str>,
    keeper: Keeper,
    keeps_account: bool,
) {
    while let Some(step) = told.recv().await {
        match step {
            Step::KeepAccount { account, kept } => {
                if keeps_account {
                    keep_account(Arc::clone(&keeper.store), Arc::clone(&keeper.authority), account).await;
                }
                // Whoever ordered may have given up meanwhile; here and below.
                let _ = kept.send(());
            }
            Step::KeepRecords { records, kept } => {
                keeper.records.add(records).await;
                let _ = kept.send(());
            }
            Step::RecordsRemoved { records, left } => keeper.records.remove(&records, &left).await,
            Step::Placed { begun, kept } => {
                drop(keeper.turn.lock().take());
                let line = format!("order placed: {}", begun.url);
                if let Some((order, orders)) = &keeper.order {
                    orders.keep(order, begun).await;
                }
                tracing::info!(name = &*name, "{line}");
                let _ = kept.send(());
            }
            step => tracing::info!(name = &*name, "{step}"),
        }
    }
}

async fn keep_account(store: Arc<Store>, authority: Arc<str>, account: Secret) {
    let about = Arc::clone(&authority);
    match tokio::task::spawn_blocking(move || store.keep_account(&authority, account)).await {
        Ok(Ok(())) => tracing::info!(authority = &*about, "account kept"),
        // It is remembered: a certificate now is worth more than this account after a restart.
        Ok(Err(why)) => tracing::error!(authority = &*about, "the account may not survive a restart: {why}"),
        Err(error) => tracing::error!(authority = &*about, %error, "the account could not be kept"),
    }
}

/// Asks a CA when it wants a certificate renewed.
pub(super) async fn renewal_info(question: RenewalQuestion) -> Event {
    let RenewalQuestion { id, name, ari_id, authority } = question;
    let ca = ca(&authority, false, None, Patience::default().order);
    let answer = match acme::renewal_info(&ca, &ari_id).await {
        Ok(Some(info)) => Ok(RenewalAnswer {
            window: RenewalWindow { start: info.start, end: info.end, explanation: info.explanation },
            retry_after: Some(info.ask_again),
            date: info.date,
        }),
        Ok(None) => Err(OrderFault::new(FaultKind::Refused, "the CA gives no renewal information")),
        Err(fault) => Err(fault),
    };
    Event::RenewalInfo { id, name, answer }
}

/// A CA as orders see it.
pub(super) fn ca(authority: &Arc<Authority>, staging: bool, email: Option<&String>, order: std::time::Duration) -> Ca {
    let patience = Patience { order, ..Patience::default() };
    Ca { authority: Arc::clone(authority), staging, email: email.cloned(), patience }
}
