//! Whether the other end of an HTTP/2 connection is still there: after a silence it is asked (PING), and given up after
//! another one.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use h2::{Ping, PingPong};

use crate::timer::LazyTimer;

/// Watches one connection.
pub(crate) struct Watch {
    pings: PingPong,
    /// The longest silence before the other end is asked, and then before it is given up.
    quiet: Duration,
    /// When it was asked, and has not answered.
    asked: Option<Instant>,
    /// When it answered last.
    answered: Option<Instant>,
    timer: LazyTimer,
}

impl Watch {
    pub(crate) fn new(pings: PingPong, quiet: Duration) -> Self {
        Self { pings, quiet, asked: None, answered: None, timer: LazyTimer::default() }
    }

    /// Ready when the other end has been silent in spite of a question; it is asked only when somebody `waits` for it.
    /// Whatever it sends is a sign of life (`heard` last then): its answer may be behind a large body.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, heard: Instant, waits: bool) -> Poll<()> {
        if self.asked.is_some() && self.pings.poll_pong(cx).is_ready() {
            self.asked = None;
            self.answered = Some(Instant::now());
        }
        let heard = self.answered.map_or(heard, |answered| answered.max(heard));
        loop {
            if self.asked.is_none() && !waits {
                return Poll::Pending;
            }
            let since = self.asked.map_or(heard, |asked| asked.max(heard));
            ready!(self.timer.poll_expired(cx, since + self.quiet));
            if self.asked.is_some() {
                return Poll::Ready(());
            }
            // Refused by a connection that is ending already.
            let _ = self.pings.send_ping(Ping::opaque());
            self.asked = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const QUIET: Duration = Duration::from_millis(300);
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const PING: u8 = 6;
    const ACK: u8 = 1;

    /// A client that answers so many questions and no more; says how often it was asked.
    async fn client(mut stream: DuplexStream, answers: u32) -> u32 {
        stream.write_all(PREFACE).await.unwrap();
        let mut asked = 0;
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == PING && head[4] == 0 {
                asked += 1;
                if asked <= answers {
                    head[4] = ACK;
                    stream.write_all(&[&head[..], &payload].concat()).await.unwrap();
                }
            }
        }
        asked
    }

    async fn connected(answers: u32) -> (h2::server::Connection<DuplexStream, Bytes>, tokio::task::JoinHandle<u32>) {
        let (here, there) = tokio::io::duplex(1 << 16);
        let client = tokio::spawn(client(there, answers));
        (h2::server::handshake(here).await.unwrap(), client)
    }

    #[tokio::test]
    async fn who_answers_is_asked_again_and_who_does_not_is_given_up() {
        for answers in [0, 2] {
            let (mut connection, client) = connected(answers).await;
            let mut watch = Watch::new(connection.ping_pong().unwrap(), QUIET);
            let begun = Instant::now();
            poll_fn(|cx| {
                let _ = connection.poll_accept(cx);
                watch.poll_gone(cx, begun, true)
            })
            .await;
            // One silence before each question, and one after the last: an answer ends a silence.
            assert!(begun.elapsed() >= QUIET * (answers + 2), "asked or given up too early");
            drop(connection);
            assert_eq!(client.await.unwrap(), answers + 1);
        }
    }

    #[tokio::test]
    async fn nobody_is_asked_for_whom_nobody_waits() {
        let (mut connection, _client) = connected(0).await;
        let mut watch = Watch::new(connection.ping_pong().unwrap(), QUIET);
        let heard = Instant::now();
        tokio::time::sleep(QUIET).await;
        let idle = poll_fn(|cx| Poll::Ready(watch.poll_gone(cx, heard, false))).await;
        assert!(idle.is_pending() && watch.asked.is_none());
        let waiting = poll_fn(|cx| Poll::Ready(watch.poll_gone(cx, heard, true))).await;
        assert!(waiting.is_pending() && watch.asked.is_some(), "the silence was long enough");
    }

    #[tokio::test]
    async fn whatever_comes_is_a_sign_of_life() {
        let (mut connection, _client) = connected(0).await;
        let mut watch = Watch::new(connection.ping_pong().unwrap(), QUIET);
        let mut heard = Instant::now();
        tokio::time::sleep(QUIET).await;
        for _ in 0..3 {
            assert!(poll_fn(|cx| Poll::Ready(watch.poll_gone(cx, heard, true))).await.is_pending());
            tokio::time::sleep(QUIET).await;
            heard = Instant::now();
        }
        assert!(watch.asked.is_some(), "it never answered the question");
    }
}
