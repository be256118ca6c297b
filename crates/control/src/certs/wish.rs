//! What operators ask about certificates: renew, try, revoke, another account key, take over what another program had.

use std::sync::Arc;

use relais_core::Event;
use relais_core::certs::{FaultKind, OrderFault};
use relais_core::config::{Authority, Config, Secret};
use relais_store::Store;
use relais_tls::acme::{self, Job, Patience, Product, Reason, Steps};
use relais_tls::takeover;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::order::{Keeper, ca, follow};
use super::{Done, kept, records};
use crate::control::Control;
use crate::handle::{Refusal, RefusalKind};

/// A certificate or an account of another program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundPair {
    /// Who signed it: the URL of a directory, or Caddy's name for it.
    pub origin: String,
    /// A certificate chain, PEM; of an account its URL at the CA.
    pub public: String,
    /// The private key, PEM.
    pub key: String,
}

/// The body of `POST /certs/import`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Certificates with their keys.
    #[serde(default)]
    pub certificates: Vec<FoundPair>,
    /// Accounts.
    #[serde(default)]
    pub accounts: Vec<FoundPair>,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Imported {
    /// Names that have a certificate by it.
    pub names: Vec<String>,
    /// Authorities whose account was taken over.
    pub accounts: Vec<String>,
    /// What was left, and why.
    pub left: Vec<String>,
}

/// What a trial order brought.
#[derive(Debug, Clone, Serialize)]
pub struct Tried {
    /// Which name.
    pub name: String,
    /// At whose rehearsal.
    pub authority: String,
    /// Who signed the certificate that was thrown away.
    pub issuer: String,
}

/// A wish, with the place for its answer.
pub(crate) enum CertWish {
    Renew { name: String, reply: oneshot::Sender<Result<String, Refusal>> },
    Try { name: String, reply: oneshot::Sender<Result<Tried, Refusal>> },
    Revoke { name: String, reason: Reason, reply: oneshot::Sender<Result<String, Refusal>> },
    Rollover { authority: Option<String>, reply: oneshot::Sender<Result<Vec<String>, Refusal>> },
    Import { import: Import, reply: oneshot::Sender<Result<Imported, Refusal>> },
}

impl CertWish {
    fn refuse(self, why: Refusal) {
        // That nobody waits any more is no fault.
        let _ = match self {
            CertWish::Renew { reply, .. } | CertWish::Revoke { reply, .. } => reply.send(Err(why)).is_ok(),
            CertWish::Try { reply, .. } => reply.send(Err(why)).is_ok(),
            CertWish::Rollover { reply, .. } => reply.send(Err(why)).is_ok(),
            CertWish::Import { reply, .. } => reply.send(Err(why)).is_ok(),
        };
    }
}

fn refusal(kind: RefusalKind, error: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal { error: error.into(), help: help.into(), kind }
}

fn by_ca(fault: OrderFault) -> Refusal {
    let help = fault.likely.unwrap_or_else(|| match fault.kind {
        FaultKind::Unreachable => {
            "check `directory` of the authority, and whether this machine may reach it; nothing was changed here"
                .to_owned()
        }
        _ => "the CA's word; nothing was changed here".to_owned(),
    });
    refusal(RefusalKind::Conflict, fault.said, help)
}

impl Control {
    pub(crate) fn certificate_wish(&mut self, wish: CertWish) {
        if self.succession.is_under_way() {
            return wish.refuse(crate::requests::under_way());
        }
        match wish {
            CertWish::Renew { name, reply } => {
                // That nobody waits any more is no fault, here and below.
                let _ = reply.send(self.renew_now(&name));
            }
            CertWish::Try { name, reply } => self.try_order(name, reply),
            CertWish::Revoke { name, reason, reply } => self.revoke(name, reason, reply),
            CertWish::Rollover { authority, reply } => self.roll_over(authority.as_deref(), reply),
            CertWish::Import { import, reply } => self.import(import, reply),
        }
    }

    /// For an order that nobody waits behind.
    fn keeper(&self, authority: &str) -> Keeper {
        Keeper {
            store: Arc::clone(&self.store),
            authority: authority.into(),
            records: self.acme.desk.records.clone(),
            order: None,
            turn: Arc::default(),
        }
    }

    fn renew_now(&mut self, name: &str) -> Result<String, Refusal> {
        let now = self.now();
        self.known(name)?;
        self.fleet.handle_event(Event::RenewNow { name: name.into() }, now);
        let report = self.fleet.certificates(now);
        let next = report.certificates.into_iter().find(|one| *one.name == *name).map(|one| one.next);
        Ok(next.unwrap_or_default())
    }

