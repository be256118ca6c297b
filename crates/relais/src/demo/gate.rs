//! A connection that can be frozen: as if the cable were cut, nothing is read, written or closed any more.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Shared by all connections of one site.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    frozen: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    /// From now on nothing moves.
    pub(crate) fn freeze(&self) {
        self.lock().frozen = true;
    }

    /// Everything that waited moves again.
    pub(crate) fn thaw(&self) {
        let mut inner = self.lock();
        inner.frozen = false;
        for waker in inner.waiting.drain(..) {
            waker.wake();
        }
    }

    /// Ready unless frozen.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if !inner.frozen {
            return Poll::Ready(());
        }
        if !inner.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            inner.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `S` behind a gate.
#[derive(Debug)]
pub(crate) struct Gated<S> {
    stream: S,
    gate: Gate,
}

impl<S> Gated<S> {
    pub(crate) fn new(stream: S, gate: Gate) -> Self {
        Self { stream, gate }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.gate.poll(cx));
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.gate.poll(cx));
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.gate.poll(cx));
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.gate.poll(cx));
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_frozen_connection_neither_reads_nor_closes_and_goes_on_afterwards() {
        let gate = Gate::default();
        let (mut here, there) = tokio::io::duplex(64);
        let mut there = Gated::new(there, gate.clone());
        gate.freeze();
        here.write_all(b"hello").await.unwrap();
        let reader = tokio::spawn(async move {
            let mut word = [0; 5];
            there.read_exact(&mut word).await.unwrap();
            there.write_all(b"back").await.unwrap();
            word
        });
        let mut silence = [0; 4];
        let waited = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(waited, here.read(&mut silence)).await.is_err(), "a frozen peer is silent");
        gate.thaw();
        assert_eq!(&reader.await.unwrap(), b"hello");
        here.read_exact(&mut silence).await.unwrap();
        assert_eq!(&silence, b"back");
    }
}
