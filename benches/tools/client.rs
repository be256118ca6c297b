//! One client connection: plain or TLS 1.3, HTTP/1.1 by hand (a codec would cost more than the proxy measured), WebSocket
//! frames. Those of HTTP/2 are in `streams`. Checks no certificate: it speaks to loopback only.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::ServerName;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::args::Outcome;
use crate::take_all::TakeAll;

/// The key clients send over HTTP/1.1 (RFC 6455, 1.3).
pub(crate) const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The frame a client sends: binary, masked, 125 bytes.
pub(crate) const FRAME: [u8; 131] = {
    let mut frame = [b'm' ^ 7; 131];
    (frame[0], frame[1]) = (0x82, 0x80 | 125);
    (frame[2], frame[3], frame[4], frame[5]) = (7, 7, 7, 7);
    frame
};

/// A message head, as far as it matters here.
pub(crate) struct Head {
    /// With its blank line.
    pub(crate) len: usize,
    pub(crate) body: usize,
    pub(crate) chunked: bool,
    pub(crate) closes: bool,
    pub(crate) upgrade: bool,
}

impl Head {
    /// The head that `bytes` begin with, once it is whole.
    pub(crate) fn in_(bytes: &[u8]) -> Option<Head> {
        let len = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let mut head = Head { len, body: 0, chunked: false, closes: false, upgrade: false };
        for line in bytes[..len - 4].split(|byte| *byte == b'\n').skip(1) {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
            let (name, value) = (&line[..colon], line[colon..].trim_ascii_end());
            let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
            match name.len() {
                7 if is(b"upgrade") => head.upgrade = true,
                10 if is(b"connection") => head.closes = value.to_ascii_lowercase().ends_with(b"close"),
                14 if is(b"content-length") => head.body = number(value),
                17 if is(b"transfer-encoding") => head.chunked = true,
                _ => {}
            }
        }
        Some(head)
    }
}

fn number(text: &[u8]) -> usize {
    text.iter().filter(|byte| byte.is_ascii_digit()).fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
}

/// Where connections go, and how.
pub(crate) struct Way {
    pub(crate) to: SocketAddr,
    /// The name asked for in the handshake; `None`: no TLS.
    pub(crate) name: Option<ServerName<'static>>,
    /// Comes from many addresses, so that ports do not run out.
    pub(crate) spread: bool,
    /// Bytes of a connection's buffer.
    pub(crate) buffer: usize,
}

impl Way {
    /// A new connection and whether its TLS session was resumed.
    pub(crate) async fn open(&self, tls: &Arc<ClientConfig>) -> io::Result<(Conn, bool)> {
        let stream = self.connected().await?;
        let conn = |stream| Conn { stream, buffer: Vec::with_capacity(self.buffer) };
        let Some(name) = self.name.clone() else { return Ok((conn(Stream::Plain(stream)), false)) };
        let stream = tokio_rustls::TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((conn(Stream::Tls(Box::new(stream))), resumed))
    }

    /// A new connection under TLS, for whoever speaks something else than HTTP/1.1 there.
    pub(crate) async fn secure(&self, tls: &Arc<ClientConfig>) -> io::Result<Box<TlsStream<TcpStream>>> {
        let name = self.name.clone().ok_or_else(|| io::Error::other("without TLS"))?;
        let stream = self.connected().await?;
        Ok(Box::new(tokio_rustls::TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
    }

    async fn connected(&self) -> io::Result<TcpStream> {
        static SOURCE: AtomicU32 = AtomicU32::new(0);
        let socket = TcpSocket::new_v4()?;
        if self.spread {
            let n = SOURCE.fetch_add(1, Relaxed);
            let last = u8::try_from(n % 250).unwrap_or(0) + 1;
            socket.bind((Ipv4Addr::new(127, 0, 1, last), 0).into())?;
        }
        let stream = socket.connect(self.to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An open connection.
pub(crate) struct Conn {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Conn {
    /// One request, its answer read to the end: the status.
    pub(crate) async fn exchange(&mut self, request: &[u8], upload: usize) -> io::Result<u16> {
        match &mut self.stream {
            Stream::Plain(stream) => exchange(stream, &mut self.buffer, request, upload).await,
            Stream::Tls(stream) => exchange(stream, &mut self.buffer, request, upload).await,
        }
    }

    /// Whether the other side has closed it meanwhile, as it may: a client looks before it sends. Of plain connections
    /// only.
    pub(crate) fn is_gone(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => {
                !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Stream::Tls(_) => false,
        }
    }

    /// One frame there and one back.
    pub(crate) async fn message(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => message(stream, &mut self.buffer).await,
            Stream::Tls(stream) => message(stream, &mut self.buffer).await,
        }
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    request: &[u8],
    upload: usize,
) -> io::Result<u16> {
    static BODY: [u8; 64 * 1024] = [b'u'; 64 * 1024];
    stream.write_all(request).await?;
    let mut left = upload;
    while left > 0 {
        let part = left.min(BODY.len());
        stream.write_all(&BODY[..part]).await?;
        left -= part;
    }
    stream.flush().await?;
    buffer.clear();
    let head = loop {
        if let Some(head) = Head::in_(buffer) {
            break head;
        }
        more(stream, buffer).await?;
    };
    let status = u16::try_from(number(&buffer[9..12])).unwrap_or(0);
    if status == 101 {
        return Ok(status);
    }
    let mut left = head.body.saturating_sub(buffer.len() - head.len);
    while left > 0 {
        buffer.clear();
        left = left.saturating_sub(more(stream, buffer).await?);
    }
    Ok(status)
}

async fn message<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(&FRAME).await?;
    stream.flush().await?;
    buffer.clear();
    while !is_echo(buffer)? {
        more(stream, buffer).await?;
    }
    Ok(())
}

/// Whether [`FRAME`] has come back whole.
pub(crate) fn is_echo(came: &[u8]) -> io::Result<bool> {
    match came.first() {
        Some(0x82) | None => Ok(came.len() >= 127),
        // A text or a close instead.
        Some(other) => Err(io::Error::other(format!("frame {other:#x}"))),
    }
}

async fn more<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> io::Result<usize> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => Ok(n),
    }
}

/// TLS 1.3 with X25519 and AES-128-GCM: the same for every proxy. Each config has tickets of its own.
pub(crate) fn tls(resume: bool, protocol: &[u8]) -> Outcome<Arc<ClientConfig>> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    let schemes = vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakeAll { schemes }))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = if resume { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
    Ok(Arc::new(config))
}
