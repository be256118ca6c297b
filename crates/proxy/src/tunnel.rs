//! Upgraded connections (WebSocket and others): bytes both ways until one side ends, both fall silent, or the backend is
//! lost. A WebSocket client is then told so with a close frame (1012), not left waiting and not left guessing.

use std::future::poll_fn;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use relais_core::{Backend, Left};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::access::Ticket;
use crate::client_io::ClientIo;
use crate::connection::Client;
use crate::pool::{Slot, Verdicts};
use crate::socket::Socket;
use crate::stream_io::StreamIo;
use crate::upgrade::{Agreed, Opening};
use crate::websocket::{Frames, SERVICE_RESTART};
use crate::worker::Worker;

/// How long a close frame may take to reach a client's socket buffer, and then the client's own to come back; and the last
/// words of a client that is gone to reach its backend.
const LAST_WORD: Duration = Duration::from_millis(200);

/// One tunnel.
pub(crate) struct Tunnel {
    pub(crate) client: Agreed,
    pub(crate) backend: OnUpgrade,
    pub(crate) terms: Terms,
}

/// What holds for it.
pub(crate) struct Terms {
    pub(crate) slot: Arc<Slot>,
    /// Verdicts on the backend when the tunnel was asked for.
    pub(crate) before: Verdicts,
    /// The connection it came in on, which stays open for it.
    pub(crate) connection: Arc<Client>,
    /// Longest silence in both directions.
    pub(crate) idle: Duration,
    /// Longest silence of a backend that hangs.
    pub(crate) contract: Duration,
    pub(crate) websocket: bool,
}

/// Bytes and time of one tunnel, shared by its two directions.
struct Meter {
    started: Instant,
    /// Milliseconds after `started` when a byte last passed.
    last: AtomicU64,
}

/// One direction.
#[derive(Default)]
struct Lane {
    bytes: AtomicU64,
    /// Where frames end, if it is a WebSocket.
    frames: Option<Mutex<Frames>>,
    /// Bytes are half written: nothing may be put between them.
    writing: AtomicBool,
}

/// Why a tunnel ends before its ends do.
enum Ended {
    /// The backend's end broke.
    Broken,
    /// The client takes no bytes for too long.
    Stalled,
    /// The client went away, and not in order: it reset its stream, or its connection broke.
    Gone,
}

impl Ended {
    /// What an error of writing to the client says.
    fn of_client(error: &Error) -> Self {
        if error.kind() == ErrorKind::TimedOut { Self::Stalled } else { Self::Gone }
    }
}

/// The client's end of a tunnel.
pub(crate) trait ClientEnd: AsyncRead + AsyncWrite + Unpin {
    /// Ends it so that it does not look like an end in order.
    fn reset(self);
}

impl ClientEnd for TokioIo<Upgraded> {
    /// RST, for the whole connection.
    fn reset(self) {
        // Refused only by sockets that are gone already.
        let _ = match self.into_inner().downcast::<TokioIo<ClientIo<Socket>>>() {
            Ok(parts) => parts.io.inner().get_ref().set_zero_linger(),
            Err(client) => match client.downcast::<TokioIo<ClientIo<TlsStream<Socket>>>>() {
                Ok(parts) => parts.io.inner().get_ref().get_ref().0.set_zero_linger(),
                Err(_) => Ok(()),
            },
        };
    }
}

impl ClientEnd for StreamIo {
    fn reset(mut self) {
        self.give_up();
    }
}

impl Lane {
    fn new(websocket: bool) -> Self {
        Self { frames: websocket.then(Mutex::default), ..Self::default() }
    }

    /// Whether a close frame may be put here: between two frames, and none has passed.
    fn may_close(&self) -> bool {
        let open = |frames: &Mutex<Frames>| frames.lock().may_close();
        !self.writing.load(Relaxed) && self.frames.as_ref().is_some_and(open)
    }

    fn is_closed(&self) -> bool {
        self.frames.as_ref().is_some_and(|frames| frames.lock().is_closed())
    }

    fn follow(&self, bytes: &[u8]) {
        self.bytes.fetch_add(bytes.len() as u64, Relaxed);
        if let Some(frames) = &self.frames {
            frames.lock().follow(bytes);
        }
    }
}

impl Meter {
    fn touch(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Relaxed);
    }

    fn silent_for(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last.load(Relaxed)))
    }
}

