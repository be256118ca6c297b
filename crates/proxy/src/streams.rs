//! One HTTP/2 stream of a client: a task of its own, from the head of its request to the last byte of its answer. What a
//! client does not take in time ends its stream; what it resets ends here and at the backend.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{FlowControl, Reason};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use parking_lot::Mutex;

use crate::conn_state::ConnState;
use crate::connection::Client;
use crate::date;
use crate::headers::{self, Present};
use crate::outgoing::Outgoing;
use crate::request_body::RequestBody;
use crate::response_body::ResponseBody;
use crate::service;
use crate::timer::LazyTimer;

/// Pieces in which an answer is given to an HTTP/2 stream: the least that a client must take within its deadline.
/// RFC 9113 4.2: the frame size that everybody takes.
pub(crate) const PIECE: usize = 16 << 10;

/// Interim answers to one request at most: they wait in memory for a client that does not read, as no window holds them.
const MOST_INTERIM: u32 = 100;

/// Streams of a connection that are kept open for their client to hear, at most: each is a task, and takes the place of another
/// stream.
const MOST_PARTING: u32 = 16;

/// The answering side of a stream until the head of its answer is out: interim answers go before it, none behind it.
#[derive(Debug)]
pub(crate) struct Reply {
    respond: Mutex<Option<SendResponse<Bytes>>>,
    told: AtomicU32,
    /// Keeps the stream open for a client that is still sending when all is said.
    open: Option<FlowControl>,
    /// Its request was not read to its end.
    pub(crate) unread: AtomicBool,
}

impl Reply {
    /// `open`: of a stream on which more is to come.
    pub(crate) fn new(respond: SendResponse<Bytes>, open: Option<FlowControl>) -> Arc<Self> {
        let unread = AtomicBool::new(open.is_some());
        Arc::new(Self { respond: Mutex::new(Some(respond)), told: AtomicU32::new(0), open, unread })
    }

    /// All is said. A client that is still sending is told to stop (RFC 9113 8.1) when it has had a moment to hear the answer:
    /// one that meets the end of its stream while it sends may take that for all there is, as curl 7.88 does. It sends no more than
    /// its window meanwhile, and that is thrown away.
    async fn part(&self, state: &ConnState) {
        if self.open.is_none() || !self.unread.load(Relaxed) {
            return;
        }
        let moment = state.moment_to_hear();
        if state.parting.fetch_add(1, Relaxed) < MOST_PARTING {
            // In a box: every stream would carry room for it.
            Box::pin(tokio::time::sleep(moment)).await;
        }
        state.parting.fetch_sub(1, Relaxed);
    }

    /// Sends an interim answer (RFC 9113 8.1), unless the final one has begun. HTTP/2 has no 101 (RFC 9113 8.6).
    pub(crate) fn tell(&self, status: StatusCode, mut fields: HeaderMap) {
        let mut respond = self.respond.lock();
        let Some(respond) = respond.as_mut().filter(|_| status != StatusCode::SWITCHING_PROTOCOLS) else { return };
        if self.told.fetch_add(1, Relaxed) >= MOST_INTERIM {
            return;
        }
        strip(&mut fields);
        let mut interim = Response::new(());
        *interim.status_mut() = status;
        *interim.headers_mut() = fields;
        if let Err(error) = respond.send_informational(interim) {
            tracing::debug!(%error, "an interim answer could not be sent");
        }
    }

    /// Ready when the client has reset the stream, or is gone.
    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.respond.lock().as_mut() {
            Some(respond) => respond.poll_reset(cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    /// No interim answer from here on.
    fn close(&self) -> Option<SendResponse<Bytes>> {
        self.respond.lock().take()
    }
}

/// Fields that have no meaning in HTTP/2 (RFC 9113 8.2.2).
fn strip(fields: &mut HeaderMap) {
    headers::strip_hop_by_hop(fields, Present::in_(fields));
}

/// Serves one stream to its end. A stream that is dropped before its end is reset.
pub(crate) async fn serve(client: Arc<Client>, request: Box<Request<RequestBody>>, reply: Arc<Reply>) {
    let state = Arc::clone(&client.state);
    let mut handling = service::handle(client, *request);
    let response = poll_fn(|cx| match handling.as_mut().poll(cx) {
        Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
        Poll::Pending => reply.poll_reset(cx).map(|()| None),
    })
    .await;
    // It is large, and its room is free as soon as the head is there.
    drop(handling);
    let respond = reply.close();
    let (Some(response), Some(mut respond)) = (response, respond) else { return };
    let (head, mut body) = dressed(response);
    let ended = body.is_end_stream();
    let send = match respond.send_response(head, ended) {
        Ok(send) => send,
        Err(error) => {
            tracing::debug!(%error, "the head of an answer could not be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
            return;
        }
    };
    drop(respond);
    if ended {
        drop(send);
        return reply.part(&state).await;
    }
    if let Some(tunnel) = body.tunnel() {
        // Gone only where the edge stops: the stream is reset.
        drop(tunnel.send(send));
        return;
    }
    let out = Outgoing::new(send, body, Reason::INTERNAL_ERROR);
    let mut answer = Answer { out, timer: LazyTimer::default(), state };
    let whole = poll_fn(|cx| answer.poll(cx)).await;
    let state = Arc::clone(&answer.state);
    drop(answer);
    if whole {
        reply.part(&state).await;
    }
}

/// The head of an answer as HTTP/2 wants it, with what every answer has.
fn dressed(response: Response<ResponseBody>) -> (Response<()>, ResponseBody) {
    let (mut head, body) = response.into_parts();
    strip(&mut head.headers);
    head.headers.entry(header::DATE).or_insert_with(date::now);
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
    {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    (Response::from_parts(head, ()), body)
}

/// The body of an answer on its way to a client that must take it in time.
struct Answer {
    out: Outgoing<ResponseBody>,
    timer: LazyTimer,
    state: Arc<ConnState>,
}

impl Answer {
    /// Ready when there is nothing more to do: whether the client has all of it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Poll::Ready(whole) = self.out.poll(cx) {
            return Poll::Ready(whole);
        }
        let Some(since) = self.out.blocked() else { return Poll::Pending };
        // While the socket itself takes no more, all streams wait for it, and it has a deadline of its own.
        let since = self.state.last_write_block().map_or(since, |blocked| blocked.max(since));
        ready!(self.timer.poll_expired(cx, since + self.state.deadlines.body));
        self.out.body.client_stalled();
        Poll::Ready(false)
    }
}
