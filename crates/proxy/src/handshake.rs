//! The TLS handshake of a client: what is asked of it depends on the name it asks for. Where certificates are ordered on
//! demand, one for a name without a certificate waits a while for it; all else about certificates is the `tls` room's.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use relais_core::Snapshot;
use relais_core::config::TlsVersion;
use relais_tls::CertStore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls::{ProtocolVersion, server};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, LazyConfigAcceptor};

use crate::connection::Secured;
use crate::identity::Identity;
use crate::socket::Socket;
use crate::worker::Worker;

/// So long a handshake waits for its first certificate. Browsers wait longer; a CA ordinarily needs less.
const DEMAND_PATIENCE: Duration = Duration::from_secs(20);

/// Does it. `None`: it was not done `by` then, the wait for a certificate apart.
pub(crate) async fn shake(
    worker: &Worker,
    snapshot: &Snapshot,
    stream: Socket,
    local: SocketAddr,
    by: Instant,
) -> Option<io::Result<(TlsStream<Socket>, Secured)>> {
    let start = match timeout_at(by, LazyConfigAcceptor::new(server::Acceptor::default(), stream)).await.ok()? {
        Ok(start) => start,
        Err(error) => return Some(Err(error)),
    };
    let hello = start.client_hello();
    let server_name = hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    // A CA that looks at a challenge has no certificate to show.
    let challenge = hello.alpn().is_some_and(CertStore::wants_challenge);
    let named = server_name.as_deref().filter(|_| !challenge);
    // Without a name it asks for the address it has come to.
    let host = server_name.clone().unwrap_or_else(|| local.ip().to_canonical().to_string());
    let asked = if challenge { None } else { snapshot.client_tls(&host).cloned() };
    let asked = asked.unwrap_or_else(|| snapshot.config.edge.client_tls());
    let waited = match named {
        Some(name) if snapshot.config.acme.on_demand.is_some() => wait(&worker.shared.certs, snapshot, name).await,
        _ => Duration::ZERO,
    };
    let config = match worker.shared.certs.server_config(&asked) {
        Ok(config) => config,
        Err(why) => return Some(Err(io::Error::other(why))),
    };
    let stream = match timeout_at(by + waited, finish(start.into_stream(config))).await.ok()? {
        Ok(stream) => stream,
        Err(error) => return Some(Err(error)),
    };
    let session = stream.get_ref().1;
    let identity = session.peer_certificates().and_then(<[_]>::first).map(|certificate| Identity::of(certificate));
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
        _ => TlsVersion::Tls12,
    };
    Some(Ok((stream, Secured { server_name, asked, version, identity })))
}

/// Does the rest of it. Where the client has sent its first request already, as most do, tickets go out with the answer.
async fn finish(mut accept: Accept<Socket>) -> io::Result<TlsStream<Socket>> {
    let mut stream = poll_fn(|cx| {
        let polled = Pin::new(&mut accept).poll(cx);
        if let Some(socket) = accept.get_mut().filter(|_| polled.is_pending()) {
            // The first words of ours are out.
            socket.hold();
        }
        polled
    })
    .await?;
    let (socket, session) = stream.get_mut();
    socket.hold_no_more();
    socket.read_ahead();
    let asked = session.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0);
    if !asked || session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        poll_fn(|cx| socket.poll_release(cx)).await?;
    }
    Ok(stream)
}

/// Waits for the certificate of a name of a service, that none covers and no order is under way for. Says how long.
async fn wait(certs: &CertStore, snapshot: &Snapshot, name: &str) -> Duration {
    let begun = Instant::now();
    if !certs.covers(name)
        && !certs.is_awaited(name)
        && snapshot.knows_host(name)
        && let Some(served) = certs.demand(name)
    {
        // Whatever comes of it: the handshake goes on, and is refused where there is still no certificate.
        let _ = timeout(DEMAND_PATIENCE, served).await;
    }
    begun.elapsed()
}
