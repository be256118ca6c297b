//! Resume: a download whose backend dies after the head is continued from another backend, and the client sees one
//! unbroken body (RFC 9110 sections 13 and 14).
//!
//! Only where the bytes are provably the same: GET, one range or the whole, a strong `ETag` or a `Last-Modified`, and a
//! 206 from the other backend for exactly the missing bytes with the same validator. Anything else is cut visibly.

use std::time::Instant;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use relais_core::config::{Action, Forward};
use relais_core::{Fault, Member};

use crate::access::Ticket;
use crate::answer::Failure;
use crate::cut_off::Cut;
use crate::exchange::Exchange;
use crate::forward::{self, Answer, Outcome};
use crate::from_backend::FromBackend;
use crate::obtain;
use crate::race::Connected;

/// What is still to come of a body, and how to ask another backend for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// `etag` or `last-modified`.
    field: HeaderName,
    validator: HeaderValue,
    /// Offset in the whole representation of the next byte the client gets.
    next: u64,
    /// Offset of the last byte the client gets.
    last: u64,
    /// Length of the whole representation, when stated.
    total: Option<u64>,
    /// How often it was continued already.
    resumes: u32,
    /// It has left a backend that was not suspect.
    left_early: bool,
}

impl Plan {
    /// A plan for the answer to a request, if its body can be continued elsewhere.
    pub(crate) fn of(method: &Method, status: StatusCode, headers: &HeaderMap) -> Option<Plan> {
        if *method != Method::GET || headers.get(header::ACCEPT_RANGES).is_some_and(|value| value == "none") {
            return None;
        }
        let (field, validator) = validator(headers)?;
        let (next, last, total) = match status {
            StatusCode::OK => {
                let length: u64 = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
                (0, length.checked_sub(1)?, Some(length))
            }
            StatusCode::PARTIAL_CONTENT => content_range(headers)?,
            _ => return None,
        };
        Some(Plan { field, validator, next, last, total, resumes: 0, left_early: false })
    }

    /// Bytes passed on to the client.
    pub(crate) fn passed(&mut self, bytes: usize) {
        self.next += bytes as u64;
    }

    /// It leaves a backend that is not suspect. Once: what pauses everywhere would go back and forth.
    pub(crate) fn leaves_early(&mut self) {
        self.left_early = true;
    }

    /// Whether it may.
    pub(crate) fn may_leave_early(&self) -> bool {
        !self.left_early
    }

    /// Every byte was passed on: there is nothing to resume.
    pub(crate) fn finished(&self) -> bool {
        self.next > self.last
    }

    fn ask(&self, headers: &mut HeaderMap) {
        for name in [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE] {
            headers.remove(name);
        }
        if let Ok(range) = HeaderValue::from_str(&format!("bytes={}-{}", self.next, self.last)) {
            headers.insert(header::RANGE, range);
            headers.insert(header::IF_RANGE, self.validator.clone());
        }
    }

    /// Whether an answer is exactly the missing bytes of the same representation.
    fn fits(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        status == StatusCode::PARTIAL_CONTENT
            && headers.get(&self.field) == Some(&self.validator)
            && content_range(headers).is_some_and(|(first, last, total)| {
                (first, last) == (self.next, self.last)
                    && (total == self.total || total.is_none() || self.total.is_none())
            })
    }
}

/// A strong entity tag, else a modification date.
fn validator(headers: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
    match headers.get(header::ETAG) {
        Some(tag) if tag.as_bytes().starts_with(b"\"") => Some((header::ETAG, tag.clone())),
        Some(_) => None,
        None => {
            // RFC 9110 8.8.2.2: a date is a strong validator when the answer was made at least a second after it.
            let modified = headers.get(header::LAST_MODIFIED)?;
            let strong = headers.get(header::DATE).is_some_and(|date| date != modified);
            strong.then(|| (header::LAST_MODIFIED, modified.clone()))
        }
    }
}

/// `Content-Range: bytes 5-9/20` as (5, 9, Some(20)).
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    if first > last {
        return None;
    }
    Some((first, last, total.parse().ok()))
}

/// The rest of a body from another backend; or what was needed to look for it, when nobody has it.
pub(crate) type Found = Result<Box<FromBackend>, (Box<Exchange>, Plan)>;

/// Continues a body elsewhere, if that is found before `until`, because of that `cut`. The ticket travels along and comes back, whatever
/// happens.
pub(crate) async fn resume(
    mut exchange: Box<Exchange>,
    mut plan: Plan,
    mut ticket: Box<Ticket>,
    until: Option<Instant>,
    cut: Cut,
) -> (Box<Ticket>, Found) {
    exchange.now = Instant::now();
    exchange.fields.change(|fields| plan.ask(fields));
    let pool = std::sync::Arc::clone(&exchange.pool);
    let service = std::sync::Arc::clone(&exchange.service);
    let Action::Forward(forward) = &service.action else { return (ticket, Err((exchange, plan))) };
    // Suspicions pass: only what broke, or fell silent for long, counts.
    plan.resumes += u32::from(!cut.is_suspicion());
    if plan.resumes > forward.retry.attempts {
        // An answer that kills backend after backend must come to an end.
        return (ticket, Err((exchange, plan)));
    }
    let search = find(&mut exchange, forward, &plan, &mut ticket);
    let found = match until {
        None => search.await,
        Some(until) => tokio::time::timeout_at(until.into(), search).await.unwrap_or(Err(Failure::RequestTimeout)),
    };
    let result = match found {
        Ok((member, answer)) => {
            pool.stats.resumed.inc();
            let (body, inflight) = forward::continue_with(exchange, forward, &member, answer, plan);
            ticket.serving = Some(inflight);
            Ok(body)
        }
        Err(failure) => {
            tracing::debug!(?failure, "a broken download could not be continued elsewhere");
            Err((exchange, plan))
        }
    };
    (ticket, result)
}

