//! Writing to a TCP socket with the cheaper of the kernel's two calls. To name one piece of memory, or a head and a short body,
//! to it as a list (`writev`) costs it more than to put them together here and send them as one.

use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::ahead::Ahead;

/// As many bytes are worth putting together: a head and a short body.
const SHORT: usize = 1 << 10;

/// Writes the pieces, or a part of them, as `AsyncWrite::poll_write_vectored` does.
pub(crate) fn poll_write_pieces(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    pieces: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
    if let [one] = pieces {
        return stream.poll_write(cx, one);
    }
    let mut together = [0_u8; SHORT];
    let mut length = 0;
    for piece in pieces {
        let Some(room) = together.get_mut(length..length + piece.len()) else {
            return stream.poll_write_vectored(cx, pieces);
        };
        room.copy_from_slice(piece);
        length += piece.len();
    }
    stream.poll_write(cx, &together[..length])
}

/// A client's TCP socket. The last words of a handshake (session tickets, RFC 8446 4.6.1) can be held back, to go out with the
/// first words of the answer: nobody waits for them, and a packet of their own costs as much as that of the answer.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// What is written is held back for now.
    holds: bool,
    /// What was: it goes before all that is written later.
    held: Vec<u8>,
    /// What is read goes through it.
    ahead: Option<Ahead>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, holds: false, held: Vec::new(), ahead: None }
    }

    /// Reads ahead from here on: whoever reads asks for little at a time.
    pub(crate) fn read_ahead(&mut self) {
        self.ahead = Some(Ahead::default());
    }

    /// Holds back what is written from here on, until something more is to be read and is not there.
    pub(crate) fn hold(&mut self) {
        self.holds = true;
    }

    /// Holds back no more than it does already.
    pub(crate) fn hold_no_more(&mut self) {
        self.holds = false;
    }

    /// Writes what was held back.
    pub(crate) fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..written);
        }
        self.held = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Writes the pieces behind what was held back. How much of the pieces was written.
    fn poll_write_behind(&mut self, cx: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let all: Vec<io::IoSlice<'_>> = std::iter::once(io::IoSlice::new(&self.held))
            .chain(pieces.iter().map(|piece| io::IoSlice::new(piece)))
            .collect();
        let written = ready!(poll_write_pieces(&mut self.stream, cx, &all))?;
        let behind = written.saturating_sub(self.held.len());
        self.held.drain(..written - behind);
        if behind > 0 {
            self.held = Vec::new();
            return Poll::Ready(Ok(behind));
        }
        ready!(self.poll_release(cx))?;
        poll_write_pieces(&mut self.stream, cx, pieces)
    }
}

impl Drop for Socket {
    /// What is held back at the end is the reason for it, in a handshake that failed.
    fn drop(&mut self) {
        if !self.held.is_empty() {
            // Refused only by a socket that is gone already.
            let _ = self.stream.try_write(&self.held);
        }
    }
}

impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = match &mut this.ahead {
            Some(ahead) => ahead.poll_read(&mut this.stream, cx, buf),
            None => Pin::new(&mut this.stream).poll_read(cx, buf),
        };
        if this.holds && read.is_pending() {
            // The other end waits for it, as for the second answer to its hello (RFC 8446 4.1.4).
            ready!(this.poll_release(cx))?;
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.holds {
            let before = this.held.len();
            bufs.iter().for_each(|piece| this.held.extend_from_slice(piece));
            return Poll::Ready(Ok(this.held.len() - before));
        }
        if this.held.is_empty() {
            return poll_write_pieces(&mut this.stream, cx, bufs);
        }
        this.poll_write_behind(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is held back stays so.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_release(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::IoSlice;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (there, _) = listener.accept().await.unwrap();
        (Socket::new(stream), there)
    }

    /// A socket that holds this back.
    async fn holding(held: &[u8]) -> (Socket, TcpStream) {
        let (mut socket, there) = pair().await;
        socket.hold();
        socket.write_all(held).await.unwrap();
        socket.hold_no_more();
        socket.flush().await.unwrap();
        (socket, there)
    }

    async fn all_of(mut there: TcpStream) -> Vec<u8> {
        let mut read = Vec::new();
        there.read_to_end(&mut read).await.unwrap();
        read
    }

    #[tokio::test]
    async fn what_is_held_back_goes_before_the_next_words_and_with_them() {
        for length in [1, SHORT, 64 << 10] {
            let (mut socket, mut there) = holding(b"held").await;
            let words = vec![b'w'; length];
            socket.write_all(&words).await.unwrap();
            assert!(socket.held.is_empty());
            let mut first = [0; 5];
            assert_eq!(there.read(&mut first).await.unwrap(), 5, "in one piece");
            assert_eq!(&first, b"heldw");
            drop(socket);
            assert_eq!(all_of(there).await.len(), length - 1);
        }
    }

    #[tokio::test]
    async fn what_is_held_back_is_not_lost_at_the_end() {
        let (mut socket, there) = holding(b"held").await;
        socket.shutdown().await.unwrap();
        assert_eq!(all_of(there).await, b"held");
        let (socket, there) = holding(b"held").await;
        drop(socket);
        assert_eq!(all_of(there).await, b"held");
    }

    #[tokio::test]
    async fn nothing_is_held_back_from_one_who_is_waited_for() {
        let (mut socket, mut there) = pair().await;
        socket.hold();
        socket.write_all(b"hello").await.unwrap();
        let mut read = [0; 5];
        let (asked, heard) = tokio::join!(socket.read_u8(), async {
            there.read_exact(&mut read).await.unwrap();
            there.write_all(b"x").await
        });
        assert_eq!((asked.unwrap(), heard.unwrap(), &read), (b'x', (), b"hello"));
    }

    #[tokio::test]
    async fn pieces_arrive_in_order_however_many_and_long_they_are() {
        let (mut socket, mut there) = pair().await;
        for lengths in [&[5][..], &[5, 7], &[SHORT - 1, 1], &[SHORT, 1], &[1, 0, 2 * SHORT], &[3, 3, 3]] {
            let pieces: Vec<Vec<u8>> = (b'a'..).zip(lengths).map(|(letter, &length)| vec![letter; length]).collect();
            let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let whole = pieces.concat();
            let written = poll_fn(|cx| Pin::new(&mut socket).poll_write_vectored(cx, &slices)).await.unwrap();
            assert_eq!(written, whole.len(), "an empty socket buffer takes it all");
            let mut read = vec![0; written];
            there.read_exact(&mut read).await.unwrap();
            assert!(read == whole, "{lengths:?}");
        }
    }
}
