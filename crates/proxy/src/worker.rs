//! One worker: its listeners, its client connections, its connections to backends. Nothing here is shared between
//! workers but what [`Shared`] names.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use relais_core::config::{Config, Hsts, Listener, Service};
use relais_core::hash::Table;
use relais_core::{Anchor, Backend, Event, Fault, Left, Pool, Snapshot};
use relais_tls::CertStore;
use tokio::sync::{mpsc, oneshot, watch};

use crate::conn_state::{ConnState, LAST_CALL};
use crate::headers::Edits;
use crate::kept::Spools;
use crate::pool::{Connections, Slot};
use crate::ready::Ready;
use crate::seldom::Seldom;
use crate::timer::Timers;

/// What all workers and the control loop share.
pub struct Shared {
    /// What to believe; read once per request.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Changes whenever a snapshot was published.
    pub changed: watch::Receiver<u64>,
    /// Evidence for the control loop. When full, evidence is dropped and counted.
    pub events: mpsc::Sender<Event>,
    /// Ties this process's clock to core's.
    pub anchor: Anchor,
    /// Certificates.
    pub certs: Arc<CertStore>,
    /// Signs sticky cookies of services that set no key.
    pub sticky_key: Arc<[u8]>,
    /// Where request bodies go that are too large to keep in memory.
    pub spools: Arc<Spools>,
    /// Client connections allowed, all workers together, when the config sets no number.
    pub max_connections: usize,
}

/// An order to one worker.
#[derive(Debug)]
pub enum WorkerOrder {
    /// Accept on this socket. It must be non-blocking.
    Listen {
        /// Bound and listening.
        socket: std::net::TcpListener,
        /// What it was bound for.
        listener: Arc<Listener>,
    },
    /// Stop accepting there: what waits in the queue is still accepted, connections finish what runs.
    Close {
        /// Name of the listener.
        listener: String,
        /// The address the socket was bound to (with the real port).
        address: SocketAddr,
    },
    /// Another process accepts on the same sockets: accept no more, and leave what waits in their queues to it.
    Leave,
    /// Stop accepting anywhere, drain, and return. A second `Stop` ends the drain.
    Stop,
}

/// What requests of one service need parsed once.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) request: Edits,
    pub(crate) response: Edits,
    /// `Strict-Transport-Security` (RFC 6797 section 6.1).
    pub(crate) hsts: Option<HeaderValue>,
}

/// One worker's state.
#[allow(clippy::type_complexity, reason = "the map is used in one function")]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connections: Connections,
    /// For waits that mostly end before their time.
    pub(crate) timers: Timers,
    random: AtomicU64,
    /// By the address of the service; the weak reference tells whether it is still that service.
    prepared: Mutex<Table<usize, (Weak<Service>, Arc<Prepared>)>>,
    /// What follows from the config of the last request.
    ready: Mutex<Option<(Arc<Config>, Arc<Ready>)>>,
    clients: Mutex<HashMap<u64, Registered>>,
    next_client: AtomicU64,
    /// Handshakes that ended because of the client's certificate, told seldom.
    pub(crate) refused_clients: Seldom,
    /// Handshakes with backends that TLS itself ended.
    pub(crate) failed_handshakes: Seldom,
    live: AtomicUsize,
    /// Whether the edge stops.
    draining: watch::Sender<bool>,
    /// Whether another process has the listening sockets.
    leaving: AtomicBool,
}

struct Registered {
    state: Arc<ConnState>,
    local: SocketAddr,
}

impl Worker {
    fn new(shared: Arc<Shared>, index: usize) -> Arc<Self> {
        // Seeded from the standard library's per-process randomness; the index keeps workers apart.
        use std::hash::BuildHasher;
        let seed = std::collections::hash_map::RandomState::new().hash_one(index);
        Arc::new(Self {
            shared,
            connections: Connections::default(),
            timers: Timers::default(),
            random: AtomicU64::new(seed),
            prepared: Mutex::default(),
            ready: Mutex::default(),
            clients: Mutex::default(),
            next_client: AtomicU64::new(0),
            refused_clients: Seldom::default(),
            failed_handshakes: Seldom::default(),
            live: AtomicUsize::new(0),
            draining: watch::Sender::new(false),
            leaving: AtomicBool::new(false),
        })
    }

