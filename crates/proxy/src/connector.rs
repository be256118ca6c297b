//! Opening connections to backends: fresh ones in tasks of their own, so that one that comes too late for its request
//! still serves the next and its failure is still evidence.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use relais_core::config::{Address, Forward, UpstreamProtocol, UpstreamTls};
use relais_core::{Backend, Event, Fault};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::pool::Slot;
use crate::sender::{H2Sender, Sender};
use crate::worker::Worker;

/// Sent bytes may stay unacknowledged for three contracts, and no less than this: a lossy link needs several
/// retransmissions, and a dead site is found by its verdict long before. This only bounds what no verdict covers.
const LEAST_UNACKNOWLEDGED: Duration = Duration::from_secs(3);

/// What a connect task needs to know.
#[derive(Clone)]
pub(crate) struct Goal {
    pub(crate) backend: Arc<Backend>,
    pub(crate) slot: Arc<Slot>,
    /// Deadline of the connect, TLS included.
    pub(crate) deadline: Duration,
    /// How long sent bytes may stay unacknowledged.
    pub(crate) unacknowledged: Duration,
    /// The request's host, for TLS server names.
    pub(crate) host: Arc<str>,
    pub(crate) keep_idle: usize,
}

impl Goal {
    pub(crate) fn new(
        backend: &Arc<Backend>,
        slot: Arc<Slot>,
        pool: &relais_core::Pool,
        forward: &Forward,
        host: &Arc<str>,
    ) -> Self {
        Self {
            backend: Arc::clone(backend),
            slot,
            deadline: pool.timers.connect,
            unacknowledged: (pool.timers.failover_within * 3).max(LEAST_UNACKNOWLEDGED),
            host: Arc::clone(host),
            keep_idle: forward.keep_idle,
        }
    }
}

/// Starts a connect. The receiver gets the connection or the fault; when nobody waits any longer the connection
/// goes to the pool. A fault is reported as evidence in any case.
pub(crate) fn connect(worker: &Arc<Worker>, goal: Goal) -> oneshot::Receiver<Result<Sender, Fault>> {
    let (tx, rx) = oneshot::channel();
    let worker = Arc::clone(worker);
    tokio::spawn(async move {
        let result = open(&worker, &goal).await;
        if let Err(fault) = &result {
            goal.backend.stats.failed.inc();
            worker.report(Event::Served { slot: goal.backend.slot, result: Err(*fault) });
        }
        if let Err(Ok(Sender::H1(send))) = tx.send(result) {
            goal.slot.give_back(send, goal.keep_idle);
        }
    });
    rx
}

async fn open(worker: &Arc<Worker>, goal: &Goal) -> Result<Sender, Fault> {
    let shares = goal.backend.upstream.protocol == UpstreamProtocol::H2 || goal.slot.speaks_h2.load(Relaxed);
    let _turn = if shares {
        let turn = goal.slot.connecting.lock().await;
        if let Some(sender) = goal.slot.take_shared() {
            return Ok(sender);
        }
        Some(turn)
    } else {
        None
    };
    let dial = async {
        let io = dial(worker, goal).await?;
        handshake(goal, io).await
    };
    match tokio::time::timeout(goal.deadline, dial).await {
        Ok(result) => result,
        Err(_) => Err(Fault::ConnectTimeout),
    }
}

/// Connects and, where the backend wants it, does the TLS handshake.
async fn dial(worker: &Arc<Worker>, goal: &Goal) -> Result<UpstreamIo, Fault> {
    let plain = match &goal.backend.address {
        Address::Socket(address) => Plain::Tcp(dial_tcp(*address, goal.unacknowledged).await?),
        Address::Name(host, port) => {
            let addresses = worker.resolver.resolve(host, *port).await?;
            let mut last = Fault::Unresolved;
            let mut connected = None;
            for address in addresses {
                match dial_tcp(address, goal.unacknowledged).await {
                    Ok(stream) => {
                        connected = Some(stream);
                        break;
                    }
                    Err(fault) => last = fault,
                }
            }
            Plain::Tcp(connected.ok_or(last)?)
        }
        Address::Unix(path) => Plain::Unix(UnixStream::connect(path).await.map_err(|error| dial_fault(&error))?),
    };
    match &goal.backend.upstream.tls {
        None => Ok(UpstreamIo::Plain(plain)),
        Some(tls) => secure(goal, tls, plain).await,
    }
}

async fn dial_tcp(address: SocketAddr, unacknowledged: Duration) -> Result<TcpStream, Fault> {
    let stream = TcpStream::connect(address).await.map_err(|error| dial_fault(&error))?;
    // Not fatal where refused: both only shorten waits.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(unacknowledged));
    Ok(stream)
}

