//! The visitors of the demo: HTTPS clients that verify the edge's certificate and ask without pause.
//!
//! Four of five requests are GETs. A POST carries a number of its own and is never sent again by its client, so that a
//! number seen twice by the backends was repeated by the edge.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::site::{POST_ID, SITE};
use super::tally::{Outcome, Tally};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(20);
/// A visitor's patience: longer than anything the edge may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a POST carries.
const BODY: &[u8] = b"an order that must not be carried out twice";

/// What all visitors have in common.
#[derive(Clone)]
pub(crate) struct Load {
    connector: TlsConnector,
    edge: SocketAddr,
    tally: Tally,
    posts: Arc<AtomicU64>,
}

type Sender = SendRequest<Full<Bytes>>;

impl Load {
    /// Visitors of the edge at `edge`, who trust the root certificate in this file and nothing else.
    pub(crate) fn new(edge: SocketAddr, root: &Path, tally: Tally) -> Result<Load, String> {
        let words = |error: &dyn std::fmt::Display| format!("cannot trust {}: {error}", root.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(root).map_err(|e| words(&e))? {
            roots.add(certificate.map_err(|e| words(&e))?).map_err(|e| words(&e))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| words(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Load { connector: TlsConnector::from(Arc::new(config)), edge, tally, posts: Arc::default() })
    }

    /// One visitor of `service` at `host`, who never leaves.
    pub(crate) async fn visit(self, service: &'static str, host: &'static str) {
        let mut sender: Option<Sender> = None;
        for turn in 0_u64.. {
            let post = (turn % 5 == 4).then(|| self.posts.fetch_add(1, Relaxed) + 1);
            let begun = Instant::now();
            let once = tokio::time::timeout(PATIENCE, self.once(&mut sender, host, post));
            let outcome = once.await.unwrap_or_else(|_| Err(format!("no answer in {} s", PATIENCE.as_secs())));
            if outcome.is_err() {
                sender = None;
            }
            self.tally.count(service, outcome.unwrap_or_else(Outcome::Failed), begun.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn once(
        &self,
        sender: &mut Option<Sender>,
        host: &'static str,
        post: Option<u64>,
    ) -> Result<Outcome, String> {
        let mut ready = match sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect(host).await?,
        };
        let (method, body) = match post {
            Some(_) => (Method::POST, Bytes::from_static(BODY)),
            None => (Method::GET, Bytes::new()),
        };
        let mut request = Request::builder().method(method).uri("/demo").header(http::header::HOST, host);
        if let Some(id) = post {
            request = request.header(POST_ID, id);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let response = ready.send_request(request).await.map_err(|error| format!("connection: {error}"))?;
        let (status, site) = (response.status(), response.headers().get(SITE).cloned());
        let body =
            response.into_body().collect().await.map_err(|error| format!("answer cut short: {error}"))?.to_bytes();
        if ready.ready().await.is_ok() {
            *sender = Some(ready);
        }
        let site = site.and_then(|site| site.to_str().map(str::to_owned).ok());
        Ok(match (status, site) {
            (StatusCode::OK, Some(site)) if !body.is_empty() => Outcome::Answered(site),
            _ => unanswered(post, status, format!("{status}: {}", String::from_utf8_lossy(&body).trim())),
        })
    }

    async fn connect(&self, host: &'static str) -> Result<Sender, String> {
        let stream = TcpStream::connect(self.edge).await.map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let stream = self.connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // Its end shows in the next request.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// What an answer that is not the backend's own means. A POST that may have reached a backend must be answered 502 or
/// 504 at once: to say so is right, to repeat it would be wrong. A 503 says that nothing was sent: that is a failure.
fn unanswered(post: Option<u64>, status: StatusCode, why: String) -> Outcome {
    let unknown = matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
    if post.is_some() && unknown { Outcome::Withheld(why) } else { Outcome::Failed(why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_post_of_unknown_fate_may_go_without_an_answer() {
        let fate = |post, status| unanswered(post, status, String::new());
        assert_eq!(fate(Some(1), StatusCode::BAD_GATEWAY), Outcome::Withheld(String::new()));
        assert_eq!(fate(Some(1), StatusCode::SERVICE_UNAVAILABLE), Outcome::Failed(String::new()));
        assert_eq!(fate(None, StatusCode::BAD_GATEWAY), Outcome::Failed(String::new()));
    }
}
