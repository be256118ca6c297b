//! A TCP connection to a backend that tells a dead line from a busy backend: bytes that nobody acknowledges break it, bytes
//! that a living kernel holds for an application that does not read do not.
//!
//! `TCP_USER_TIMEOUT` (RFC 5482) is the means, and it has a catch: Linux lets it also end a connection whose peer
//! acknowledges everything and has no room for more. So it is in force only while what was sent fits into any window.
//!
//! Where nothing is sent, nothing stays unacknowledged: a connection that only receives, or waits for an answer, would be
//! silent for ever once something on its way has forgotten it. So the kernel asks the other one (keep-alive, RFC 9293
//! 3.8.4) as soon as a line has been silent for a while, and stops when it speaks. Where a request waits for its answer it
//! asks earlier and more often, as soon as what was sent has had its time. The kernel of a slow application answers, and no
//! single question that is lost ends a line.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep};

use crate::socket::poll_write_pieces;

/// Bytes that a peer takes without its application reading: half of the window that a new connection has.
const ROOM: usize = 32 << 10;

/// The silence after which the kernel asks, and asks again.
const ASK_AFTER: Duration = Duration::from_secs(3);

/// The same while an answer is waited for: a kernel counts in whole seconds.
const ASK_SOON: Duration = Duration::from_secs(1);

/// Between two questions that nobody answers.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The same while an answer is waited for. Linux answers no more often (`tcp_invalid_ratelimit`).
const NUDGE: Duration = Duration::from_millis(500);

/// From the first question until a line is given up, at least: four have had their time by then where an answer is waited
/// for, and three where not. The kernel itself counts from the last word, and may ask only shortly before its limit.
const HEARD_SOON: Duration = Duration::from_millis(1750);
const HEARD: Duration = Duration::from_millis(2750);

/// Where an answer is waited for a line may be silent for so long at least.
const LEAST_SILENCE: Duration = Duration::from_secs(3);

/// The kernel ends a connection so much later than it was told to, at most: it looks when it sends again.
const LATE: Duration = Duration::from_secs(1);

/// An answer that has been waited for so many times longer than a dead line would be is waited for like any silence.
const HURRY: u32 = 3;

/// So many questions stay unanswered before a connection is dead. On a line that loses one packet in a hundred each way, two
/// would end nearly every third idle WebSocket each hour; four end one in seven thousand.
const QUESTIONS: u32 = 4;

/// The silence after which those have had their time.
const CALM: Duration = Duration::from_secs(ASK_AFTER.as_secs() + ASK_EVERY.as_secs() * QUESTIONS as u64);

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
    /// How often it is looked at while nothing comes.
    every: Duration,
    /// Looks then, and wakes the task that reads.
    look: Option<(Pin<Box<Sleep>>, Waker)>,
    /// A byte came or went since the last look.
    moved: bool,
    /// Nothing has moved for this long, in whole looks.
    silent: Duration,
    /// Nothing has moved since then, or a little later. Unlike `silent` it knows of looks that came late.
    since: Instant,
    asking: Asking,
}

/// Whether the kernel asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    No,
    /// Often, as an answer is waited for.
    Hurried,
    Calm,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    /// Requests. A byte of the backend shows that it has read what was sent before, and whatever is sent after that may stay
    /// unacknowledged for this long, if it says so: only what may be repeated uses a connection again.
    Requests(Option<Duration>),
    /// Requests that share it (HTTP/2), or may: it has questions of its own (PING), and not all that is sent is answered.
    Shared,
    /// Anything: a word of the backend shows nothing.
    Bytes,
}

impl Line {
    /// The first bytes sent may stay unacknowledged for `patience`. While nothing comes it is looked at `every` so
    /// often.
    pub(crate) fn new(stream: TcpStream, patience: Duration, every: Duration, kind: Carries) -> Self {
        // Not fatal where refused: both only shorten waits.
        let _ = stream.set_nodelay(true);
        let watched = SockRef::from(&stream).set_tcp_user_timeout(Some(patience)).is_ok();
        Self {
            stream,
            unread: 0,
            kind,
            patience,
            answered: false,
            watched,
            every,
            look: None,
            moved: false,
            silent: Duration::ZERO,
            since: Instant::now(),
            asking: Asking::No,
        }
    }

    /// It turned out to be HTTP/1: one request at a time uses it, and sent bytes may stay unacknowledged for `patience`.
    pub(crate) fn unshare(&mut self, patience: Duration) {
        self.kind = Carries::Requests(None);
        self.watch(patience);
    }

