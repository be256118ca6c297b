//! External account binding from a CA that gives it for an e-mail address, as ZeroSSL does. May talk to that CA.

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use instant_acme::Error;
use relais_core::config::Secret;
use serde::Deserialize;

use super::ca::Ca;
use super::fault::{FaultKind, OrderFault};
use super::wire::Wire;

#[derive(Deserialize)]
struct Given {
    eab_kid: Option<String>,
    eab_hmac_key: Option<String>,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Asks for the id and the key.
pub(super) async fn by_email(ca: &Ca, wire: &Wire, url: &str) -> Result<(String, Secret), OrderFault> {
    let Some(email) = &ca.email else {
        return Err(
            OrderFault::new(FaultKind::Refused, "this CA wants an e-mail address").likely("set `email` in `[edge]`")
        );
    };
    let lost = |error: Error| wire.fault(&error);
    let request = Request::post(url)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(format!("email={}", encoded(email))))
        .map_err(|fault| lost(fault.into()))?;
    let answer = wire.send(request).await.map_err(|fault| lost(Error::Other(Box::new(fault))))?;
    let given: Given = serde_json::from_slice(answer.body()).map_err(|fault| lost(fault.into()))?;
    match (given.eab_kid, given.eab_hmac_key) {
        (Some(id), Some(key)) => Ok((id, Secret::new(&key))),
        _ => {
            let why = given.error.and_then(|fault| fault.kind).unwrap_or_else(|| "no reason given".to_string());
            Err(OrderFault::new(FaultKind::Refused, format!("the CA gave no account for {email}: {why}"))
                .likely("correct `email` in `[edge]`"))
        }
    }
}

/// For a form (URL standard, application/x-www-form-urlencoded).
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"*-._".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_address_is_encoded_for_a_form() {
        assert_eq!(super::encoded("ops+a@b.fr"), "ops%2Ba%40b.fr");
    }
}
