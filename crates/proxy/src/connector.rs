//! Opening connections to backends: fresh ones in tasks of their own, so that one that comes too late for its request
//! still serves the next and its failure is still evidence.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use relais_core::config::{Address, Forward, UpstreamProtocol, UpstreamTls};
use relais_core::{Backend, Event, Fault, Member, Waited};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::cut::Gated;
use crate::exchange::Exchange;
use crate::h2_client;
use crate::hush;
use crate::line::{Carries, Line};
use crate::pool::Slot;
use crate::sender::Sender;
use crate::worker::Worker;

/// What may be repeated waits for less than one contract until what was sent is acknowledged. The rest waits for three, and
/// no less than this: a lossy link needs several retransmissions, and a dead site is found by its verdict long before. This only
/// bounds what no verdict covers, as when a firewall on the way forgets its connections.
const LEAST_UNACKNOWLEDGED: Duration = Duration::from_secs(3);

/// A connection is looked at twice in a contract, and this often at least.
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// What a connect task needs to know.
#[derive(Clone)]
pub(crate) struct Goal {
    backend: Arc<Backend>,
    slot: Arc<Slot>,
    addresses: Arc<[SocketAddr]>,
    /// How often the backend had moved when this was asked for.
    moves: u64,
    protocol: UpstreamProtocol,
    /// Deadline of the connect, TLS included.
    deadline: Duration,
    /// How long sent bytes may stay unacknowledged.
    unacknowledged: Duration,
    /// The same where ALPN chose HTTP/1.1, and the connection is this kind of requests' alone.
    unshared: Duration,
    /// How often it is looked at while nothing comes.
    look_every: Duration,
    carries: Carries,
    /// The request's host, for TLS server names.
    host: Arc<str>,
    keep_idle: usize,
    /// How long it is kept when nobody waits for it any more.
    spare: Duration,
    /// How long a shortage of our own is waited out.
    patience: Duration,
}

/// Pause before a connect that failed for want of a file descriptor or memory is tried again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// Linux error numbers of our own shortages: file descriptors of the process and of the machine, memory, buffers.
const SHORTAGES: [i32; 4] = [24, 23, 12, 105];

/// Why there is no connection.
enum Trouble {
    /// The backend's.
    Fault(Fault),
    /// Our own, of files, memory or time. It accuses nobody.
    Shortage,
}

impl Trouble {
    fn of(waited: Waited) -> Self {
        match waited {
            Waited::Whole => Trouble::Fault(Fault::ConnectTimeout),
            Waited::Unwatched => Trouble::Shortage,
        }
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Trouble::Fault(fault)
    }
}

impl Goal {
    /// A connection to `member` for this request.
    pub(crate) fn new(exchange: &Exchange, forward: &Forward, member: &Member, slot: &Arc<Slot>) -> Self {
        let timers = &exchange.pool.timers;
        // An upgrade is a thing of HTTP/1.1: where ALPN would choose, it must not choose HTTP/2.
        let protocol = match member.backend.upstream.protocol {
            UpstreamProtocol::Auto if exchange.upgrade.is_some() => UpstreamProtocol::H1,
            protocol => protocol,
        };
        // What comes of ALPN may be HTTP/2, and then all kinds of requests share the connection.
        let tls = member.backend.upstream.tls.is_some();
        let shared = protocol == UpstreamProtocol::H2 || (protocol == UpstreamProtocol::Auto && tls);
        let reach = timers.reach(forward, member.away);
        let (short, long) = (reach.unacknowledged(), (timers.failover_within * 3).max(LEAST_UNACKNOWLEDGED));
        let unshared = if exchange.replayable() && exchange.upgrade.is_none() { short } else { long };
        let carries = if exchange.upgrade.is_some() {
            Carries::Bytes
        } else if shared {
            Carries::Shared
        } else {
            // The first answer must be one to a request: neither of a handshake nor to `Expect: 100-continue`.
            let plain = !tls && !exchange.expects_continue;
            Carries::Requests(plain.then_some(short))
        };
        Self {
            backend: Arc::clone(&member.backend),
            slot: Arc::clone(slot),
            addresses: Arc::clone(&member.addresses),
            moves: slot.verdicts().moves,
            protocol,
            deadline: reach.connect,
            unacknowledged: if shared { long } else { unshared },
            unshared,
            look_every: (timers.failover_within / 2).min(LONGEST_LOOK),
            carries,
            host: Arc::clone(&exchange.host.original),
            keep_idle: forward.keep_idle,
            // Half the contract: what waits behind it at a backend that serves one connection at a time is served in it.
            spare: forward.keep_idle_for.min(timers.failover_within / 2),
            patience: timers.wait,
        }
    }
}

