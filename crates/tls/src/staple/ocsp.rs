//! The question to a responder and the check of its answer (RFC 6960). Parses bytes, touches nothing.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use relais_core::Instant;
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::asn1::{BitString, ObjectIdentifier, OctetString};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, ExtendedKeyUsage};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspRequest, OcspResponse, OcspResponseStatus, Request, SingleResponse,
    TbsRequest,
};

use super::{Proof, Question};
use crate::provider::provider;

/// The responder's clock and ours may differ so much.
const SLACK: Duration = Duration::from_secs(300);
/// How long an answer counts that says nothing of it: there is always a newer one (RFC 6960, section 4.2.2.1).
const UNSAID: Duration = Duration::from_secs(12 * 3600);

const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const INFORMATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.1");
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const KEY_USE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SIGNS_OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");

/// What to ask about the first certificate of a chain, and whom. `Err`: it cannot be asked about.
pub(super) fn question(chain: &[CertificateDer<'_>]) -> Result<Question, String> {
    let (leaf, issuer) = read(chain)?;
    let url = responder(&leaf).ok_or("the certificate names no responder (OCSP URL)")?;
    let asked = Request { req_cert: id(&leaf, &issuer)?, single_request_extensions: None };
    let tbs_request = TbsRequest { request_list: vec![asked], ..TbsRequest::default() };
    let request = OcspRequest { tbs_request, optional_signature: None }.to_der().map_err(|fault| fault.to_string())?;
    Ok(Question { url, request })
}

/// Whether an answer proves that the first certificate of a chain is good now.
pub(super) fn check(chain: &[CertificateDer<'_>], answer: &[u8], now: Instant) -> Result<Proof, String> {
    let (leaf, issuer) = read(chain)?;
    let answer = OcspResponse::from_der(answer).map_err(|fault| format!("it is no OCSP answer: {fault}"))?;
    if answer.response_status != OcspResponseStatus::Successful {
        return Err(format!("the responder said {:?}", answer.response_status));
    }
    let bytes = answer.response_bytes.filter(|bytes| bytes.response_type == BASIC);
    let bytes = bytes.ok_or("the answer is of a kind that is not known")?;
    let basic = BasicOcspResponse::from_der(bytes.response.as_bytes())
        .map_err(|fault| format!("the answer cannot be read: {fault}"))?;
    is_signed(&basic, &issuer, now)?;
    let wanted = id(&leaf, &issuer)?;
    let about_us = |one: &&SingleResponse| is_same(&one.cert_id, &wanted);
    let one = basic.tbs_response_data.responses.iter().find(about_us);
    let one = one.ok_or("the answer is about another certificate")?;
    match &one.cert_status {
        CertStatus::Good(_) => {}
        CertStatus::Revoked(_) => return Err("the CA has taken the certificate back".to_owned()),
        CertStatus::Unknown(_) => return Err("the responder does not know the certificate".to_owned()),
    }
    let from = at(one.this_update.0.to_unix_duration());
    let until = one.next_update.as_ref().map_or(from + UNSAID, |until| at(until.0.to_unix_duration()));
    if from > now + SLACK {
        return Err("the answer is from the future: our clock, or theirs, is wrong".to_owned());
    }
    if until <= now {
        return Err("the answer is old".to_owned());
    }
    Ok(Proof { from, until })
}

fn read(chain: &[CertificateDer<'_>]) -> Result<(Certificate, Certificate), String> {
    let [leaf, issuer, ..] = chain else {
        return Err("the certificate of the CA that signed it is not in the file".to_owned());
    };
    let parsed = |der: &CertificateDer<'_>| Certificate::from_der(der).map_err(|fault| fault.to_string());
    Ok((parsed(leaf)?, parsed(issuer)?))
}

fn at(since_epoch: Duration) -> Instant {
    Instant::default() + since_epoch
}

/// The first address at which the CA answers.
fn responder(leaf: &Certificate) -> Option<String> {
    let AuthorityInfoAccessSyntax(all) = extension(leaf, INFORMATION)?;
    all.into_iter().filter(|one| one.access_method == OCSP).find_map(|one| match one.access_location {
        GeneralName::UniformResourceIdentifier(url) => Some(url.to_string()),
        _ => None,
    })
}

fn extension<T: for<'a> Decode<'a>>(certificate: &Certificate, wanted: ObjectIdentifier) -> Option<T> {
    let all = certificate.tbs_certificate.extensions.as_ref()?;
    let one = all.iter().find(|one| one.extn_id == wanted)?;
    T::from_der(one.extn_value.as_bytes()).ok()
}

/// By SHA-1, which is a name here and no protection: every responder knows it (RFC 5019, section 2.1.1).
fn id(leaf: &Certificate, issuer: &Certificate) -> Result<CertId, String> {
    let said = |fault: x509_cert::der::Error| fault.to_string();
    let hash = |bytes: &[u8]| OctetString::new(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref()).map_err(said);
    let subject = issuer.tbs_certificate.subject.to_der().map_err(said)?;
    Ok(CertId {
        hash_algorithm: AlgorithmIdentifierOwned { oid: SHA1, parameters: None },
        issuer_name_hash: hash(&subject)?,
        issuer_key_hash: hash(issuer.tbs_certificate.subject_public_key_info.subject_public_key.raw_bytes())?,
        serial_number: leaf.tbs_certificate.serial_number.clone(),
    })
}

/// Parameters of the hash may be written or left out.
fn is_same(one: &CertId, other: &CertId) -> bool {
    one.hash_algorithm.oid == other.hash_algorithm.oid
        && one.issuer_name_hash == other.issuer_name_hash
        && one.issuer_key_hash == other.issuer_key_hash
        && one.serial_number == other.serial_number
}

/// By the CA itself, or by somebody it has certified for this (RFC 6960, section 4.2.2.2).
fn is_signed(basic: &BasicOcspResponse, issuer: &Certificate, now: Instant) -> Result<(), String> {
    let data = basic.tbs_response_data.to_der().map_err(|fault| fault.to_string())?;
    let by = |signer: &Certificate| {
        let key = &signer.tbs_certificate.subject_public_key_info;
        holds(key, &basic.signature_algorithm, &data, &basic.signature)
    };
    let mut delegates = basic.certs.iter().flatten();
    if by(issuer) || delegates.any(|one| is_delegate(one, issuer, now) && by(one)) {
        return Ok(());
    }
    Err("the answer is not signed by the CA of the certificate".to_owned())
}

fn is_delegate(one: &Certificate, issuer: &Certificate, now: Instant) -> bool {
    let Ok(data) = one.tbs_certificate.to_der() else { return false };
    let validity = one.tbs_certificate.validity;
    let current = at(validity.not_before.to_unix_duration()) <= now + SLACK
        && now <= at(validity.not_after.to_unix_duration()) + SLACK;
    let meant = extension::<ExtendedKeyUsage>(one, KEY_USE).is_some_and(|uses| uses.0.contains(&SIGNS_OCSP));
    let key = &issuer.tbs_certificate.subject_public_key_info;
    current && meant && holds(key, &one.signature_algorithm, &data, &one.signature)
}

/// Whether a signature is by this key.
fn holds(
    key: &SubjectPublicKeyInfoOwned,
    algorithm: &AlgorithmIdentifierOwned,
    data: &[u8],
    signature: &BitString,
) -> bool {
    let (Some(kind), Some(signed)) = (inner(&key.algorithm), inner(algorithm)) else { return false };
    let all = provider().signature_verification_algorithms.all;
    let mut fitting =
        all.iter().filter(|one| one.public_key_alg_id()[..] == kind[..] && one.signature_alg_id()[..] == signed[..]);
    let public = key.subject_public_key.raw_bytes();
    fitting.any(|one| one.verify_signature(public, data, signature.raw_bytes()).is_ok())
}

/// What is in the sequence of an algorithm's name, as the library has it.
fn inner(algorithm: &AlgorithmIdentifierOwned) -> Option<Vec<u8>> {
    let mut bytes = algorithm.oid.to_der().ok()?;
    if let Some(parameters) = &algorithm.parameters {
        bytes.extend(parameters.to_der().ok()?);
    }
    Some(bytes)
}
