//! The client's bytes: one socket (plain or TLS) with the deadlines that hyper does not keep.
//!
//! hyper has one clock for "reading a head" and "idle between requests" and none for a stalled writer. This wrapper
//! knows which of the three it is, closes what takes too long, and lets the service put interim (1xx) answers on the
//! wire, which hyper's HTTP/1 server cannot send. It knows nothing of routing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::conn_state::{ConnState, LAST_CALL, UNREAD};
use crate::linger::Linger;
use crate::socket::Socket;
use crate::timer::LazyTimer;

/// Longest time in which a client may go on sending what nobody reads.
const WASTED: Duration = Duration::from_secs(30);

/// A client's stream, plain or TLS.
pub(crate) trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// The socket under it.
    fn socket(&self) -> &TcpStream;
}

impl ClientStream for Socket {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl ClientStream for tokio_rustls::server::TlsStream<Socket> {
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
    /// The client has closed its side, or is gone.
    ended: bool,
    linger: Option<Linger>,
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
            ended: false,
            linger: None,
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
            // The end of the answer wakes nobody: whoever is woken by this finds the connection idle since then.
            self.read_timer.ring_within(cx, self.state.deadlines.keep_alive);
            return Poll::Pending;
        }
        let requests = self.state.requests.load(Relaxed);
        if self.was_busy || requests != self.seen {
            self.was_busy = false;
            self.seen = requests;
            self.partial = false;
            self.waiting_since = self.state.ended();
        }
        let deadlines = self.state.deadlines;
        let patience = if self.partial || requests == 0 { deadlines.headers } else { deadlines.keep_alive };
        let mut until = self.waiting_since + patience;
        if let (Some(since), false, false) = (self.state.draining_since(), self.partial, self.state.h2) {
            // HTTP/1 has no GOAWAY: what a client has sent already is answered, and what it sends in a moment.
            until = until.min(self.waiting_since.max(since) + LAST_CALL);
        }
        ready!(self.read_timer.poll_own(cx, until));
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

    /// All is said. Ready when the client has heard it, as far as it may still be sending.
    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // hyper waited for a head: all before it was read.
        let read = !self.state.unread.load(Relaxed) || (self.timed_out && !self.state.h2);
        let (silence, longest) = match (self.state.h2, read) {
            _ if self.ended => return Poll::Ready(()),
            (true, _) => (LAST_CALL, UNREAD),
            (false, true) => return Poll::Ready(()),
            (false, false) if self.state.is_draining() => (LAST_CALL, UNREAD),
            (false, false) => (UNREAD, WASTED),
        };
        self.linger.get_or_insert_with(Linger::begin).poll(cx, self.inner.socket(), silence, longest)
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
                this.ended = result.is_err() || buf.filled().len() == before;
                if this.state.h2 && buf.filled().len() > before {
                    this.state.note_heard();
                }
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
        if this.linger.is_none() {
            let result = Pin::new(&mut this.inner).poll_shutdown(cx);
            if result.is_ready() {
                this.state.ends_with_connection.store(false, Relaxed);
            }
            ready!(this.judge_write(cx, result))?;
        }
        this.poll_heard(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::conn_state::Deadlines;

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

    /// What waits to read while a request runs is not told of its end, and must not wait for ever.
    #[tokio::test]
    async fn a_connection_that_was_read_while_busy_is_idle_no_longer_than_it_may() {
        let (_client, server) = tokio::io::duplex(64);
        let state =
            ConnState::new(Deadlines { headers: SOON * 400, keep_alive: SOON, body: SOON * 400 }, false, "edge");
        let mut server = ClientIo::new(server, Arc::clone(&state));
        let active = state.enter();
        let reading = tokio::spawn(async move { server.read(&mut [0; 8]).await });
        tokio::time::sleep(SOON * 3).await;
        assert!(!reading.is_finished(), "a request runs");
        let end = Instant::now();
        active.ends(end);
        drop(active);
        let read = tokio::time::timeout(SOON * 400, reading).await.expect("it ends").unwrap();
        assert_eq!(read.unwrap(), 0);
        assert!(end.elapsed() >= SOON, "not before its time: {:?}", end.elapsed());
    }

    #[tokio::test]
    async fn a_connection_that_shall_end_does_not_outlive_its_last_answer() {
        let (_client, server) = tokio::io::duplex(64);
        let state = ConnState::new(Deadlines { headers: SOON, keep_alive: SOON * 4000, body: SOON }, false, "edge");
        let mut server = ClientIo::new(server, Arc::clone(&state));
        let active = state.enter();
        let waker = Arc::clone(&state);
        let reading = tokio::spawn(async move {
            let mut head = [0; 8];
            let mut buffer = ReadBuf::new(&mut head);
            std::future::poll_fn(|cx| {
                waker.register(cx.waker());
                Pin::new(&mut server).poll_read(cx, &mut buffer)
            })
            .await
        });
        tokio::task::yield_now().await;
        state.drain();
        tokio::task::yield_now().await;
        assert!(!reading.is_finished(), "a request runs");
        active.ends(Instant::now());
        drop(active);
        tokio::time::timeout(SOON * 400, reading).await.expect("it ends").unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_408_is_only_written_between_answers() {
        assert!(after_half_a_head(true).await.starts_with("HTTP/1.1 408 "));
        assert_eq!(after_half_a_head(false).await, "", "the rest of the answer was still to come");
    }
}
