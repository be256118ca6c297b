//! WebSockets as streams of HTTP/2 connections (RFC 8441), so many to each: ten thousand need a hundred sockets of a client.

use std::future::poll_fn;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, StatusCode};

use crate::client::{FRAME, is_echo};
use crate::load::Plan;

/// The newest connection, and how many streams it has.
pub(crate) struct Sessions {
    newest: Option<SendRequest<Bytes>>,
    begun: usize,
    /// None: there are no such connections.
    pub(crate) each: usize,
}

/// One WebSocket.
pub(crate) struct Socket {
    send: SendStream<Bytes>,
    receive: RecvStream,
}

impl Sessions {
    /// Connections of `each` streams.
    pub(crate) fn of(each: usize) -> Self {
        Self { newest: None, begun: 0, each }
    }

    /// One more WebSocket, on a new connection where the newest is full.
    pub(crate) async fn open(&mut self, plan: &Plan) -> io::Result<Socket> {
        if self.begun == self.each || self.newest.is_none() {
            (self.newest, self.begun) = (Some(session(plan).await?), 0);
        }
        let Some(session) = &mut self.newest else { return Err(io::ErrorKind::NotConnected.into()) };
        self.begun += 1;
        poll_fn(|cx| session.poll_ready(cx)).await.map_err(io::Error::other)?;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("https://{}/ws", plan.host))
            .header("sec-websocket-version", "13")
            .extension(Protocol::from_static("websocket"));
        let request = request.body(()).map_err(io::Error::other)?;
        let (answer, send) = session.send_request(request, false).map_err(io::Error::other)?;
        let answer = answer.await.map_err(io::Error::other)?;
        match answer.status() {
            StatusCode::OK => Ok(Socket { send, receive: answer.into_body() }),
            other => Err(io::Error::other(format!("status {other} to an extended CONNECT"))),
        }
    }
}

/// A connection that has been used once: by then its server has said what it takes, extended CONNECT among it.
async fn session(plan: &Plan) -> io::Result<SendRequest<Bytes>> {
    let stream = plan.way.secure(&plan.tls).await?;
    let (session, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(async move { drop(connection.await) });
    let mut session = session.ready().await.map_err(io::Error::other)?;
    let request = Request::get(format!("https://{}/s", plan.host)).body(()).map_err(io::Error::other)?;
    let (answer, _) = session.send_request(request, true).map_err(io::Error::other)?;
    let mut body = answer.await.map_err(io::Error::other)?.into_body();
    while taken(&mut body).await?.is_some() {}
    Ok(session)
}

impl Socket {
    /// One frame there and one back.
    pub(crate) async fn message(&mut self) -> io::Result<()> {
        self.send.send_data(Bytes::from_static(&FRAME), false).map_err(io::Error::other)?;
        let mut echo = BytesMut::new();
        while !is_echo(&echo)? {
            echo.extend_from_slice(&taken(&mut self.receive).await?.ok_or(io::ErrorKind::UnexpectedEof)?);
        }
        Ok(())
    }
}

/// The next piece of a body; the room for it is given back.
async fn taken(body: &mut RecvStream) -> io::Result<Option<Bytes>> {
    let Some(data) = body.data().await else { return Ok(None) };
    let data = data.map_err(io::Error::other)?;
    body.flow_control().release_capacity(data.remaining()).map_err(io::Error::other)?;
    Ok(Some(data))
}
