//! What a CA says about a certificate it has signed: when to renew it (ARI, RFC 9773), and taking it back. Talks to the CA.

use std::time::Duration;

use instant_acme::{Error, RevocationRequest};
use relais_core::Instant;
use relais_core::config::Secret;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use super::account;
use super::ca::{Ca, get};
use super::fault::{FaultKind, OrderFault};
use super::step::Steps;
use super::wire::persist;
use crate::clock;

/// When to ask again where the CA does not say (RFC 9773, section 4.3.3).
const ASK_AGAIN: Duration = Duration::from_secs(6 * 3_600);
/// Bounds of what it says (same section).
const SOONEST: Duration = Duration::from_secs(60);
const LATEST: Duration = Duration::from_secs(86_400);

/// When the CA would have a certificate renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalInfo {
    /// Begin of the window; past: renew now.
    pub start: Instant,
    /// End of the window, not before its begin.
    pub end: Instant,
    /// A page that says why, as when certificates must be taken back.
    pub explanation: Option<String>,
    /// When to ask again, from now. 1 min to 1 day.
    pub ask_again: Duration,
    /// What time it is at the CA; `None`: it does not say.
    pub date: Option<Instant>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "suggestedWindow")]
    window: Window,
    #[serde(rename = "explanationURL")]
    explanation: Option<String>,
}

#[derive(Deserialize)]
struct Window {
    start: String,
    end: String,
}

/// Asks when the certificate with this ARI id should be renewed. `None`: the CA gives no such information.
///
/// # Errors
/// The CA cannot be reached, or does not know the certificate.
pub async fn renewal_info(ca: &Ca, ari_id: &str) -> Result<Option<RenewalInfo>, OrderFault> {
    let wire = ca.wire()?;
    let Some(url) = ca.directory(&wire).await?.renewal_info else { return Ok(None) };
    let url = format!("{}/{ari_id}", url.trim_end_matches('/'));
    let answer = persist!(wire, true, get(&wire, &url)).map_err(|error| wire.fault(&error))?;
    let answer: Answer = serde_json::from_value(answer).map_err(|fault| wire.fault(&Error::Json(fault)))?;
    let at = |text: &str| {
        let time = text.parse::<jiff::Timestamp>().map_err(|fault| {
            OrderFault::new(FaultKind::Unreachable, format!("the CA's renewal window is no time: {fault}"))
        });
        time.map(|time| clock::from_unix(time.as_second()))
    };
    let (start, end) = (at(&answer.window.start)?, at(&answer.window.end)?);
    if end < start {
        return Err(OrderFault::new(FaultKind::Unreachable, "the CA's renewal window ends before it begins"));
    }
    let ask_again = wire.later().unwrap_or(ASK_AGAIN).clamp(SOONEST, LATEST);
    Ok(Some(RenewalInfo { start, end, explanation: answer.explanation, ask_again, date: wire.date() }))
}

/// Why a certificate is taken back (RFC 5280, section 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No reason given.
    Unspecified,
    /// Somebody else may have the key.
    KeyCompromise,
    /// Another certificate has taken its place.
    Superseded,
    /// The name is no longer served.
    CessationOfOperation,
}

/// Takes a certificate back: clients that check will refuse it. `chain_pem` begins with it.
///
/// # Errors
/// The CA would not: already revoked, not ours.
pub async fn revoke(
    ca: &Ca,
    account: &Secret,
    chain_pem: &str,
    reason: Reason,
    steps: &Steps,
) -> Result<(), OrderFault> {
    let certificate = CertificateDer::from_pem_slice(chain_pem.as_bytes())
        .map_err(|fault| OrderFault::new(FaultKind::Internal, format!("the certificate cannot be read: {fault}")))?;
    let work = async {
        let wire = ca.wire()?;
        let (account, _) = account::open(ca, &wire, Some(account), steps).await?;
        let reason = Some(match reason {
            Reason::Unspecified => instant_acme::RevocationReason::Unspecified,
            Reason::KeyCompromise => instant_acme::RevocationReason::KeyCompromise,
            Reason::Superseded => instant_acme::RevocationReason::Superseded,
            Reason::CessationOfOperation => instant_acme::RevocationReason::CessationOfOperation,
        });
        let request = RevocationRequest { certificate: &certificate, reason };
        persist!(wire, false, account.revoke(&request)).map_err(|error| wire.fault(&error))
    };
    match tokio::time::timeout(ca.patience.order, work).await {
        Ok(result) => result,
        Err(_) => Err(OrderFault::new(FaultKind::Unreachable, "the CA took too long")),
    }
}
