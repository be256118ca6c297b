//! The threads of an edge: one for control, one per worker, each with a runtime of its own, fixed for life.
//!
//! Control stays alive while workers drain, so that checks and failover go on to the last request.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use relais_control::Control;
use relais_proxy::{Shared, WorkerOrder};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender};

use crate::edge::Crashed;
use crate::phase::{Life, Phase};
use crate::sockets::SharedSockets;

/// What workers may take beyond the drain time before they are cut: their own clocks end it first.
const GRACE: Duration = Duration::from_secs(2);

/// What the control thread needs to end the process's work in order.
pub(crate) struct Ending {
    pub(crate) life: Life,
    pub(crate) sockets: SharedSockets,
    pub(crate) orders: Vec<UnboundedSender<WorkerOrder>>,
    /// Closed when the last worker is done.
    pub(crate) workers: Receiver<Infallible>,
    /// `[edge] drain` of the running config.
    pub(crate) drain: Box<dyn Fn() -> Duration + Send>,
}

/// The threads of one edge, to be joined.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    pub(crate) control: Option<JoinHandle<Result<(), Crashed>>>,
    pub(crate) workers: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Waits for all of them. A second call returns at once.
    pub(crate) fn join(&mut self) -> Result<(), Crashed> {
        let control = self.control.take().map_or(Ok(()), |thread| thread.join().unwrap_or(Err(Crashed)));
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker thread ended by a panic");
            }
        }
        control
    }
}

/// A runtime for one thread.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Starts worker `index`. `alive` is dropped when it is done.
pub(crate) fn spawn_worker(
    index: usize,
    shared: Arc<Shared>,
    orders: UnboundedReceiver<WorkerOrder>,
    life: &Life,
    alive: Sender<Infallible>,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    let cut = life.reached(Phase::Cutting);
    std::thread::Builder::new().name(format!("relais-worker-{index}")).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = relais_proxy::run_worker(shared, index, orders) => {}
                () = cut => {}
            }
        });
        // Cuts what is still open before saying that it is done.
        drop(runtime);
        drop(alive);
    })
}

/// Starts the control thread: it serves until told to stop, then drains the workers and closes.
pub(crate) fn spawn_control(control: Control, mut ending: Ending) -> io::Result<JoinHandle<Result<(), Crashed>>> {
    let runtime = runtime()?;
    std::thread::Builder::new().name("relais-control".to_owned()).spawn(move || {
        let lived = catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(control, &mut ending))));
        if lived.is_err() {
            // Without control nothing fails over: better to end in order and be started again than to serve blindly.
            tracing::error!("the control loop panicked: draining and stopping, so that relais is started afresh");
            runtime.block_on(drain(&mut ending));
        }
        ending.life.advance(Phase::Ended);
        lived.map_err(|_| Crashed)
    })
}

async fn live(mut control: Control, ending: &mut Ending) {
    control.run(ending.life.reached(Phase::Draining)).await;
    control.run(drain(ending)).await;
    control.close().await;
}

/// Stops accepting, lets the workers finish, cuts those that do not.
async fn drain(ending: &mut Ending) {
    ending.life.advance(Phase::Draining);
    ending.sockets.release();
    for worker in &ending.orders {
        // A worker that is gone needs no order.
        let _ = worker.send(WorkerOrder::Stop);
    }
    let limit = (ending.drain)() + GRACE;
    let cut = ending.life.reached(Phase::Cutting);
    tokio::select! {
        _ = ending.workers.recv() => return,
        () = cut => {}
        () = tokio::time::sleep(limit) => tracing::warn!("not drained after {} s: cutting what is left", limit.as_secs()),
    }
    ending.life.advance(Phase::Cutting);
    let _ = ending.workers.recv().await;
}
