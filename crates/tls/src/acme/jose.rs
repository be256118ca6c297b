//! The two requests that the ACME library cannot make with a key we already hold: to register it (with contact and
//! external account) and to put it in the place of another. Signing is a library's work; here is only what is signed.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use instant_acme::Error;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use relais_core::config::Secret;
use serde_json::{Value, json};

/// A P-256 account key, PKCS#8 DER.
pub(super) struct AccountKey<'a>(pub(super) &'a [u8]);

/// Who signs.
pub(super) enum Signer<'a> {
    /// A key the CA may not know yet.
    Key(&'a AccountKey<'a>),
    /// The key of this account.
    Account(&'a AccountKey<'a>, &'a str),
}

impl AccountKey<'_> {
    /// The public half.
    pub(super) fn jwk(&self) -> Result<Value, Error> {
        let jwk = Jwk::from_encoding_key(&EncodingKey::from_ec_der(self.0), Algorithm::ES256);
        // Only what makes the key: all that else may stand there is for others to say.
        let jwk = serde_json::to_value(jwk.map_err(|_| Error::KeyRejected)?)?;
        Ok(json!({"kty": jwk["kty"], "crv": jwk["crv"], "x": jwk["x"], "y": jwk["y"]}))
    }
}

/// A signed request (RFC 8555, section 6.2). Without `nonce` it is one to be put into another.
pub(super) fn signed(signer: &Signer<'_>, nonce: Option<&str>, url: &str, payload: &Value) -> Result<Value, Error> {
    let (key, mut header) = match signer {
        Signer::Key(key) => {
            (key, Header { jwk: Some(serde_json::from_value(key.jwk()?)?), ..Header::new(Algorithm::ES256) })
        }
        Signer::Account(key, id) => (key, Header { kid: Some((*id).to_string()), ..Header::new(Algorithm::ES256) }),
    };
    header.nonce = nonce.map(str::to_string);
    flattened(header, url, payload, &EncodingKey::from_ec_der(key.0))
}

/// Ties the account to one that we have there otherwise (RFC 8555, section 7.3.4).
pub(super) fn binding(key: &AccountKey<'_>, url: &str, key_id: &str, hmac: &Secret) -> Result<Value, Error> {
    let text = hmac.expose().trim();
    // CAs show it as base64url, with padding or without; some as plain base64.
    let bytes = [URL_SAFE_NO_PAD.decode(text), URL_SAFE.decode(text), STANDARD.decode(text)];
    let bytes = bytes.into_iter().find_map(Result::ok).ok_or(Error::Str("eab_hmac is no base64url"))?;
    let header = Header { kid: Some(key_id.to_string()), ..Header::new(Algorithm::HS256) };
    flattened(header, url, &key.jwk()?, &EncodingKey::from_secret(&bytes))
}

fn flattened(header: Header, url: &str, payload: &Value, key: &EncodingKey) -> Result<Value, Error> {
    let header = Header { typ: None, url: Some(url.to_string()), ..header };
    let compact = jsonwebtoken::encode(&header, payload, key).map_err(|_| Error::Crypto)?;
    let mut parts = compact.split('.');
    let mut part = || parts.next().unwrap_or_default();
    Ok(json!({"protected": part(), "payload": part(), "signature": part()}))
}