    /// A random number (splitmix64): for balancing and request ids, not for secrets.
    pub(crate) fn roll(&self) -> u64 {
        // Not in one operation: a worker has one thread.
        let state = self.random.load(Relaxed);
        self.random.store(state.wrapping_add(0x9e37_79b9_7f4a_7c15), Relaxed);
        relais_core::hash::mix(state)
    }

    /// Sixteen random bytes, for what must differ each time.
    pub(crate) fn nonce(&self) -> [u8; 16] {
        ((u128::from(self.roll()) << 64) | u128::from(self.roll())).to_be_bytes()
    }

    /// Now, as core counts it.
    pub(crate) fn now(&self) -> relais_core::Instant {
        self.shared.anchor.at(Instant::now())
    }

    /// Reports evidence; never waits.
    pub(crate) fn report(&self, event: Event) {
        if self.shared.events.try_send(event).is_err() {
            self.shared.snapshot.load().stats.events_dropped.inc();
        }
    }

    /// A request that was sent to this backend left it, or its client was told.
    pub(crate) fn left(&self, backend: u32, began: Instant, how: Left) {
        self.report(Event::Moved { slot: backend, began: self.shared.anchor.at(began), how });
    }

    /// An answer of this backend was waited for in vain in its middle.
    pub(crate) fn fell_silent(&self, backend: &Backend) {
        self.report(Event::BrokeOff { slot: backend.slot, fault: Fault::ResponseTimeout });
    }

    /// Something waits at this backend longer than usual: the fleet shall ask whether it lives.
    pub(crate) fn press(&self, slot: &Slot, backend: u32, patience: Duration) {
        if slot.press(self.now(), patience) {
            self.report(Event::Overdue { slot: backend });
        }
    }

    /// Counts a client's connection or tunnel in; it is counted out when the guard drops, also in a panic.
    pub(crate) fn live(self: &Arc<Self>) -> Live {
        self.live.fetch_add(1, Relaxed);
        Live(Arc::clone(self))
    }

    /// When one of many streams that shall end is to end: at a random time in the first four fifths of the drain, so
    /// that their clients do not all come back at once.
    pub(crate) fn drain_delay(&self) -> Duration {
        let window = self.shared.snapshot.load().config.edge.drain * 4 / 5;
        let part = self.roll() >> 11;
        window.mul_f64(part as f64 / (1_u64 << 53) as f64)
    }

    /// What follows from a config, made at first use.
    pub(crate) fn ready(&self, config: &Arc<Config>) -> Arc<Ready> {
        let mut ready = self.ready.lock();
        if let Some((known, ready)) = ready.as_ref()
            && Arc::ptr_eq(known, config)
        {
            return Arc::clone(ready);
        }
        let made = Arc::new(Ready::new(config));
        *ready = Some((Arc::clone(config), Arc::clone(&made)));
        made
    }

    /// The header edits of a service, parsed at first use.
    pub(crate) fn prepared(&self, pool: &Pool) -> Arc<Prepared> {
        let key = Arc::as_ptr(&pool.service) as usize;
        let mut known = self.prepared.lock();
        if let Some((service, prepared)) = known.get(&key)
            && std::ptr::eq(service.as_ptr(), Arc::as_ptr(&pool.service))
            && service.strong_count() > 0
        {
            return Arc::clone(prepared);
        }
        let prepared = Arc::new(Prepared {
            request: Edits::new(&pool.service.request_headers),
            response: Edits::new(&pool.service.response_headers),
            hsts: pool.service.hsts.as_ref().and_then(hsts),
        });
        known.insert(key, (Arc::downgrade(&pool.service), Arc::clone(&prepared)));
        prepared
    }

    /// Remembers a client connection so that it can be drained; forget it with the returned number.
    pub(crate) fn register(&self, state: &Arc<ConnState>, local: SocketAddr) -> u64 {
        let id = self.next_client.fetch_add(1, Relaxed);
        self.clients.lock().insert(id, Registered { state: Arc::clone(state), local });
        if self.is_draining() {
            state.drain();
        }
        id
    }