/// Starts a connect. The receiver gets the connection or the fault; when nobody waits any longer the connection
/// goes to the pool for a while. A fault of the backend is reported as evidence in any case.
pub(crate) fn connect(worker: &Arc<Worker>, goal: Goal) -> oneshot::Receiver<Result<Sender, Fault>> {
    let (tx, rx) = oneshot::channel();
    let worker = Arc::clone(worker);
    tokio::spawn(async move {
        let Some(result) = open(&worker, &goal, &tx).await else { return };
        if let Err(Ok(Sender::H1(send))) = tx.send(result) {
            goal.slot.keep_spare(send, goal.keep_idle, goal.moves, goal.spare).await;
        }
    });
    rx
}

/// `None`: nobody waits any longer, and nothing was begun.
async fn open(
    worker: &Arc<Worker>,
    goal: &Goal,
    asker: &oneshot::Sender<Result<Sender, Fault>>,
) -> Option<Result<Sender, Fault>> {
    let h2_likely = goal.protocol == UpstreamProtocol::H2
        || (goal.protocol == UpstreamProtocol::Auto && goal.slot.speaks_h2.load(Relaxed));
    let mut turn = None;
    if h2_likely {
        // Waiting for another connect says nothing about the backend: it costs time, but is no evidence.
        let Ok(taken) = tokio::time::timeout(goal.deadline, goal.slot.connecting.lock()).await else {
            return Some(Err(Fault::ConnectTimeout));
        };
        if let Some(sender) = goal.slot.take_shared() {
            return Some(Ok(sender));
        }
        if asker.is_closed() {
            return None;
        }
        turn = Some(taken);
    }
    let result = through_shortage(worker, goal).await;
    drop(turn);
    Some(match result {
        Ok(sender) => Ok(sender),
        Err(Trouble::Shortage) => Err(Fault::Reset),
        Err(Trouble::Fault(fault)) => {
            goal.backend.stats.fail(fault);
            worker.report(Event::Served { slot: goal.backend.slot, result: Err(fault) });
            Err(fault)
        }
    })
}

/// One connect; tried again for a while when it is our own fault that it fails.
async fn through_shortage(worker: &Arc<Worker>, goal: &Goal) -> Result<Sender, Trouble> {
    let give_up = Instant::now() + goal.patience;
    loop {
        let dial = async {
            goal.slot.cut.pass_connect().await.map_err(Trouble::Fault)?;
            let io = dial(worker, goal).await?;
            handshake(goal, io).await.map_err(Trouble::Fault)
        };
        let result = relais_attend::within(goal.deadline, dial).await;
        match result.unwrap_or_else(|waited| Err(Trouble::of(waited))) {
            Err(Trouble::Shortage) if Instant::now() < give_up => tokio::time::sleep(SHORTAGE_PAUSE).await,
            result => return result,
        }
    }
}

/// Connects and, where the backend wants it, does the TLS handshake.
async fn dial(worker: &Arc<Worker>, goal: &Goal) -> Result<UpstreamIo, Trouble> {
    let plain = match &goal.backend.address {
        Address::Unix(path) => Plain::Unix(UnixStream::connect(path).await.map_err(|error| trouble(&error))?),
        Address::Socket(_) | Address::Name(..) => Plain::Tcp(dial_any(goal).await?),
    };
    let plain = Gated::new(plain, Arc::clone(&goal.slot.cut));
    match &goal.backend.upstream.tls {
        None => Ok(UpstreamIo::Plain(plain)),
        Some(tls) => Ok(secure(worker, goal, tls, plain).await?),
    }
}

