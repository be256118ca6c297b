//! HTTP/2 frame by frame, both ends: a client of the edge and a backend behind it. Each runs on a thread of its own;
//! the test drives it with plain calls.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::raw::Addressed;
use super::{PATIENCE, certs, own_ip};

/// A runtime on a thread of its own.
struct Background {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Background {
    fn start() -> Background {
        let (stop, stopped) = oneshot::channel::<()>();
        let (give, take) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            give.send(runtime.handle().clone()).unwrap();
            let _ = runtime.block_on(stopped);
        });
        Background { handle: take.recv().unwrap(), _stop: stop }
    }

    #[track_caller]
    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        patiently(&self.handle, work)
    }
}

#[track_caller]
fn patiently<T>(handle: &Handle, work: impl Future<Output = T>) -> T {
    let result = handle.block_on(async { tokio::time::timeout(PATIENCE, work).await });
    result.expect("waited in vain on HTTP/2")
}

/// Room for many streams at once: one that is not read does not hold up the others.
fn builder() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(16 << 20);
    builder
}

/// A client connection.
pub(crate) struct Client {
    background: Background,
    send: h2::client::SendRequest<Bytes>,
    scheme: &'static str,
}

impl Client {
    /// Plain text, with prior knowledge.
    #[track_caller]
    pub(crate) fn plain(address: SocketAddr) -> Client {
        Client::built(address, &builder())
    }

    /// Plain text; at first there is room for this many bytes of each answer, and for more only behind what was read.
    #[track_caller]
    pub(crate) fn with_room(address: SocketAddr, bytes: u32) -> Client {
        let mut builder = builder();
        builder.initial_window_size(bytes);
        Client::built(address, &builder)
    }

    fn built(address: SocketAddr, builder: &h2::client::Builder) -> Client {
        let background = Background::start();
        let send = background.run(async {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (send, connection) = builder.handshake(stream).await.unwrap();
            tokio::spawn(async move { drop(connection.await) });
            send
        });
        Client { background, send, scheme: "http" }
    }

    /// Under TLS, by ALPN.
    #[track_caller]
    pub(crate) fn secure(address: SocketAddr, host: &str, roots: rustls::RootCertStore) -> Client {
        let background = Background::start();
        let host = rustls::pki_types::ServerName::try_from(host.to_owned()).unwrap();
        let send = background.run(async {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let connector = tokio_rustls::TlsConnector::from(certs::client_config(roots, &[b"h2"]));
            let stream = connector.connect(host, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (send, connection) = builder().handshake(stream).await.unwrap();
            tokio::spawn(async move { drop(connection.await) });
            send
        });
        Client { background, send, scheme: "https" }
    }

    /// Whether the edge says that it takes extended CONNECT (RFC 8441 3).
    pub(crate) fn may_connect(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled()
    }

    /// Starts a request; `end`: it has no body.
    #[track_caller]
    pub(crate) fn start(&self, request: http::request::Builder, end: bool) -> Call {
        let request: Request<()> = request.body(()).unwrap();
        let (mut send, handle) = (self.send.clone(), self.background.handle.clone());
        let (response, stream) = self.background.run(async move {
            poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
            send.send_request(request, end).unwrap()
        });
        Call { handle, response: Some(response), send: stream, receive: None, unread: Vec::new() }
    }

    /// Asks, unless the edge said that it takes nothing more on this connection.
    #[track_caller]
    pub(crate) fn try_get(&self, path: &str) -> Option<Call> {
        let request = Request::get(self.url(path)).body(()).unwrap();
        let (mut send, handle) = (self.send.clone(), self.background.handle.clone());
        let (response, stream) = self.background.run(async move {
            poll_fn(|cx| send.poll_ready(cx)).await.ok()?;
            send.send_request(request, true).ok()
        })?;
        Some(Call { handle, response: Some(response), send: stream, receive: None, unread: Vec::new() })
    }

    /// `https://a.test/path` or its plain sister.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://a.test{path}", self.scheme)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Call {
        self.start(Request::get(self.url(path)), true)
    }
}

/// One request under way.
pub(crate) struct Call {
    handle: Handle,
    response: Option<h2::client::ResponseFuture>,
    send: SendStream<Bytes>,
    receive: Option<RecvStream>,
    /// Read and not looked at yet.
    unread: Vec<u8>,
}

