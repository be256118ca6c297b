//! The board with the answers to challenges, put up while an order is under way: the workers show them to the CA.
//!
//! Touches nothing. What is put up comes down with its [`Notice`], so that an order cut off anywhere leaves nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

use crate::provider::provider;

/// The protocol of TLS-ALPN-01 (RFC 8737, section 6.2).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

/// Answers by host, for HTTP-01 and TLS-ALPN-01.
#[derive(Debug, Default)]
pub struct Board {
    up: RwLock<Up>,
}

#[derive(Debug, Default)]
struct Up {
    /// Host and token to key authorisation. More than one order may be under way for a host.
    http: HashMap<(String, String), Arc<str>>,
    /// What the CA sends as SNI to the certificates shown for it, the latest last.
    tls: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Board {
    /// The key authorisation to answer `GET /.well-known/acme-challenge/TOKEN` with (RFC 8555, section 8.3). `host` is that
    /// of the request, without port, in any case.
    #[must_use]
    pub fn http01(&self, host: &str, token: &str) -> Option<Arc<str>> {
        let up = self.up.read();
        // Most of the time nothing is up: the common look-up costs no copy.
        if up.http.is_empty() {
            return None;
        }
        up.http.get(&(plain(host), token.to_string())).cloned()
    }

    /// The certificate that answers a TLS-ALPN-01 handshake for this name.
    pub(crate) fn tls_alpn01(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.up.read().tls.get(&plain(name)).and_then(|shown| shown.last()).cloned()
    }

    /// Puts up an answer for HTTP-01.
    #[must_use]
    pub(crate) fn put_http01(self: &Arc<Self>, host: &str, token: &str, answer: &str) -> Notice {
        let key = (plain(host), token.to_string());
        self.up.write().http.insert(key.clone(), answer.into());
        Notice { board: Arc::clone(self), what: What::Http(key) }
    }

    /// Puts up an answer for TLS-ALPN-01: a certificate with the digest of the key authorisation. `Err`: it cannot be made.
    pub(crate) fn put_tls_alpn01(self: &Arc<Self>, host: &str, digest: &[u8]) -> Result<Notice, String> {
        let shown = Arc::new(challenge_certificate(host, digest)?);
        let name = asked_as(host);
        self.up.write().tls.entry(name.clone()).or_default().push(Arc::clone(&shown));
        Ok(Notice { board: Arc::clone(self), what: What::Tls(name, shown) })
    }
}

/// Something on the board; taken down when this is dropped.
#[derive(Debug)]
pub(crate) struct Notice {
    board: Arc<Board>,
    what: What,
}

#[derive(Debug)]
enum What {
    Http((String, String)),
    Tls(String, Arc<CertifiedKey>),
}

impl Drop for Notice {
    fn drop(&mut self) {
        let mut up = self.board.up.write();
        match &self.what {
            What::Http(key) => drop(up.http.remove(key)),
            What::Tls(name, shown) => {
                if let Some(all) = up.tls.get_mut(name) {
                    all.retain(|other| !Arc::ptr_eq(other, shown));
                    if all.is_empty() {
                        up.tls.remove(name);
                    }
                }
            }
        }
    }
}

/// The self-signed certificate of RFC 8737, section 3.
fn challenge_certificate(host: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    let said = |fault: rcgen::Error| fault.to_string();
    let mut params = CertificateParams::new([host.to_string()]).map_err(said)?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(said)?;
    let der = params.self_signed(&key).map_err(said)?.der().clone();
    // Not by way of `CertifiedKey::from_der`: it refuses the critical extension that this is about.
    let key = provider().key_provider.load_private_key(PrivatePkcs8KeyDer::from(key.serialize_der()).into());
    Ok(CertifiedKey::new(vec![der], key.map_err(|fault| fault.to_string())?))
}

/// The name the CA asks for: an address by its name in the reverse DNS (RFC 8738, section 6).
fn asked_as(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(ip)) => {
            let digits = ip.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            digits.map(|digit| format!("{digit:x}.")).collect::<String>() + "ip6.arpa"
        }
        Err(_) => plain(host),
    }
}

fn plain(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(['.', ']']).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_up_is_found_by_host_and_comes_down_by_itself() {
        let board = Arc::new(Board::default());
        let first = board.put_http01("A.fr", "tok", "tok.thumb");
        assert_eq!(board.http01("a.FR.", "tok").as_deref(), Some("tok.thumb"));
        assert_eq!(board.http01("a.fr", "other"), None);
        assert_eq!(board.http01("b.fr", "tok"), None);
        drop(first);
        assert_eq!(board.http01("a.fr", "tok"), None);
    }

    #[test]
    fn two_orders_for_one_host_do_not_take_down_each_other() {
        let board = Arc::new(Board::default());
        let old = board.put_tls_alpn01("a.fr", &[1; 32]).unwrap();
        let new = board.put_tls_alpn01("a.fr", &[2; 32]).unwrap();
        let shown = board.tls_alpn01("a.fr").unwrap();
        drop(old);
        assert!(Arc::ptr_eq(&board.tls_alpn01("A.fr").unwrap(), &shown));
        drop(new);
        assert!(board.tls_alpn01("a.fr").is_none());
        assert!(board.up.read().tls.is_empty());
    }

    #[test]
    fn an_address_is_asked_for_by_its_reverse_name() {
        assert_eq!(asked_as("192.0.2.7"), "7.2.0.192.in-addr.arpa");
        let long = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(asked_as("2001:db8::7"), long);
        let board = Arc::new(Board::default());
        let _up = board.put_tls_alpn01("192.0.2.7", &[1; 32]).unwrap();
        assert!(board.tls_alpn01("7.2.0.192.in-addr.arpa").is_some());
        assert_eq!(board.http01("[2001:db8::7]", "tok"), None);
    }
}
