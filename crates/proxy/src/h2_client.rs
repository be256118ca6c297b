//! HTTP/2 towards one backend: a connection that many requests share, each a stream of its own, and their interim
//! answers.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{Method, Request, Response, header};
use http_body::Body;
use relais_core::Fault;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use crate::alive::Watch;
use crate::backend_body::{BackendBody, Received};
use crate::body::SendBody;
use crate::interim::Hear;
use crate::outgoing::Outgoing;
use crate::sender::{SendFailure, io_fault};
use crate::stream_body::REMEMBERED;

/// What a backend may send of one answer ahead of a client that does not read.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same of all answers on a connection.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// The head of an answer, at most.
const HEAD_BYTES: u32 = 256 << 10;
/// What may wait in memory of one request whose backend does not read.
const SEND_BUFFER: usize = 1 << 20;
/// Small pieces of answers whose clients do not read, counted as h2 counts them (what each lacks to 256 bytes): the windows
/// above, full of pieces of 32 bytes. Beyond it the connection ends with all it carries.
const SMALL_PIECES: usize = 32 << 20;
/// A backend that has answered and makes no room for the rest of the request for so long will not read it.
const UNREAD: Duration = Duration::from_secs(15);
/// Streams that may be opened before the backend has said how many it takes (RFC 9113 6.5.2 wants no fewer).
const STREAMS_AT_FIRST: usize = 100;

/// A shared connection.
#[derive(Clone)]
pub(crate) struct H2Sender {
    send: SendRequest<Bytes>,
    line: Arc<Line>,
}

/// What the users of a connection and the task that drives it share.
#[derive(Debug)]
pub(crate) struct Line {
    /// Streams it carries.
    streams: AtomicUsize,
    /// Streams the backend allows; kept up to date by the task.
    allowed: AtomicUsize,
    /// The backend was given up because it did not answer a question.
    silent: AtomicBool,
    /// When the backend last sent something that somebody waited for, in milliseconds after `born`.
    heard: AtomicU64,
    born: Instant,
}

impl Line {
    pub(crate) fn note_heard(&self) {
        self.heard.store(u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    fn heard(&self) -> Instant {
        self.born + Duration::from_millis(self.heard.load(Relaxed))
    }

    /// What an error of the connection or of a stream says about the request on it.
    fn judge(&self, error: &h2::Error) -> SendFailure {
        // The peer's word that it did nothing with the stream (RFC 9113 6.8 and 8.7): refused, or beyond the last one it
        // took before going away, for whatever reason. Those that it took break with the connection, if they do.
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        if error.is_remote() && (refused || error.is_go_away()) {
            return SendFailure::NotSent;
        }
        if self.silent.load(Relaxed) {
            return SendFailure::Sent(Fault::Unacknowledged);
        }
        // What is no HTTP/2, or too large a head: the backend answered, though nothing of use. Its site is well.
        if error.is_library() {
            return SendFailure::Sent(Fault::Malformed);
        }
        SendFailure::Sent(error.get_io().map_or(Fault::Reset, io_fault))
    }
}

/// Starts HTTP/2 on a connection and a task that drives it. While a request waits, a silence of `quiet` is followed by a
/// question, and another one by the end: a connection that died in silence is noticed without waiting for a timeout.
///
/// # Errors
/// The connection broke.
pub(crate) async fn handshake<S>(io: S, quiet: Duration) -> Result<(H2Sender, AbortHandle), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new();
    builder
        .initial_max_send_streams(STREAMS_AT_FIRST)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_BYTES)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED.0)
        .reset_stream_duration(REMEMBERED.1)
        .data_frame_budget(SMALL_PIECES)
        .enable_push(false);
    let (send, mut connection) =
        builder.handshake(io).await.map_err(|error| error.get_io().map_or(Fault::Reset, io_fault))?;
    let line = Arc::new(Line {
        streams: AtomicUsize::new(0),
        allowed: AtomicUsize::new(send.current_max_send_streams()),
        silent: AtomicBool::new(false),
        heard: AtomicU64::new(0),
        born: Instant::now(),
    });
    let mut watch = connection.ping_pong().map(|pings| Watch::new(pings, quiet));
    let shared = Arc::clone(&line);
    let driver = tokio::spawn(async move {
        let ended = poll_fn(|cx| {
            // First what has come: this worker itself may have stood still meanwhile.
            let state = Pin::new(&mut connection).poll(cx);
            shared.allowed.store(connection.max_concurrent_send_streams(), Relaxed);
            let waits = shared.streams.load(Relaxed) > 0;
            if state.is_ready() {
                return state;
            }
            if watch.as_mut().is_some_and(|watch| watch.poll_gone(cx, shared.heard(), waits).is_ready()) {
                // What waits on it hears of the end when the connection is dropped.
                shared.silent.store(true, Relaxed);
                return Poll::Ready(Ok(()));
            }
            state
        });
        if let Err(error) = ended.await {
            tracing::trace!(%error, "connection to a backend ended");
        }
    });
    Ok((H2Sender { send, line }, driver.abort_handle()))
}

