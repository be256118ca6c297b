//! The metrics listener: `/metrics` in plain HTTP on its own address, never on a public one by default.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::TEXT_FORMAT;
use crate::admin::{AGAIN, LOOK, TROUBLE};
use crate::alarm::AlarmReport;
use crate::handle::Handle;

/// Longest wait for a request's head; also how long an idle connection is kept.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections at a time.
const CONNECTIONS: usize = 64;

/// Serves until `closing`, on whatever address the config says. An address that cannot be had is an alarm.
pub(crate) async fn serve(
    mut address: watch::Receiver<Option<SocketAddr>>,
    handle: Handle,
    alarms: mpsc::UnboundedSender<AlarmReport>,
    mut closing: watch::Receiver<bool>,
) {
    let tell = |trouble| {
        // Fails only when the loop is gone, and then nobody needs to know.
        let _ = alarms.send(AlarmReport { about: "metrics", trouble });
    };
    let mut failing_since = None;
    loop {
        let wanted = *address.borrow_and_update();
        let work = async {
            let Some(wanted) = wanted else {
                tell(None);
                return std::future::pending().await;
            };
            match TcpListener::bind(wanted).await {
                Ok(listener) => {
                    tell(None);
                    failing_since = None;
                    tracing::info!(address = %wanted, "metrics are served");
                    accept(listener, &handle).await;
                }
                Err(error) => {
                    let help = "free the address, or name another `[metrics] address`; it is tried again".to_string();
                    if failing_since.get_or_insert_with(Instant::now).elapsed() < TROUBLE {
                        return tokio::time::sleep(AGAIN).await;
                    }
                    tell(Some((format!("metrics cannot be served on {wanted}: {error}"), help)));
                }
            }
            tokio::time::sleep(LOOK).await;
        };
        tokio::select! {
            () = work => {}
            changed = address.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            _ = closing.wait_for(|closing| *closing) => return,
        }
    }
}

/// Accepts for ever. Dropping it closes what it accepted.
async fn accept(listener: TcpListener, handle: &Handle) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: spinning would make it worse.
                    tracing::debug!(%error, "metrics: accept failed");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let handle = handle.clone();
        connections.spawn(async move {
            converse(stream, handle).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, handle: Handle) {
    let service = service_fn(move |request| {
        let handle = handle.clone();
        async move { Ok::<_, Infallible>(answer(&request, &handle).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // A scraper that hangs up is its own business.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: &Request<Incoming>, handle: &Handle) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "only /metrics is here\n".to_string());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is taken\n".to_string());
    }
    match handle.metrics().await {
        Ok(metrics) => text(StatusCode::OK, metrics),
        Err(refusal) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
    response
}
