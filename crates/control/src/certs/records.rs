//! DNS records that orders have written and must remove again: noted in the store before they are written, so that a kill
//! leaves none. Writes the store, and at start removes what is left.

use std::sync::Arc;

use parking_lot::Mutex;
use relais_core::config::Config;
use relais_store::Store;
use relais_tls::acme::dns::{Dns, Undo};
use tokio::sync::OwnedMutexGuard;

/// Where they are noted.
const NAME: &str = "acme-dns-records";

/// All that are noted.
#[derive(Clone)]
pub(crate) struct Records {
    store: Arc<Store>,
    noted: Arc<Mutex<Vec<Undo>>>,
    /// Held while the disk is written: an older state must not come after a newer one.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// Held while old ones are cleared away.
    clearing: Arc<tokio::sync::Mutex<()>>,
}

impl Records {
    /// What the last life of the process left.
    pub(super) fn recall(store: &Arc<Store>) -> Records {
        let text = store.note(NAME).unwrap_or_default();
        let noted: Vec<Undo> = serde_json::from_str(&text).unwrap_or_default();
        Records {
            store: Arc::clone(store),
            noted: Arc::new(Mutex::new(noted)),
            writing: Arc::default(),
            clearing: Arc::default(),
        }
    }

    /// Notes more of them; returns when that is on the disk.
    pub(super) async fn add(&self, records: Vec<Undo>) {
        self.change(|noted| noted.extend(records)).await;
    }

    /// Those are gone, or tried in vain: what is left waits for the next start.
    pub(super) async fn remove(&self, gone: &[Undo], left: &[Undo]) {
        self.change(|noted| {
            noted.retain(|one| !gone.contains(one));
            for one in left.iter().filter(|one| !noted.contains(one)).cloned().collect::<Vec<_>>() {
                noted.push(one);
            }
        })
        .await;
    }

    async fn change(&self, change: impl FnOnce(&mut Vec<Undo>)) {
        let _one = self.writing.lock().await;
        let text = {
            let mut noted = self.noted.lock();
            change(&mut noted);
            serde_json::to_string(&*noted).unwrap_or_default()
        };
        let store = Arc::clone(&self.store);
        if let Ok(Err(why)) = tokio::task::spawn_blocking(move || store.keep_note(NAME, &text)).await {
            tracing::warn!("DNS records of a challenge may stay behind after a crash: {why}");
        }
    }

    /// To be waited for before a record is written that may be among the old ones.
    pub(super) fn turn(&self) -> impl Future<Output = OwnedMutexGuard<()>> + Send + use<> {
        Arc::clone(&self.clearing).lock_owned()
    }

    /// Makes others wait; `None`: somebody does already.
    pub(super) fn alone(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.clearing).try_lock_owned().ok()
    }

    /// Removes what the last life of the process left.
    pub(super) async fn clear_away(self, config: Arc<Config>, _alone: Option<OwnedMutexGuard<()>>) {
        let old = self.noted.lock().clone();
        if old.is_empty() {
            return;
        }
        let Some(dns) = dns(&config) else { return };
        for record in old {
            match dns.clean(&record).await {
                Ok(()) => self.remove(&[record], &[]).await,
                Err(why) => tracing::warn!("a DNS record of an old challenge is still there: {why}"),
            }
        }
    }
}

/// Who changes the DNS, as the config says.
pub(super) fn dns(config: &Config) -> Option<Dns> {
    if config.acme.dns.is_empty() {
        return None;
    }
    match Dns::new(&config.acme.dns, &config.edge.nameservers) {
        Ok(dns) => Some(dns),
        Err(why) => {
            tracing::error!("dns-01 cannot be used: {why}");
            None
        }
    }
}
