//! A fresh connection to a backend: TCP or unix socket, with TLS when the rule says so.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use relais_config::{Address, CheckKind, UpstreamProtocol, UpstreamTls};
use relais_core::{Fault, ProbeOrder};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::fault::{self, Phase, Progress, Trouble};

trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// Any byte stream, without its type: a probe is not the hot path.
pub(crate) struct Stream(Box<dyn Bytes>);

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

    /// The same without a word about what will be spoken.
    pub(super) fn silent(mut self) -> Tls {
        Arc::make_mut(&mut self.config).alpn_protocols.clear();
        self
    }

    /// The handshake. The flag says whether the backend chose HTTP/2.
    pub(super) async fn handshake(&self, stream: Stream, progress: &Progress) -> Result<(Stream, bool), Trouble> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await.map_err(|error| {
            if let Some(reason) = relais_tls::upstream::reason(&error) {
                progress.say(reason.as_bytes());
            }
            fault::of_handshake(&error)
        })?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Stream::new(stream), h2))
    }
}

/// Whether and how this probe does TLS: the rule's word, else the backend's own.
pub(super) fn tls_of(order: &ProbeOrder) -> Option<UpstreamTls> {
    let own = order.backend.upstream.tls.as_ref();
    let wanted = match order.check.health.kind {
        // A connect alone is the question, unless the rule itself asks for TLS.
        CheckKind::Off | CheckKind::Tcp => Some(order.check.health.tls == Some(true)),
        CheckKind::Tls => Some(true),
        CheckKind::MySql | CheckKind::Exec(_) => Some(false),
        CheckKind::Exchange(_) | CheckKind::Http(_) | CheckKind::Grpc(_) | CheckKind::Redis => order.check.health.tls,
    };
    match wanted {
        None => own.cloned(),
        Some(false) => None,
        Some(true) => Some(own.cloned().unwrap_or(UpstreamTls { sni: None, ca: None, verify: true })),
    }
}

/// What is offered over TLS: gRPC is HTTP/2, and what is no HTTP offers nothing.
pub(super) fn protocol_of(order: &ProbeOrder) -> Option<UpstreamProtocol> {
    match order.check.health.kind {
        CheckKind::Grpc(_) => Some(UpstreamProtocol::H2),
        CheckKind::Exchange(_) | CheckKind::Redis => None,
        _ => Some(order.backend.upstream.protocol),
    }
}

/// Connects to the backend, on the rule's port if it names one. Says which of its addresses answered.
pub(super) async fn connect(order: &ProbeOrder, progress: &Progress) -> Result<(Stream, Option<SocketAddr>), Trouble> {
    progress.reach(Phase::Connecting);
    if let Address::Unix(path) = &order.backend.address {
        let stream = UnixStream::connect(path).await.map_err(fault::of_connect)?;
        return Ok((Stream::new(stream), None));
    }
    let port = order.check.health.port;
    let on_port = |address: &SocketAddr| SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
    let addresses: Vec<SocketAddr> = order.addresses.iter().map(on_port).collect();
    let asked = Instant::now();
    let (stream, address) = match relais_attend::within(order.connect, dial(&addresses, order.connect)).await {
        Ok(connected) => connected?,
        Err(waited) => return Err(relais_attend::fault(waited, Fault::ConnectTimeout).into()),
    };
    if addresses.first() == Some(&address) {
        progress.connected(asked.elapsed());
    }
    Ok((stream, Some(address)))
}

/// One address after the other; each but the last gets its share of the time, so that a dead one does not eat it all.
pub(crate) async fn dial(addresses: &[SocketAddr], within: Duration) -> Result<(Stream, SocketAddr), Trouble> {
    let share = within / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut trouble = Trouble::Fault(Fault::Unresolved);
    for (index, address) in addresses.iter().copied().enumerate() {
        let connecting = TcpStream::connect(address);
        let connected = if index + 1 == addresses.len() {
            connecting.await
        } else {
            match relais_attend::within(share, connecting).await {
                Ok(connected) => connected,
                Err(waited) => {
                    trouble = Trouble::Fault(relais_attend::fault(waited, Fault::ConnectTimeout));
                    continue;
                }
            }
        };
        match connected {
            Ok(stream) => {
                // Small writes should not wait for each other; a refusal of the option is no evidence.
                let _ = stream.set_nodelay(true);
                return Ok((Stream::new(stream), address));
            }
            Err(error) => trouble = fault::of_connect(error),
        }
    }
    Err(trouble)
}
