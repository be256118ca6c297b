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
use relais_core::config::Config;
use relais_core::{Anchor, Snapshot};
use relais_proxy::Shared;
use relais_store::Store;
use relais_tls::CertStore;
use tokio::sync::{mpsc, watch};

use crate::builder::Plan;
use crate::edge::Edge;
use crate::error::StartError;
use crate::limits;
use crate::phase::{Life, Phase};
use crate::sockets::SharedSockets;
use crate::threads::{self, Ending, Threads};

/// Events workers may have under way to control; more are dropped and counted.
const EVENTS: usize = 8192;

/// Bytes of the key that signs sticky cookies.
const STICKY_KEY: usize = 32;

/// Everything but the config, which the plan holds.
pub(crate) fn start(plan: Plan) -> Result<Edge, StartError> {
    let config = Arc::new(plan.parsed.config);
    make_dir(&plan.state_dir, 0o700);
    if let Some(parent) = plan.admin_socket.parent() {
        make_dir(parent, 0o755);
    }
    let store = Arc::new(Store::open(&plan.state_dir));
    let certs = CertStore::load(&config, &plan.state_dir).map_err(StartError::Certificates)?;
    let certs = CertStore::new(certs);
    let anchor = Anchor::new(Instant::now(), SystemTime::now());
    let sticky_key: Arc<[u8]> = store.secret("sticky", STICKY_KEY).into();

    let (orders, inboxes): (Vec<_>, Vec<_>) = (0..workers(&config)).map(|_| mpsc::unbounded_channel()).unzip();
    let sockets = SharedSockets::new(orders.clone());
    let (events, reported) = mpsc::channel(EVENTS);
    let (changed, watched) = watch::channel(0);
    let log = plan.log.map(|log| (log.set_level, log.dropped));
    let (set_log_level, log_lines_dropped) = match log {
        Some((set_level, dropped)) => (set_level, Some(dropped)),
        None => (Box::new(|_: &str| Err(NO_LEVEL.to_owned())) as _, None),
    };
    let remembered = plan.config_path.is_some().then(|| (Arc::clone(&store), plan.text.clone()));
    let setup = Setup {
        config_path: plan.config_path,
        text: plan.text,
        config: Arc::clone(&config),
        warnings: plan.parsed.warnings,
        files: plan.parsed.files,
        store,
        certs: Arc::clone(&certs),
        state_dir: plan.state_dir,
        changed,
        events: reported,
        anchor,
        listeners: sockets.hooks(),
        set_log_level,
        log_lines_dropped,
        admin_socket: plan.admin_socket,
    };
    let (control, snapshot) = Control::new(setup, anchor.at(Instant::now()));
    sockets.lock().prepare(&config).map_err(StartError::Listeners)?;
    let max_connections = limits::connections(limits::open_files());
    let shared = Arc::new(Shared {
        snapshot: Arc::clone(&snapshot),
        changed: watched,
        events,
        anchor,
        certs,
        sticky_key,
        max_connections,
    });
    let handle = control.handle();
    let life = Life::new();
    let (alive, workers) = mpsc::channel::<Infallible>(1);
    let mut threads = Threads::default();
    // From here on an early return must end what runs already: `Threads` does not end by itself.
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let spawned = threads::spawn_worker(index, Arc::clone(&shared), inbox, &life, alive.clone());
        threads.workers.push(spawned.map_err(|error| give_up(&life, "cannot start a worker thread", error))?);
    }
    drop(alive);
    let ending = Ending { life: life.clone(), sockets: sockets.clone(), orders, workers, drain: drain_of(&snapshot) };
    let spawned = threads::spawn_control(control, ending);
    threads.control = Some(spawned.map_err(|error| give_up(&life, "cannot start the control thread", error))?);
    sockets.lock().commit();
    if let Some((store, text)) = remembered {
        // It serves: from now on this is the config to fall back on.
        store.save_config(&text);
    }
    Ok(Edge { life, handle, snapshot, sockets, threads })
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

fn give_up(life: &Life, doing: &'static str, error: std::io::Error) -> StartError {
    life.advance(Phase::Cutting);
    StartError::System { doing, error }
}

/// Makes a directory with its parents. Failing is no reason not to serve: who needs it says so.
fn make_dir(path: &Path, mode: u32) {
    if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path) {
        tracing::warn!("cannot make the directory {}: {error}", path.display());
    }
}
