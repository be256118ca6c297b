//! Why an order did not succeed, read from what the CA said: the kind, its own sentence, and what is likely behind it in ours.
//! Touches nothing.

use instant_acme::{Error, Problem};
pub use relais_core::certs::{FaultKind, OrderFault};
use relais_core::config::Challenge;

use super::client::ClientFault;

/// Of a call to the CA, outside of a validation.
pub(super) fn of(error: &Error) -> OrderFault {
    let unreachable = |said: String| OrderFault::new(FaultKind::Unreachable, said);
    match error {
        Error::Api(problem) => refusal(problem),
        Error::Other(fault) => match fault.downcast_ref::<ClientFault>() {
            Some(fault) => unreachable(fault.message.clone()),
            None => unreachable(fault.to_string()),
        },
        Error::Crypto | Error::KeyRejected => OrderFault::new(FaultKind::Internal, error.to_string()),
        Error::Unsupported(what) => OrderFault::new(FaultKind::Refused, format!("the CA does not know {what}")),
        // No ACME: a portal, a proxy, another kind of server.
        _ => unreachable(format!("the answer of the CA is not understood: {error}"))
            .likely("check `directory`: something else than an ACME server may answer there"),
    }
}

fn refusal(problem: &Problem) -> OrderFault {
    let fault = OrderFault::new(kind_of(problem), sentence(problem));
    match hint(word(problem)) {
        Some(likely) => fault.likely(likely),
        None => fault,
    }
}

/// Of a validation of `host`.
pub(super) fn validation(problem: &Problem, host: &str, challenge: Challenge) -> OrderFault {
    let fault = match word(problem) {
        "rateLimited" | "serverInternal" | "caa" | "rejectedIdentifier" => refusal(problem),
        _ => OrderFault::new(FaultKind::Challenge, sentence(problem)).likely(cause(word(problem), host, challenge)),
    };
    OrderFault { challenge: Some(challenge), ..fault }
}

/// The last part of `urn:ietf:params:acme:error:WORD` (RFC 8555, section 6.7). A name that the CA could not resolve is `dns`,
/// also where the CA calls that a connection that failed.
pub(super) fn word(problem: &Problem) -> &str {
    let word = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()).unwrap_or_default();
    let detail = problem.detail.as_deref().unwrap_or_default();
    let unknown_name = ["no such host", "NXDOMAIN", "no valid A records"].iter().any(|said| detail.contains(said));
    if word == "connection" && unknown_name { "dns" } else { word }
}

/// What the CA says, with what it says of each name.
fn sentence(problem: &Problem) -> String {
    let mut parts: Vec<String> = problem.detail.iter().cloned().collect();
    for sub in &problem.subproblems {
        let of = sub.identifier.as_ref().map(|name| format!("{}: ", name.authorized(false))).unwrap_or_default();
        parts.extend(sub.detail.as_ref().map(|detail| format!("{of}{detail}")));
    }
    if parts.is_empty() {
        parts.push(match (&problem.r#type, problem.status) {
            (Some(kind), _) => kind.clone(),
            (None, Some(status)) => format!("the CA answered {status} and said nothing"),
            (None, None) => "the CA refused and said nothing".to_string(),
        });
    }
    parts.join("; ")
}

fn kind_of(problem: &Problem) -> FaultKind {
    match word(problem) {
        "rateLimited" => FaultKind::RateLimited,
        "badNonce" | "serverInternal" => FaultKind::Unreachable,
        _ if problem.status.is_some_and(|status| status >= 500) => FaultKind::Unreachable,
        _ if problem.status == Some(429) => FaultKind::RateLimited,
        _ => FaultKind::Refused,
    }
}

fn hint(word: &str) -> Option<&'static str> {
    Some(match word {
        "caa" => {
            "a CAA record of the name or of a domain above it does not name this CA: add `CAA 0 issue \"CA\"` for it"
        }
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "this CA signs no such name: take it out of `hosts`, or give it another source with `tls`"
        }
        "externalAccountRequired" => "set `eab_key_id` and `eab_hmac` for this authority, from the CA's web page",
        "invalidContact" | "unsupportedContact" => "correct `email` in `[edge]`",
        "badCSR" | "badPublicKey" | "badSignatureAlgorithm" => {
            "this CA does not take this kind of key: set `key = \"p256\"` in `[acme]`"
        }
        "invalidProfile" => "this CA has no such profile: correct `profile`",
        "rateLimited" => "nothing is broken: what is there serves on until the CA allows more",
        "userActionRequired" => "the CA has new terms: read them on its web page and agree to them",
        "accountDoesNotExist" => "the CA has forgotten or closed the account; a new one is made at the next order",
        _ => return None,
    })
}

