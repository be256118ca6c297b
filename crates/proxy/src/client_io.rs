//! The client's bytes: one socket (plain or TLS) with the deadlines that hyper does not keep.
//!
//! hyper has one clock for "reading a head" and "idle between requests" and none for a stalled writer. This wrapper
//! knows which of the three it is, closes what takes too long, and lets the service put interim (1xx) answers on the
//! wire, which hyper's HTTP/1 server cannot send. It knows nothing of routing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::timer::LazyTimer;

/// Deadlines of one client connection, copied from the config when it was accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) headers: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) body: Duration,
}

/// What the connection task, the socket wrapper and the requests of one connection share.
#[derive(Debug)]
pub(crate) struct ConnState {
    /// Requests whose answer is not complete.
    active: AtomicU32,
    /// Requests seen.
    requests: AtomicU64,
    /// Set once: finish what runs, take nothing new.
    draining: AtomicBool,
    /// The socket was looked at while a request ran, so that no deadline was set: look again when none runs.
    unwatched: AtomicBool,
    /// Interim answers to write before the next answer, HTTP/1 only.
    interim: Mutex<Vec<u8>>,
    has_interim: AtomicBool,
    /// The request whose answer has not begun, as counted by `requests`; 0: none. HTTP/1 has one at a time.
    unanswered: AtomicU64,
    /// hyper may hold bytes of the last answer that are not written yet: nothing may be put before them.
    unsent: AtomicBool,
    /// When the socket last took no more, in milliseconds after `born`; 0: never.
    write_block: AtomicU64,
    /// The client was given up because it took no bytes for too long.
    stalled: AtomicBool,
    born: Instant,
    /// The answer under way ends with the connection: only an orderly end may look like one.
    ends_with_connection: AtomicBool,
    /// The connection task, to be woken for a drain or a deadline.
    task: Mutex<Option<Waker>>,
    pub(crate) deadlines: Deadlines,
    pub(crate) h2: bool,
    /// What this edge calls itself.
    name: Box<str>,
}

impl ConnState {
    pub(crate) fn new(deadlines: Deadlines, h2: bool, name: &str) -> Arc<Self> {
        Arc::new(Self {
            active: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            unwatched: AtomicBool::new(false),
            interim: Mutex::new(Vec::new()),
            has_interim: AtomicBool::new(false),
            unanswered: AtomicU64::new(0),
            unsent: AtomicBool::new(false),
            write_block: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            born: Instant::now(),
            ends_with_connection: AtomicBool::new(false),
            task: Mutex::new(None),
            deadlines,
            h2,
            name: Box::from(name),
        })
    }

    /// A request began: no deadline of this wrapper holds until its answer is complete.
    pub(crate) fn enter(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Relaxed);
        let number = self.requests.fetch_add(1, Relaxed) + 1;
        self.unanswered.store(number, Relaxed);
        Active(Arc::clone(self))
    }

    /// Asks the connection to finish what runs and close.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Relaxed);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.task.lock().as_ref() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Remembers the task to wake; called by the connection task whenever it is polled.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut task = self.task.lock();
        if !task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    /// The number of the latest request, for `send_interim`.
    pub(crate) fn latest_request(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Puts an interim answer to a request on the wire, as soon as all of the answer before it is; nothing when that
    /// request is answered already, as by a second attempt.
    pub(crate) fn send_interim(&self, request: u64, bytes: &[u8]) {
        if self.unanswered.load(Relaxed) != request {
            return;
        }
        self.interim.lock().extend_from_slice(bytes);
        self.has_interim.store(true, Relaxed);
        self.wake();
    }

    /// The final answer goes to hyper now. Interim ones that still wait behind the answer before come too late: hyper
    /// puts the two next to one another.
    pub(crate) fn answer_begins(&self) {
        self.unanswered.store(0, Relaxed);
        if self.has_interim.load(Relaxed) && self.unsent.load(Relaxed) {
            self.interim.lock().clear();
        }
    }

    /// An answer begins that has no other end than that of the connection.
    pub(crate) fn ends_with_connection(&self) {
        self.ends_with_connection.store(true, Relaxed);
    }

    fn note_write_block(&self) {
        let millis = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.write_block.store(millis.max(1), Relaxed);
    }

    /// When the socket last took no more.
    pub(crate) fn last_write_block(&self) -> Option<Instant> {
        let millis = self.write_block.load(Relaxed);
        (millis > 0).then(|| self.born + Duration::from_millis(millis))
    }

    /// Answer to a head that did not arrive in time (RFC 9110 15.5.9).
    fn timeout_answer(&self) -> String {
        format!(
            "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nproxy-status: {}; error=http_request_error; \
             details=\"request head incomplete\"\r\nconnection: close\r\n\r\n",
            self.name
        )
    }

    fn idle(&self) -> bool {
        self.active.load(Relaxed) == 0
    }
}

