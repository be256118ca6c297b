//! Proofs for certificates that ask for one: fetched from the CA's responder, checked by `tls`, kept in the store so that
//! the next start has them at once, and fetched again when half of their time is over. Talks to responders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use relais_core::Instant;
use relais_store::Store;
use relais_tls::acme::client::Client;
use relais_tls::{CertStore, Question, StapleWish};

use super::{Done, kept};
use crate::control::Control;

/// Where they are kept.
const NAME: &str = "ocsp";
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(20);
/// After a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(300);

/// What is known and under way, by fingerprint.
pub(super) struct Staples {
    store: Arc<Store>,
    answers: BTreeMap<String, String>,
    under_way: BTreeSet<String>,
    not_before: BTreeMap<String, Instant>,
}

impl Staples {
    /// Staples what the last life of the process had.
    pub(super) fn recall(store: &Arc<Store>, certs: &CertStore) -> Staples {
        let text = store.note(NAME).unwrap_or_default();
        let mut answers: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
        answers.retain(|certificate, answer| {
            STANDARD.decode(answer).is_ok_and(|answer| certs.staple(certificate, &answer).is_ok())
        });
        Staples { store: Arc::clone(store), answers, under_way: BTreeSet::new(), not_before: BTreeMap::new() }
    }

    /// What is to be fetched now.
    fn due(&mut self, wishes: Vec<StapleWish>, now: Instant) -> Vec<StapleWish> {
        let wanted: BTreeSet<String> = wishes.iter().map(|wish| wish.fingerprint.clone()).collect();
        self.not_before.retain(|certificate, _| wanted.contains(certificate));
        let wall = kept::wall_clock();
        let is_due = |wish: &StapleWish| {
            let rests = self.not_before.get(&wish.fingerprint).is_some_and(|at| *at > now);
            let old = wish.has.is_none_or(|proof| wall >= proof.from + proof.until.since(proof.from) / 2);
            old && !rests && !self.under_way.contains(&wish.fingerprint)
        };
        wishes.into_iter().filter(is_due).collect()
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
    }

    /// An answer, or why there is none.
    pub(super) fn stapled(&mut self, name: &str, fingerprint: &str, answer: Result<Vec<u8>, String>, now: Instant) {
        self.acme.staples.under_way.remove(fingerprint);
        match answer.and_then(|answer| Ok((self.certs.staple(fingerprint, &answer)?, answer))) {
            Ok((proof, answer)) => {
                self.acme.staples.not_before.remove(fingerprint);
                self.acme.staples.keep(fingerprint, &answer, &self.certs.staple_wishes());
                let until = relais_tls::date(proof.until);
                tracing::info!(name, until, "OCSP answer stapled");
            }
            Err(why) => {
                self.acme.staples.not_before.insert(fingerprint.to_owned(), now + AGAIN);
                tracing::error!(name, "no OCSP answer for a certificate that clients refuse without: {why}");
            }
        }
    }
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
