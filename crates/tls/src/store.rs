//! The certificates in use: read and made for a config and replaced as a whole, or ordered and put in one by one; chosen
//! from at each handshake.
//!
//! Touches no file (see `loaded`). Reloading is the caller's decision: when a file or the config changed, and at
//! [`CertStore::next_change`]. What was ordered stays through every reload.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use relais_core::Instant;
use relais_core::config::{ClientTls, UpstreamProtocol, UpstreamTls};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::{mpsc, oneshot};

use crate::acceptor::Acceptor;
use crate::acme::{ACME_TLS, Board};
use crate::certificate::{CertInfo, CertSource, Certificate};
use crate::clock;
use crate::demand::{Demand, Demands};
use crate::internal_ca;
use crate::issued::Issued;
use crate::loaded::Loaded;
use crate::problem::CertProblem;
use crate::resolver::Names;
use crate::staple::Answers;
use crate::tickets::Tickets;
use crate::upstream;

/// The certificates in use: chooses one for each handshake.
#[derive(Debug)]
pub struct CertStore {
    pub(crate) serving: ArcSwap<Serving>,
    /// Proofs of certificates that ask for one.
    pub(crate) staples: Mutex<Answers>,
    /// Held while `serving` is replaced: two changes at once must not undo each other.
    changing: Mutex<()>,
    board: Arc<Board>,
    demands: Demands,
    acceptor: Acceptor,
    upstream: upstream::Configs,
}

/// What handshakes are answered from.
#[derive(Debug)]
pub(crate) struct Serving {
    loaded: Arc<Loaded>,
    /// By the name they are kept under.
    issued: BTreeMap<String, Arc<Certificate>>,
    /// Files, then ordered ones, then those of the local CA.
    pub(crate) certificates: Vec<Arc<Certificate>>,
    names: Names,
    /// Hosts that a CA is to certify and has not yet: ordinarily none.
    awaited: BTreeSet<String>,
}

impl Serving {
    fn new(loaded: Arc<Loaded>, issued: BTreeMap<String, Arc<Certificate>>) -> Self {
        let (files, internal): (Vec<_>, Vec<_>) =
            loaded.certificates.iter().cloned().partition(|certificate| certificate.source == CertSource::Files);
        let mut certificates: Vec<_> = files.into_iter().chain(issued.values().cloned()).chain(internal).collect();
        let names = Names::new(&certificates, loaded.fallback.clone());
        certificates.extend(loaded.fallback.clone());
        let awaited = loaded.ordered.iter().filter(|host| !names.covers(host)).cloned().collect();
        Self { loaded, issued, certificates, names, awaited }
    }

    fn awaits(&self, host: &str) -> bool {
        let wildcard = || host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        !self.awaited.is_empty()
            && (self.awaited.contains(host) || wildcard().is_some_and(|wildcard| self.awaited.contains(&wildcard)))
    }

    /// Whether a client that asks for this name is to be told that there is no certificate, rather than shown one of the
    /// local CA that nobody trusts.
    fn refuses(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        (!self.loaded.serves_unknown || self.awaits(&name)) && !self.names.covers(&name)
    }
}

impl CertStore {
    /// A store that serves `loaded` and seals session tickets with `tickets`.
    #[must_use]
    pub fn new(loaded: Loaded, tickets: Arc<Tickets>) -> Arc<CertStore> {
        Arc::new(Self {
            serving: ArcSwap::from_pointee(Serving::new(Arc::new(loaded), BTreeMap::new())),
            staples: Mutex::default(),
            changing: Mutex::default(),
            board: Arc::default(),
            demands: Demands::default(),
            acceptor: Acceptor::new(tickets),
            upstream: upstream::Configs::default(),
        })
    }

    /// Serves `loaded` from the next handshake on, and reads the CA files of backends again at their next connection.
    /// Connections in use, sessions that clients may resume and what was ordered are untouched.
    pub fn install(&self, loaded: Loaded) {
        let _one = self.changing.lock();
        let issued = self.serving.load().issued.clone();
        self.serve(Serving::new(Arc::new(loaded), issued));
        self.acceptor.clear();
        self.upstream.clear();
    }

    /// Serves certificates that were ordered, from the next handshake on, each in the place of the one of its name;
    /// nothing else changes. An expired one is served until another comes, and [`CertInfo::problem`] says so. Returns what
    /// cannot be served, which leaves the one before in its place. Many at once cost about as much as one.
    pub fn install_issued(&self, all: &[Issued]) -> Vec<CertProblem> {
        let mut problems = Vec::new();
        let usable: Vec<_> = all
            .iter()
            .filter_map(|one| one.certificate().map_err(|problem| problems.push(problem)).ok())
            .map(|certificate| (certificate.name.clone(), certificate))
            .collect();
        self.change_issued(|issued| issued.extend(usable));
        problems
    }

    /// Serves an ordered certificate no longer. One that is not there is no error.
    pub fn remove_issued(&self, name: &str) {
        self.change_issued(|issued| drop(issued.remove(name)));
    }

    fn change_issued(&self, change: impl FnOnce(&mut BTreeMap<String, Arc<Certificate>>)) {
        let _one = self.changing.lock();
        let serving = self.serving.load();
        let mut issued = serving.issued.clone();
        change(&mut issued);
        self.serve(Serving::new(Arc::clone(&serving.loaded), issued));
    }

