//! Orders that a CA has taken and that brought nothing yet: noted in the store with their keys before they go on, so that
//! after a kill they go on where they stood rather than being placed again. Writes the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use relais_core::Instant;
use relais_core::certs::{CertOrder, FaultKind, OrderFault};
use relais_store::Store;
use relais_tls::acme::Begun;
use serde::{Deserialize, Serialize};

use super::kept;

/// Where they are noted.
const NAME: &str = "acme-orders";
/// CAs forget an order after a week at the latest (Let's Encrypt, ZeroSSL).
const OLD: Duration = Duration::from_secs(7 * 86_400);

/// All that are noted, one of each name. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Orders {
    store: Arc<Store>,
    noted: Arc<Mutex<BTreeMap<String, Noted>>>,
    /// Held while the disk is written: an older state must not come after a newer one.
    writing: Arc<tokio::sync::Mutex<()>>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    directory: String,
    /// What was asked for: an order for something else is no help.
    asked: String,
    /// By the wall clock.
    at: Instant,
    /// The certificate in use then: another one since means that this order, or a later one, has done its work.
    before: Option<String>,
    begun: Begun,
}

impl Orders {
    /// What the last life of the process left.
    pub(super) fn recall(store: &Arc<Store>) -> Orders {
        let noted = serde_json::from_str(&store.note(NAME).unwrap_or_default()).unwrap_or_default();
        Orders { store: Arc::clone(store), noted: Arc::new(Mutex::new(noted)), writing: Arc::default() }
    }

    /// The names of those that may go on.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let now = kept::wall_clock();
        let noted = self.noted.lock();
        noted.iter().filter(|(name, one)| self.is_open(name, one, now)).map(|(name, _)| name.as_str().into()).collect()
    }

    fn is_open(&self, name: &str, one: &Noted, now: Instant) -> bool {
        one.before == in_use(&self.store, name) && now.since(one.at) < OLD
    }

    /// The one that goes on when this is ordered.
    pub(super) fn of(&self, order: &CertOrder) -> Option<Begun> {
        let noted = self.noted.lock();
        let one = noted.get(&*order.name)?;
        let is_same = one.directory == order.authority.directory && one.asked == asked(order);
        (is_same && self.is_open(&order.name, one, kept::wall_clock())).then(|| one.begun.clone())
    }

    /// Notes one in the place of another of its name; returns when that is on the disk.
    pub(super) async fn keep(&self, order: &CertOrder, begun: Begun) {
        let one = Noted {
            directory: order.authority.directory.clone(),
            asked: asked(order),
            at: kept::wall_clock(),
            before: in_use(&self.store, &order.name),
            begun,
        };
        self.change(|noted| noted.insert(order.name.to_string(), one).is_none_or(|_| true)).await;
    }

    /// The order is over. One that broke off for a reason that passes stays noted, once: `went_on` tells that it was.
    pub(super) async fn over(&self, name: &str, fault: Option<&OrderFault>, went_on: bool) {
        let passes = fault.is_some_and(|fault| {
            matches!(fault.kind, FaultKind::Unreachable | FaultKind::RateLimited | FaultKind::Dns)
        });
        if !passes || went_on {
            self.change(|noted| noted.remove(name).is_some()).await;
        }
    }

    async fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Noted>) -> bool) {
        let _one = self.writing.lock().await;
        let text = {
            let mut noted = self.noted.lock();
            if !change(&mut noted) {
                return;
            }
            serde_json::to_string(&*noted).unwrap_or_default()
        };
        let store = Arc::clone(&self.store);
        if let Ok(Err(why)) = tokio::task::spawn_blocking(move || store.keep_note(NAME, &text)).await {
            tracing::warn!("an order may have to be placed again after a crash: {why}");
        }
    }
}

fn asked(order: &CertOrder) -> String {
    format!("{:?} {:?} {:?}", order.hosts, order.key, order.profile)
}

fn in_use(store: &Store, name: &str) -> Option<String> {
    store.certificate(name)?.about["fingerprint"].as_str().map(str::to_owned)
}
