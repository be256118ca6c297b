//! The start of an edge, in order: store, certificates, fleet, first snapshot, sockets, threads.
//!
//! The config is parsed already. Nothing accepts a connection before the first snapshot is published.

use std::convert::Infallible;
use std::num::NonZero;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use relais_control::{Control, Setup};
use relais_core::config::{Config, Secret};
use relais_core::{Anchor, Snapshot};
use relais_proxy::{Shared, Spools, WorkerOrder};
use relais_store::Store;
use relais_tls::{CertStore, Loaded, Tickets};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{mpsc, watch};

use crate::builder::Plan;
use crate::edge::Edge;
use crate::error::StartError;
use crate::limits;
use crate::phase::Life;
use crate::sockets::SharedSockets;
use crate::threads::{self, Ending, Threads};

/// Events workers may have under way to control; more are dropped and counted.
const EVENTS: usize = 8192;

/// Bytes of the key that signs sticky cookies.
const STICKY_KEY: usize = 32;

/// The name under which the store keeps the keys of session tickets.
const TICKETS: &str = "tickets";
/// The name under which it keeps what certificate files held.
const FILES: &str = "certificate-files";

/// Everything but the config, which the plan holds.
pub(crate) fn start(plan: Plan) -> Result<Edge, StartError> {
    relais_tls::warm_up();
    let remembered = plan.config_path.is_some().then(|| plan.text.clone());
    announce(&plan);
    let config = Arc::new(plan.parsed.config);
    make_dir(&plan.state_dir, 0o700);
    if let Some(parent) = plan.admin_socket.parent() {
        make_dir(parent, 0o755);
    }
    // Keys are in the copies: they are kept for whom wants them alone.
    let unwanted: &[&str] = if plan.last_good { &[] } else { &[FILES] };
    let store = Arc::new(Store::begin_without(&plan.state_dir, unwanted));
    let loaded = certificates(&config, &plan.state_dir, &store, plan.last_good)?;
    let damaged = loaded.damaged().to_vec();
    let keep_files = keeper_of_files(&store, plan.last_good);
    keep_files(loaded.copies());
    let certs = CertStore::new(loaded, tickets(&store));
    let anchor = Anchor::new(Instant::now(), SystemTime::now());
    let spools = Spools::new(&plan.state_dir);
    let sticky_key: Arc<[u8]> = store.secret("sticky", STICKY_KEY).into();
    let (orders, inboxes): (Vec<_>, Vec<_>) = (0..workers(&config)).map(|_| mpsc::unbounded_channel()).unzip();
    let sockets = SharedSockets::new(orders.clone(), plan.inherited);
    let (events, reported) = mpsc::channel(EVENTS);
    let (changed, watched) = watch::channel(0);
    let (set_log_level, log_lines_dropped) = match plan.log {
        Some(log) => (log.set_level, Some(log.dropped)),
        None => (Box::new(|_: &str| Err(NO_LEVEL.to_owned())) as _, None),
    };
    let setup = Setup {
        config_path: plan.config_path,
        text: plan.text,
        config: Arc::clone(&config),
        warnings: plan.parsed.warnings,
        files: plan.parsed.files,
        store: Arc::clone(&store),
        certs: Arc::clone(&certs),
        damaged,
        keep_files,
        state_dir: plan.state_dir,
        changed,
        events: reported,
        anchor,
        listeners: sockets.hooks(),
        set_log_level,
        upgrades: plan.upgrades,
        log_lines_dropped,
        most_probes: limits::probes(limits::open_files()),
        admin_socket: plan.admin_socket,
    };
    let (control, snapshot) = Control::new(setup, anchor.at(Instant::now()));
    sockets.lock().prepare(&config).map_err(StartError::Listeners)?;
    let max_connections = limits::connections(limits::open_files());
    let shared = Shared { snapshot, changed: watched, events, anchor, certs, sticky_key, spools, max_connections };
    let edge = spawn(control, &Arc::new(shared), Arc::clone(&store), sockets, orders, inboxes)?;
    edge.sockets.lock().commit();
    for at in edge.local_addresses() {
        tracing::info!(listener = at.listener, address = %at.address, "listening");
    }
    if let Some(text) = remembered {
        // It serves: from now on this is the config to fall back on.
        store.save_config(&text);
    }
    Ok(edge)
}

