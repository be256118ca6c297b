//! A TCP connection to a backend that tells a dead line from a busy backend: bytes that nobody acknowledges break it, bytes
//! that a living kernel holds for an application that does not read do not.
//!
//! `TCP_USER_TIMEOUT` (RFC 5482) is the means, and it has a catch: Linux lets it also end a connection whose peer
//! acknowledges everything and has no room for more. So it is in force only while what was sent fits into any window.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that a peer takes without its application reading: half of the window that a new connection has.
const ROOM: usize = 32 << 10;

/// The connection.
#[derive(Debug)]
pub(crate) struct Line {
    stream: TcpStream,
    /// Bytes sent that the backend may not have read yet.
    unread: usize,
    kind: Carries,
    /// How long sent bytes may stay unacknowledged.
    patience: Duration,
    answered: bool,
    watched: bool,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    /// Requests. A byte of the backend shows that it has read what was sent before, and whatever is sent after that may stay
    /// unacknowledged for this long, if it says so: only what may be repeated uses a connection again.
    Requests(Option<Duration>),
    /// Anything: a word of the backend shows nothing.
    Bytes,
}

impl Line {
    /// The first bytes sent may stay unacknowledged for `patience`.
    pub(crate) fn new(stream: TcpStream, patience: Duration, kind: Carries) -> Self {
        // Not fatal where refused: both only shorten waits.
        let _ = stream.set_nodelay(true);
        let watched = SockRef::from(&stream).set_tcp_user_timeout(Some(patience)).is_ok();
        Self { stream, unread: 0, kind, patience, answered: false, watched }
    }

    /// From now on sent bytes may stay unacknowledged for `patience`.
    pub(crate) fn watch(&mut self, patience: Duration) {
        self.patience = patience;
        self.watched = SockRef::from(&self.stream).set_tcp_user_timeout(Some(patience)).is_ok();
    }

    /// Before bytes are sent: the first ones after a word of the backend are watched, however many went before.
    fn sending(&mut self) {
        let Carries::Requests(again) = &mut self.kind else { return };
        if !self.answered || self.unread > 0 {
            return;
        }
        let shorter = again.take();
        if shorter.is_some() || !self.watched {
            self.watch(shorter.unwrap_or(self.patience));
        }
    }

    fn sent(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let n = ready!(written)?;
        self.unread = self.unread.saturating_add(n);
        if self.watched && self.unread > ROOM {
            self.watched = false;
            let _ = SockRef::from(&self.stream).set_tcp_user_timeout(None);
        }
        Poll::Ready(Ok(n))
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if this.kind != Carries::Bytes && buf.filled().len() > before {
            this.unread = 0;
            this.answered = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.sending();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.sent(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.sending();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(7);

    const AGAIN: Duration = Duration::from_secs(2);

    async fn pair(kind: Carries) -> (TcpStream, Line) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (there, _) = listener.accept().await.unwrap();
        (there, Line::new(stream, PATIENCE, kind))
    }

    fn timeout(line: &Line) -> Option<Duration> {
        SockRef::from(&line.stream).tcp_user_timeout().unwrap().filter(|limit| !limit.is_zero())
    }

    /// Sends half of the room, hears a byte, and sends as much again, often.
    async fn talk(kind: Carries) -> Option<Duration> {
        let (mut there, mut line) = pair(kind).await;
        for _ in 0..4 {
            line.write_all(&[0; ROOM / 2]).await.unwrap();
            there.write_all(b"x").await.unwrap();
            line.read_exact(&mut [0]).await.unwrap();
        }
        timeout(&line)
    }

    #[tokio::test]
    async fn only_what_fits_into_any_window_is_watched() {
        let (_there, mut line) = pair(Carries::Requests(None)).await;
        assert_eq!(timeout(&line), Some(PATIENCE));
        line.write_all(&[0; ROOM]).await.unwrap();
        assert_eq!(timeout(&line), Some(PATIENCE));
        line.write_all(&[0]).await.unwrap();
        assert_eq!(timeout(&line), None);
    }

    #[tokio::test]
    async fn a_connection_that_carried_much_is_watched_again_by_the_next_request() {
        for (again, expected) in [(None, PATIENCE), (Some(AGAIN), AGAIN)] {
            let (mut there, mut line) = pair(Carries::Requests(again)).await;
            line.write_all(&[0; ROOM + 1]).await.unwrap();
            there.read_exact(&mut [0; ROOM + 1]).await.unwrap();
            there.write_all(b"x").await.unwrap();
            line.read_exact(&mut [0]).await.unwrap();
            assert_eq!(timeout(&line), None);
            for _ in 0..2 {
                line.write_all(&[0]).await.unwrap();
                assert_eq!(timeout(&line), Some(expected));
            }
        }
    }

    #[tokio::test]
    async fn an_answer_shows_that_the_request_was_read_and_a_word_in_a_tunnel_does_not() {
        assert_eq!(talk(Carries::Requests(None)).await, Some(PATIENCE));
        assert_eq!(talk(Carries::Requests(Some(AGAIN))).await, Some(AGAIN));
        assert_eq!(talk(Carries::Bytes).await, None);
    }
}