    /// Whether the edge stops.
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Whether what waits in the queues of listening sockets is for another process.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Ends a while after the edge began to stop: a client that has said nothing by then is not waited for.
    pub(crate) async fn last_call(&self) {
        // The sender is in `self`.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
        tokio::time::sleep(LAST_CALL).await;
    }

    pub(crate) fn forget(&self, id: u64) {
        self.clients.lock().remove(&id);
    }

    /// Asks client connections to finish: all, or those that came in on one address.
    fn drain_clients(&self, local: Option<SocketAddr>) {
        for client in self.clients.lock().values() {
            if local.is_none_or(|address| address.port() == client.local.port() && covers(address, client.local)) {
                client.state.drain();
            }
        }
    }

    /// Follows snapshots: moves attempts off dead backends, drops connections nobody needs.
    async fn follow(self: Arc<Self>) {
        let mut changed = self.shared.changed.clone();
        let mut seen = self.shared.snapshot.load_full();
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                news = changed.changed() => {
                    if news.is_err() {
                        return;
                    }
                    let new = self.shared.snapshot.load_full();
                    self.connections.follow(&seen, &new);
                    if !Arc::ptr_eq(&seen.config, &new.config) {
                        self.prepared.lock().retain(|_, (service, _)| service.strong_count() > 0);
                    }
                    seen = new;
                }
                _ = tick.tick() => self.connections.expire(&seen),
            }
        }
    }
}

fn hsts(rule: &Hsts) -> Option<HeaderValue> {
    let subdomains = if rule.subdomains { "; includeSubDomains" } else { "" };
    let preload = if rule.preload { "; preload" } else { "" };
    HeaderValue::from_str(&format!("max-age={}{subdomains}{preload}", rule.max_age.as_secs())).ok()
}

/// A connection or tunnel that keeps the worker from ending.
pub(crate) struct Live(Arc<Worker>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Relaxed);
    }
}

/// Whether a socket bound to `bound` takes connections to `local`.
fn covers(bound: SocketAddr, local: SocketAddr) -> bool {
    bound.ip() == local.ip() || (bound.ip().is_unspecified() && bound.is_ipv4() == local.is_ipv4())
}

/// Serves until told to stop, then drains for at most `[edge] drain` and returns. To be run on a current-thread
/// runtime of its own; every task it starts lives on that runtime.
pub async fn run_worker(shared: Arc<Shared>, index: usize, mut orders: mpsc::UnboundedReceiver<WorkerOrder>) {
    let worker = Worker::new(shared, index);
    tokio::spawn(Arc::clone(&worker).follow());
    let mut listening: Vec<(String, SocketAddr, oneshot::Sender<()>)> = Vec::new();
    while let Some(order) = orders.recv().await {
        match order {
            WorkerOrder::Listen { socket, listener } => {
                let (stop, stopped) = oneshot::channel();
                match crate::listener::start(&worker, socket, &listener, stopped) {
                    Ok(address) => listening.push((listener.name.clone(), address, stop)),
                    Err(error) => tracing::error!(listener = %listener.name, %error, "cannot accept here"),
                }
            }
            WorkerOrder::Close { listener, address } => {
                listening.retain(|(name, bound, _)| *name != listener || *bound != address);
                worker.drain_clients(Some(address));
            }
            WorkerOrder::Leave => {
                worker.leaving.store(true, Relaxed);
                listening.clear();
            }
            WorkerOrder::Stop => break,
        }
    }
    worker.draining.send_replace(true);
    drop(listening);
    worker.drain_clients(None);
    worker.connections.drain_all();
    let limit = worker.shared.snapshot.load().config.edge.drain;
    tokio::select! {
        () = all_gone(&worker) => {}
        () = tokio::time::sleep(limit) => tracing::warn!(left = worker.live.load(Relaxed), "drain time is over: closing what is left"),
        () = told_again(&mut orders) => {}
    }
}

/// Until a second [`WorkerOrder::Stop`] comes, or nobody is left to give one.
async fn told_again(orders: &mut tokio::sync::mpsc::UnboundedReceiver<WorkerOrder>) {
    while let Some(order) = orders.recv().await {
        if matches!(order, WorkerOrder::Stop) {
            return;
        }
    }
}

async fn all_gone(worker: &Worker) {
    while worker.live.load(Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