    fn known(&self, name: &str) -> Result<(), Refusal> {
        let report = self.fleet.certificates(self.now());
        if report.certificates.iter().any(|one| *one.name == *name) {
            return Ok(());
        }
        let error = format!("no certificate `{name}` is ordered from a CA");
        Err(refusal(RefusalKind::NotFound, error, "`relais certs` lists the names"))
    }

    /// Orders at the rehearsal of the first authority that has one, and throws away what comes.
    fn try_order(&mut self, name: String, reply: oneshot::Sender<Result<Tried, Refusal>>) {
        let config = Arc::clone(&self.snapshot.load().config);
        let authority = config.acme.authorities.iter().find(|authority| authority.staging.is_some()).cloned();
        let Some(authority) = authority else {
            let help = "set `staging` in [authority.NAME] to the directory of its rehearsal";
            let _ = reply.send(Err(refusal(RefusalKind::Conflict, "no authority has a staging directory", help)));
            return;
        };
        let (board, keeper) = (Arc::clone(self.certs.board()), self.keeper(&authority.name));
        self.acme.spawn(async move {
            let _ = reply.send(tried(&config, &authority, &name, &board, keeper).await);
            Done::Wish(None)
        });
    }

    /// Takes the certificate in use back, and orders another one: it serves on until that is there.
    fn revoke(&mut self, name: String, reason: Reason, reply: oneshot::Sender<Result<String, Refusal>>) {
        let config = Arc::clone(&self.snapshot.load().config);
        let keeper = self.keeper("");
        self.acme.spawn(async move {
            let revoked = revoked(&config, keeper, &name, reason).await;
            let event = revoked.is_ok().then(|| Event::RenewNow { name: name.as_str().into() });
            let _ = reply.send(revoked.map(|()| "revoked; another one is ordered".to_owned()));
            Done::Wish(event)
        });
    }

    fn roll_over(&mut self, only: Option<&str>, reply: oneshot::Sender<Result<Vec<String>, Refusal>>) {
        let config = Arc::clone(&self.snapshot.load().config);
        let store = Arc::clone(&self.store);
        let wanted = config.acme.authorities.iter().filter(|one| only.is_none_or(|only| *one.name == *only));
        let wanted: Vec<Arc<Authority>> =
            wanted.filter(|one| store.account(&one.name).is_some()).map(Arc::clone).collect();
        let keeper = self.keeper("");
        self.acme.spawn(async move {
            let _ = reply.send(rolled_over(&config, keeper, wanted).await);
            Done::Wish(None)
        });
    }

    fn import(&mut self, import: Import, reply: oneshot::Sender<Result<Imported, Refusal>>) {
        let config = Arc::clone(&self.snapshot.load().config);
        let (store, certs) = (Arc::clone(&self.store), Arc::clone(&self.certs));
        self.acme.spawn(async move {
            let covered = certs.covered();
            let work = tokio::task::spawn_blocking(move || {
                let imported = take_over(&config, &store, import);
                kept::serve_all(&store, &certs);
                (imported, kept::inventory(&store, covered))
            });
            let Ok((imported, inventory)) = work.await else { return Done::Wish(None) };
            let _ = reply.send(imported.map_err(|why| {
                refusal(RefusalKind::Conflict, why, "make room or repair the state directory, then import again")
            }));
            Done::Wish(Some(Event::Inventory(inventory)))
        });
    }
}

async fn tried(
    config: &Config,
    authority: &Arc<Authority>,
    name: &str,
    board: &Arc<acme::Board>,
    keeper: Keeper,
) -> Result<Tried, Refusal> {
    let job = Job {
        hosts: vec![name.to_owned()],
        challenges: config.acme.challenges_for(name),
        key: config.acme.key,
        reuse_key: None,
        profile: authority.profile.clone().or_else(|| config.acme.profile.clone()),
        replaces: None,
        begun: None,
    };
    let ca = ca(authority, true, config.edge.email.as_ref(), Patience::default().order);
    let (steps, told) = Steps::new();
    tokio::spawn(follow(told, format!("{name} (test)").into(), keeper, false));
    let dns = records::dns(config);
    let product = acme::order(&ca, &job, None, board, dns.as_ref(), &steps).await.map_err(by_ca)?;
    Ok(Tried { name: name.to_owned(), authority: authority.name.to_string(), issuer: product.issuer })
}

