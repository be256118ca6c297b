//! Writing to a TCP socket with the cheaper of the kernel's two calls. To name one piece of memory, or a head and a short body,
//! to it as a list (`writev`) costs it more than to put them together here and send them as one.

use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

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

/// A client's TCP socket.
#[derive(Debug)]
pub(crate) struct Socket(pub(crate) TcpStream);

impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_write_pieces(&mut self.get_mut().0, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::IoSlice;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn pieces_arrive_in_order_however_many_and_long_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut there, _) = listener.accept().await.unwrap();
        let mut socket = Socket(stream);
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