/// What an operator has to look at.
fn cause(word: &str, host: &str, challenge: Challenge) -> String {
    match (challenge, word) {
        (Challenge::Http01 | Challenge::TlsAlpn01, "dns") => {
            format!("{host} has no A or AAAA record that the CA can see: add one that points here")
        }
        (Challenge::Http01, "connection") => {
            format!(
                "port 80 of {host} cannot be reached from outside: a firewall closes it, or the DNS of {host} points elsewhere"
            )
        }
        (Challenge::TlsAlpn01, "connection") => {
            format!(
                "port 443 of {host} cannot be reached from outside: a firewall closes it, or the DNS of {host} points elsewhere"
            )
        }
        (Challenge::Http01, _) => format!(
            "another server answered on port 80: the DNS of {host} (A and AAAA) points elsewhere, or something in front of relais keeps /.well-known/acme-challenge/ to itself"
        ),
        (Challenge::TlsAlpn01, _) => format!(
            "the CA's handshake on port 443 did not reach relais: a firewall closes it, the DNS of {host} (A and AAAA) points elsewhere, or something in front of relais ends TLS"
        ),
        (Challenge::Dns01, _) => format!(
            "the CA did not see the TXT record of _acme-challenge.{}: a name server may be slow or not answer; raise `propagation_timeout`",
            host.trim_start_matches("*.")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(word: &str, detail: &str) -> Problem {
        let text = format!(r#"{{"type": "urn:ietf:params:acme:error:{word}", "detail": "{detail}", "status": 403}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_ca_is_quoted_and_the_cause_is_named() {
        let refused = problem("connection", "Fetching http://a.fr/: Connection refused");
        let fault = validation(&refused, "a.fr", Challenge::Http01);
        assert_eq!(fault.kind, FaultKind::Challenge);
        assert_eq!(fault.said, "Fetching http://a.fr/: Connection refused");
        assert!(fault.to_string().contains("port 80 of a.fr cannot be reached"), "{fault}");
        let fault = validation(&refused, "a.fr", Challenge::TlsAlpn01);
        assert!(fault.to_string().contains("port 443"), "{fault}");
        let nowhere = problem("connection", "Get http://a.fr/: dial tcp: lookup a.fr on 10.0.0.1:53: no such host");
        let fault = validation(&nowhere, "a.fr", Challenge::Http01);
        assert!(fault.to_string().contains("a.fr has no A or AAAA record"), "{fault}");
        let fault = validation(&problem("unauthorized", "wrong"), "a.fr", Challenge::Http01);
        assert!(fault.to_string().contains("another server answered on port 80"), "{fault}");
        let fault = validation(&problem("caa", "CAA forbids"), "a.fr", Challenge::Http01);
        assert_eq!(fault.kind, FaultKind::Refused);
        assert!(fault.to_string().contains("CAA record"), "{fault}");
    }

    #[test]
    fn the_kind_says_what_to_do_next() {
        let kind = |word| of(&Error::Api(problem(word, "x"))).kind;
        assert_eq!(kind("rateLimited"), FaultKind::RateLimited);
        assert_eq!(kind("serverInternal"), FaultKind::Unreachable);
        assert_eq!(kind("badNonce"), FaultKind::Unreachable);
        assert_eq!(kind("rejectedIdentifier"), FaultKind::Refused);
        assert_eq!(kind("unauthorized"), FaultKind::Refused);
        let silent: Problem = serde_json::from_str(r#"{"status": 503}"#).unwrap();
        let fault = of(&Error::Api(silent));
        assert_eq!((fault.kind, fault.said.as_str()), (FaultKind::Unreachable, "the CA answered 503 and said nothing"));
    }

    #[test]
    fn what_is_said_of_each_name_is_told() {
        let text = r#"{"type": "urn:ietf:params:acme:error:malformed", "detail": "Some names were rejected",
            "subproblems": [{"type": "x", "detail": "Forbidden by policy", "identifier": {"type": "dns", "value": "b.fr"}}]}"#;
        let fault = of(&Error::Api(serde_json::from_str(text).unwrap()));
        assert_eq!(fault.said, "Some names were rejected; b.fr: Forbidden by policy");
    }
}
