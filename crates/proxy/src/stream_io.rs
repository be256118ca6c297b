//! Both directions of one HTTP/2 stream of a client as bytes: what a tunnel carries. A client that makes no room in time
//! is given up, as one whose connection takes no bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::conn_state::ConnState;
use crate::streams::PIECE;
use crate::timer::LazyTimer;

/// The stream.
pub(crate) struct StreamIo {
    receive: RecvStream,
    send: SendStream<Bytes>,
    /// What came and was not read yet.
    unread: Bytes,
    /// Since when the client has made no room.
    blocked: Option<Instant>,
    timer: LazyTimer,
    state: Arc<ConnState>,
}

impl StreamIo {
    pub(crate) fn new(receive: RecvStream, send: SendStream<Bytes>, state: Arc<ConnState>) -> Self {
        Self { receive, send, unread: Bytes::new(), blocked: None, timer: LazyTimer::default(), state }
    }

    /// Ends it so that what came so far does not look whole (RFC 8441 5: as the reset of a connection).
    pub(crate) fn give_up(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    /// Ready when the client has had its time to make room.
    fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let since = *self.blocked.get_or_insert_with(Instant::now);
        // While the socket itself takes no more, all streams wait for it, and it has a deadline of its own.
        let since = self.state.last_write_block().map_or(since, |blocked| blocked.max(since));
        ready!(self.timer.poll_expired(cx, since + self.state.deadlines.body));
        self.give_up();
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "client makes no room"))
    }
}

impl Drop for StreamIo {
    /// Nobody waits any longer for room that the client does not make.
    fn drop(&mut self) {
        if self.blocked.is_some() {
            self.give_up();
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
}

impl AsyncRead for StreamIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                Some(Ok(data)) => {
                    // What is read makes room for more. Refused only where the stream has ended.
                    let _ = this.receive.flow_control().release_capacity(data.len());
                    this.unread = data;
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread[..n]);
        this.unread.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        while this.send.capacity() == 0 {
            // One byte is asked for, not all of them: see `outgoing`.
            this.send.reserve_capacity(1);
            match this.send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(error))),
                Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Poll::Pending => return this.poll_given_up(cx).map(Err),
            }
        }
        this.blocked = None;
        let n = buf.len().min(PIECE);
        let sent = this.send.send_data(Bytes::copy_from_slice(&buf[..n]), false);
        Poll::Ready(sent.map(|()| n).map_err(broken))
    }

    /// The connection's own task writes it. Fails, and wakes the task later on, when the client has reset the stream.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().send.poll_reset(cx) {
            Poll::Ready(Ok(_)) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(broken(error))),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().send.send_data(Bytes::new(), true).map_err(broken))
    }
}
