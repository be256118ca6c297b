//! The control loop: one task that owns the fleet, hears everything and does what the fleet says. Decides nothing
//! itself: what happened goes in as an event, what must be done comes out as an effect.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::iter;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use relais_config::{Config, Secret};
use relais_core::{Anchor, DrillEnd, Effect, Event, Fleet, Instant, Snapshot};
use relais_store::Store;
use relais_tls::CertStore;
use tokio::sync::{mpsc, watch::Sender};
use tokio::time::sleep_until;

use crate::alarm::{AlarmReport, Alarms};
use crate::apply::Current;
use crate::certs::{self, Certs};
use crate::edges::Edges;
use crate::errands::Errands;
use crate::handle::{Handle, Request};
use crate::loading::{Finished, Loading};
use crate::probe::{Probed, Probes};
use crate::setup::{ListenerHooks, SetLogLevel, Setup, UpgradeOrders};
use crate::succession::Succession;
use crate::watch::{self, Change};

/// Events of workers, or results of probes, taken in one go before anything is published: a burst costs one snapshot,
/// not one each.
const BATCH: usize = 256;
/// Requests that may wait for the loop.
const REQUESTS: usize = 64;
/// Pause before certificates are looked at again after their own due time, whatever came of it.
const CERTIFICATE_PAUSE: Duration = Duration::from_secs(60);
/// Longest wait for the store at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// Why [`Control::run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The caller's future resolved.
    ByCaller,
    /// `POST /stop` or [`Handle::stop`].
    ByRequest,
}

/// The loop and everything it owns. To be run on a thread and runtime of its own.
pub struct Control {
    pub(crate) fleet: Fleet,
    /// Effects of the fleet's birth, carried out when the loop starts: probes need a runtime.
    pub(crate) birth: Vec<Effect>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) changed: Sender<u64>,
    pub(crate) anchor: Anchor,
    pub(crate) probes: Probes,
    pub(crate) errands: Errands,
    pub(crate) acme: Certs,
    pub(crate) store: Arc<Store>,
    pub(crate) succession: Succession,
    pub(crate) certs: Arc<CertStore>,
    pub(crate) certs_not_before: Instant,
    pub(crate) keep_files: Box<dyn Fn(Secret) + Send>,
    pub(crate) listeners: ListenerHooks,
    pub(crate) set_log_level: SetLogLevel,
    pub(crate) upgrades: Option<UpgradeOrders>,
    pub(crate) log_lines_dropped: Option<Box<dyn Fn() -> u64 + Send + Sync>>,
    pub(crate) log_level: String,
    pub(crate) identity: Identity,
    pub(crate) current: Current,
    pub(crate) loading: Loading,
    pub(crate) alarms: Alarms,
    pub(crate) edges: Edges,
    /// A first `run` has returned: workers drain, and a reload would open listeners again.
    pub(crate) stopping: bool,
    handle: Handle,
    inbox: Inbox,
}

/// What does not change while the process lives.
pub(crate) struct Identity {
    pub(crate) config_path: Option<PathBuf>,
    pub(crate) state_dir: PathBuf,
    pub(crate) admin_socket: PathBuf,
    pub(crate) started: Instant,
    /// The config of the start: some settings wait for the next one.
    pub(crate) started_with: Arc<Config>,
    /// What is doubtful about how the process was started.
    pub(crate) standing_warnings: Vec<String>,
}

/// Everything the loop can hear, besides its own probes and disk work.
struct Inbox {
    events: mpsc::Receiver<Event>,
    workers_gone: bool,
    requests: mpsc::Receiver<Request>,
    changes: mpsc::Receiver<Change>,
    alarms: mpsc::UnboundedReceiver<AlarmReport>,
}

/// One thing heard.
enum Heard {
    Event(Event),
    WorkersGone,
    Probed(Probed),
    Request(Request),
    Changed(Change),
    Alarm(AlarmReport),
    Loaded(Finished),
    Certificate(Box<certs::Done>),
    Time,
}

