//! The HTTP question of a probe, over HTTP/1.1 or HTTP/2, and whether the answer is good.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use relais_config::HttpCheck;
use relais_core::Fault;
use tokio::task::AbortHandle;

use super::connect::Stream;
use super::fault;

/// Sent with every probe, so that backends can tell probes from visitors in their logs.
pub(super) const USER_AGENT: &str = concat!("relais-probe/", env!("CARGO_PKG_VERSION"));

/// How much of the answer's body is searched for the expected text.
const SEARCHED: usize = 64 * 1024;

type Question = Request<Empty<Bytes>>;

/// Asks over HTTP/1.1.
pub(super) async fn ask_h1(stream: Stream, check: &HttpCheck, host: &str) -> Result<(), Fault> {
    let mut question = question(check, host, None)?;
    question.headers_mut().entry(header::CONNECTION).or_insert(HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| fault::of_http(&e))?;
    let exchange = async move {
        let answer = sender.send_request(question).await.map_err(|e| fault::of_http(&e))?;
        judge(answer, check).await
    };
    beside(connection, exchange).await
}

/// Asks over HTTP/2, known beforehand or chosen by ALPN.
pub(super) async fn ask_h2(stream: Stream, tls: bool, check: &HttpCheck, host: &str) -> Result<(), Fault> {
    let question = question(check, host, Some(if tls { "https" } else { "http" }))?;
    let tasks = Tasks::default();
    let (mut sender, connection) =
        http2::handshake(tasks.clone(), TokioIo::new(stream)).await.map_err(|e| fault::of_http(&e))?;
    let _stop_when_done = StopTasks(tasks);
    let exchange = async move {
        let answer = sender.send_request(question).await.map_err(|e| fault::of_http(&e))?;
        judge(answer, check).await
    };
    beside(connection, exchange).await
}

/// The request. HTTP/2 needs scheme and authority in its target, HTTP/1.1 a `Host` field.
fn question(check: &HttpCheck, host: &str, scheme: Option<&str>) -> Result<Question, Fault> {
    // The config has proven these usable; what it let through and HTTP does not take is told as a malformed exchange.
    let bad = |_| Fault::Malformed;
    let uri = match scheme {
        Some(scheme) => format!("{scheme}://{host}{}", check.path),
        None => check.path.clone(),
    };
    let uri: Uri = uri.parse().map_err(|_| Fault::Malformed)?;
    let method = Method::from_bytes(check.method.as_bytes()).map_err(|_| Fault::Malformed)?;
    let mut question = Request::builder().method(method).uri(uri).body(Empty::new()).map_err(bad)?;
    let headers = question.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    if scheme.is_none() {
        headers.insert(header::HOST, HeaderValue::from_str(host).map_err(|_| Fault::Malformed)?);
    }
    for (name, value) in &check.headers {
        let name: HeaderName = name.parse().map_err(|_| Fault::Malformed)?;
        headers.insert(name, value.parse().map_err(|_| Fault::Malformed)?);
    }
    Ok(question)
}

/// Whether the answer is good: status first, then the expected text.
async fn judge(answer: Response<Incoming>, check: &HttpCheck) -> Result<(), Fault> {
    let code = answer.status().as_u16();
    if !check.status.iter().any(|(low, high)| (*low..=*high).contains(&code)) {
        return Err(Fault::Status(code));
    }
    match &check.body {
        None => Ok(()),
        Some(text) => search(answer.into_body(), text.as_bytes()).await,
    }
}

async fn search(mut body: Incoming, text: &[u8]) -> Result<(), Fault> {
    let mut seen: Vec<u8> = Vec::new();
    loop {
        if holds(&seen, text) {
            return Ok(());
        }
        if seen.len() >= SEARCHED {
            return Err(Fault::BodyMismatch);
        }
        let Some(frame) = body.frame().await else {
            return Err(Fault::BodyMismatch);
        };
        let frame = frame.map_err(|e| fault::of_http(&e))?;
        if let Some(data) = frame.data_ref() {
            seen.extend_from_slice(&data[..data.len().min(SEARCHED - seen.len())]);
        }
    }
}

fn holds(seen: &[u8], text: &[u8]) -> bool {
    text.is_empty() || seen.windows(text.len()).any(|window| window == text)
}

/// Drives the connection beside the exchange, inside this one future: dropping it drops the socket.
pub(super) async fn beside<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let mut connection = pin!(connection);
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        out = &mut exchange => return out,
        _ = &mut connection => {}
    }
    // The connection has ended: the exchange has its answer already, or an error.
    exchange.await
}

/// Runs what HTTP/2 wants run in the background, and remembers it to stop it with the probe.
#[derive(Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<Vec<AbortHandle>>>);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let task: Pin<Box<F>> = Box::pin(future);
        let handle = tokio::spawn(task).abort_handle();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }
}

/// Stops them.
pub(super) struct StopTasks(pub(super) Tasks);

impl Drop for StopTasks {
    fn drop(&mut self) {
        for task in self.0.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> HttpCheck {
        HttpCheck {
            path: "/health?deep=1".to_string(),
            method: "GET".to_string(),
            host: None,
            status: vec![(200, 399)],
            body: None,
            headers: vec![("x-check".to_string(), "yes".to_string())],
        }
    }

    #[test]
    fn http1_asks_for_a_path_and_names_the_host() {
        let question = question(&check(), "api.a.fr", None).unwrap();
        assert_eq!(question.uri().to_string(), "/health?deep=1");
        assert_eq!(question.headers()["host"], "api.a.fr");
        assert_eq!(question.headers()["x-check"], "yes");
        assert_eq!(question.headers()["user-agent"], USER_AGENT);
    }

    #[test]
    fn http2_carries_the_host_in_its_target() {
        let question = question(&check(), "api.a.fr", Some("https")).unwrap();
        assert_eq!(question.uri().to_string(), "https://api.a.fr/health?deep=1");
        assert!(!question.headers().contains_key("host"));
    }

    #[test]
    fn text_is_found_wherever_it_is() {
        assert!(holds(b"all is well", b"well"));
        assert!(holds(b"", b""));
        assert!(!holds(b"wel", b"well"));
    }
}
