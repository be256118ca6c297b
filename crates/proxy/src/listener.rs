//! Accepting connections: one socket of one worker. Never spins, never dies: when file descriptors or connections
//! run out it pauses and says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relais_core::config::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::connection::Open;
use crate::worker::Worker;

/// How long accepting pauses when file descriptors or connections ran out.
const PAUSE: Duration = Duration::from_millis(50);

/// Starts accepting on a socket, until the sender of `stop` is dropped.
///
/// # Errors
/// When the socket cannot be watched by this worker's runtime.
pub(crate) fn start(
    worker: &Arc<Worker>,
    socket: std::net::TcpListener,
    listener: &Arc<Listener>,
    stop: oneshot::Receiver<()>,
) -> std::io::Result<SocketAddr> {
    socket.set_nonblocking(true)?;
    let socket = TcpListener::from_std(socket)?;
    let address = socket.local_addr()?;
    let (worker, listener) = (Arc::clone(worker), Arc::clone(listener));
    tokio::spawn(async move {
        let mut accepting = Accepting { worker, listener, socket, held: None, complained: None };
        tokio::select! {
            () = accepting.run() => {}
            _ = stop => accepting.empty_queue(),
        }
    });
    Ok(address)
}

struct Accepting {
    worker: Arc<Worker>,
    listener: Arc<Listener>,
    socket: TcpListener,
    /// Accepted, and waiting for room: whether there is some is known only now, `accept` may have waited long.
    held: Option<(TcpStream, SocketAddr)>,
    /// When a pause was last logged.
    complained: Option<Instant>,
}

impl Accepting {
    async fn run(&mut self) {
        loop {
            match self.socket.accept().await {
                Ok(accepted) => {
                    self.held = Some(accepted);
                    self.wait_for_room().await;
                    self.serve_held();
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    self.complain(&format!("accept failed: {error}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn serve_held(&mut self) {
        if let Some((stream, peer)) = self.held.take() {
            self.serve(stream, peer);
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let live = self.worker.live();
        // Counted before the task runs, so that the next look knows of it.
        let open = Open::new(&self.worker.shared.snapshot.load().stats);
        let (worker, listener) = (Arc::clone(&self.worker), Arc::clone(&self.listener));
        tokio::spawn(async move {
            let _live = live;
            crate::connection::serve(&worker, listener, stream, peer, open).await;
        });
    }

    /// Waits while as many connections are open as allowed: the kernel's queue holds the rest.
    async fn wait_for_room(&mut self) {
        loop {
            let snapshot = self.worker.shared.snapshot.load_full();
            let limit = snapshot.config.edge.limit.connections.unwrap_or(self.worker.shared.max_connections);
            if snapshot.stats.open.get() < limit as u64 {
                return;
            }
            self.complain("all allowed connections are in use");
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn complain(&mut self, what: &str) {
        self.worker.shared.snapshot.load().stats.accept_paused.inc();
        if self.complained.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
            self.complained = Some(Instant::now());
            tracing::error!(listener = %self.listener.name, "{what}: new connections wait in the kernel's queue");
        }
    }

    /// The listener is going: what already waits in its queue is served, not reset.
    fn empty_queue(&mut self) {
        self.serve_held();
        while let Some(Ok((stream, peer))) = futures_util::FutureExt::now_or_never(self.socket.accept()) {
            self.serve(stream, peer);
        }
    }
}

/// Errors that `accept` passes on from one connection, not from the socket.
fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}