impl Call {
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8], end: bool) -> &mut Self {
        let send = &mut self.send;
        patiently(&self.handle, push(send, bytes, end)).unwrap();
        self
    }

    /// Sends until the other end makes no more room.
    pub(crate) fn stuff(&mut self) {
        let block = [b'x'; 16 << 10];
        let send = &mut self.send;
        let room = Duration::from_millis(500);
        self.handle.block_on(async {
            while let Ok(sent) = tokio::time::timeout(room, push(send, &block, false)).await {
                sent.unwrap();
            }
        });
    }

    pub(crate) fn trailers(&mut self, trailers: HeaderMap) {
        self.send.send_trailers(trailers).unwrap();
    }

    /// The response head, or how the stream ended.
    #[track_caller]
    pub(crate) fn try_head(&mut self) -> Result<Response<()>, h2::Error> {
        let response = self.response.take().expect("the head is read once");
        let response = patiently(&self.handle, response)?;
        let (head, body) = response.into_parts();
        self.receive = Some(body);
        Ok(Response::from_parts(head, ()))
    }

    #[track_caller]
    pub(crate) fn head(&mut self) -> Response<()> {
        self.try_head().unwrap()
    }

    /// The next interim answer; `None`: the head comes next.
    #[track_caller]
    pub(crate) fn interim(&mut self) -> Option<Response<()>> {
        let response = self.response.as_mut().expect("interim answers come before the head");
        patiently(&self.handle, poll_fn(|cx| response.poll_informational(cx))).map(Result::unwrap)
    }

    /// The `link` fields of all interim answers before the head, which are hints.
    #[track_caller]
    pub(crate) fn hints(&mut self) -> Vec<String> {
        let mut links = Vec::new();
        while let Some(interim) = self.interim() {
            assert_eq!(interim.status(), 103);
            links.push(interim.headers()["link"].to_str().unwrap().to_owned());
        }
        links
    }

    /// The next piece of the body; `None` at its end.
    #[track_caller]
    pub(crate) fn data(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let receive = self.receive.as_mut().expect("the head comes first");
        patiently(&self.handle, next(receive))
    }

    /// Everything up to the end: body and trailers.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
        if self.response.is_some() {
            self.try_head()?;
        }
        let receive = self.receive.as_mut().expect("the head comes first");
        patiently(&self.handle, whole(receive))
    }

    /// Exactly so many bytes of the body, or fewer at its end.
    #[track_caller]
    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.unread.len() < n
            && let Some(data) = self.data()
        {
            self.unread.extend_from_slice(&data.unwrap());
        }
        let n = n.min(self.unread.len());
        self.unread.drain(..n).collect()
    }

    /// Gives the stream up.
    pub(crate) fn reset(&mut self) {
        self.send.send_reset(h2::Reason::CANCEL);
    }
}

async fn push(send: &mut SendStream<Bytes>, bytes: &[u8], end: bool) -> Result<(), h2::Error> {
    let mut left = Bytes::copy_from_slice(bytes);
    while !left.is_empty() {
        send.reserve_capacity(left.len());
        let room = match poll_fn(|cx| send.poll_capacity(cx)).await {
            Some(room) => room?,
            None => return Err(h2::Reason::STREAM_CLOSED.into()),
        };
        let piece = left.split_to(room.min(left.len()));
        let last = left.is_empty();
        send.send_data(piece, end && last)?;
    }
    if bytes.is_empty() && end {
        send.send_data(Bytes::new(), true)?;
    }
    Ok(())
}

async fn next(receive: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = receive.data().await?;
    if let Ok(data) = &data {
        let _ = receive.flow_control().release_capacity(data.len());
    }
    Some(data)
}

async fn whole(receive: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = next(receive).await {
        body.extend_from_slice(&data?);
    }
    let trailers = receive.trailers().await?;
    Ok((body, trailers))
}

/// A backend that speaks HTTP/2, in plain text or under TLS.
pub(crate) struct Backend {
    _background: Background,
    pub(crate) address: SocketAddr,
    calls: Mutex<mpsc::Receiver<Served>>,
    connections: Arc<AtomicUsize>,
}