/// One request whose answer is not complete; counted out on drop.
#[derive(Debug)]
pub(crate) struct Active(Arc<ConnState>);

impl Active {
    /// Whether the client of this request was given up because it took no bytes for too long.
    pub(crate) fn stalled(&self) -> bool {
        self.0.stalled.load(Relaxed)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // hyper may have begun to wait for the next request before it let go of this one's answer.
        if self.0.active.fetch_sub(1, Relaxed) == 1 && self.0.unwatched.swap(false, Relaxed) {
            self.0.wake();
        }
    }
}

/// A client's stream, plain or TLS.
pub(crate) trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// The socket under it.
    fn socket(&self) -> &TcpStream;
}

impl ClientStream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl ClientStream for tokio_rustls::server::TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// The socket as hyper sees it.
#[derive(Debug)]
pub(crate) struct ClientIo<S: ClientStream> {
    inner: S,
    state: Arc<ConnState>,
    read_timer: LazyTimer,
    write_timer: LazyTimer,
    /// When the current wait began: the end of the handshake, of the last answer, or the first byte of a head.
    waiting_since: Instant,
    /// Requests seen when the wait began.
    seen: u64,
    /// Bytes of a head have arrived in this wait.
    partial: bool,
    /// The connection was busy at the last look: the next idle look starts a new wait.
    was_busy: bool,
    write_blocked: Option<Instant>,
    timed_out: bool,
}

impl<S: ClientStream> Drop for ClientIo<S> {
    /// An answer that ends with the connection and was cut must not look complete: the client gets a reset, the one sign
    /// HTTP/1.0 has.
    fn drop(&mut self) {
        if self.state.ends_with_connection.load(Relaxed) {
            // Refused only by a socket that is gone already.
            let _ = SockRef::from(self.inner.socket()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl<S: ClientStream> ClientIo<S> {
    pub(crate) fn new(inner: S, state: Arc<ConnState>) -> Self {
        Self {
            inner,
            state,
            read_timer: LazyTimer::default(),
            write_timer: LazyTimer::default(),
            waiting_since: Instant::now(),
            seen: 0,
            partial: false,
            was_busy: false,
            write_blocked: None,
            timed_out: false,
        }
    }

    /// The stream below.
    pub(crate) fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Nothing to read: which deadline holds, and has it passed?
    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.state.idle() {
            self.was_busy = true;
            self.state.unwatched.store(true, Relaxed);
            return Poll::Pending;
        }
        let requests = self.state.requests.load(Relaxed);
        if self.was_busy || requests != self.seen {
            self.was_busy = false;
            self.seen = requests;
            self.partial = false;
            self.waiting_since = Instant::now();
        }
        let deadlines = self.state.deadlines;
        let patience = if self.partial || requests == 0 { deadlines.headers } else { deadlines.keep_alive };
        ready!(self.read_timer.poll_expired(cx, self.waiting_since + patience));
        if self.state.h2 && !self.state.is_draining() {
            // GOAWAY first, so that a request under way at this moment is known to be safe to repeat.
            self.state.drain();
            self.waiting_since = Instant::now();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Writes what interim answers wait, when the answer before them is on the wire.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.unsent.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        while self.state.has_interim.load(Relaxed) {
            let mut interim = self.state.interim.lock();
            if interim.is_empty() {
                self.state.has_interim.store(false, Relaxed);
                break;
            }
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &interim))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            interim.drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    /// The socket, for bytes of an answer.
    fn begin_write(&mut self) -> Pin<&mut S> {
        self.state.unsent.store(true, Relaxed);
        Pin::new(&mut self.inner)
    }

    /// Turns a write that has been blocked too long into an error.
    fn judge_write<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_blocked = None;
            return result;
        }
        self.state.note_write_block();
        let since = *self.write_blocked.get_or_insert_with(Instant::now);
        let deadline = since + self.state.deadlines.body;
        if self.write_timer.poll_expired(cx, deadline).is_ready() {
            self.state.stalled.store(true, Relaxed);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "client takes no bytes")));
        }
        Poll::Pending
    }
}

