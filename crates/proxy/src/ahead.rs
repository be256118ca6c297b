//! Reading ahead of TLS: rustls asks its socket for one record at a time, so a client that sends much would cost a call to the
//! kernel, and often a packet that tells it of the room made, for every 16 KiB. Knows neither TLS nor HTTP.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Bytes read at a time from a client that sends much.
const MUCH: usize = 128 << 10;
/// Fewer than these, and it sends much no longer: one record of TLS.
const LITTLE: usize = 16 << 10;
/// Reads in a row that came back full: then it sends much.
const IN_A_ROW: u8 = 2;

/// What was read and not asked for yet.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Room is there only while there is something in it, or more to come at once.
    bytes: BytesMut,
    /// Reads in a row that came back full.
    full: u8,
}

impl Ahead {
    /// Reads from what there is, then from the stream.
    pub(crate) fn poll_read<S>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncRead + Unpin,
    {
        if self.bytes.is_empty() {
            if self.full < IN_A_ROW {
                let polled = Pin::new(stream).poll_read(cx, buf);
                self.full = if polled.is_ready() && buf.remaining() == 0 { self.full + 1 } else { 0 };
                return polled;
            }
            self.bytes.reserve(MUCH);
            match pin!(stream.read_buf(&mut self.bytes)).poll(cx) {
                Poll::Ready(Ok(LITTLE..)) => {}
                Poll::Ready(Ok(_)) => self.full = 0,
                other => {
                    // A client that pauses holds no memory.
                    self.bytes = BytesMut::new();
                    return other.map_ok(drop);
                }
            }
        }
        let length = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes[..length]);
        self.bytes.advance(length);
        if self.bytes.is_empty() && self.full == 0 {
            self.bytes = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A stream that counts how often it is read, and says how much was asked for last.
    struct Counted {
        stream: DuplexStream,
        reads: usize,
        asked: usize,
    }

    impl AsyncRead for Counted {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.reads += 1;
            self.asked = buf.remaining();
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    /// One read of at most so many bytes; `None`: there is nothing yet.
    async fn read(ahead: &mut Ahead, from: &mut Counted, room: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; room];
        let mut buf = ReadBuf::new(&mut bytes);
        let polled = poll_fn(|cx| Poll::Ready(ahead.poll_read(from, cx, &mut buf))).await;
        let length = buf.filled().len();
        polled.is_ready().then(|| bytes[..length].to_vec())
    }

    fn counted(room: usize) -> (DuplexStream, Counted) {
        let (there, here) = duplex(room);
        (there, Counted { stream: here, reads: 0, asked: 0 })
    }

    #[tokio::test]
    async fn much_is_read_in_few_reads_and_in_order() {
        let (mut there, mut here) = counted(4 << 20);
        let mut ahead = Ahead::default();
        for length in [1 << 20, (1 << 20) + 1, MUCH, LITTLE - 1, 1] {
            let sent: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            there.write_all(&sent).await.unwrap();
            let (mut got, before) = (Vec::new(), here.reads);
            while let Some(bytes) = read(&mut ahead, &mut here, 16_406).await {
                got.extend(bytes);
            }
            assert!(got == sent, "{length}");
            let reads = here.reads - before;
            assert!(reads <= 4 + length / MUCH, "{reads} reads for {length}");
            assert_eq!(ahead.bytes.capacity(), 0, "who pauses holds no memory");
        }
        drop(there);
        assert_eq!(read(&mut ahead, &mut here, 5).await, Some(Vec::new()), "its end");
    }

    #[tokio::test]
    async fn little_is_read_as_it_is_asked_for() {
        let (mut there, mut here) = counted(1 << 20);
        let mut ahead = Ahead::default();
        for _ in 0..5 {
            there.write_all(&[b'x'; 4097]).await.unwrap();
            for (room, length) in [(4096, 4096), (4096, 1)] {
                assert_eq!(read(&mut ahead, &mut here, room).await.unwrap().len(), length);
                assert_eq!(here.asked, room);
            }
        }
        // Much, and then little again.
        there.write_all(&[b'x'; 3 * 4096 + 100]).await.unwrap();
        while read(&mut ahead, &mut here, 4096).await.is_some() {}
        there.write_all(b"x").await.unwrap();
        assert_eq!(read(&mut ahead, &mut here, 4096).await.unwrap(), b"x");
        assert_eq!(here.asked, 4096);
    }
}