/// Asks one backend after another for the missing bytes.
async fn find(
    exchange: &mut Exchange,
    rule: &Forward,
    plan: &Plan,
    ticket: &mut Ticket,
) -> Result<(Member, Answer), Failure> {
    let mut left = rule.retry.attempts.max(1);
    while left > 0 {
        let connected = obtain::obtain(exchange, rule, true, ticket).await?;
        let started = Instant::now();
        let Connected { member, link, .. } = connected;
        left = left.saturating_sub(1);
        exchange.tried.push(member.backend.slot);
        let (member, outcome) = match forward::send(exchange, rule, &member, link, started).await {
            Outcome::Overtaken(by) => {
                ticket.attempted(&member, "hedge_slower", started);
                (*by.member, Outcome::Answer(by.answer))
            }
            outcome => (member, outcome),
        };
        match outcome {
            Outcome::Answer(answer) if plan.fits(answer.response.status(), answer.response.headers()) => {
                ticket.attempted(&member, "resumed", started);
                return Ok((member, *answer));
            }
            // Another version there, or no ranges: the next one may have what is missing.
            Outcome::Answer(_) | Outcome::Overtaken(_) => ticket.attempted(&member, "not_resumable", started),
            Outcome::Failed(fault) | Outcome::Rescued(fault) => ticket.attempted(&member, fault.as_str(), started),
            Outcome::InVain => ticket.attempted(&member, "in_vain", started),
            Outcome::NotSent => ticket.attempted(&member, "closed_before_sent", started),
            Outcome::Client(fault) => return Err(fault.into()),
        }
        exchange.now = Instant::now();
        exchange.refresh();
    }
    Err(Failure::Backend { fault: Fault::Reset, possibly_received: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    const WHOLE: &[(&str, &str)] = &[("etag", "\"v1\""), ("content-length", "100")];

    #[test]
    fn a_whole_answer_is_continued_after_the_last_byte_passed_on() {
        let mut plan = Plan::of(&Method::GET, StatusCode::OK, &map(WHOLE)).unwrap();
        plan.passed(40);
        let mut ask = map(&[("if-none-match", "\"v0\""), ("accept", "*/*")]);
        plan.ask(&mut ask);
        assert_eq!(ask, map(&[("accept", "*/*"), ("range", "bytes=40-99"), ("if-range", "\"v1\"")]));
        let good = map(&[("etag", "\"v1\""), ("content-range", "bytes 40-99/100")]);
        assert!(plan.fits(StatusCode::PARTIAL_CONTENT, &good));
        assert!(!plan.fits(StatusCode::OK, &good));
        for bad in [
            map(&[("etag", "\"v2\""), ("content-range", "bytes 40-99/100")]),
            map(&[("etag", "\"v1\""), ("content-range", "bytes 41-99/100")]),
            map(&[("etag", "\"v1\""), ("content-range", "bytes 40-99/101")]),
            map(&[("etag", "\"v1\"")]),
        ] {
            assert!(!plan.fits(StatusCode::PARTIAL_CONTENT, &bad), "{bad:?}");
        }
    }

    #[test]
    fn a_range_is_continued_inside_itself() {
        let headers = map(&[("etag", "\"v1\""), ("content-length", "10"), ("content-range", "bytes 20-29/100")]);
        let mut plan = Plan::of(&Method::GET, StatusCode::PARTIAL_CONTENT, &headers).unwrap();
        plan.passed(3);
        let mut ask = map(&[("range", "bytes=20-29")]);
        plan.ask(&mut ask);
        assert_eq!(ask["range"], "bytes=23-29");
        assert!(!plan.finished());
        plan.passed(7);
        assert!(plan.finished());
    }

    #[test]
    fn without_a_strong_validator_or_a_length_there_is_no_plan() {
        for headers in [
            map(&[("content-length", "100")]),
            map(&[("etag", "W/\"v1\""), ("content-length", "100")]),
            map(&[("etag", "\"v1\"")]),
            map(&[("etag", "\"v1\""), ("content-length", "0")]),
            map(&[("etag", "\"v1\""), ("content-length", "100"), ("accept-ranges", "none")]),
        ] {
            assert_eq!(Plan::of(&Method::GET, StatusCode::OK, &headers), None, "{headers:?}");
        }
        assert_eq!(Plan::of(&Method::POST, StatusCode::OK, &map(WHOLE)), None);
        assert_eq!(Plan::of(&Method::GET, StatusCode::NOT_FOUND, &map(WHOLE)), None);
        let modified = ("last-modified", "Tue, 03 Nov 2026 10:00:00 GMT");
        let dated = |date| map(&[modified, ("content-length", "5"), ("date", date)]);
        assert!(Plan::of(&Method::GET, StatusCode::OK, &dated("Tue, 03 Nov 2026 10:00:01 GMT")).is_some());
        assert!(Plan::of(&Method::GET, StatusCode::OK, &dated("Tue, 03 Nov 2026 10:00:00 GMT")).is_none());
    }
}