impl<S: ClientStream> AsyncRead for ClientIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.timed_out {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before && !this.state.h2 && !this.partial && this.state.idle() {
                    // The first bytes of a head: from here on the clock for heads runs, not the one for idleness.
                    this.partial = true;
                    this.was_busy = false;
                    this.seen = this.state.requests.load(Relaxed);
                    this.waiting_since = Instant::now();
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(this.poll_read_deadline(cx));
                this.timed_out = true;
                if this.partial && !this.state.h2 && !this.state.unsent.load(Relaxed) {
                    // Best effort: a full send buffer, or an answer that is not written yet, means that the client is not
                    // reading either.
                    let answer = this.state.timeout_answer();
                    let _ = Pin::new(&mut this.inner).poll_write(cx, answer.as_bytes());
                    let _ = Pin::new(&mut this.inner).poll_flush(cx);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<S: ClientStream> AsyncWrite for ClientIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match this.poll_interim(cx) {
            Poll::Ready(Ok(())) => this.begin_write().poll_write(cx, buf),
            early => early.map_ok(|()| 0),
        };
        this.judge_write(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match this.poll_interim(cx) {
            Poll::Ready(Ok(())) => this.begin_write().poll_write_vectored(cx, bufs),
            early => early.map_ok(|()| 0),
        };
        this.judge_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper flushes when it has written all it had.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.state.unsent.store(false, Relaxed);
        let result = match this.poll_interim(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.inner).poll_flush(cx),
            early => early,
        };
        this.judge_write(cx, result)
    }

    /// hyper closes in order only when the last answer is all written.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_shutdown(cx);
        if result.is_ready() {
            this.state.ends_with_connection.store(false, Relaxed);
        }
        this.judge_write(cx, result)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    impl ClientStream for tokio::io::DuplexStream {
        fn socket(&self) -> &TcpStream {
            unreachable!("no answer here ends with its connection")
        }
    }

    /// What a client of whose second head only half came has read at the end. `flushed`: the first answer was all written.
    async fn after_half_a_head(flushed: bool) -> String {
        let (mut client, server) = tokio::io::duplex(64);
        let deadlines = Deadlines { headers: SOON, keep_alive: SOON * 100, body: SOON * 100 };
        let mut server = ClientIo::new(server, ConnState::new(deadlines, false, "edge"));
        let answer = [b'x'; 64];
        let taken = if flushed { 60 } else { 64 };
        server.write_all(&answer[..taken]).await.unwrap();
        if flushed {
            server.flush().await.unwrap();
        }
        // There is room for more again: not being read is not what keeps the 408 back.
        let mut read = [0; 64];
        client.read_exact(&mut read[..taken]).await.unwrap();
        client.write_all(b"GET / HT").await.unwrap();
        let mut head = Vec::new();
        server.read_to_end(&mut head).await.unwrap();
        assert_eq!(head, b"GET / HT");
        drop(server);
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        rest
    }

    #[tokio::test]
    async fn a_408_is_only_written_between_answers() {
        assert!(after_half_a_head(true).await.starts_with("HTTP/1.1 408 "));
        assert_eq!(after_half_a_head(false).await, "", "the rest of the answer was still to come");
    }
}
