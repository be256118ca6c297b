//! The HTTP client for CAs and DNS providers, against servers that behave and servers that do not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use relais_tls::acme::client::{Client, ClientFault};
use support::{Ca, Pair};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const LONG: Duration = Duration::from_secs(20);

/// Answers every request of every connection with `answer`, and counts the connections.
async fn server(tls: Option<&Pair>, answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (acceptor, count) = (tls.map(|pair| TlsAcceptor::from(support::serving(pair))), Arc::clone(&connections));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                match acceptor {
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            talk(stream, answer).await;
                        }
                    }
                    None => talk(stream, answer).await,
                }
            });
        }
    });
    (address, connections)
}

/// Echoes the head of a request as the body when `answer` is empty; closes after an answer that says so.
async fn talk(stream: impl AsyncReadExt + AsyncWrite + Unpin, answer: &str) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let echo = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        let text = if answer.is_empty() { &echo } else { answer };
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if text.contains("connection: close") || !text.contains("content-length") {
            return;
        }
    }
}

async fn ask(client: &Client, uri: &str, within: Duration) -> Result<Response<Bytes>, ClientFault> {
    client.send(Request::get(uri).body(Bytes::new()).unwrap(), within).await
}

#[tokio::test]
async fn believes_the_own_root_alone_and_keeps_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, &ca.pem).unwrap();
    let (address, connections) = server(Some(&ca.sign(&["127.0.0.1"])), "").await;
    let client = Client::new(Some(&root)).unwrap();
    for _ in 0..3 {
        let answer = ask(&client, &format!("https://{address}/dir?a=b"), LONG).await.unwrap();
        let head = String::from_utf8(answer.body().to_vec()).unwrap();
        assert!(head.starts_with("GET /dir?a=b HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
        assert!(head.contains("user-agent: relais/"), "{head}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);

    let other = dir.path().join("other.pem");
    std::fs::write(&other, Ca::new().pem).unwrap();
    let stranger = Client::new(Some(&other)).unwrap();
    let fault = ask(&stranger, &format!("https://{address}/"), LONG).await.unwrap_err();
    assert!(fault.message.contains("no TLS with") && fault.message.contains("certificate"), "{fault}");
    assert!(!fault.sent);
    let fault = Client::new(Some(&dir.path().join("none.pem"))).unwrap_err();
    assert!(fault.contains("does not exist"), "{fault}");
}

#[tokio::test]
async fn a_connection_the_server_closed_is_made_anew() {
    let (address, connections) =
        server(None, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
    let client = Client::new(None).unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&client, &format!("http://{address}/"), LONG).await.unwrap().body(), "ok");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn every_wait_has_an_end() {
    let client = Client::new(None).unwrap();
    let short = Duration::from_millis(300);
    // Nobody answers; the TLS handshake is never answered; the answer never ends.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let (endless, _) = server(None, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort").await;
    for (uri, sent) in [
        (format!("http://{address}/"), true),
        (format!("https://{address}/"), false),
        (format!("http://{endless}/"), true),
    ] {
        let began = Instant::now();
        let fault = ask(&client, &uri, short).await.unwrap_err();
        assert!(fault.message.contains("gave no answer in 300ms"), "{uri}: {fault}");
        assert_eq!(fault.sent, sent, "{uri}: whether the server may have received it");
        assert!(began.elapsed() >= short, "{uri}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_said() {
    let client = Client::new(None).unwrap();
    let closed = TcpListener::bind("127.0.7.1:0").await.unwrap().local_addr().unwrap();
    let fault = ask(&client, &format!("http://{closed}/"), LONG).await.unwrap_err();
    assert!(fault.message.contains("cannot connect to") && fault.message.contains("refused"), "{fault}");
    assert!(!fault.sent);
    let fault = ask(&client, "http://no-such-host.invalid/", LONG).await.unwrap_err();
    assert!(fault.message.contains("the name no-such-host.invalid cannot be resolved"), "{fault}");

    let (address, _) = server(None, "SSH-2.0-OpenSSH_9.2\r\n").await;
    let fault = ask(&client, &format!("http://{address}/"), LONG).await.unwrap_err();
    assert!(fault.message.contains("broke") && fault.sent, "{fault}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
    });
    let client = Client::new(None).unwrap();
    let fault = ask(&client, &format!("http://{address}/"), LONG).await.unwrap_err();
    assert!(fault.message.contains("length limit"), "{fault}");
}