impl Control {
    /// Builds the fleet from the config and what the store remembers, and publishes the first snapshot. Needs no
    /// runtime: probes start with [`Control::run`].
    #[must_use]
    pub fn new(setup: Setup, now: Instant) -> (Control, Arc<ArcSwap<Snapshot>>) {
        let saved = setup.store.load();
        // Jitter must differ between edges that start together.
        let seed = RandomState::new().build_hasher().finish();
        let mut fleet = Fleet::new(Arc::clone(&setup.config), saved, now, seed);
        fleet.allow_probes(setup.most_probes);
        // What the store has is served before anything is accepted, and not ordered.
        certs::serve_all(&setup.store, &setup.certs);
        fleet.handle_event(Event::Inventory(certs::inventory(&setup.store, setup.certs.covered())), now);
        let birth: Vec<Effect> = std::iter::from_fn(|| fleet.poll_effect()).collect();
        let Some(first) = crate::effects::newest(&birth) else {
            unreachable!("a new fleet publishes its first snapshot")
        };
        setup.changed.send_replace(first.generation);
        let snapshot = Arc::new(ArcSwap::new(first));
        let (requests, asked) = mpsc::channel(REQUESTS);
        let (changes, seen) = mpsc::channel(1);
        let (alarms, raised) = mpsc::unbounded_channel();
        let current = Current::at_start(&setup, snapshot.load().generation, now);
        let edges = Edges::new(&setup, current.targets(setup.config_path.as_deref()), changes, alarms);
        let succession = Succession::new(&setup.store);
        let mut control = Control {
            fleet,
            birth,
            snapshot: Arc::clone(&snapshot),
            changed: setup.changed,
            anchor: setup.anchor,
            probes: Probes::new(Arc::clone(&setup.certs)),
            errands: Errands::new(&setup.config.edge.nameservers),
            acme: Certs::new(&setup.store, &setup.certs, succession.clone(), now),
            store: setup.store,
            succession,
            certs: setup.certs,
            certs_not_before: now,
            keep_files: setup.keep_files,
            listeners: setup.listeners,
            set_log_level: setup.set_log_level,
            upgrades: setup.upgrades,
            log_lines_dropped: setup.log_lines_dropped,
            log_level: setup.config.log.level.clone(),
            identity: Identity {
                config_path: setup.config_path,
                state_dir: setup.state_dir,
                admin_socket: setup.admin_socket,
                started: now,
                started_with: setup.config,
                standing_warnings: Vec::new(),
            },
            current,
            loading: Loading::default(),
            alarms: Alarms::default(),
            edges,
            stopping: false,
            handle: Handle::new(requests),
            inbox: Inbox { events: setup.events, workers_gone: false, requests: asked, changes: seen, alarms: raised },
        };
        control.certificates_are_damaged(&setup.damaged);
        (control, snapshot)
    }

    /// Speaks to this loop from elsewhere.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Works until `stop` resolves or a stop is requested. May be called again, so that checks, failover and the
    /// admin socket go on while workers drain.
    pub async fn run(&mut self, stop: impl Future<Output = ()>) -> Ended {
        self.warn_of_mount();
        self.edges.open(&self.handle);
        let birth = std::mem::take(&mut self.birth);
        if !birth.is_empty() {
            self.acme.begin(&self.identity.started_with);
            self.errands.follow_tunnels();
        }
        self.carry_out(birth);
        let mut stop = pin!(stop);
        loop {
            let heard = tokio::select! {
                () = &mut stop => {
                    self.begin_stopping();
                    return Ended::ByCaller;
                }
                heard = self.hear() => heard,
            };
            if let Some(ended) = self.take(heard) {
                self.begin_stopping();
                return ended;
            }
        }
    }

    /// From now on workers drain: no new files, and no drill.
    fn begin_stopping(&mut self) {
        self.stopping = true;
        let now = self.now();
        self.fleet.end_drill(DrillEnd::Stop, now);
        self.flush();
    }