/// A request at the backend.
pub(crate) struct Served {
    handle: Handle,
    pub(crate) request: Request<()>,
    receive: RecvStream,
    respond: h2::server::SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    /// Which of the backend's connections it came on, from 0.
    pub(crate) connection: usize,
}

impl Backend {
    pub(crate) fn plain() -> Backend {
        Backend::start(None, None)
    }

    /// Goes away (GOAWAY) after each so many requests of one connection, and answers what it took.
    pub(crate) fn leaving_after(requests: usize) -> Backend {
        Backend::start(None, Some(requests))
    }

    pub(crate) fn secure(identity: &certs::Identity) -> Backend {
        Backend::start(Some(identity.server(&[b"h2"])), None)
    }

    fn start(tls: Option<Arc<rustls::ServerConfig>>, leaves: Option<usize>) -> Backend {
        let background = Background::start();
        let (give, calls) = mpsc::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let listener = background.run(async { TcpListener::bind((own_ip(), 0)).await.unwrap() });
        let address = listener.local_addr().unwrap();
        let (handle, count) = (background.handle.clone(), Arc::clone(&connections));
        background.handle.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (give, handle, tls, count) = (give.clone(), handle.clone(), tls.clone(), Arc::clone(&count));
                tokio::spawn(async move {
                    match tls {
                        None => accept_calls(stream, give, handle, &count, leaves).await,
                        Some(tls) => {
                            if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                                accept_calls(stream, give, handle, &count, leaves).await;
                            }
                        }
                    }
                });
            }
        });
        Backend { _background: background, address, calls: Mutex::new(calls), connections }
    }

    /// The next request.
    #[track_caller]
    pub(crate) fn call(&self) -> Served {
        self.calls.lock().unwrap().recv_timeout(PATIENCE).expect("a request at the HTTP/2 backend")
    }

    pub(crate) fn try_call(&self) -> Option<Served> {
        self.calls.lock().unwrap().try_recv().ok()
    }

    /// Connections that carried a request.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

async fn accept_calls<S>(
    stream: S,
    give: mpsc::Sender<Served>,
    handle: Handle,
    count: &AtomicUsize,
    leaves: Option<usize>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let (mut number, mut taken) = (None, 0);
    while let Some(Ok((request, respond))) = connection.accept().await {
        taken += 1;
        if leaves == Some(taken) {
            connection.graceful_shutdown();
        }
        let connection = *number.get_or_insert_with(|| count.fetch_add(1, Relaxed));
        let (head, receive) = request.into_parts();
        let request = Request::from_parts(head, ());
        let served = Served { handle: handle.clone(), request, receive, respond, send: None, connection };
        if give.send(served).is_err() {
            return;
        }
    }
}

impl Addressed for Backend {
    fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Served {
    pub(crate) fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Sends an interim answer.
    #[track_caller]
    pub(crate) fn interim(&mut self, response: http::response::Builder) -> &mut Self {
        self.respond.send_informational(response.body(()).unwrap()).unwrap();
        self
    }

    /// Starts the answer; `end`: it has no body.
    #[track_caller]
    pub(crate) fn answer(&mut self, response: http::response::Builder, end: bool) -> &mut Self {
        let response = response.body(()).unwrap();
        self.send = Some(self.respond.send_response(response, end).unwrap());
        self
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8], end: bool) -> &mut Self {
        let send = self.send.as_mut().expect("the head comes first");
        patiently(&self.handle, push(send, bytes, end)).unwrap();
        self
    }

    #[track_caller]
    pub(crate) fn trailers(&mut self, trailers: HeaderMap) {
        self.send.as_mut().expect("the head comes first").send_trailers(trailers).unwrap();
    }

    /// The next piece of the request's body.
    #[track_caller]
    pub(crate) fn data(&mut self) -> Option<Result<Bytes, h2::Error>> {
        patiently(&self.handle, next(&mut self.receive))
    }

    /// The rest of the request: body and trailers.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
        patiently(&self.handle, whole(&mut self.receive))
    }

    pub(crate) fn reset(&mut self, reason: h2::Reason) {
        match &mut self.send {
            Some(send) => send.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}
