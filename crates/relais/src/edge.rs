//! A running edge, as the program that started it holds it.
//!
//! Everything an operator can say through the admin socket can be said here; both end in the same control loop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use arc_swap::ArcSwap;
use relais_control::{AdminReply, Handle, Refusal, Status, Verdict};
use relais_core::config::ListenerProtocol;
use relais_core::{Admin, Snapshot};
use relais_store::Store;

use crate::builder::{EdgeBuilder, Plan};
use crate::error::StartError;
use crate::phase::{Life, Phase};
use crate::sockets::SharedSockets;
use crate::start;
use crate::threads::Threads;
use crate::wait::block_on;

/// A running edge. Dropping it stops it at once; [`Edge::stop`] lets requests finish.
///
/// Its methods block the calling thread for as long as the control loop needs to answer; they may be called from
/// inside any runtime. [`Edge::handle`] gives the same orders as futures.
#[derive(Debug)]
pub struct Edge {
    pub(crate) life: Life,
    pub(crate) handle: Handle,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) store: Arc<Store>,
    pub(crate) sockets: SharedSockets,
    pub(crate) threads: Threads,
}

/// One address an edge accepts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAddress {
    /// `[listener.NAME]`.
    pub listener: String,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// The address, with its real port.
    pub address: SocketAddr,
}

/// The control loop panicked: the edge ended without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crashed;

impl std::fmt::Display for Crashed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("relais ended by a fault of its own; the log names it")
    }
}

impl std::error::Error for Crashed {}

impl Edge {
    /// Asks for an edge.
    pub fn builder() -> EdgeBuilder {
        EdgeBuilder::new()
    }

    pub(crate) fn start(plan: Plan) -> Result<Edge, StartError> {
        start::start(plan)
    }

    /// What is accepted on, in file order, with real ports where the config says 0.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<LocalAddress> {
        self.sockets.lock().local_addresses()
    }

    /// What `relais status` shows.
    ///
    /// # Errors
    /// When the edge is stopping.
    pub fn status(&self) -> Result<Status, Refusal> {
        block_on(self.handle.status())
    }

    /// The picture workers serve from now, with its live counters.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Lets `target` (`SITE` or `SERVICE/ADDRESS`) finish what it has and gives it nothing new.
    ///
    /// # Errors
    /// When there is no such target, or the edge is stopping.
    pub fn drain(&self, target: &str) -> Result<AdminReply, Refusal> {
        self.admin(target, Admin::Draining, None)
    }

    /// Gives `target` traffic again.
    ///
    /// # Errors
    /// When there is no such target, or the edge is stopping.
    pub fn enable(&self, target: &str) -> Result<AdminReply, Refusal> {
        self.admin(target, Admin::Enabled, None)
    }

    /// The operator's word about `target`, with a reason. Returns when every worker can see it; it survives reloads
    /// and restarts.
    ///
    /// # Errors
    /// When there is no such target, or the edge is stopping.
    pub fn admin(&self, target: &str, word: Admin, reason: Option<String>) -> Result<AdminReply, Refusal> {
        block_on(self.handle.admin(target, word, reason))
    }

    /// Reads the config file again. A bad file changes nothing; the verdict says why.
    ///
    /// # Errors
    /// When the edge is stopping.
    pub fn reload(&self) -> Result<Verdict, Refusal> {
        block_on(self.handle.reload(false))
    }

    /// The same orders as futures, from any task or thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Gets ready for a successor: another process that accepts on the same sockets, which are given here, and remembers in the
    /// same state directory, which this one lets go of. It serves on all the same, and remembers in memory. Waits for the disk, up
    /// to 20 s.
    ///
    /// # Errors
    /// When the edge is stopping, the limit of open files is reached, or the disk holds the state directory: nothing has changed
    /// then.
    pub fn prepare_successor(&self) -> io::Result<Vec<TcpListener>> {
        if self.life.is_at(Phase::Draining) {
            return Err(io::Error::other("the edge is stopping"));
        }
        let sockets = self.sockets.lock().copies()?;
        if self.store.let_go() {
            return Ok(sockets);
        }
        self.succeed_myself();
        Err(io::Error::other("the disk of the state directory does not answer"))
    }

    /// There is no successor after all: the state directory is this edge's again. `false`: it is not, and the log says why. Not
    /// to be called once it serves.
    pub fn succeed_myself(&self) -> bool {
        self.store.take_again()
    }

    /// A successor serves: begins to drain, and leaves the listening sockets, the admin socket and the metrics listener to it.
    ///
    /// # Errors
    /// When the edge has ended.
    pub fn yield_to_successor(&self) -> Result<(), Refusal> {
        if !self.life.is_at(Phase::Draining) {
            self.sockets.leave();
        }
        self.begin_stop();
        block_on(self.handle.make_way())
    }

    /// Resolves when the edge begins to stop, for whatever reason.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        self.life.reached(Phase::Draining)
    }

    /// Begins to drain: nothing new is accepted, what is in flight may finish within `[edge] drain`. Returns at once.
    pub fn begin_stop(&self) {
        self.life.advance(Phase::Draining);
    }

    /// Cuts what is still in flight. Returns at once.
    pub fn cut(&self) {
        self.life.advance(Phase::Cutting);
    }

    /// Resolves when the edge has ended, for whatever reason.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.life.reached(Phase::Ended)
    }

    /// Drains and stops; takes `[edge] drain` and two seconds at most.
    ///
    /// # Errors
    /// When the control loop had panicked.
    pub fn stop(self) -> Result<(), Crashed> {
        self.begin_stop();
        self.wait()
    }

    /// Waits until the edge has ended: by `POST /stop`, [`Edge::begin_stop`] or a fault of its own.
    ///
    /// # Errors
    /// When the control loop had panicked.
    pub fn wait(mut self) -> Result<(), Crashed> {
        self.threads.join()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.cut();
        // A crash was logged where it happened.
        let _ = self.threads.join();
    }
}
