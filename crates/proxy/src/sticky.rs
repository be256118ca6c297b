//! The sticky cookie: which backend a client was served by, signed so that clients cannot choose one themselves.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{self, HeaderMap, HeaderValue};
use relais_core::config::Sticky;

/// Bytes of the signature that are sent: 128 bit.
const SIGNATURE: usize = 16;

fn sign(key: &[u8], service: &str, hash: u64) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut message = hash.to_be_bytes().to_vec();
    message.extend_from_slice(service.as_bytes());
    hmac::sign(&key, &message)
}

/// The value of a cookie in the request.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// `Backend::hash` from the client's cookie, if the signature is ours.
pub(crate) fn read(headers: &HeaderMap, sticky: &Sticky, default_key: &[u8], service: &str) -> Option<u64> {
    let bytes = URL_SAFE_NO_PAD.decode(cookie(headers, &sticky.cookie)?).ok()?;
    let (hash, signature) = bytes.split_first_chunk::<8>()?;
    let hash = u64::from_be_bytes(*hash);
    let key = sticky.key.as_deref().unwrap_or(default_key);
    let expected = sign(key, service, hash);
    let expected = expected.as_ref().get(..SIGNATURE)?;
    aws_lc_rs::constant_time::verify_slices_are_equal(expected, signature).ok()?;
    Some(hash)
}

/// The `Set-Cookie` that binds a client to a backend.
pub(crate) fn write(sticky: &Sticky, default_key: &[u8], service: &str, hash: u64, tls: bool) -> Option<HeaderValue> {
    let key = sticky.key.as_deref().unwrap_or(default_key);
    let mut bytes = hash.to_be_bytes().to_vec();
    bytes.extend_from_slice(sign(key, service, hash).as_ref().get(..SIGNATURE)?);
    let mut text = format!("{}={}; Path=/; HttpOnly; SameSite=Lax", sticky.cookie, URL_SAFE_NO_PAD.encode(bytes));
    if let Some(ttl) = sticky.ttl {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if tls {
        text.push_str("; Secure");
    }
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky() -> Sticky {
        Sticky { cookie: "relais".into(), ttl: None, key: None }
    }

    fn request(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, format!("a=b; relais={value}").parse().unwrap());
        headers
    }

    fn value() -> String {
        let set = write(&sticky(), b"0123456789abcdef", "api", 42, true).unwrap();
        let text = set.to_str().unwrap();
        assert!(text.ends_with("; Secure"), "{text}");
        text.strip_prefix("relais=").unwrap().split(';').next().unwrap().to_owned()
    }

    #[test]
    fn our_own_cookie_is_read_back() {
        assert_eq!(read(&request(&value()), &sticky(), b"0123456789abcdef", "api"), Some(42));
    }

    #[test]
    fn a_forged_or_foreign_cookie_is_ignored() {
        let good = value();
        let forged = format!("{}{}", if good.starts_with('A') { 'B' } else { 'A' }, &good[1..]);
        assert_eq!(read(&request(&forged), &sticky(), b"0123456789abcdef", "api"), None);
        assert_eq!(read(&request(&good), &sticky(), b"another key 1234", "api"), None);
        assert_eq!(read(&request(&good), &sticky(), b"0123456789abcdef", "www"), None);
        assert_eq!(read(&request("short"), &sticky(), b"0123456789abcdef", "api"), None);
    }
}
