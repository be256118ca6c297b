//! Proof that a certificate has not been taken back, stapled to the handshake (OCSP, RFC 6960): for certificates that ask
//! for it (RFC 7633), which clients refuse without. Asks nobody and keeps nothing: the caller fetches and keeps.

mod ocsp;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::certificate::{CertSource, Certificate};
use crate::clock;
use crate::store::{CertStore, Serving};
use crate::x509;
use relais_core::Instant;

/// A certificate that asks for a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StapleWish {
    /// The certificate's name, for people.
    pub name: String,
    /// Which certificate, as browsers show it: `AB:CD:...`.
    pub fingerprint: String,
    /// Where to POST `request` as `application/ocsp-request`; `Err`: it says nowhere, or who signed it is not there.
    pub question: Result<Question, String>,
    /// The proof in use.
    pub has: Option<Proof>,
}

/// What to ask whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// An `http://` URL from the certificate.
    pub url: String,
    /// DER.
    pub request: Vec<u8>,
}

/// How long a proof counts, by the responder's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// From when.
    pub from: Instant,
    /// Until when clients believe it.
    pub until: Instant,
}

/// A certificate with its proof.
#[derive(Debug)]
pub(crate) struct Stapled {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) proof: Proof,
}

impl CertStore {
    /// The certificates in use that ask for a proof: ordinarily none.
    #[must_use]
    pub fn staple_wishes(&self) -> Vec<StapleWish> {
        let serving = self.serving.load();
        let wishes = serving.certificates.iter().filter(|one| one.must_staple && one.source != CertSource::Internal);
        wishes
            .map(|one| StapleWish {
                name: one.name.clone(),
                fingerprint: fingerprint(one),
                question: ocsp::question(&one.key.cert),
                has: one.stapled.load().as_ref().map(|stapled| stapled.proof),
            })
            .collect()
    }

    /// Staples the answer of a responder to the certificate of this fingerprint, from the next handshake on, and after
    /// reloads as well.
    ///
    /// # Errors
    /// Why it proves nothing: it is about another certificate, not good, old, or signed by somebody else.
    pub fn staple(&self, fingerprint: &str, answer: &[u8]) -> Result<Proof, String> {
        let serving = self.serving.load();
        let proof = staple_one(&serving, fingerprint, answer)?;
        self.staples.lock().insert(fingerprint.to_owned(), answer.to_vec());
        Ok(proof)
    }

    /// Gives certificates that were read again the proofs that are known, and forgets those of others.
    pub(crate) fn staple_again(&self, serving: &Serving) {
        self.staples.lock().retain(|fingerprint, answer| staple_one(serving, fingerprint, answer).is_ok());
    }
}

/// What is known, by fingerprint.
pub(crate) type Answers = BTreeMap<String, Vec<u8>>;

fn staple_one(serving: &Serving, wanted: &str, answer: &[u8]) -> Result<Proof, String> {
    let one = serving.certificates.iter().find(|one| one.must_staple && fingerprint(one) == wanted);
    let one = one.ok_or("no certificate in use asks for it")?;
    let proof = ocsp::check(&one.key.cert, answer, clock::now())?;
    let mut key = CertifiedKey::clone(&one.key);
    key.ocsp = Some(answer.to_vec());
    one.stapled.store(Some(Arc::new(Stapled { key: Arc::new(key), proof })));
    Ok(proof)
}

fn fingerprint(one: &Certificate) -> String {
    one.key.cert.first().map(|leaf| x509::fingerprint(leaf)).unwrap_or_default()
}
