//! A fresh connection to a backend: TCP or unix socket, with TLS when the rule says so.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use relais_config::{Address, UpstreamTls};
use relais_core::{Fault, ProbeOrder};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::fault::{self, Phase, Progress, Trouble};
use super::resolve::Resolver;

trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// Any byte stream, without its type: a probe is not the hot path.
pub(super) struct Stream(Box<dyn Bytes>);

impl Stream {
    fn new(bytes: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Stream {
        Stream(Box::new(bytes))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// How to do TLS for one probe.
#[derive(Debug)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// `Err`: TLS to this backend cannot be set up (a CA file that is missing, a name that is none).
    pub(super) fn new(base: &ClientConfig, tls: &UpstreamTls, address: &Address, host: &str) -> Result<Tls, String> {
        let mut config = base.clone();
        // A resumed session would skip the certificate: a probe is there to look at it.
        config.resumption = Resumption::disabled();
        let name = relais_tls::upstream::server_name(tls, address, host)?;
        Ok(Tls { config: Arc::new(config), name })
    }

    /// The handshake. The flag says whether the backend chose HTTP/2.
    pub(super) async fn handshake(&self, stream: Stream) -> Result<(Stream, bool), Trouble> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await.map_err(|e| fault::of_handshake(&e))?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Stream::new(stream), h2))
    }
}

/// Whether and how this probe does TLS: the rule's word, else the backend's own.
pub(super) fn tls_of(order: &ProbeOrder) -> Option<UpstreamTls> {
    let own = order.backend.upstream.tls.as_ref();
    match order.check.health.tls {
        None => own.cloned(),
        Some(false) => None,
        Some(true) => Some(own.cloned().unwrap_or(UpstreamTls { sni: None, ca: None, verify: true })),
    }
}

/// Connects to the backend, on the rule's port if it names one.
pub(super) async fn connect(order: &ProbeOrder, resolver: &Resolver, progress: &Progress) -> Result<Stream, Trouble> {
    let port = order.check.health.port;
    let addresses = match &order.backend.address {
        Address::Unix(path) => {
            progress.reach(Phase::Connecting);
            let stream = UnixStream::connect(path).await.map_err(fault::of_connect)?;
            return Ok(Stream::new(stream));
        }
        Address::Socket(socket) => vec![SocketAddr::new(socket.ip(), port.unwrap_or(socket.port()))],
        Address::Name(host, own) => {
            progress.reach(Phase::Resolving);
            resolver.resolve(host, port.unwrap_or(*own)).await.map_err(|_| Fault::Unresolved)?
        }
    };
    progress.reach(Phase::Connecting);
    let connecting = connect_any(&addresses, order.connect);
    match tokio::time::timeout(order.connect, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(Fault::ConnectTimeout.into()),
    }
}

/// One address after the other; each but the last gets its share of the time, so that a dead one does not eat it all.
async fn connect_any(addresses: &[SocketAddr], within: Duration) -> Result<Stream, Trouble> {
    let share = within / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut trouble = Trouble::Fault(Fault::Unresolved);
    for (index, address) in addresses.iter().copied().enumerate() {
        let connecting = TcpStream::connect(address);
        let connected = if index + 1 == addresses.len() {
            connecting.await
        } else {
            match tokio::time::timeout(share, connecting).await {
                Ok(connected) => connected,
                Err(_) => {
                    trouble = Trouble::Fault(Fault::ConnectTimeout);
                    continue;
                }
            }
        };
        match connected {
            Ok(stream) => {
                // Small writes should not wait for each other; a refusal of the option is no evidence.
                let _ = stream.set_nodelay(true);
                return Ok(Stream::new(stream));
            }
            Err(error) => trouble = fault::of_connect(error),
        }
    }
    Err(trouble)
}
