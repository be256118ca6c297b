//! The gRPC health protocol, against a real HTTP/2 server.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use relais_core::Fault;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::probing::{first_probe, with};
use crate::probing_tls::tls_backend;
use crate::support::{Bench, probed};

/// What a server answers: status of HTTP, body, `grpc-status` in the trailers.
type Says = (u16, &'static [u8], Option<&'static str>);

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

/// What was asked: method, path, authority, fields, body.
struct Asked {
    line: String,
    fields: HeaderMap,
    body: Bytes,
}

async fn server(says: Says) -> (SocketAddr, mpsc::UnboundedReceiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let tell = tell.clone();
                async move {
                    let line = format!("{} {}", request.method(), request.uri());
                    let fields = request.headers().clone();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let _ = tell.send(Asked { line, fields, body });
                    let (code, body, status) = says;
                    let trailers = status.map(|status| {
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", HeaderValue::from_static(status));
                        trailers.insert("grpc-message", HeaderValue::from_static("unknown service"));
                        Ok(trailers)
                    });
                    let body = Full::new(Bytes::from_static(body)).with_trailers(async { trailers });
                    Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
                }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, asked)
}

fn check(rule: &str, address: SocketAddr) -> String {
    with(&format!("type = \"grpc\"\n{rule}"), &format!("\"{address}\""))
}

#[tokio::test]
async fn a_server_that_serves_is_good_and_asked_by_the_book() {
    let (address, mut asked) = server((200, SERVING, Some("0"))).await;
    assert_eq!(first_probe(&check("service = \"shop.v1.Cart\"", address)).await, Ok(()));
    let asked = asked.recv().await.unwrap();
    assert_eq!(asked.line, "POST http://api.a.fr/grpc.health.v1.Health/Check");
    assert_eq!(asked.fields["content-type"], "application/grpc");
    assert_eq!(asked.fields["te"], "trailers");
    assert_eq!(&asked.body[..], b"\0\0\0\0\x0e\x0a\x0cshop.v1.Cart");
}

#[tokio::test]
async fn the_whole_server_and_another_authority() {
    let (address, mut asked) = server((200, SERVING, Some("0"))).await;
    assert_eq!(first_probe(&check("host = \"rpc.internal:99\"", address)).await, Ok(()));
    let asked = asked.recv().await.unwrap();
    assert_eq!(asked.line, "POST http://rpc.internal:99/grpc.health.v1.Health/Check");
    assert_eq!(&asked.body[..], b"\0\0\0\0\0");
}

#[tokio::test]
async fn anything_but_serving_is_not_good() {
    let cases: [(Says, Fault, Option<&str>); 6] = [
        ((200, b"\0\0\0\0\x02\x08\x02", Some("0")), Fault::Unwell, Some("NOT_SERVING")),
        ((200, b"\0\0\0\0\0", Some("0")), Fault::Unwell, Some("UNKNOWN")),
        ((200, b"", Some("5")), Fault::Unwell, Some("grpc-status 5 unknown service")),
        ((404, b"", None), Fault::Status(404), None),
        ((200, SERVING, None), Fault::Malformed, None),
        ((200, b"<html>", Some("0")), Fault::Malformed, None),
    ];
    for (says, fault, words) in cases {
        let (address, _asked) = server(says).await;
        let bench = Bench::start(&check("", address)).await;
        let status = bench.until("a probe has ended", |status| probed(status).is_some()).await;
        bench.stop().await;
        let probe = probed(&status).unwrap();
        assert_eq!((probe.fault, probe.said.as_deref()), (Some(fault), words), "{says:?}");
    }
}

#[tokio::test]
async fn http1_is_no_grpc() {
    let address = crate::probing::backend(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let said = first_probe(&check("", address)).await;
    assert!(matches!(said, Err(Fault::Malformed | Fault::Reset)), "{said:?}");
}

#[tokio::test]
async fn over_tls_http2_is_agreed_on() {
    let state = tempfile::tempdir().unwrap();
    let (tell, mut asked) = mpsc::unbounded_channel();
    let (address, ca) = tls_backend(state.path(), tell).await;
    let tls = format!("tls = {{ sni = \"api.internal\", ca = \"{}\" }}", ca.display());
    let text = with("type = \"grpc\"", &format!("{{ addr = \"{address}\", protocol = \"h1\", {tls} }}"));
    // It answers "ready", which is no message; what counts here is how it was asked.
    assert_eq!(first_probe(&text).await, Err(Fault::Malformed));
    let (version, host, path) = asked.recv().await.unwrap();
    assert_eq!((version, host.as_str()), (http::Version::HTTP_2, "api.a.fr"));
    assert_eq!(path, "/grpc.health.v1.Health/Check");
}
