//! One client connection: TLS handshake, choice of HTTP version, and the task that drives it to its end.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use relais_core::config::{ClientTls, Config, Listener, ListenerProtocol, TlsVersion};
use relais_core::stats::EdgeStats;
use relais_tls::CertStore;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::rustls::Error as TlsError;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::server::TlsStream;

use crate::answer::Failure;
use crate::client_io::{ClientIo, ClientStream};
use crate::conn_state::{ConnState, Deadlines};
use crate::h2_server;
use crate::handshake;
use crate::identity::Identity;
use crate::ready::{Asked, Peer};
use crate::request_body::RequestBody;
use crate::service;
use crate::socket::Socket;
use crate::worker::Worker;

/// Header fields that hyper takes unasked.
const HYPERS_HEADER_COUNT: usize = 100;

/// What every request of one connection knows about it.
pub(crate) struct Client {
    pub(crate) worker: Arc<Worker>,
    pub(crate) state: Arc<ConnState>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) peer: Peer,
    /// What the handshake said; `None`: plain.
    pub(crate) tls: Option<Secured>,
    /// The host asked for last.
    asked: Mutex<Option<Arc<Asked>>>,
    /// Counts the connection as open, also while it carries a tunnel.
    _open: Open,
}

/// What is known of a client since its TLS handshake.
pub(crate) struct Secured {
    /// The name it asked for, lower case; `None`: it sent none.
    pub(crate) server_name: Option<String>,
    /// What was asked of it.
    pub(crate) asked: ClientTls,
    /// What it speaks.
    pub(crate) version: TlsVersion,
    /// Who its certificate says it is.
    pub(crate) identity: Option<Identity>,
}

impl Secured {
    /// Whether the client has given what a service asks of its clients.
    pub(crate) fn meets(&self, wanted: &ClientTls) -> bool {
        let proven = wanted.certificate.as_ref().is_none_or(|wanted| {
            let held_against = self.asked.certificate.as_ref().map(|asked| &asked.ca);
            held_against == Some(&wanted.ca) && (self.identity.is_some() || !wanted.required)
        });
        self.version >= wanted.lowest && proven
    }
}

impl Client {
    /// Whether a request for this host belongs on this connection: its certificate is that of the name in the handshake.
    pub(crate) fn may_ask_for(&self, host: &str) -> bool {
        let shown_for = self.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        // A request without a host (HTTP/1.0) belongs wherever it comes.
        shown_for.is_none_or(|name| name == host || host.is_empty() || self.worker.shared.certs.covers_both(name, host))
    }

    /// A host as sent, split.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn asked(&self, original: &str) -> Result<Arc<Asked>, Failure> {
        let mut last = self.asked.lock();
        if let Some(last) = last.as_ref().filter(|last| &*last.original == original) {
            return Ok(Arc::clone(last));
        }
        let asked = Arc::new(Asked::new(original, &self.peer, |host| self.may_ask_for(host))?);
        *last = Some(Arc::clone(&asked));
        Ok(asked)
    }
}

/// Serves one accepted connection to its end.
pub(crate) async fn serve(
    worker: &Arc<Worker>,
    listener: Arc<Listener>,
    stream: TcpStream,
    peer: SocketAddr,
    open: Open,
) {
    let snapshot = worker.shared.snapshot.load_full();
    let Ok(local) = stream.local_addr() else { return };
    let by = tokio::time::Instant::now() + snapshot.config.edge.client.handshake;
    tokio::select! {
        // An error is met again below.
        _ = tokio::time::timeout_at(by, stream.readable()) => {}
        () = worker.last_call() => return,
    }
    let stream = Socket::new(stream);
    match listener.protocol {
        ListenerProtocol::Http => {
            let Ok(h2) = tokio::time::timeout_at(by, begins_with_preface(&stream)).await else { return };
            Box::pin(drive(worker, listener, &snapshot.config, stream, (peer, local), (None, h2), open)).await;
        }
        // A future keeps the room of its largest part to its end: what is over soon, or may not come, has a box of its own.
        ListenerProtocol::Https => match Box::pin(handshake::shake(worker, &snapshot, stream, local, by)).await {
            // A CA that looks at the answer to its challenge: nothing follows (RFC 8737, section 3).
            Some(Ok((stream, _))) if CertStore::is_challenge(stream.get_ref().1.alpn_protocol()) => {
                tracing::info!(%peer, "a CA looked at the answer to its challenge (tls-alpn-01)");
                close(stream).await;
            }
            Some(Ok((stream, secured))) => {
                let session = stream.get_ref().1;
                snapshot.stats.handshakes.inc();
                if session.handshake_kind() == Some(HandshakeKind::Resumed) {
                    snapshot.stats.handshakes_resumed.inc();
                }
                let h2 = session.alpn_protocol() == Some(b"h2");
                Box::pin(drive(worker, listener, &snapshot.config, stream, (peer, local), (Some(secured), h2), open))
                    .await;
            }
            Some(Err(error)) => {
                snapshot.stats.handshakes_failed.inc();
                tell_failed(worker, peer, &error);
            }
            None => {
                snapshot.stats.handshakes_failed.inc();
                tracing::debug!(%peer, "TLS handshake took too long");
            }
        },
    }
}