/// Says what starts from where, and what is doubtful about the config.
fn announce(plan: &Plan) {
    let config = plan.config_path.as_deref().unwrap_or(Path::new("(embedded)")).display();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        %config,
        state_dir = %plan.state_dir.display(),
        admin_socket = %plan.admin_socket.display(),
        workers = workers(&plan.parsed.config),
        "starting"
    );
    for warning in &plan.parsed.warnings {
        let help = warning.help.as_deref().unwrap_or_default();
        tracing::warn!(help, "{config}:{}:{}: {}", warning.line, warning.column, warning.message);
    }
}

/// Starts the threads. Nothing is left running when one cannot be started.
fn spawn(
    control: Control,
    shared: &Arc<Shared>,
    store: Arc<Store>,
    sockets: SharedSockets,
    orders: Vec<UnboundedSender<WorkerOrder>>,
    inboxes: Vec<UnboundedReceiver<WorkerOrder>>,
) -> Result<Edge, StartError> {
    let (alive, workers) = mpsc::channel::<Infallible>(1);
    // Dropped on an early return: it ends and joins what runs already.
    let mut edge = Edge {
        life: Life::new(),
        handle: control.handle(),
        snapshot: Arc::clone(&shared.snapshot),
        store,
        sockets,
        threads: Threads::default(),
    };
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let spawned = threads::spawn_worker(index, Arc::clone(shared), inbox, &edge.life, alive.clone());
        edge.threads.workers.push(spawned.map_err(|error| system("cannot start a worker thread", error))?);
    }
    drop(alive);
    let ending = Ending {
        life: edge.life.clone(),
        sockets: edge.sockets.clone(),
        orders,
        workers,
        drain: drain_of(&edge.snapshot),
    };
    let spawned = threads::spawn_control(control, ending);
    edge.threads.control = Some(spawned.map_err(|error| system("cannot start the control thread", error))?);
    Ok(edge)
}

/// Reads the certificates, and tells what is doubtful about them.
fn certificates(config: &Config, state_dir: &Path, store: &Store, past_damage: bool) -> Result<Loaded, StartError> {
    let loaded = match past_damage {
        true => {
            let copies = store.known_secret(FILES).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
            CertStore::load_what_can_be(config, state_dir, &Secret::new(&copies))
        }
        false => CertStore::load(config, state_dir).map_err(StartError::Certificates)?,
    };
    for warning in loaded.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

/// Keeps what certificate files hold for a start that finds one damaged; otherwise nothing of them.
fn keeper_of_files(store: &Arc<Store>, wanted: bool) -> Box<dyn Fn(Secret) + Send> {
    let store = Arc::clone(store);
    Box::new(move |copies| {
        if wanted {
            store.keep_secret(FILES, copies.expose().as_bytes());
        }
    })
}

/// Keys of session tickets, across restarts.
fn tickets(store: &Arc<Store>) -> Arc<Tickets> {
    let kept = store.known_secret(TICKETS).unwrap_or_default();
    let keeper = Arc::clone(store);
    Tickets::new(&kept, Box::new(move |keys| keeper.keep_secret(TICKETS, keys)))
}

const NO_LEVEL: &str = "logging belongs to the program that embeds relais: set its level there";

/// `[edge] workers`, else one per core.
fn workers(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    config.edge.workers.unwrap_or_else(cores).max(1)
}

/// `[edge] drain` of whatever config runs when it is asked.
fn drain_of(snapshot: &Arc<ArcSwap<Snapshot>>) -> Box<dyn Fn() -> Duration + Send> {
    let snapshot = Arc::clone(snapshot);
    Box::new(move || snapshot.load().config.edge.drain)
}

fn system(doing: &'static str, error: std::io::Error) -> StartError {
    StartError::System { doing, error }
}

/// Makes a directory with its parents. Failing is no reason not to serve: who needs it says so.
fn make_dir(path: &Path, mode: u32) {
    if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path) {
        tracing::warn!("cannot make the directory {}: {error}", path.display());
    }
}