async fn secure(goal: &Goal, tls: &UpstreamTls, plain: Plain) -> Result<UpstreamIo, Fault> {
    let known = goal.slot.tls.lock().clone();
    let config = match known {
        Some(config) => config,
        None => {
            let config = relais_tls::upstream::client_config(tls, goal.backend.upstream.protocol).map_err(|error| {
                tracing::warn!(backend = %goal.backend.id, %error, "TLS to this backend cannot be set up");
                Fault::Tls
            })?;
            *goal.slot.tls.lock() = Some(Arc::clone(&config));
            config
        }
    };
    let name = relais_tls::upstream::server_name(tls, &goal.backend.address, &goal.host).map_err(|error| {
        tracing::warn!(backend = %goal.backend.id, %error, "no TLS server name for this backend");
        Fault::Tls
    })?;
    let stream = TlsConnector::from(config).connect(name, plain).await.map_err(|error| {
        tracing::debug!(backend = %goal.backend.id, %error, "TLS handshake with a backend failed");
        match error.kind() {
            std::io::ErrorKind::InvalidData => Fault::Tls,
            _ => crate::sender::io_fault(&error),
        }
    })?;
    Ok(UpstreamIo::Tls(Box::new(stream)))
}

fn dial_fault(error: &std::io::Error) -> Fault {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound | ErrorKind::PermissionDenied => Fault::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => Fault::Unreachable,
        ErrorKind::TimedOut => Fault::ConnectTimeout,
        _ => Fault::Reset,
    }
}

/// Starts HTTP on the connection and a task that drives it.
async fn handshake(goal: &Goal, io: UpstreamIo) -> Result<Sender, Fault> {
    let h2 = match goal.backend.upstream.protocol {
        UpstreamProtocol::H1 => false,
        UpstreamProtocol::H2 => true,
        UpstreamProtocol::Auto => io.negotiated_h2(),
    };
    goal.slot.speaks_h2.store(h2, Relaxed);
    if !h2 {
        let (send, connection) = hyper::client::conn::http1::Builder::new()
            .max_headers(256)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|_| Fault::Reset)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::trace!(%error, "connection to a backend ended");
            }
        });
        return Ok(Sender::H1(send));
    }
    // Pings only while streams are open: a connection that died in silence is noticed without waiting for a timeout.
    let (send, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(goal.unacknowledged)
        .keep_alive_timeout(goal.unacknowledged)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_header_list_size(256 << 10)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|_| Fault::Reset)?;
    let allowed = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
    let sender = H2Sender::new(send, Arc::clone(&allowed));
    tokio::spawn(async move {
        let mut connection = connection;
        let ended = poll_fn(|cx| {
            let state = Pin::new(&mut connection).poll(cx);
            allowed.store(connection.current_max_send_streams(), Relaxed);
            state
        });
        if let Err(error) = ended.await {
            tracing::trace!(%error, "connection to a backend ended");
        }
    });
    goal.slot.share(sender.clone());
    Ok(Sender::H2(sender))
}

/// A connection without TLS.
#[derive(Debug)]
pub(crate) enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to a backend.
#[derive(Debug)]
pub(crate) enum UpstreamIo {
    Plain(Plain),
    Tls(Box<tokio_rustls::client::TlsStream<Plain>>),
}

impl UpstreamIo {
    fn negotiated_h2(&self) -> bool {
        match self {
            UpstreamIo::Plain(_) => false,
            UpstreamIo::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

/// Passes every call on to whichever stream it is.
macro_rules! delegate {
    ($kind:ident { $($variant:ident),* }) => {
        impl AsyncRead for $kind {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
                match self.get_mut() { $($kind::$variant(stream) => Pin::new(stream).poll_read(cx, buf)),* }
            }
        }
        impl AsyncWrite for $kind {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
                match self.get_mut() { $($kind::$variant(stream) => Pin::new(stream).poll_write(cx, buf)),* }
            }
            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> Poll<std::io::Result<usize>> {
                match self.get_mut() { $($kind::$variant(stream) => Pin::new(stream).poll_write_vectored(cx, bufs)),* }
            }
            fn is_write_vectored(&self) -> bool {
                match self { $($kind::$variant(stream) => stream.is_write_vectored()),* }
            }
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
                match self.get_mut() { $($kind::$variant(stream) => Pin::new(stream).poll_flush(cx)),* }
            }
            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
                match self.get_mut() { $($kind::$variant(stream) => Pin::new(stream).poll_shutdown(cx)),* }
            }
        }
    };
}

delegate!(Plain { Tcp, Unix });
delegate!(UpstreamIo { Plain, Tls });