async fn revoked(config: &Config, keeper: Keeper, name: &str, reason: Reason) -> Result<(), Refusal> {
    let store = Arc::clone(&keeper.store);
    let help = "`relais certs` lists the names and who signed them";
    let Some(kept) = store.certificate(name) else {
        return Err(refusal(RefusalKind::NotFound, format!("there is no certificate `{name}` from a CA"), help));
    };
    let authority = config.acme.authorities.iter().find(|one| *one.name == *kept.authority);
    let (Some(authority), Some(account)) = (authority, store.account(&kept.authority)) else {
        let error = format!("there is no account at `{}`, which signed it", kept.authority);
        return Err(refusal(RefusalKind::Conflict, error, "declare it as `[authority.NAME]`, or import its account"));
    };
    let ca = ca(authority, false, config.edge.email.as_ref(), Patience::default().order);
    let (steps, told) = Steps::new();
    let keeper = Keeper { authority: Arc::clone(&authority.name), ..keeper };
    tokio::spawn(follow(told, name.into(), keeper, true));
    let done = acme::revoke(&ca, &account, &kept.chain_pem, reason, &steps).await;
    done.map_err(by_ca)?;
    tracing::warn!(name, authority = &*authority.name, "certificate revoked by the operator");
    Ok(())
}

async fn rolled_over(
    config: &Config,
    keeper: Keeper,
    authorities: Vec<Arc<Authority>>,
) -> Result<Vec<String>, Refusal> {
    if authorities.is_empty() {
        let help = "an account is made with the first order; `relais certs` shows the authorities";
        return Err(refusal(RefusalKind::NotFound, "there is no account whose key could be changed", help));
    }
    let mut names = Vec::new();
    for authority in authorities {
        let Some(account) = keeper.store.account(&authority.name) else { continue };
        let ca = ca(&authority, false, config.edge.email.as_ref(), Patience::default().order);
        let (steps, told) = Steps::new();
        let keeper = Keeper { authority: Arc::clone(&authority.name), ..keeper.clone() };
        tokio::spawn(follow(told, "account".into(), keeper, true));
        acme::rollover(&ca, &account, &steps).await.map_err(by_ca)?;
        tracing::warn!(authority = &*authority.name, "the account has a new key");
        names.push(authority.name.to_string());
    }
    Ok(names)
}

/// Keeps certificates and accounts of another program in the state directory of a relais that does not run.
///
/// # Errors
/// The directory cannot be written, or a relais runs on it.
pub fn import_into(state_dir: &std::path::Path, config: &Config, import: Import) -> Result<Imported, String> {
    let store = Store::open(state_dir);
    if store.state().mode == relais_store::Mode::Memory {
        return Err(store.state().detail);
    }
    take_over(config, &store, import)
}

/// Keeps what another program had: certificates that are good and newer than ours, accounts where we have none. `Err`: the
/// disk.
fn take_over(config: &Config, store: &Store, import: Import) -> Result<Imported, String> {
    let mut imported = Imported::default();
    let mut all = Vec::new();
    for FoundPair { origin, public, key } in import.certificates {
        let product = match acme::inspect(public, Secret::new(&key)) {
            Ok(product) if product.not_after > kept::wall_clock() => product,
            Ok(product) => {
                imported.left.push(format!("{}: it has ended", product.hosts.join(", ")));
                continue;
            }
            Err(why) => {
                imported.left.push(format!("a certificate from {origin}: {why}"));
                continue;
            }
        };
        let authority = authority_of(config, &origin).map_or(origin, |authority| authority.name.to_string());
        // One that covers several names is kept under each: later each has one of its own.
        for name in &product.hosts {
            if is_older(store, name, &product) {
                imported.left.push(format!("{name}: ours is valid longer"));
            } else {
                imported.names.push(name.clone());
                all.push(kept::to_keep(name, &authority, &product));
            }
        }
    }
    store.keep_certificates(all)?;
    for FoundPair { origin, public, key } in import.accounts {
        let Some(authority) = authority_of(config, &origin) else {
            imported.left.push(format!("an account at {origin}: no `[authority.NAME]` has that directory"));
            continue;
        };
        if store.account(&authority.name).is_some() {
            imported.left.push(format!("an account at {}: there is one already", authority.name));
            continue;
        }
        match acme::import(&authority.directory, &public, &Secret::new(&key)) {
            Ok(account) => {
                store.keep_account(&authority.name, account)?;
                imported.accounts.push(authority.name.to_string());
            }
            Err(why) => imported.left.push(format!("an account at {}: {why}", authority.name)),
        }
    }
    Ok(imported)
}

fn authority_of<'a>(config: &'a Config, origin: &str) -> Option<&'a Arc<Authority>> {
    config.acme.authorities.iter().find(|authority| takeover::is_of(origin, &authority.directory))
}

fn is_older(store: &Store, name: &str, product: &Product) -> bool {
    let ours = store.certificate(name).and_then(|ours| acme::inspect(ours.chain_pem, ours.key_pem).ok());
    ours.is_some_and(|ours| ours.not_after > product.not_after)
}
