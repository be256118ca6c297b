//! HTTP/2 towards one client: takes its streams, each of which becomes a task (see `streams`), asks a silent client
//! whether it is still there, and ends the connection without losing a request.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request};
use relais_core::config::ClientLimits;

use crate::alive::Watch;
use crate::client_io::{ClientIo, ClientStream};
use crate::connection::Client;
use crate::request_body::RequestBody;
use crate::stream_body::REMEMBERED;
use crate::streams::{self, Reply};

/// A client that said nothing for so long is asked, and given up after as much silence again.
const QUIET: Duration = Duration::from_secs(20);

/// What one stream may send ahead of a backend that does not read.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same of all streams of a connection. Several times as much: one backend that does not read must not stop what goes
/// to others.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// What may wait in memory of one answer whose client does not read.
const SEND_BUFFER: usize = 256 << 10;

/// Streams reset for the client's own mistakes until the connection is closed (CVE-2025-8671).
const MISTAKES: usize = 1024;

/// Serves a connection to its end.
///
/// # Errors
/// It did not end in order.
pub(crate) async fn serve<S>(io: ClientIo<S>, client: Arc<Client>, limit: &ClientLimits) -> Result<(), h2::Error>
where
    S: ClientStream + Send + 'static,
{
    let state = Arc::clone(&client.state);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limit.h2_streams)
        .max_header_list_size(u32::try_from(limit.header_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED.0)
        .reset_stream_duration(REMEMBERED.1)
        .max_local_error_reset_streams(Some(MISTAKES))
        .enable_connect_protocol();
    let mut handshake = pin!(builder.handshake::<_, Bytes>(io));
    let mut connection = poll_fn(|cx| {
        state.register(cx.waker());
        handshake.as_mut().poll(cx)
    })
    .await?;
    let mut watch = connection.ping_pong().map(|pings| Watch::new(pings, QUIET));
    let mut told = false;
    poll_fn(|cx| {
        state.register(cx.waker());
        if state.is_draining() && !told {
            told = true;
            // Two GOAWAYs a round trip apart (RFC 9113 6.8): what the client sent before it heard is served.
            connection.graceful_shutdown();
        }
        loop {
            // First what has come: this worker itself may have stood still meanwhile.
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => start(&client, request, respond),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(watch.as_mut().map_or(Poll::Pending, |watch| watch.poll_gone(cx, state.heard(), true)));
                    watch = None;
                    connection.abrupt_shutdown(Reason::NO_ERROR);
                }
            }
        }
    })
    .await
}

/// Starts a stream.
fn start(client: &Arc<Client>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (head, mut receive) = request.into_parts();
    // What is taken for a tunnel has its own end.
    let comes = !receive.is_end_stream() && head.method != Method::CONNECT;
    let reply = Reply::new(respond, comes.then(|| receive.flow_control().clone()));
    let body = RequestBody::on_stream(receive, &head.headers, &reply);
    // In a box: it would be copied on its way into the task.
    let request = Box::new(Request::from_parts(head, body));
    // So is the stream, and made there: tokio copies a task seven times until it runs, and three times when it ends.
    let room = Box::new_uninit();
    tokio::spawn(Box::into_pin(Box::write(room, streams::serve(Arc::clone(client), request, reply))));
}
