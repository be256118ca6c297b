//! Proofs for certificates that ask for one: fetched from the CA's responder, checked by `tls`, kept in the store so that
//! the next start has them at once, and fetched again when half of their time is over. A responder that fails is an alarm
//! where clients feel it, or soon will. Talks to responders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use relais_core::Instant;
use relais_store::Store;
use relais_tls::acme::client::Client;
use relais_tls::{CertStore, Proof, Question, StapleWish};
use serde::Serialize;

use super::{Done, kept};
use crate::alarm::AlarmReport;
use crate::control::Control;

/// Where they are kept.
const NAME: &str = "ocsp";
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(20);
/// After a failure it is tried again so soon, then after twice that, and so on,
const AGAIN: Duration = Duration::from_secs(5);
/// but at least so often.
const AT_LEAST: Duration = Duration::from_secs(300);
/// The subject of the alarm.
const ABOUT: &str = "ocsp";

/// A certificate that clients refuse without a proof, and how it stands with that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StapleReport {
    /// The certificate's name.
    pub name: String,
    /// Until when the proof counts; `None`: there is none.
    pub until: Option<Instant>,
    /// Why the last try to fetch one failed.
    pub fault: Option<String>,
    /// When that was.
    pub failed_at: Option<Instant>,
    /// Clients refuse the certificate, or soon will: an alarm.
    pub is_bad: bool,
}

/// What went wrong, since the last success.
struct Failure {
    in_a_row: u32,
    said: String,
    /// By the wall clock.
    at: Instant,
    again_at: Instant,
}

/// What is known and under way, by fingerprint.
pub(super) struct Staples {
    store: Arc<Store>,
    answers: BTreeMap<String, String>,
    under_way: BTreeSet<String>,
    failures: BTreeMap<String, Failure>,
}

impl Staples {
    /// Staples what the last life of the process had.
    pub(super) fn recall(store: &Arc<Store>, certs: &CertStore) -> Staples {
        let text = store.note(NAME).unwrap_or_default();
        let mut answers: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
        answers.retain(|certificate, answer| {
            STANDARD.decode(answer).is_ok_and(|answer| certs.staple(certificate, &answer).is_ok())
        });
        Staples { store: Arc::clone(store), answers, under_way: BTreeSet::new(), failures: BTreeMap::new() }
    }

    /// What is to be fetched now.
    fn due(&mut self, wishes: Vec<StapleWish>, now: Instant) -> Vec<StapleWish> {
        let wall = kept::wall_clock();
        let is_old =
            |wish: &StapleWish| wish.has.is_none_or(|proof| wall >= proof.from + proof.until.since(proof.from) / 2);
        // Nothing is tried again that is not old, or no longer by a clock that was set back.
        let wanted: BTreeSet<&str> =
            wishes.iter().filter(|wish| is_old(wish)).map(|wish| wish.fingerprint.as_str()).collect();
        self.failures.retain(|certificate, _| wanted.contains(certificate.as_str()));
        let is_due = |wish: &StapleWish| {
            let rests = self.failures.get(&wish.fingerprint).is_some_and(|failure| failure.again_at > now);
            is_old(wish) && !rests && !self.under_way.contains(&wish.fingerprint)
        };
        wishes.into_iter().filter(is_due).collect()
    }

    /// When one is to be tried again; `None`: none failed.
    pub(super) fn next(&self) -> Option<Instant> {
        let resting = self.failures.iter().filter(|(certificate, _)| !self.under_way.contains(*certificate));
        resting.map(|(_, failure)| failure.again_at).min()
    }

    fn failed(&mut self, certificate: &str, said: String, now: Instant) {
        let in_a_row = self.failures.get(certificate).map_or(1, |last| last.in_a_row + 1);
        let pause = AT_LEAST.min(AGAIN * 2_u32.saturating_pow(in_a_row - 1));
        let failure = Failure { in_a_row, said, at: kept::wall_clock(), again_at: now + pause };
        self.failures.insert(certificate.to_owned(), failure);
    }

    /// How it stands with each of them.
    fn report(&self, wishes: &[StapleWish], wall: Instant) -> Vec<StapleReport> {
        let one = |wish: &StapleWish| {
            let failure = self.failures.get(&wish.fingerprint);
            StapleReport {
                name: wish.name.clone(),
                until: wish.has.map(|proof| proof.until),
                fault: failure.map(|failure| failure.said.clone()),
                failed_at: failure.map(|failure| failure.at),
                is_bad: failure.is_some() && wish.has.is_none_or(|proof| is_nearly_over(proof, wall)),
            }
        };
        wishes.iter().map(one).collect()
    }

    /// Keeps an answer, and forgets those of certificates that are gone.
    fn keep(&mut self, certificate: &str, answer: &[u8], wanted: &[StapleWish]) {
        self.answers.retain(|known, _| wanted.iter().any(|wish| wish.fingerprint == *known));
        self.answers.insert(certificate.to_owned(), STANDARD.encode(answer));
        let text = serde_json::to_string(&self.answers).unwrap_or_default();
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || {
            if let Err(why) = store.keep_note(NAME, &text) {
                tracing::warn!("OCSP answers will be fetched again after a restart: {why}");
            }
        });
    }
}