/// What the operator's own rule refused is worth a line that is seen; what strangers send is not.
fn tell_failed(worker: &Worker, peer: SocketAddr, error: &std::io::Error) {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    let refused = matches!(fault, Some(TlsError::InvalidCertificate(_) | TlsError::NoCertificatesPresented));
    match refused.then(|| worker.refused_clients.tell(std::time::Instant::now())).flatten() {
        Some(untold) => tracing::warn!(%peer, %error, untold, "the certificate of a client was refused"),
        None => tracing::debug!(%peer, %error, "TLS handshake failed"),
    }
}

/// Says farewell and closes; the other end may be gone already.
async fn close(mut stream: TlsStream<Socket>) {
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await;
}

/// Whether the client speaks HTTP/2 without being asked (RFC 9113 3.3): its first three bytes tell, no HTTP/1 method
/// in use begins like the preface.
async fn begins_with_preface(stream: &TcpStream) -> bool {
    let mut head = [0_u8; 3];
    loop {
        match stream.peek(&mut head).await {
            Ok(3) => return &head == b"PRI",
            Ok(n) if n > 0 && b"PRI".starts_with(&head[..n]) => tokio::time::sleep(Duration::from_millis(5)).await,
            _ => return false,
        }
    }
}

/// Drives HTTP on an established stream.
async fn drive<S>(
    worker: &Arc<Worker>,
    listener: Arc<Listener>,
    config: &Config,
    stream: S,
    (peer, local): (SocketAddr, SocketAddr),
    (tls, h2): (Option<Secured>, bool),
    open: Open,
) where
    S: ClientStream + Send + 'static,
{
    let timeouts = &config.edge.client;
    let deadlines = Deadlines { headers: timeouts.headers, keep_alive: timeouts.keep_alive, body: timeouts.body };
    let state = ConnState::new(deadlines, h2, &config.edge.name);
    let id = worker.register(&state, local);
    let io = ClientIo::new(stream, Arc::clone(&state));
    let client = Arc::new(Client {
        worker: Arc::clone(worker),
        state: Arc::clone(&state),
        listener,
        peer: Peer::new(peer.ip(), tls.is_some()),
        tls,
        asked: Mutex::new(None),
        _open: open,
    });
    let limit = &config.edge.limit;
    let result = if h2 {
        Box::pin(h2_server::serve(io, client, limit)).await.map_err(|error| error.to_string())
    } else {
        let service = service_fn(move |request: Request<Incoming>| {
            let request = request.map(|incoming| RequestBody::on_connection(incoming, &client.state));
            service::handle(Arc::clone(&client), request)
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.max_buf_size(limit.header_bytes.max(8192) + (16 << 10));
        // Said at all, it makes hyper clear a list of that length for each request. `service` sees to lower limits.
        if limit.header_count > HYPERS_HEADER_COUNT {
            builder.max_headers(limit.header_count);
        }
        let connection = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
        until_done(&state, connection).await.map_err(|error| error.to_string())
    };
    worker.forget(id);
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "client connection ended");
    }
}

/// Polls an HTTP/1 connection to its end. hyper's own graceful end would close at once, requests on their way unread:
/// `ClientIo` and `service` see to the end.
async fn until_done(state: &ConnState, connection: impl Future<Output = hyper::Result<()>>) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    let mut known: Option<Waker> = None;
    poll_fn(move |cx| {
        // Mostly it is the task it was.
        if !known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            known = Some(cx.waker().clone());
            state.register(cx.waker());
        }
        connection.as_mut().poll(cx)
    })
    .await
}

/// Counts an open connection.
pub(crate) struct Open(Arc<EdgeStats>);

impl Open {
    pub(crate) fn new(stats: &Arc<EdgeStats>) -> Self {
        stats.accepted.inc();
        stats.open.inc();
        Self(Arc::clone(stats))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.dec();
    }
}
