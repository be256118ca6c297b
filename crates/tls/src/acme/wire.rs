//! The library's way to the CA: our client below it, retries above it. Knows HTTP, and nothing of orders.
//!
//! The library tries a call three times when the CA rejects its nonce and then gives up, forgets `Retry-After`, and takes
//! an error page for broken JSON: all three are made good here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use parking_lot::Mutex;
use relais_core::Instant;

use super::client::{Client, ClientFault};
use super::fault::{self, FaultKind, OrderFault};
use crate::clock;

/// Rejected nonces in one call before we give up. Each is three rejections for the library.
const NONCES: u32 = 12;
/// Failures of the network in one call before we give up.
const BREAKS: u32 = 3;
/// Pause before the second try after a failure of the network; doubled each time.
const PAUSE: Duration = Duration::from_millis(400);
/// A CA that wants us back later than this is taken at its word only so far.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// Speaks to one CA. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    client: Arc<Client>,
    /// Deadline of one call.
    call: Duration,
    /// What the head of the last answer said about time.
    last: Arc<Mutex<Times>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    /// `Retry-After`.
    later: Option<Duration>,
    /// `Date`, and how old the answer is.
    date: Option<Instant>,
}

impl Wire {
    pub(super) fn new(client: Client, call: Duration) -> Self {
        Self { client: Arc::new(client), call, last: Arc::default() }
    }

    /// Sends one request; an answer that is an error but no problem document (RFC 7807) is a fault.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ClientFault> {
        *self.last.lock() = Times::default();
        // What only asks can be asked again, whether or not it arrived: a nonce above all.
        let asks = request.method().is_safe();
        let lost = |fault: ClientFault| ClientFault { sent: fault.sent && !asks, ..fault };
        let answer = self.client.send(request, self.call).await.map_err(lost)?;
        *self.last.lock() = Times { later: retry_after(answer.headers()), date: date(answer.headers()) };
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let explained = answer
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.contains("json")));
        if explained && serde_json::from_slice::<Problem>(answer.body()).is_ok() {
            return Ok(answer);
        }
        Err(lost(ClientFault { message: format!("the CA answered {status}"), sent: true }))
    }

    /// `Retry-After` of the last answer.
    pub(super) fn later(&self) -> Option<Duration> {
        self.last.lock().later
    }

    /// What time it is where the last answer came from.
    pub(super) fn date(&self) -> Option<Instant> {
        self.last.lock().date
    }

    /// The fault of a call that failed, with what its answer said besides.
    pub(super) fn fault(&self, error: &Error) -> OrderFault {
        let fault = fault::of(error);
        let retry_after = if fault.kind == FaultKind::Internal { None } else { self.later() };
        OrderFault { retry_after, ..fault }
    }

    /// Whether a call that failed should be made again now; waits a little where that is wise. `safe`: made twice it does
    /// no more than once.
    pub(super) async fn again(&self, error: &Error, tries: &mut Tries, safe: bool) -> bool {
        match error {
            Error::Api(problem) if fault::word(problem) == "badNonce" => {
                tries.nonces += 1;
                tries.nonces < NONCES
            }
            Error::Api(problem) if safe && fault::word(problem) == "serverInternal" => tries.pause().await,
            Error::Other(fault) => match fault.downcast_ref::<ClientFault>() {
                Some(fault) if safe || !fault.sent => tries.pause().await,
                _ => false,
            },
            _ => false,
        }
    }
}

/// How often one call was made in vain.
#[derive(Debug, Default)]
pub(super) struct Tries {
    nonces: u32,
    breaks: u32,
}

impl Tries {
    /// Whether the CA may have acted on an earlier try.
    pub(super) fn broke(&self) -> bool {
        self.breaks > 0
    }

    async fn pause(&mut self) -> bool {
        self.breaks += 1;
        if self.breaks >= BREAKS {
            return false;
        }
        tokio::time::sleep(PAUSE * 2_u32.pow(self.breaks - 1)).await;
        true
    }
}

/// Makes a call until it succeeds or fails for good: `persist!(wire, safe, call)`. A macro, because the call borrows the
/// order anew each time.
macro_rules! persist {
    ($wire:expr, $safe:expr, $call:expr) => {{
        let mut tries = $crate::acme::wire::Tries::default();
        persist!($wire, $safe, tries, $call)
    }};
    ($wire:expr, $safe:expr, $tries:ident, $call:expr) => {
        loop {
            match $call.await {
                Err(error) if $wire.again(&error, &mut $tries, $safe).await => {}
                result => break result,
            }
        }
    };
}
pub(super) use persist;

impl HttpClient for Wire {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let wire = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let answer = wire.send(Request::from_parts(head, body)).await;
            let (parts, body) = answer.map_err(|fault| Error::Other(Box::new(fault)))?.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => http_date(value)?.since(date(headers).unwrap_or_else(clock::now)),
    };
    Some(wait.min(LONGEST))
}

/// The time at which the answer arrived, by its own word: from a cache it is older than from the server (RFC 9111,
/// section 5.1).
fn date(headers: &HeaderMap) -> Option<Instant> {
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
    Some(http_date(headers.get(DATE)?.to_str().ok()?)? + Duration::from_secs(age))
}

fn http_date(value: &str) -> Option<Instant> {
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?;
    Some(clock::from_unix(date.timestamp().as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        assert_eq!(parsed("120"), Some(Duration::from_secs(120)));
        assert_eq!(parsed("99999999999"), Some(LONGEST));
        assert_eq!(parsed("soon"), None);
        assert_eq!(parsed("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        let day = parsed("Fri, 31 Dec 2100 23:59:59 GMT");
        assert_eq!(day, Some(LONGEST));
    }

    #[test]
    fn dates_are_the_cas_and_do_not_need_our_clock() {
        let mut headers = HeaderMap::new();
        assert_eq!(date(&headers), None);
        headers.insert(DATE, "Fri, 31 Dec 1999 23:00:00 GMT".parse().unwrap());
        headers.insert(RETRY_AFTER, "Fri, 31 Dec 1999 23:01:00 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(60)));
        headers.insert(AGE, "30".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(30)));
        assert_eq!(date(&headers), Some(clock::from_unix(946_681_230)));
        headers.insert(DATE, "today".parse().unwrap());
        assert_eq!(date(&headers), None);
    }
}