impl Tunnel {
    /// Carries bytes until it ends, then closes the ticket. Spawned: the request's own future ends with the 101.
    pub(crate) async fn run(self, mut ticket: Box<Ticket>) {
        let _live = self.terms.connection.worker.live();
        // What comes from here on is the tunnel's.
        self.terms.connection.state.unread.store(false, Relaxed);
        let pool = ticket.pool.clone();
        if let Some(pool) = &pool {
            pool.stats.tunnels.inc();
        }
        let cut = self.carry(&mut ticket).await;
        if let Some(pool) = &pool {
            pool.stats.tunnels.dec();
        }
        ticket.cut = cut;
        ticket.completed();
    }

    async fn carry(self, ticket: &mut Ticket) -> Option<&'static str> {
        let Self { client, backend, terms } = self;
        match client {
            Agreed::Connection(client) => match tokio::try_join!(client, backend) {
                Ok((client, backend)) => return terms.carry(TokioIo::new(client), backend, ticket).await,
                Err(error) => tracing::debug!(%error, "upgrade did not finish"),
            },
            Agreed::Stream(opening) => {
                let Opening { receive, send } = *opening;
                if let (Ok(send), Ok(backend)) = tokio::join!(send, backend) {
                    let client = StreamIo::new(receive, send, Arc::clone(&terms.connection.state));
                    return terms.carry(client, backend, ticket).await;
                }
            }
        }
        Some("upgrade_failed")
    }
}

impl Terms {
    async fn carry(self, client: impl ClientEnd, backend: Upgraded, ticket: &mut Ticket) -> Option<&'static str> {
        let there = Arc::clone(ticket.serving.as_ref()?.backend());
        let (mut client_read, mut client_write) = tokio::io::split(client);
        let (mut backend_read, mut backend_write) = tokio::io::split(TokioIo::new(backend));
        let meter = Meter { started: Instant::now(), last: AtomicU64::new(0) };
        let (up, down) = (Lane::new(self.websocket), Lane::new(self.websocket));
        let worker = &self.connection.worker;
        let lost = Lost { slot: &self.slot, before: self.before, worker, backend: &there, contract: self.contract };
        let cut = tokio::select! {
            ended = async {
                tokio::try_join!(
                    carry_up(&mut client_read, &mut backend_write, &meter, &up),
                    carry_down(&mut backend_read, &mut client_write, &meter, (&up, &down), &lost)
                )
            } => match ended {
                Ok((_, told)) => told.then_some("backend_broke_off"),
                Err(Ended::Broken) => Some("backend_broke_off"),
                Err(Ended::Stalled) => Some("client_stalled"),
                Err(Ended::Gone) => Some("client_gone"),
            },
            cut = lost.wait(&meter) => Some(cut),
            () = silent(&meter, self.idle) => Some("idle"),
        };
        // In a drill that refuses, the end of the connection and the word about it race: both say the same.
        let cut =
            if cut == Some("backend_broke_off") && lost.slot.cut.is_refused() { Some("backend_dead") } else { cut };
        ticket.bytes_in = up.bytes.load(Relaxed);
        ticket.bytes_out = down.bytes.load(Relaxed);
        if let Some("backend_dead" | "backend_down") = cut {
            worker.left(there.slot, Instant::now(), Left::Told);
        }
        match cut {
            // Broken off in the middle of something: so does the client's end, or what came so far would look whole.
            Some("backend_broke_off") if !down.may_close() && !down.is_closed() => {
                client_read.unsplit(client_write).reset()
            }
            Some("client_stalled" | "client_gone") => {}
            Some(_) => farewell(&mut client_read, &mut client_write, &up, &down).await,
            None => {}
        }
        cut
    }
}

/// Client to backend, until the client ends or the backend takes no more.
async fn carry_up(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    meter: &Meter,
    lane: &Lane,
) -> Result<(), Ended> {
    let mut buffer = vec![0_u8; 16 << 10];
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(n) => n,
            // TLS that ends without saying so, as many clients do: no more of an end than TCP has.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            Err(_) => return Err(Ended::Gone),
        };
        if n == 0 {
            let _ = to.shutdown().await;
            return Ok(());
        }
        if pass(to, &buffer[..n], meter, lane).await.is_err() {
            // Its last words may still be on their way down.
            return Ok(());
        }
    }
}