    /// Ends the edges in order: open answers go out, the store is flushed, the admin socket is removed.
    pub async fn close(mut self) {
        // Who still asks is told at once that nobody is left, instead of holding its connection open.
        drop(self.inbox);
        self.edges.close().await;
        drop(self.probes);
        let store = Arc::clone(&self.store);
        let flushed = tokio::task::spawn_blocking(move || store.flush());
        if tokio::time::timeout(FLUSH, flushed).await.is_err() {
            tracing::error!("the store did not finish writing in {} s: ending without it", FLUSH.as_secs());
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.anchor.at(std::time::Instant::now())
    }

    /// The next thing. Dropping the wait loses nothing.
    async fn hear(&mut self) -> Heard {
        let wake = self.fleet.poll_timeout().into_iter().chain(self.certs_due()).chain([self.acme.due()]).min();
        let wake_at = wake.map_or_else(std::time::Instant::now, |at| self.anchor.monotonic(at));
        let inbox = &mut self.inbox;
        tokio::select! {
            event = inbox.events.recv(), if !inbox.workers_gone => event.map_or(Heard::WorkersGone, Heard::Event),
            probed = self.probes.next() => Heard::Probed(probed),
            answer = self.errands.next() => Heard::Event(answer),
            Some(request) = inbox.requests.recv() => Heard::Request(request),
            Some(change) = inbox.changes.recv() => Heard::Changed(change),
            Some(report) = inbox.alarms.recv() => Heard::Alarm(report),
            finished = self.loading.finished() => Heard::Loaded(finished),
            done = self.acme.next() => Heard::Certificate(Box::new(done)),
            () = sleep_until(wake_at.into()), if wake.is_some() => Heard::Time,
        }
    }

    /// A file mounted by itself keeps its old inode when it is replaced on the other side: no watcher can see that.
    fn warn_of_mount(&mut self) {
        let Some(path) = self.identity.config_path.as_deref().filter(|path| watch::is_mount_point(path)) else {
            return;
        };
        let message = format!(
            "{} is a mount point of its own: {}",
            path.display(),
            "a file put in its place outside is never seen here; mount the directory, not the file",
        );
        if !self.identity.standing_warnings.contains(&message) {
            tracing::warn!("{message}");
            self.identity.standing_warnings.push(message);
        }
    }

    fn take(&mut self, heard: Heard) -> Option<Ended> {
        match heard {
            Heard::Event(event) => {
                let (now, inbox) = (self.now(), &mut self.inbox.events);
                let more = std::iter::from_fn(|| inbox.try_recv().ok());
                self.fleet.handle_events(iter::once(event).chain(more).take(BATCH), now);
            }
            Heard::WorkersGone => self.inbox.workers_gone = true,
            Heard::Probed(probed) => {
                let (now, probes) = (self.now(), &mut self.probes);
                let more = std::iter::from_fn(|| probes.try_next());
                self.fleet.handle_events(iter::once(probed).chain(more).take(BATCH).flat_map(Probed::events), now);
            }
            Heard::Request(Request::Stop(reply)) => {
                tracing::info!("stop requested");
                // Whoever asked may have hung up: the stop holds all the same.
                let _ = reply.send(());
                return Some(Ended::ByRequest);
            }
            Heard::Request(request) => self.answer(request),
            Heard::Changed(change) => self.file_changed(change),
            Heard::Alarm(report) => {
                let now = self.now();
                self.alarms.take(report, now);
            }
            Heard::Loaded(finished) => self.loaded(finished),
            Heard::Certificate(done) => self.certificate_done(*done),
            Heard::Time => self.time_passed(),
        }
        self.flush();
        None
    }

    fn time_passed(&mut self) {
        let now = self.now();
        if self.fleet.poll_timeout().is_some_and(|due| due <= now) {
            self.fleet.handle_timeout(now);
        }
        if self.certs_due().is_some_and(|due| due <= now) {
            self.certificates_again(now);
        }
        if self.acme.due() <= now {
            self.look_at_certificates();
        }
    }

    /// Reads and makes certificates although no file changed, and not again for a while, whatever comes of it.
    pub(crate) fn certificates_again(&mut self, now: Instant) {
        self.certs_not_before = now + CERTIFICATE_PAUSE;
        self.renew_certificates();
    }

    /// When certificates want to be looked at although no file changed.
    fn certs_due(&self) -> Option<Instant> {
        self.certs.next_change().map(|at| at.max(self.certs_not_before))
    }
}
