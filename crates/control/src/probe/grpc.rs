//! `grpc.health.v1.Health/Check`: the gRPC health protocol, over HTTP/2. Its two messages have one field each, written and
//! read here by hand.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use relais_config::GrpcCheck;
use relais_core::Fault;

use super::connect::Stream;
use super::fault::{self, Progress};
use super::http::{StopTasks, Tasks, USER_AGENT, beside};

/// Longest answer.
const LONGEST: usize = 4096;
/// `HealthCheckResponse.status` of a server that serves.
const SERVING: u64 = 1;

/// Asks for the health of a gRPC service.
pub(super) async fn ask(
    stream: Stream,
    tls: bool,
    check: &GrpcCheck,
    host: &str,
    progress: &Progress,
) -> Result<(), Fault> {
    let question = question(check, host, if tls { "https" } else { "http" })?;
    let tasks = Tasks::default();
    let (mut sender, connection) =
        http2::handshake(tasks.clone(), TokioIo::new(stream)).await.map_err(|error| fault::of_http(&error))?;
    let _stop_when_done = StopTasks(tasks);
    let exchange = async move {
        let answer = sender.send_request(question).await.map_err(|error| fault::of_http(&error))?;
        let (head, body) = answer.into_parts();
        if head.status != 200 {
            return Err(Fault::Status(head.status.as_u16()));
        }
        // Without a message the status of the call comes at once.
        succeeded(&head.headers, progress)?;
        let (message, trailers) = read(body).await?;
        match trailers {
            Some(trailers) => succeeded(&trailers, progress)?,
            None if !head.headers.contains_key("grpc-status") => return Err(Fault::Malformed),
            None => {}
        }
        judge(&message, progress)
    };
    beside(connection, exchange).await
}

fn question(check: &GrpcCheck, host: &str, scheme: &str) -> Result<Request<Full<Bytes>>, Fault> {
    let question = Request::builder()
        .method(Method::POST)
        .uri(format!("{scheme}://{host}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(header::TE, HeaderValue::from_static("trailers"))
        .header(header::USER_AGENT, HeaderValue::from_static(USER_AGENT))
        .body(Full::new(Bytes::from(framed(&request(&check.service)))));
    // The config has proven the host usable; what it let through and HTTP does not take is told as malformed.
    question.map_err(|_| Fault::Malformed)
}

/// `HealthCheckRequest { string service = 1; }`. A text that is empty is left out.
fn request(service: &str) -> Vec<u8> {
    if service.is_empty() {
        return Vec::new();
    }
    let mut message = vec![0x0a];
    let mut length = service.len();
    while length >= 0x80 {
        message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    message.push(u8::try_from(length).unwrap_or_default());
    message.extend_from_slice(service.as_bytes());
    message
}

/// A message as gRPC sends it: not compressed, its length, itself.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], length.to_be_bytes().as_slice(), message].concat()
}

async fn read(mut body: Incoming) -> Result<(Vec<u8>, Option<HeaderMap>), Fault> {
    let mut message = Vec::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| fault::of_http(&error))?;
        match frame.into_data() {
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
        }
        if message.len() > LONGEST {
            return Err(Fault::Malformed);
        }
    }
    Ok((message, trailers))
}

/// Whether the call itself went well, as far as these fields say.
fn succeeded(fields: &HeaderMap, progress: &Progress) -> Result<(), Fault> {
    let Some(status) = fields.get("grpc-status") else { return Ok(()) };
    if status == "0" {
        return Ok(());
    }
    let text = |name| fields.get(name).map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()));
    let status = String::from_utf8_lossy(status.as_bytes());
    progress.say(format!("grpc-status {status} {}", text("grpc-message").unwrap_or_default()).as_bytes());
    Err(Fault::Unwell)
}

/// `HealthCheckResponse { ServingStatus status = 1; }` in its frame.
fn judge(framed: &[u8], progress: &Progress) -> Result<(), Fault> {
    let [0, a, b, c, d, message @ ..] = framed else { return Err(Fault::Malformed) };
    if usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok() != Some(message.len()) {
        return Err(Fault::Malformed);
    }
    let word = match status(message).ok_or(Fault::Malformed)? {
        SERVING => return Ok(()),
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "a status nobody knows",
    };
    progress.say(word.as_bytes());
    Err(Fault::Unwell)
}

/// The value of field 1; other fields are skipped. 0 when it is not there. `None`: not a message.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                status = if tag == 0x08 { value } else { status };
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_framed() {
        assert_eq!(framed(&request("")), [0, 0, 0, 0, 0]);
        assert_eq!(framed(&request("a.B")), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = request(&"x".repeat(300));
        assert_eq!(long[..4], [0x0a, 0xac, 0x02, b'x']);
        assert_eq!(long.len(), 303);
    }

    #[test]
    fn answers_have_their_meaning() {
        let progress = Progress::default();
        let judged = |message: &[u8]| judge(&framed(message), &progress);
        assert_eq!(judged(&[0x08, 1]), Ok(()));
        assert_eq!(judged(&[0x12, 2, b'x', b'y', 0x08, 1, 0x1d, 0, 0, 0, 0]), Ok(()), "other fields are skipped");
        assert_eq!(judged(&[0x08, 2]), Err(Fault::Unwell));
        assert_eq!(progress.said().as_deref(), Some("NOT_SERVING"));
        assert_eq!(judged(&[]), Err(Fault::Unwell), "0 is left out: UNKNOWN");
        assert_eq!(judged(&[0x08, 0x81, 0x01]), Err(Fault::Unwell), "129");
        for broken in [
            &[0x08][..],
            &[0x0f, 1],
            &[0x0a, 9, 1],
            &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
        ] {
            assert_eq!(judged(broken), Err(Fault::Malformed), "{broken:?}");
        }
        assert_eq!(judge(&[0, 0, 0, 0, 3, 0x08, 1], &progress), Err(Fault::Malformed), "shorter than it says");
        assert_eq!(judge(&[1, 0, 0, 0, 2, 0x08, 1], &progress), Err(Fault::Malformed), "compressed");
        assert_eq!(judge(&[], &progress), Err(Fault::Malformed));
    }
}
