//! Accepting connections: one socket of one worker. Never spins, never dies: when file descriptors or connections
//! run out it pauses and says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relais_core::config::Listener;
use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::conn_state::LAST_CALL;
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
    let socket = prepared(socket)?;
    let address = socket.local_addr()?;
    // Held until the queue is empty: what waits in it is part of what is in flight.
    let live = worker.live();
    let (worker, listener) = (Arc::clone(worker), Arc::clone(listener));
    tokio::spawn(async move {
        let _live = live;
        let mut accepting = Accepting { worker, listener, socket, held: None, complained: None };
        tokio::select! {
            () = accepting.run() => {}
            _ = stop => {}
        }
        if accepting.worker.is_leaving() {
            return accepting.serve_held();
        }
        if accepting.worker.is_draining() {
            // Clients that our kernel has answered believe to be connected: those are still taken.
            take_no_more(&accepting.socket);
            let _ = tokio::time::timeout(LAST_CALL, accepting.run()).await;
        }
        accepting.empty_queue();
    });
    Ok(address)
}

/// A socket that this worker's runtime watches. What is accepted on it sends at once: the setting is inherited (Linux).
fn prepared(socket: std::net::TcpListener) -> std::io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    SockRef::from(&socket).set_tcp_nodelay(true)?;
    TcpListener::from_std(socket)
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
            serve(&self.worker, &self.listener, stream, peer);
        }
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

    /// The listener is going: what already waits in its queue is served, not reset. Asks the kernel itself: the runtime
    /// would give a part of it only, and what it has not noticed yet not at all.
    fn empty_queue(mut self) {
        self.serve_held();
        let Self { worker, listener, socket, .. } = self;
        let Ok(queue) = socket.into_std() else { return };
        loop {
            match queue.accept() {
                Ok((stream, peer)) => {
                    if stream.set_nonblocking(true).is_ok()
                        && let Ok(stream) = TcpStream::from_std(stream)
                    {
                        serve(&worker, &listener, stream, peer);
                    }
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(_) => return,
            }
        }
    }
}

/// Serves a connection in a task of its own.
fn serve(worker: &Arc<Worker>, listener: &Arc<Listener>, stream: TcpStream, peer: SocketAddr) {
    let live = worker.live();
    // Counted before the task runs, so that the next look knows of it.
    let open = Open::new(&worker.shared.snapshot.load().stats);
    let (worker, listener) = (Arc::clone(worker), Arc::clone(listener));
    tokio::spawn(async move {
        let _live = live;
        crate::connection::serve(&worker, listener, stream, peer, open).await;
    });
}

/// Lets the kernel begin no further connection on a listening socket, while those begun are completed. A client that comes
/// now is not refused: it asks again after a second, when another process may listen.
fn take_no_more(socket: &TcpListener) {
    // Classic BPF over the TCP header: a packet whose flags are SYN without ACK is dropped.
    let filter = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x54, 0, 0, 0x12),
        SockFilter::new(0x15, 0, 1, 0x02),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    if let Err(error) = SockRef::from(socket).attach_filter(&filter) {
        tracing::debug!(%error, "new connections cannot be held back");
    }
}

/// Errors that `accept` passes on from one connection, not from the socket.
fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_sends_at_once() {
        let socket = prepared(std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let _client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = socket.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_socket_that_takes_no_more_keeps_what_it_has_and_refuses_nobody() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let early = TcpStream::connect(address).await.unwrap();
        take_no_more(&socket);
        let late = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await;
        assert!(late.is_err(), "neither taken nor refused: {late:?}");
        let (_, peer) = socket.accept().await.unwrap();
        assert_eq!(peer, early.local_addr().unwrap());
    }
}
