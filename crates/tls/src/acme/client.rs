//! A small HTTP client with a deadline on everything, for CAs and DNS providers: one request at a time, HTTP/1.1, TLS
//! with the house's cryptography, the system's roots or an own one.
//!
//! May open connections and read the file of the own root. Follows no redirect, keeps no cookie, uses no proxy.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use relais_core::config::{Address, UpstreamProtocol, UpstreamTls};
use rustls::{CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::clock;
use crate::upstream;

/// More than any answer of a CA or a DNS provider that is meant well.
const LARGEST_ANSWER: usize = 1024 * 1024;
/// A name may have addresses that lead nowhere (an IPv6 route that is none): the next one is tried after this.
const PER_ADDRESS: Duration = Duration::from_secs(4);
/// Servers close idle connections, and a request sent into a closing one is lost: older ones are not used again.
const IDLE: Duration = Duration::from_secs(4);
const NAME: &str = concat!("relais/", env!("CARGO_PKG_VERSION"));

/// Why there is no answer, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFault {
    /// What failed: `cannot connect to ca.example:443: Connection refused`.
    pub message: String,
    /// Whether the server may have received the request: if so, it may also have done what was asked.
    pub sent: bool,
}

impl ClientFault {
    fn before(message: impl Into<String>) -> Self {
        Self { message: message.into(), sent: false }
    }
}

impl std::fmt::Display for ClientFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ClientFault {}

/// Sends requests to `http://` and `https://` addresses, and keeps the last connection for the next one.
#[derive(Debug)]
pub struct Client {
    tls: Arc<ClientConfig>,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    origin: Origin,
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Client {
    /// Believes the certificates of the PEM file `root`, or without one those of the system. Reads files.
    ///
    /// # Errors
    /// One sentence with the way out: the file cannot be used, or the system has no roots.
    pub fn new(root: Option<&Path>) -> Result<Self, String> {
        let tls = UpstreamTls { sni: None, ca: root.map(Path::to_path_buf), verify: true };
        Ok(Self { tls: upstream::client_config(&tls, UpstreamProtocol::H1)?, kept: Mutex::new(None) })
    }

    /// Sends a request whose URI is absolute, and waits for the whole answer, whatever its status.
    ///
    /// # Errors
    /// Nothing answered in time, or what answered was no HTTP, no trusted certificate, or more than 1 MiB.
    pub async fn send(&self, request: Request<Bytes>, within: Duration) -> Result<Response<Bytes>, ClientFault> {
        let origin = Origin::of(request.uri())?;
        let mut sent = false;
        match tokio::time::timeout(within, self.exchange(&origin, request, &mut sent)).await {
            Ok(result) => result.map_err(|message| ClientFault { message, sent }),
            Err(_) => Err(ClientFault { message: format!("{origin} gave no answer in {within:?}"), sent }),
        }
    }

    async fn exchange(
        &self,
        origin: &Origin,
        request: Request<Bytes>,
        sent: &mut bool,
    ) -> Result<Response<Bytes>, String> {
        let request = in_origin_form(request, origin)?;
        let kept = self.kept.lock().take().filter(|kept| kept.origin == *origin && kept.since.elapsed() < IDLE);
        let mut request = Some(request);
        if let Some(Kept { mut sender, .. }) = kept
            && sender.ready().await.is_ok()
            && let Some(first) = request.take()
        {
            *sent = true;
            match sender.try_send_request(first).await {
                Ok(answer) => return self.collect(origin, sender, answer).await,
                Err(mut fault) => match fault.take_message() {
                    // The server had closed this connection: nothing of the request left us.
                    Some(unsent) => request = Some(unsent),
                    None => return Err(broke(origin, fault.error())),
                },
            }
        }
        let Some(request) = request else { return Err(format!("{origin}: the request was lost")) };
        *sent = false;
        let mut sender = self.connect(origin).await?;
        *sent = true;
        let answer = sender.send_request(request).await.map_err(|fault| broke(origin, &fault))?;
        self.collect(origin, sender, answer).await
    }

    async fn collect(
        &self,
        origin: &Origin,
        sender: SendRequest<Full<Bytes>>,
        answer: Response<hyper::body::Incoming>,
    ) -> Result<Response<Bytes>, String> {
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await;
        let body = body.map_err(|fault| format!("the answer of {origin} broke off: {fault}"))?.to_bytes();
        if !sender.is_closed() {
            *self.kept.lock() = Some(Kept { origin: origin.clone(), sender, since: Instant::now() });
        }
        Ok(Response::from_parts(head, body))
    }

    async fn connect(&self, origin: &Origin) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = dial(origin).await?;
        // A connection that cannot be had quick costs only time.
        let _ = stream.set_nodelay(true);
        if !origin.tls {
            return speak(origin, stream).await;
        }
        let address = Address::Name(origin.host.as_str().into(), origin.port);
        let tls = UpstreamTls { sni: None, ca: None, verify: true };
        let name = upstream::server_name(&tls, &address, &origin.host)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
            .map_err(|fault| format!("no TLS with {origin}: {fault}{}", doubt(&fault)))?;
        speak(origin, stream).await
    }
}

