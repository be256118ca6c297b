//! What requests need ready-made, so that none of it is parsed or written out once per request: names and values that
//! follow from the config, and what follows from the client and the host it asks for. Touches nothing.

use std::net::IpAddr;
use std::sync::Arc;

use http::Version;
use http::header::{HeaderName, HeaderValue};
use http::uri::Scheme;
use relais_core::config::Config;

use crate::answer::Failure;

/// What follows from one config.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The header that carries the request id.
    pub(crate) request_id: Option<HeaderName>,
    /// Our entry in `Via`, by the version that the message came in: 1.0, 1.1, 2 (RFC 9110 7.6.3).
    via: [Option<HeaderValue>; 3],
}

impl Ready {
    /// The config has proven both names valid.
    pub(crate) fn new(config: &Config) -> Self {
        let name = &config.edge.name;
        Self {
            request_id: match &*config.edge.request_id_header.to_ascii_lowercase() {
                // Nobody has to count who holds it.
                "x-request-id" => Some(HeaderName::from_static("x-request-id")),
                other => other.parse().ok(),
            },
            via: ["1.0", "1.1", "2"].map(|version| HeaderValue::from_str(&format!("{version} {name}")).ok()),
        }
    }

    /// Our entry in `Via` for a message that came in this version.
    pub(crate) fn via(&self, version: Version) -> Option<&HeaderValue> {
        let [http10, http11, http2] = &self.via;
        match version {
            Version::HTTP_2 => http2.as_ref(),
            Version::HTTP_10 => http10.as_ref(),
            _ => http11.as_ref(),
        }
    }
}

/// The peer of a connection as the forwarding headers name it.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Without the mapping of IPv4 into IPv6.
    pub(crate) address: IpAddr,
    /// For `X-Forwarded-For`.
    pub(crate) field: Option<HeaderValue>,
    /// For `Forwarded` (RFC 7239, section 6).
    node: Box<str>,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
}

impl Peer {
    pub(crate) fn new(address: IpAddr, tls: bool) -> Self {
        let address = address.to_canonical();
        let text = address.to_string();
        let field = HeaderValue::from_str(&text).ok();
        let node = if address.is_ipv6() { format!("\"[{text}]\"") } else { text };
        Self { address, field, node: node.into(), scheme: if tls { "https" } else { "http" } }
    }
}

/// A host that a client asks for. Clients ask for the same one again, so a connection keeps the last.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Lower case, no port: what routes are looked up by.
    pub(crate) name: Arc<str>,
    /// As sent, port included.
    pub(crate) original: Arc<str>,
    /// Its port, when it names one.
    pub(crate) port: Option<u16>,
    /// As sent, for `Host` and `X-Forwarded-Host`.
    pub(crate) field: Option<HeaderValue>,
    /// Our element of `Forwarded` (RFC 7239) for a request of this peer to this host.
    pub(crate) forwarded: Option<HeaderValue>,
    /// It may be asked for on this connection, as far as certificates go.
    pub(crate) belongs_here: bool,
}

impl Asked {
    /// Splits a host as sent.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn new(original: &str, peer: &Peer, may_ask_for: impl Fn(&str) -> bool) -> Result<Self, Failure> {
        let (name, port) = split(original)?;
        let belongs_here = may_ask_for(&name);
        let forwarded = ["for=", &*peer.node, ";host=\"", original, "\";proto=", peer.scheme].concat();
        let original_text: Arc<str> = Arc::from(original);
        Ok(Self {
            // Mostly it is sent as it is looked up: one text for both.
            name: if name == original { Arc::clone(&original_text) } else { Arc::from(name) },
            original: original_text,
            port,
            field: HeaderValue::from_str(original).ok(),
            forwarded: HeaderValue::try_from(forwarded).ok(),
            belongs_here,
        })
    }
}

fn split(original: &str) -> Result<(String, Option<u16>), Failure> {
    if original.is_empty() {
        return Ok((String::new(), None));
    }
    if original.contains('@') {
        return Err(Failure::BadRequest("Host holds user information"));
    }
    let authority: http::uri::Authority = original.parse().map_err(|_| Failure::BadRequest("Host is not a host"))?;
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let port = match original.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') && !port.is_empty() => {
            Some(port.parse().map_err(|_| Failure::BadRequest("the port of Host is not a port"))?)
        }
        _ => None,
    };
    Ok((name, port))
}

/// Whether two hosts as sent are the same one, the scheme's own port counting as none.
///
/// # Errors
/// One of them is none.
pub(crate) fn is_same_host(one: &str, other: &str, scheme: Option<&Scheme>) -> Result<bool, Failure> {
    if one == other {
        return Ok(true);
    }
    let usual = if scheme == Some(&Scheme::HTTPS) { 443 } else { 80 };
    let (one, other) = (split(one)?, split(other)?);
    Ok(one.0 == other.0 && one.1.unwrap_or(usual) == other.1.unwrap_or(usual))
}

/// A request id: 32 hexadecimal digits.
pub(crate) fn request_id(high: u64, low: u64) -> HeaderValue {
    let mut text = [0; 32];
    let number = (u128::from(high) << 64) | u128::from(low);
    for (pair, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair.copy_from_slice(&[byte >> 4, byte & 15]);
    }
    // Without a table: so it is done for all of them at once.
    for digit in &mut text {
        *digit += if *digit < 10 { b'0' } else { b'a' - 10 };
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_split_from_their_ports() {
        for (text, name, port) in [
            ("A.fr", "a.fr", None),
            ("a.fr:8443", "a.fr", Some(8443)),
            ("a.fr.", "a.fr", None),
            ("[::1]", "[::1]", None),
            ("[::1]:80", "[::1]", Some(80)),
            ("", "", None),
        ] {
            assert_eq!(split(text).unwrap(), (name.to_owned(), port), "{text}");
        }
        for bad in ["a b", "a.fr:x", "a.fr:99999", "a/b"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn request_ids_are_written_as_the_numbers_they_are() {
        for (high, low) in [(0, 0), (1, 0xabc), (u64::MAX, u64::MAX), (0x0123_4567_89ab_cdef, 1 << 63)] {
            assert_eq!(request_id(high, low), format!("{high:016x}{low:016x}"));
        }
    }
}