impl Control {
    /// Fetches what certificates ask for and have not, or not for much longer.
    pub(super) fn look_for_staples(&mut self, now: Instant) {
        let due = self.acme.staples.due(self.certs.staple_wishes(), now);
        for StapleWish { name, fingerprint, question, .. } in due {
            self.acme.staples.under_way.insert(fingerprint.clone());
            self.acme.running.spawn(async move {
                let answer = match question {
                    Ok(question) => fetch(question).await,
                    Err(why) => Err(why),
                };
                Done::Stapled { name, fingerprint, answer }
            });
        }
        let trouble = trouble(&self.staples());
        self.alarms.take(AlarmReport { about: ABOUT, trouble }, now);
    }

    /// Certificates that clients refuse without a proof, and how it stands with that.
    pub(crate) fn staples(&self) -> Vec<StapleReport> {
        self.acme.staples.report(&self.certs.staple_wishes(), kept::wall_clock())
    }

    /// An answer, or why there is none.
    pub(super) fn stapled(&mut self, name: &str, fingerprint: &str, answer: Result<Vec<u8>, String>, now: Instant) {
        self.acme.staples.under_way.remove(fingerprint);
        match answer.and_then(|answer| Ok((self.certs.staple(fingerprint, &answer)?, answer))) {
            Ok((proof, answer)) => {
                self.acme.staples.failures.remove(fingerprint);
                self.acme.staples.keep(fingerprint, &answer, &self.certs.staple_wishes());
                let until = relais_tls::date(proof.until);
                tracing::info!(name, until, "OCSP answer stapled");
            }
            Err(why) => {
                tracing::warn!(name, "no OCSP answer for a certificate that clients refuse without: {why}");
                self.acme.staples.failed(fingerprint, why, now);
            }
        }
        self.look_for_staples(now);
    }
}

/// Three quarters of its time are over, and half of them were for fetching the next one.
fn is_nearly_over(proof: Proof, wall: Instant) -> bool {
    wall >= proof.from + proof.until.since(proof.from) / 4 * 3
}

/// Message and way out; `None`: all is well.
fn trouble(all: &[StapleReport]) -> Option<(String, String)> {
    let mut bad: Vec<&StapleReport> = all.iter().filter(|one| one.is_bad).collect();
    bad.sort_by_key(|one| one.until);
    let worst = bad.first()?;
    let state = match worst.until {
        None => "clients refuse its certificate: it asks for an OCSP answer, and there is none".to_owned(),
        Some(until) => {
            format!("clients refuse its certificate from {}: its OCSP answer ends then", relais_tls::date(until))
        }
    };
    let more = match bad.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more: `relais certs`)"),
    };
    let said = worst.fault.as_deref().unwrap_or_default();
    let help =
        "it is tried again by itself, every five minutes at least; a certificate without `must-staple` needs none";
    Some((format!("{}: {state}: {said}{more}", worst.name), help.to_owned()))
}

async fn fetch(question: Question) -> Result<Vec<u8>, String> {
    let request = http::Request::post(&question.url)
        .header(http::header::CONTENT_TYPE, "application/ocsp-request")
        .body(Bytes::from(question.request))
        .map_err(|fault| fault.to_string())?;
    let answer = Client::new(None)?.send(request, ANSWER).await.map_err(|fault| fault.to_string())?;
    match answer.status().as_u16() {
        200 => Ok(answer.into_body().to_vec()),
        status => Err(format!("the responder answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const FROM: Instant = Instant(1_800_000_000_000_000);

    fn told(wall: Instant, has: Option<Proof>, said: Option<&str>) -> Option<String> {
        let mut staples = Staples {
            store: Arc::new(Store::memory()),
            answers: BTreeMap::new(),
            under_way: BTreeSet::new(),
            failures: BTreeMap::new(),
        };
        if let Some(said) = said {
            staples.failed("AB", said.to_owned(), Instant(0));
        }
        let question = Err(String::new());
        let wish = StapleWish { name: "a.fr".to_owned(), fingerprint: "AB".to_owned(), question, has };
        trouble(&staples.report(&[wish], wall)).map(|(message, _)| message)
    }

    #[test]
    fn a_responder_that_fails_is_an_alarm_once_clients_feel_it() {
        let proof = Some(Proof { from: FROM, until: FROM + HOUR * 8 });
        assert_eq!(told(FROM, None, None), None, "the first one is on its way");
        assert_eq!(told(FROM + HOUR * 7, proof, None), None);
        assert_eq!(told(FROM + HOUR * 5, proof, Some("away")), None, "three hours are left to try again");
        let message = told(FROM + HOUR * 6, proof, Some("away")).unwrap();
        assert!(message.contains("a.fr: clients refuse its certificate from 2027-01-15 16:00 UTC"), "{message}");
        let message = told(FROM, None, Some("away")).unwrap();
        assert!(message.contains("there is none: away"), "{message}");
    }

    #[test]
    fn tries_grow_rarer_to_one_in_five_minutes() {
        let mut staples = Staples {
            store: Arc::new(Store::memory()),
            answers: BTreeMap::new(),
            under_way: BTreeSet::new(),
            failures: BTreeMap::new(),
        };
        let mut pauses = Vec::new();
        for _ in 0..40 {
            staples.failed("AB", String::new(), FROM);
            pauses.push(staples.next().unwrap().since(FROM).as_secs());
        }
        assert_eq!(pauses[..8], [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pauses[39], 300);
    }
}