/// Tries the addresses of a backend one after another, each with its share of the time.
async fn dial_any(goal: &Goal) -> Result<Line, Trouble> {
    let mut last = Trouble::Fault(Fault::Unresolved);
    for address in goal.addresses.iter() {
        let share = goal.deadline / u32::try_from(goal.addresses.len()).unwrap_or(u32::MAX).max(1);
        last = match relais_attend::within(share, TcpStream::connect(*address)).await {
            Ok(Ok(stream)) => return Ok(Line::new(stream, goal.unacknowledged, goal.look_every, goal.carries)),
            Ok(Err(error)) => trouble(&error),
            Err(waited) => Trouble::of(waited),
        };
    }
    Err(last)
}

async fn secure(
    worker: &Arc<Worker>,
    goal: &Goal,
    tls: &UpstreamTls,
    plain: Gated<Plain>,
) -> Result<UpstreamIo, Fault> {
    let config = worker.shared.certs.client_config(tls, goal.protocol).map_err(|why| no_tls(worker, goal, &why))?;
    let name = relais_tls::upstream::server_name(tls, &goal.backend.address, &goal.host);
    let name = name.map_err(|why| no_tls(worker, goal, &why))?;
    let stream = TlsConnector::from(config).connect(name, plain).await.map_err(|error| {
        if let Some(why) = relais_tls::upstream::reason(&error) {
            return no_tls(worker, goal, &why);
        }
        match error.kind() {
            std::io::ErrorKind::InvalidData => Fault::Tls,
            _ => crate::sender::io_fault(&error),
        }
    })?;
    Ok(UpstreamIo::Tls(Box::new(stream)))
}

/// Mostly a mistake in the file or in a certificate, which lasts until somebody reads of it.
fn no_tls(worker: &Worker, goal: &Goal, why: &str) -> Fault {
    if let Some(untold) = worker.failed_handshakes.tell(Instant::now()) {
        tracing::warn!(backend = %goal.backend.id, why, untold, "no TLS with a backend: {why}");
    }
    Fault::Tls
}

fn trouble(error: &std::io::Error) -> Trouble {
    if error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code)) {
        return Trouble::Shortage;
    }
    Trouble::Fault(dial_fault(error))
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
async fn handshake(goal: &Goal, mut io: UpstreamIo) -> Result<Sender, Fault> {
    let h2 = match goal.protocol {
        UpstreamProtocol::H1 => false,
        UpstreamProtocol::H2 => true,
        UpstreamProtocol::Auto => {
            let h2 = io.negotiated_h2();
            goal.slot.speaks_h2.store(h2, Relaxed);
            if !h2 && goal.carries == Carries::Shared {
                io.unshare(goal.unshared);
            }
            h2
        }
    };
    if !h2 {
        let (send, connection) = hyper::client::conn::http1::Builder::new()
            .max_headers(256)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|_| Fault::Reset)?;
        let driver = tokio::spawn(async move {
            if let Err(error) = hush::drive(connection.with_upgrades()).await {
                tracing::trace!(%error, "connection to a backend ended");
            }
        });
        goal.slot.cut.drives(driver.abort_handle());
        return Ok(Sender::H1(send));
    }
    let (sender, driver) = h2_client::handshake(io, goal.unacknowledged).await?;
    goal.slot.cut.drives(driver);
    goal.slot.share(sender.clone(), goal.moves);
    Ok(Sender::H2(sender))
}

/// A connection without TLS.
#[derive(Debug)]
pub(crate) enum Plain {
    Tcp(Line),
    Unix(UnixStream),
}

/// A connection to a backend.
pub(crate) enum UpstreamIo {
    Plain(Gated<Plain>),
    Tls(Box<tokio_rustls::client::TlsStream<Gated<Plain>>>),
}

impl UpstreamIo {
    fn negotiated_h2(&self) -> bool {
        match self {
            UpstreamIo::Plain(_) => false,
            UpstreamIo::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// No other request shares it: from now on sent bytes may stay unacknowledged for `patience`.
    fn unshare(&mut self, patience: Duration) {
        let plain = match self {
            UpstreamIo::Plain(plain) => plain,
            UpstreamIo::Tls(stream) => stream.get_mut().0,
        };
        if let Plain::Tcp(line) = plain.inner() {
            line.unshare(patience);
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