impl H2Sender {
    /// Whether no further request can be put on it: it broke, or its backend goes away.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.send.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// Whether another stream fits into what the backend allows.
    pub(crate) fn has_room(&self) -> bool {
        self.line.streams.load(Relaxed) < self.line.allowed.load(Relaxed).max(1)
    }

    /// Sends one request and waits for the head of its answer.
    pub(crate) async fn send(
        mut self,
        request: Request<SendBody>,
        hear: Option<Hear>,
    ) -> Result<(Response<BackendBody>, InUse), SendFailure> {
        let stream = Arc::new(Stream::new(&self.line));
        let (mut head, body) = request.into_parts();
        dress(&mut head, &body);
        if poll_fn(|cx| self.send.poll_ready(cx)).await.is_err() {
            return Err(SendFailure::NotSent);
        }
        let sent = self.send.send_request(Request::from_parts(head, ()), body.is_end_stream());
        // Its reference would keep the connection open for as long as this stream.
        drop(self.send);
        let (mut response, send) = sent.map_err(|error| self.line.judge(&error))?;
        let uploading = upload(send, body, &stream).await;
        let head = poll_fn(|cx| poll_head(&mut response, cx, &self.line, hear.as_ref())).await;
        let (head, receive) = head.map_err(|error| self.line.judge(&error))?.into_parts();
        let body = BackendBody::H2(Received::new(receive, &head.headers, self.line));
        Ok((Response::from_parts(head, body), InUse { _stream: stream, uploading }))
    }
}

/// The head of a request as HTTP/2 wants it.
fn dress(head: &mut http::request::Parts, body: &SendBody) {
    // What a service's own edits may have put there (RFC 9113 8.2.2).
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        head.headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        head.headers.remove(name);
    }
    if head.headers.get(header::TE).is_some_and(|te| te != "trailers") {
        head.headers.remove(header::TE);
    }
    if let Some(length) = body.size_hint().exact()
        && (length > 0 || !matches!(head.method, Method::GET | Method::HEAD | Method::DELETE))
    {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}

/// The head of the answer; what is interim goes to `hear`.
fn poll_head(
    response: &mut ResponseFuture,
    cx: &mut Context<'_>,
    line: &Line,
    hear: Option<&Hear>,
) -> Poll<Result<Response<h2::RecvStream>, h2::Error>> {
    while let Some(interim) = ready!(response.poll_informational(cx)) {
        let interim = interim?;
        line.note_heard();
        if let Some(hear) = hear {
            hear.hear(interim.status(), interim.headers());
        }
    }
    let head = ready!(Pin::new(response).poll(cx))?;
    line.note_heard();
    Poll::Ready(Ok(head))
}

/// One stream on a shared connection, counted.
#[derive(Debug)]
struct Stream(Arc<Line>);

impl Stream {
    fn new(line: &Arc<Line>) -> Self {
        line.streams.fetch_add(1, Relaxed);
        Self(Arc::clone(line))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

/// A stream whose answer has begun. Dropped before the answer is complete, it takes the rest of the request along.
#[derive(Debug)]
pub(crate) struct InUse {
    _stream: Arc<Stream>,
    uploading: Option<Uploading>,
}

impl InUse {
    /// The answer is complete. What is left of the request goes on, as the backend may still want it.
    pub(crate) fn complete(self) {
        if let Some(uploading) = self.uploading {
            uploading.leave();
        }
    }
}

/// The task that sends a request's body; dropped, it ends and the stream is reset.
#[derive(Debug)]
struct Uploading {
    task: AbortHandle,
    /// The answer is complete: nobody waits for the rest of the request.
    left: Arc<AtomicBool>,
}

impl Uploading {
    fn leave(self) {
        self.left.store(true, Relaxed);
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        if !self.left.load(Relaxed) {
            self.task.abort();
        }
    }
}

/// Sends a request's body, in a task of its own if it does not go out at once. The backend counts the stream until both its
/// ends are closed, and so does the task.
async fn upload(send: SendStream<Bytes>, body: SendBody, stream: &Arc<Stream>) -> Option<Uploading> {
    if body.is_end_stream() {
        return None;
    }
    let mut out = Outgoing::new(send, body, Reason::CANCEL);
    if poll_fn(|cx| Poll::Ready(out.poll(cx))).await.is_ready() {
        return None;
    }
    let left = Arc::new(AtomicBool::new(false));
    let task = tokio::spawn(send_rest(out, Arc::clone(stream), Arc::clone(&left)));
    Some(Uploading { task: task.abort_handle(), left })
}

async fn send_rest(mut out: Outgoing<SendBody>, _stream: Arc<Stream>, left: Arc<AtomicBool>) {
    loop {
        tokio::select! {
            _ = poll_fn(|cx| out.poll(cx)) => return,
            () = tokio::time::sleep(UNREAD) => {
                // Dropped, it resets the stream.
                if left.load(Relaxed) && out.blocked().is_some_and(|since| since.elapsed() >= UNREAD) {
                    return;
                }
            }
        }
    }
}
