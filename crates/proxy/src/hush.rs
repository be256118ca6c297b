//! The task of a connection to a backend is not woken for the last piece of an answer.
//!
//! hyper wakes it whenever a piece is taken, as there is room for the next one then. After the last one that is a turn of its
//! loop for nothing: the connection was ready for the next request when it handed that piece over.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;

thread_local! {
    /// A piece is being taken on this thread. All that is woken meanwhile is the connection it comes on, if that is here too.
    static TAKING: Cell<bool> = const { Cell::new(false) };
    /// The task that was to be woken.
    static WOKEN: Cell<Option<Waker>> = const { Cell::new(None) };
}

/// What a connection is polled with in place of the waker of its task.
struct Hushed(Waker);

impl Wake for Hushed {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if TAKING.get() {
            WOKEN.set(Some(self.0.clone()));
        } else {
            self.0.wake_by_ref();
        }
    }
}

/// While it is there, a piece is being taken. A panic ends it too.
struct Taking;

impl Taking {
    fn begin() -> Self {
        TAKING.set(true);
        Self
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        TAKING.set(false);
    }
}

/// Drives a connection to its end.
pub(crate) async fn drive<C: Future>(connection: C) -> C::Output {
    let mut connection = pin!(connection);
    let mut known: Option<(Waker, Waker)> = None;
    poll_fn(|cx| {
        // Mostly it is the task it was.
        let (_, hushed) = match &known {
            Some(both) if both.0.will_wake(cx.waker()) => both,
            _ => known.insert((cx.waker().clone(), Waker::from(Arc::new(Hushed(cx.waker().clone()))))),
        };
        connection.as_mut().poll(&mut Context::from_waker(hushed))
    })
    .await
}

/// The next piece of an answer that comes on such a connection.
pub(crate) fn poll_frame(
    incoming: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let taking = Taking::begin();
    let polled = Pin::new(&mut *incoming).poll_frame(cx);
    drop(taking);
    // Only where the length was stated is a piece known to be the last.
    if let Some(task) = WOKEN.take().filter(|_| !incoming.is_end_stream()) {
        task.wake();
    }
    polled
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use http::Request;
    use http_body_util::{Empty, combinators::BoxBody};
    use hyper::client::conn::http1::{SendRequest, handshake};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    type Asker = SendRequest<BoxBody<Bytes, std::convert::Infallible>>;

    /// A connection whose turns are counted, and the backend's end of it.
    async fn connected() -> (Asker, Arc<AtomicUsize>, DuplexStream) {
        let (here, there) = duplex(16 << 10);
        let (send, connection) = handshake(TokioIo::new(here)).await.unwrap();
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        tokio::spawn(drive(async move {
            let mut connection = pin!(connection);
            poll_fn(|cx| {
                counted.fetch_add(1, Relaxed);
                connection.as_mut().poll(cx)
            })
            .await
        }));
        (send, turns, there)
    }

    /// Asks, and takes the answer that the backend gives: its body's length, and the turns it took to take it.
    async fn ask(send: &mut Asker, turns: &AtomicUsize, there: &mut DuplexStream, answer: &[u8]) -> (usize, usize) {
        send.ready().await.unwrap();
        let request = Request::get("/").header("host", "a").body(BoxBody::new(Empty::new())).unwrap();
        let (asked, ()) = tokio::join!(send.send_request(request), async {
            let mut head = [0; 1024];
            let _ = there.read(&mut head).await.unwrap();
            there.write_all(&answer[..answer.len().min(8192)]).await.unwrap();
        });
        let mut body = asked.unwrap().into_body();
        settle().await;
        let before = turns.load(Relaxed);
        let taken = async {
            let mut taken = 0;
            while let Some(frame) = poll_fn(|cx| poll_frame(&mut body, cx)).await {
                taken += frame.unwrap().into_data().unwrap().len();
            }
            settle().await;
            taken
        };
        let (taken, ()) = tokio::join!(taken, async {
            there.write_all(answer.get(8192..).unwrap_or_default()).await.unwrap();
        });
        (taken, turns.load(Relaxed) - before)
    }

    /// Lets every task that is woken have its turn.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_last_piece_wakes_nobody_and_the_others_do() {
        let (mut send, turns, mut there) = connected().await;
        let of = |length: usize| {
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes(), vec![b'x'; length]].concat()
        };
        for length in [1, 5000, 1 << 20, 1] {
            let answer = of(length);
            let asked = ask(&mut send, &turns, &mut there, &answer);
            let (taken, took) = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("all of it comes");
            assert_eq!(taken, length);
            assert!(length > 8192 || took == 0, "{took} turns for the last piece of {length}");
        }
        // Where no length is stated the end is still to come.
        let asked = ask(
            &mut send,
            &turns,
            &mut there,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        );
        assert_eq!(tokio::time::timeout(Duration::from_secs(20), asked).await.expect("it ends").0, 5);
        send.ready().await.unwrap();
    }
}