/// A certificate that is not of today may be right, and our clock wrong: a machine without one wakes up in 1970.
fn doubt(fault: &std::io::Error) -> String {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let inner = fault.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        )) => format!(" (the clock of this machine says {})", clock::date(clock::now())),
        _ => String::new(),
    }
}

/// Tries every address of the host, in the system's order.
async fn dial(origin: &Origin) -> Result<TcpStream, String> {
    let found = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await;
    let addresses: Vec<SocketAddr> =
        found.map_err(|fault| format!("the name {} cannot be resolved: {fault}", origin.host))?.collect();
    let mut last = format!("the name {} has no address", origin.host);
    for address in addresses {
        match tokio::time::timeout(PER_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(fault)) => last = format!("cannot connect to {origin} ({}): {fault}", address.ip()),
            Err(_) => last = format!("cannot connect to {origin} ({}): no answer in {PER_ADDRESS:?}", address.ip()),
        }
    }
    Err(last)
}

async fn speak<S>(origin: &Origin, stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|fault| broke(origin, &fault))?;
    // Ends when the sender is dropped or the server closes; what went wrong is told to the request in question.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn broke(origin: &Origin, fault: &hyper::Error) -> String {
    format!("the connection to {origin} broke: {fault}")
}

/// `/path?query` and a `Host`, as HTTP/1.1 wants it from those who speak to the server itself (RFC 9112, section 3.2.1).
fn in_origin_form(request: Request<Bytes>, origin: &Origin) -> Result<Request<Full<Bytes>>, String> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse().map_err(|fault| format!("`{path}` is no path: {fault}"))?;
    let host = HeaderValue::from_str(&origin.authority).map_err(|_| format!("`{}` is no host", origin.authority))?;
    head.headers.insert(HOST, host);
    // A CA wants to know who asks (RFC 8555, section 6.1); what a library says of itself stands behind.
    let library = head.headers.get(USER_AGENT).and_then(|name| name.to_str().ok());
    let name = library.map_or_else(|| NAME.to_string(), |library| format!("{NAME} {library}"));
    head.headers.insert(USER_AGENT, HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static(NAME)));
    Ok(Request::from_parts(head, Full::new(body)))
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    tls: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// As the URI has it.
    authority: String,
}

impl Origin {
    fn of(uri: &Uri) -> Result<Self, ClientFault> {
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(ClientFault::before(format!("`{uri}` begins with neither https:// nor http://"))),
        };
        let Some(authority) = uri.authority() else {
            return Err(ClientFault::before(format!("`{uri}` names no host")));
        };
        // Never `user:password@`: it belongs to no header of ours and to no log.
        let bare = authority.as_str().rsplit('@').next().unwrap_or_default().to_string();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_string();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port, authority: bare })
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_another_day_casts_doubt_on_our_clock() {
        let told = |fault| doubt(&std::io::Error::other(rustls::Error::InvalidCertificate(fault)));
        assert!(told(CertificateError::NotValidYet).contains("the clock of this machine says 20"));
        assert!(told(CertificateError::Expired).contains("the clock"));
        assert_eq!(told(CertificateError::UnknownIssuer), "");
    }

    fn origin(uri: &str) -> String {
        match Origin::of(&uri.parse().unwrap()) {
            Ok(origin) => format!("{} {origin} {}", origin.tls, origin.authority),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn an_address_says_where_to_connect_and_whom_to_ask_for() {
        assert_eq!(origin("https://ca.example/dir"), "true ca.example:443 ca.example");
        assert_eq!(origin("http://u:p@ca.example:8080/x"), "false ca.example:8080 ca.example:8080");
        assert_eq!(origin("https://[::1]:14000/dir"), "true [::1]:14000 [::1]:14000");
        assert!(origin("/dir").contains("neither https:// nor http://"), "{}", origin("/dir"));
        assert!(origin("ftp://ca.example/").contains("neither"), "{}", origin("ftp://ca.example/"));
    }

    #[test]
    fn a_request_asks_the_server_itself_and_says_who_asks() {
        let origin = Origin::of(&"https://ca.example/a?b=c".parse().unwrap()).unwrap();
        let ask = |name: Option<&str>| {
            let mut request = Request::get("https://ca.example/a?b=c").body(Bytes::new()).unwrap();
            if let Some(name) = name {
                request.headers_mut().insert(USER_AGENT, name.parse().unwrap());
            }
            in_origin_form(request, &origin).unwrap()
        };
        let plain = ask(None);
        assert_eq!(
            (plain.uri().to_string().as_str(), &plain.headers()[HOST]),
            ("/a?b=c", &"ca.example".parse().unwrap())
        );
        assert_eq!(plain.headers()[USER_AGENT], NAME);
        assert_eq!(ask(Some("lib/1")).headers()[USER_AGENT], format!("{NAME} lib/1"));
    }
}
