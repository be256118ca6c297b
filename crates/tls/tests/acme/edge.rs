//! The edge as the CA sees it: plain HTTP on one port, TLS on another, answering challenges from the board.

use std::net::SocketAddr;
use std::sync::Arc;

use relais_core::config::TlsSource;
use relais_tls::CertStore;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{config, load};

pub(crate) struct Edge {
    pub(crate) certs: Arc<CertStore>,
    pub(crate) http: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) server: Arc<rustls::ServerConfig>,
    _dir: tempfile::TempDir,
}

impl Edge {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(TlsSource::Files);
        let certs = load(&config, dir.path());
        let server = certs.server_config(&config.edge.client_tls()).unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (http_at, tls_at) = (http.local_addr().unwrap(), tls.local_addr().unwrap());
        let answering = Arc::clone(&certs);
        tokio::spawn(async move {
            while let Ok((stream, _)) = http.accept().await {
                let certs = Arc::clone(&answering);
                tokio::spawn(async move { answer(stream, &certs).await });
            }
        });
        let acceptor = TlsAcceptor::from(Arc::clone(&server));
        tokio::spawn(async move {
            while let Ok((stream, _)) = tls.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        assert!(CertStore::is_challenge(stream.get_ref().1.alpn_protocol()));
                    }
                });
            }
        });
        Self { certs, http: http_at, tls: tls_at, server, _dir: dir }
    }
}

async fn answer(stream: TcpStream, certs: &CertStore) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let (mut path, mut host, mut line) = (String::new(), String::new(), String::new());
    while stream.read_line(&mut line).await.ok()? > 2 {
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next()?.to_string();
        } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("host: ") {
            host = value.trim().split(':').next()?.to_string();
        }
        line.clear();
    }
    let token = path.strip_prefix("/.well-known/acme-challenge/").unwrap_or_default();
    let text = match certs.http01(&host, token) {
        Some(text) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()),
        None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_string(),
    };
    stream.write_all(text.as_bytes()).await.ok()
}