    /// From now on sent bytes may stay unacknowledged for `patience`.
    fn watch(&mut self, patience: Duration) {
        self.patience = patience;
        self.watched = SockRef::from(&self.stream).set_tcp_user_timeout(Some(patience)).is_ok();
    }

    /// Nothing is there to read: has it been like this for a while? Costs a request nothing, as one look covers all that
    /// passes until then.
    fn wait(&mut self, cx: &mut Context<'_>) {
        while self.asking != Asking::Calm {
            let every = if self.asking == Asking::Hurried { NUDGE } else { self.every };
            let (look, waker) = self.look.get_or_insert_with(|| (Box::pin(sleep(every)), Waker::noop().clone()));
            if !look.is_elapsed() && waker.will_wake(cx.waker()) {
                return;
            }
            waker.clone_from(cx.waker());
            // Unconstrained: a task that has used up what the runtime lets it do at once would be told to come again, and the
            // timer not be armed.
            if pin!(unconstrained(look.as_mut())).poll(cx).is_pending() {
                return;
            }
            if std::mem::take(&mut self.moved) {
                self.silent = Duration::ZERO;
                self.since = look.deadline() - every;
            } else {
                self.silent += every;
            }
            // What was sent last had its time then: it is acknowledged, or this connection has ended. So it is, too, where the
            // answer has come for which the kernel hurried.
            let answered = self.asking == Asking::Hurried && self.unread == 0;
            let arrived = answered || self.silent >= self.patience + LATE;
            if !self.silent.is_zero() && (arrived || self.patience >= LEAST_SILENCE) && self.hurries() {
                self.ask(Asking::Hurried);
            } else if arrived {
                self.look = None;
                self.ask(Asking::Calm);
                return;
            }
            let next = if self.asking == Asking::Hurried { NUDGE } else { self.every };
            if let Some((look, waker)) = &mut self.look {
                look.as_mut().reset(Instant::now() + next);
                waker.clone_from(Waker::noop());
            }
        }
    }

    /// Whether an answer is waited for, and not for so long already that it is the application which takes its time.
    fn hurries(&self) -> bool {
        let limit = self.silence();
        matches!(self.kind, Carries::Requests(_)) && self.unread > 0 && limit < CALM && self.silent < limit * HURRY
    }

    /// How long the line may be silent while an answer is waited for.
    fn silence(&self) -> Duration {
        self.patience.max(LEAST_SILENCE)
    }

    /// The kernel asks whether the other end still knows this connection; where it does that already and hurries, once more
    /// if the last question was not answered.
    fn ask(&mut self, how: Asking) {
        let socket = SockRef::from(&self.stream);
        let hurried = how == Asking::Hurried;
        let questions = TcpKeepalive::new().with_time(if hurried { ASK_SOON } else { ASK_AFTER });
        if self.asking == how {
            let _ = socket.set_tcp_keepalive(&questions);
            return;
        }
        let first = std::mem::replace(&mut self.asking, how) == Asking::No;
        // Not fatal where refused: both only shorten waits.
        if self.watched {
            // While it is set it decides instead of the number of questions. It counts from the last word: the first question
            // comes late in it, or after it.
            let (limit, heard) = if hurried { (self.silence(), HEARD_SOON) } else { (self.patience.max(CALM), HEARD) };
            let least = if first { self.since.elapsed() + heard } else { Duration::ZERO };
            let _ = socket.set_tcp_user_timeout(Some(limit.max(least)));
        }
        let _ = socket.set_tcp_keepalive(&questions.with_interval(ASK_EVERY).with_retries(QUESTIONS));
    }

    /// Before bytes are sent: the first ones after a word of the backend are watched, however many went before.
    fn sending(&mut self) {
        self.moved = true;
        if std::mem::replace(&mut self.asking, Asking::No) != Asking::No {
            self.silent = Duration::ZERO;
            let socket = SockRef::from(&self.stream);
            let _ = socket.set_keepalive(false);
            if self.watched {
                let _ = socket.set_tcp_user_timeout(Some(self.patience));
            }
        }
        if self.kind == Carries::Bytes || !self.answered || self.unread > 0 {
            return;
        }
        let shorter = if let Carries::Requests(again) = &mut self.kind { again.take() } else { None };
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
        let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buf) else {
            this.wait(cx);
            return Poll::Pending;
        };
        read?;
        this.moved = true;
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
        let written = poll_write_pieces(&mut this.stream, cx, bufs);
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
#[path = "line_tests.rs"]
mod tests;
