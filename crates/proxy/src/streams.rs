//! HTTP/2 streams of one client connection: each a task of its own, with the deadline that hyper does not keep. hyper
//! waits for ever for a client to make room for the answer; here the silence of a client ends its stream.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::rt::Executor;
use parking_lot::Mutex;

use crate::conn_state::ConnState;
use crate::timer::LazyTimer;

/// Pieces in which an answer is given to an HTTP/2 stream: the least that a client must take within its deadline.
/// RFC 9113 4.2: the frame size that everybody takes.
pub(crate) const PIECE: usize = 16 << 10;

tokio::task_local! {
    static TURN: Arc<Turn>;
}

/// Whose turn it is in one stream: since when the client has something to take, if it has.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    since: Mutex<Option<Instant>>,
    late: AtomicBool,
}

impl Turn {
    /// That of the stream this is called in; `None` on an HTTP/1 connection.
    pub(crate) fn current() -> Option<Arc<Turn>> {
        TURN.try_with(Arc::clone).ok()
    }

    /// Something was given to the client: it is asked for more when there is room for it.
    pub(crate) fn client(&self) {
        *self.since.lock() = Some(Instant::now());
    }

    /// There is nothing to give now.
    pub(crate) fn backend(&self) {
        *self.since.lock() = None;
    }

    /// The client let its time pass: the stream is being ended.
    pub(crate) fn is_late(&self) -> bool {
        self.late.load(Relaxed)
    }
}

/// Runs the streams of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Streams(pub(crate) Arc<ConnState>);

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(Watched {
            stream: Box::pin(stream),
            turn: Arc::default(),
            state: Arc::clone(&self.0),
            timer: LazyTimer::default(),
        });
    }
}

/// One stream. When it ends before its answer does, h2 resets it.
struct Watched<F> {
    stream: Pin<Box<F>>,
    turn: Arc<Turn>,
    state: Arc<ConnState>,
    timer: LazyTimer,
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let stream = this.stream.as_mut();
        if TURN.sync_scope(Arc::clone(&this.turn), || stream.poll(cx)).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = *this.turn.since.lock() else { return Poll::Pending };
        // While the socket itself takes no more, all streams wait for it, and it has a deadline of its own.
        let since = this.state.last_write_block().map_or(since, |blocked| blocked.max(since));
        ready!(this.timer.poll_expired(cx, since + this.state.deadlines.body));
        this.turn.late.store(true, Relaxed);
        Poll::Ready(())
    }
}