    fn serve(&self, serving: Serving) {
        self.staple_again(&serving);
        self.serving.store(Arc::new(serving));
    }

    /// The ordered certificates that clients were shown since the last call.
    #[must_use]
    pub fn asked_for(&self) -> Vec<String> {
        let serving = self.serving.load();
        serving.issued.iter().filter(|(_, one)| one.take_asked()).map(|(name, _)| name.clone()).collect()
    }

    /// Where orders put up the answers to challenges.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// As [`Board::http01`].
    #[must_use]
    pub fn http01(&self, host: &str, token: &str) -> Option<Arc<str>> {
        self.board.http01(host, token)
    }

    /// Whether a handshake came from a CA that only wanted to see a challenge certificate: nothing follows it (RFC 8737,
    /// section 3), and the connection is to be closed.
    #[must_use]
    pub fn is_challenge(alpn: Option<&[u8]>) -> bool {
        alpn == Some(ACME_TLS)
    }

    /// Whether a CA is to certify this host and has not yet, and no other certificate covers it. `host` in lower case.
    #[must_use]
    pub fn is_awaited(&self, host: &str) -> bool {
        self.serving.load().awaits(host)
    }

    /// Whether there is a certificate for the name a client asks for.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        self.serving.load().names.covers(&name.trim_end_matches('.').to_ascii_lowercase())
    }

    /// Asks for a certificate for a name that a client waits for. `None`: too many wait already.
    pub fn demand(&self, name: &str) -> Option<oneshot::Receiver<bool>> {
        self.demands.ask(name)
    }

    /// What [`CertStore::demand`] asks, for the one who orders. `None`: somebody has it.
    pub fn demands(&self) -> Option<mpsc::Receiver<Demand>> {
        self.demands.take()
    }

    /// The hosts of the config that files cover; see [`Loaded::covered`].
    #[must_use]
    pub fn covered(&self) -> Vec<String> {
        self.serving.load().loaded.covered.clone()
    }

    /// Settings for handshakes with clients of whom this is asked: versions, HTTP/2 and HTTP/1.1 by ALPN, resumption by
    /// tickets (not where clients show certificates), no early data. Made at first use, and again after
    /// [`CertStore::install`].
    ///
    /// # Errors
    /// The CA file of the clients' certificates cannot be used (any more), in words.
    pub fn server_config(self: &Arc<Self>, asked: &ClientTls) -> Result<Arc<ServerConfig>, String> {
        self.acceptor.server_config(asked, || Arc::clone(self) as Arc<dyn ResolvesServerCert>)
    }

    /// Whether a client that was shown a certificate for one name may ask for a host of another on the same connection
    /// (RFC 9110 section 7.4, RFC 9113 section 9.1.1): the certificate covers both. Names are in lower case.
    #[must_use]
    pub fn covers_both(&self, shown_for: &str, host: &str) -> bool {
        self.serving.load().names.cover_both(shown_for, host)
    }

    /// Whether a client of this handshake is a CA that wants to see a challenge certificate (RFC 8737), and nothing else.
    pub fn wants_challenge<'a>(mut offered: impl Iterator<Item = &'a [u8]>) -> bool {
        offered.next() == Some(ACME_TLS) && offered.next().is_none()
    }

    /// The certificates in use: files in config order, then ordered ones by name, then those of the local CA by host,
    /// `default` last.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertInfo> {
        let now = clock::now();
        self.serving.load().certificates.iter().map(|certificate| certificate.info(now)).collect()
    }

    /// When [`CertStore::load`] and [`CertStore::install`] should be called although nothing changed: the certificates of
    /// the local CA are made anew 10 days before their end. `None`: there are none.
    #[must_use]
    pub fn next_change(&self) -> Option<Instant> {
        let serving = self.serving.load();
        let internal = serving.certificates.iter().filter(|certificate| certificate.source == CertSource::Internal);
        internal.map(|certificate| certificate.not_after - internal_ca::RENEW_BEFORE).min()
    }

    /// Whether a certificate of the local CA is not of today, as after a wall clock that was wrong at the start was set right:
    /// then [`CertStore::next_change`] is wrong as well.
    #[must_use]
    pub fn is_of_another_day(&self) -> bool {
        let now = clock::now();
        let serving = self.serving.load();
        serving.certificates.iter().any(|one| one.source == CertSource::Internal && !one.is_current(now))
    }

    /// As [`upstream::client_config`], kept until the next [`CertStore::install`]: one setting per kind of backend also
    /// means one memory of sessions to resume. Reads files at first use of a kind.
    ///
    /// # Errors
    /// As [`upstream::client_config`]. A failure is not kept.
    pub fn client_config(&self, tls: &UpstreamTls, protocol: UpstreamProtocol) -> Result<Arc<ClientConfig>, String> {
        self.upstream.get(tls, protocol)
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.alpn().is_some_and(Self::wants_challenge) {
            return self.board.tls_alpn01(hello.server_name()?);
        }
        let serving = self.serving.load();
        if hello.server_name().is_some_and(|name| serving.refuses(name)) {
            return None;
        }
        let can_sign =
            |certificate: &Certificate| certificate.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = serving.names.choose(hello.server_name(), serving.loaded.strict, clock::now(), can_sign)?;
        chosen.asked();
        Some(chosen.shown_as(clock::now()))
    }
}