/// Backend to client, until either ends. `true`: the backend ended a WebSocket without a word, and the client was told.
async fn carry_down(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    meter: &Meter,
    (up, down): (&Lane, &Lane),
    lost: &Lost<'_>,
) -> Result<bool, Ended> {
    let mut buffer = vec![0_u8; 16 << 10];
    let ended = loop {
        let n = match read_for(to, from, &mut buffer).await {
            Ok(n) => n,
            Err(ended) => break ended,
        };
        if n == 0 {
            let told = !up.is_closed() && down.may_close() && pass(to, &SERVICE_RESTART, meter, down).await.is_ok();
            let _ = to.shutdown().await;
            return Ok(told);
        }
        lost.backend.hear(lost.worker.now());
        if let Err(error) = pass(to, &buffer[..n], meter, down).await {
            break Ended::of_client(&error);
        }
    };
    if matches!(ended, Ended::Gone) {
        // What it said last may be on its way up still. The end of that is not waited for: its backend may not read.
        tokio::time::sleep(LAST_WORD).await;
    }
    Err(ended)
}

/// Reads what the backend sends, until the client is gone. Nobody else may be looking at the client meanwhile: while the
/// backend does not read, nothing is read from the client either.
async fn read_for(
    client: &mut (impl AsyncWrite + Unpin),
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
) -> Result<usize, Ended> {
    let mut into = ReadBuf::new(buffer);
    poll_fn(|cx| match Pin::new(&mut *from).poll_read(cx, &mut into) {
        Poll::Ready(read) => Poll::Ready(read.map_err(|_| Ended::Broken)),
        // Nothing is there to flush: it only fails when the client is gone.
        Poll::Pending => match Pin::new(&mut *client).poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(Ended::of_client(&error))),
            _ => Poll::Pending,
        },
    })
    .await?;
    Ok(into.filled().len())
}

/// Writes bytes of one direction.
async fn pass(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], meter: &Meter, lane: &Lane) -> std::io::Result<()> {
    lane.writing.store(true, Relaxed);
    to.write_all(bytes).await?;
    to.flush().await?;
    lane.writing.store(false, Relaxed);
    lane.follow(bytes);
    meter.touch();
    Ok(())
}

/// The client's end is closed in order: with a close frame where one may be put, and then its own is awaited, so that
/// closing does not reset what it has not read yet.
async fn farewell(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), up: &Lane, down: &Lane) {
    let told = !up.is_closed() && down.may_close();
    if told {
        let _ = tokio::time::timeout(LAST_WORD, to.write_all(&SERVICE_RESTART)).await;
    }
    let _ = tokio::time::timeout(LAST_WORD, to.shutdown()).await;
    if told {
        let _ = tokio::time::timeout(LAST_WORD, tokio::io::copy(from, &mut tokio::io::sink())).await;
    }
}

/// What a tunnel's backend is watched for.
struct Lost<'a> {
    slot: &'a Slot,
    before: Verdicts,
    worker: &'a Worker,
    backend: &'a Backend,
    contract: Duration,
}

impl Lost<'_> {
    /// Waits until the tunnel must end for its backend's sake: at once when its transport is dead, after a contract of
    /// silence while it hangs, in its own time when it is drained.
    async fn wait(&self, meter: &Meter) -> &'static str {
        let mut drained: Option<Instant> = None;
        loop {
            let verdict = self.slot.verdict.notified();
            tokio::pin!(verdict);
            verdict.as_mut().enable();
            let now = self.slot.verdicts();
            if now.deaths != self.before.deaths || self.slot.cut.is_refused() {
                return "backend_dead";
            }
            if drained.is_none() && now.drains != self.before.drains {
                drained = Some(Instant::now() + self.worker.drain_delay());
            }
            let hung = self.slot.is_hung().then(|| self.silent_until(meter));
            if hung.is_some_and(|until| until <= Instant::now()) {
                return "backend_down";
            }
            if drained.is_some_and(|until| until <= Instant::now()) {
                return "drained";
            }
            match drained.into_iter().chain(hung).min() {
                None => verdict.await,
                Some(until) => drop(tokio::time::timeout_at(until.into(), verdict).await),
            }
        }
    }

    /// When a backend that hangs has been silent for a contract: here, and on every other stream from it.
    fn silent_until(&self, meter: &Meter) -> Instant {
        let heard = self.worker.now().since(self.backend.heard());
        let silent = heard.min(meter.started.elapsed());
        Instant::now() + self.contract.saturating_sub(silent)
    }
}

/// Waits until no byte has passed for `idle`.
async fn silent(meter: &Meter, idle: Duration) {
    loop {
        let silent = meter.silent_for();
        if silent >= idle {
            return;
        }
        tokio::time::sleep(idle - silent).await;
    }
}
