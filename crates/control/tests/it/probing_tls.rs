//! Probes over TLS and HTTP/2, against real acceptors.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use relais_config::{Config, Lookup};
use relais_core::Fault;
use relais_tls::{CertStore, internal_ca};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::support::{Bench, HEAD, probed, result};

/// What a backend was asked: version, host, path. Over HTTP/1.1 the kind of the handshake stands for the host.
pub(crate) type Asked = (Version, String, String);

async fn serve_h2(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, asked: mpsc::UnboundedSender<Asked>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let uri = request.uri();
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        let _ = asked.send((request.version(), host, uri.path().to_string()));
        async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ready")))) }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(io), service)
        .await;
}

/// A TLS backend with a certificate of the local CA in `state` for `api.internal`, and the CA's file.
pub(crate) async fn tls_backend(state: &Path, asked: mpsc::UnboundedSender<Asked>) -> (SocketAddr, PathBuf) {
    let text = format!(
        "{HEAD}[listener.s]\naddress = \"127.0.0.1:8443\"\n\
         [service.x]\nhosts = [\"api.internal\"]\nrespond = {{ status = 200 }}\n"
    );
    let lookup = Lookup::blind();
    let config = Config::parse("proxy.toml", &text, &lookup).unwrap_or_else(|e| panic!("{e}")).config;
    let certs =
        CertStore::new(CertStore::load(&config, state).unwrap(), relais_tls::Tickets::new(&[], Box::new(|_| ())));
    let acceptor = TlsAcceptor::from(certs.server_config(&config.edge.client_tls()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, asked) = (acceptor.clone(), asked.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    serve_h2(stream, asked).await;
                } else {
                    let kind = format!("{:?}", stream.get_ref().1.handshake_kind());
                    let _ = asked.send((Version::HTTP_11, kind, String::new()));
                    let mut head = [0; 1024];
                    let _ = stream.read(&mut head).await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready").await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    (address, internal_ca::root_path(state))
}

fn with(backend: &str) -> String {
    format!(
        "{HEAD}[service.api]\nhosts = [\"api.a.fr\"]\nfailover_within = \"5s\"\nbackends = [{backend}]\n\
         [service.api.health]\npath = \"/health\"\nbody = \"ready\"\ninterval = \"1s\"\ntimeout = \"1s\"\n"
    )
}

async fn first_probe(text: &str) -> Result<(), Fault> {
    let bench = Bench::start(text).await;
    let status = bench.until("a probe has ended", |status| probed(status).is_some()).await;
    bench.stop().await;
    result(probed(&status).unwrap())
}

#[tokio::test]
async fn http2_by_prior_knowledge() {
    let (tell, mut asked) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_h2(stream, tell.clone()));
        }
    });
    let text = with(&format!("{{ addr = \"{address}\", protocol = \"h2c\" }}"));
    assert_eq!(first_probe(&text).await, Ok(()));
    let expected = (Version::HTTP_2, "api.a.fr".to_string(), "/health".to_string());
    assert_eq!(asked.recv().await.unwrap(), expected);
}

#[tokio::test]
async fn tls_with_a_ca_of_its_own_and_what_alpn_gives() {
    let state = tempfile::tempdir().unwrap();
    let (tell, mut asked) = mpsc::unbounded_channel();
    let (address, ca) = tls_backend(state.path(), tell).await;
    let backend = |protocol: &str, sni: &str| {
        let ca = ca.display();
        with(&format!(
            "{{ addr = \"{address}\", protocol = \"{protocol}\", tls = {{ sni = \"{sni}\", ca = \"{ca}\" }} }}"
        ))
    };
    assert_eq!(first_probe(&backend("h2", "api.internal")).await, Ok(()));
    assert_eq!(asked.recv().await.unwrap().0, Version::HTTP_2);
    assert_eq!(first_probe(&backend("h1", "api.internal")).await, Ok(()));
    assert_eq!(first_probe(&backend("h1", "other.internal")).await, Err(Fault::Tls), "the name is verified");
}

#[tokio::test]
async fn tls_that_the_system_does_not_trust() {
    let state = tempfile::tempdir().unwrap();
    let (tell, _asked) = mpsc::unbounded_channel();
    let (address, _) = tls_backend(state.path(), tell).await;
    let text = with(&format!("{{ addr = \"{address}\", tls = {{ sni = \"api.internal\" }} }}"));
    assert_eq!(first_probe(&text).await, Err(Fault::Tls));
    let text = with(&format!("{{ addr = \"{address}\", tls = {{ verify = false }} }}"));
    assert_eq!(first_probe(&text).await, Ok(()), "not verified when told so");
}

#[tokio::test]
async fn a_backend_without_tls_fails_the_handshake_and_a_silent_one_the_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent: Arc<AtomicBool> = Arc::default();
    let heeded = Arc::clone(&silent);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            if !heeded.load(Relaxed) {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            kept.push(Arc::new(stream));
        }
    });
    let text = with(&format!("{{ addr = \"{address}\", tls = {{ verify = false }} }}"));
    assert_eq!(first_probe(&text).await, Err(Fault::Tls));
    silent.store(true, Relaxed);
    assert_eq!(first_probe(&text).await, Err(Fault::ResponseTimeout));
}

#[tokio::test]
async fn every_probe_looks_at_the_certificate() {
    let state = tempfile::tempdir().unwrap();
    let (tell, mut asked) = mpsc::unbounded_channel();
    let (address, ca) = tls_backend(state.path(), tell).await;
    let tls = format!("{{ sni = \"api.internal\", ca = \"{}\" }}", ca.display());
    let bench = Bench::start(&with(&format!("{{ addr = \"{address}\", protocol = \"h1\", tls = {tls} }}"))).await;
    for _ in 0..3 {
        // A resumed session would skip the certificate, and an expired one would go unseen.
        assert_eq!(asked.recv().await.unwrap().1, "Some(Full)");
    }
    bench.stop().await;
}
