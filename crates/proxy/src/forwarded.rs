//! Who the client is: `X-Forwarded-*` and `Forwarded` (RFC 7239), believed only from trusted peers.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::ready::{Asked, Peer};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Whether `peer` is in one of the networks. An IPv4 address mapped into IPv6 counts as IPv4.
pub(crate) fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// The client's address: the peer, or what a trusted chain of peers says, read from the right until the first
/// address that is not itself trusted.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(client, trusted) {
        return client;
    }
    let chain: Vec<&str> = headers
        .get_all(&X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    for word in chain.into_iter().rev() {
        let Ok(address) = word.parse::<IpAddr>() else { break };
        client = address.to_canonical();
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// Sets the fields for the backend. From a peer that is not trusted, what the client sent is dropped first.
/// `present`: whether it sent any.
pub(crate) fn set(headers: &mut HeaderMap, peer: &Peer, host: &Asked, present: bool, trusted: bool) {
    if present && !trusted {
        for name in
            [&X_FORWARDED_FOR, &X_FORWARDED_PROTO, &X_FORWARDED_HOST, &X_FORWARDED_PORT, &X_REAL_IP, &header::FORWARDED]
        {
            headers.remove(name);
        }
    }
    if !(present && trusted) {
        // None of them is there: nothing to look for.
        let host = [(X_FORWARDED_HOST, &host.field), (header::FORWARDED, &host.forwarded)];
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(peer.scheme));
        for (name, value) in host.into_iter().chain([(X_FORWARDED_FOR, &peer.field)]) {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        return;
    }
    append_list(headers, &X_FORWARDED_FOR, peer.field.as_ref());
    if !headers.contains_key(&X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(peer.scheme));
    }
    if !headers.contains_key(&X_FORWARDED_HOST)
        && let Some(value) = &host.field
    {
        headers.insert(X_FORWARDED_HOST, value.clone());
    }
    append_list(headers, &header::FORWARDED, host.forwarded.as_ref());
}

/// Appends to a comma-separated list field, joining what came in several fields.
fn append_list(headers: &mut HeaderMap, name: &HeaderName, entry: Option<&HeaderValue>) {
    let Some(entry) = entry else { return };
    let value = if headers.contains_key(name) {
        let given = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let list: Vec<&str> = given.chain(entry.to_str().ok()).collect();
        HeaderValue::from_str(&list.join(", ")).ok()
    } else {
        Some(entry.clone())
    };
    if let Some(value) = value {
        headers.insert(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    fn asked(headers: &mut HeaderMap, peer: &str, tls: bool, trusted: bool) {
        let peer = Peer::new(peer.parse().unwrap(), tls);
        set(headers, &peer, &Asked::new("a.fr", &peer, |_| true).unwrap(), true, trusted);
    }

    const EVIL: &[(&str, &str)] = &[
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
    ];

    #[test]
    fn what_a_stranger_says_is_dropped() {
        let mut headers = map(EVIL);
        asked(&mut headers, "192.0.2.7", false, false);
        let expected = map(&[
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "a.fr"),
            ("forwarded", "for=192.0.2.7;host=\"a.fr\";proto=http"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_trusted_peer_is_believed_and_added() {
        let mut headers = map(EVIL);
        asked(&mut headers, "10.0.0.1", false, true);
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 10.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["forwarded"], "for=6.6.6.6, for=10.0.0.1;host=\"a.fr\";proto=http");
    }

    #[test]
    fn the_client_is_the_first_untrusted_address_from_the_right() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let headers = map(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-for", "10.0.0.9")]);
        assert_eq!(
            client_address("10.0.0.1".parse().unwrap(), &headers, &trusted),
            "2.2.2.2".parse::<IpAddr>().unwrap()
        );
        assert_eq!(
            client_address("9.9.9.9".parse().unwrap(), &headers, &trusted),
            "9.9.9.9".parse::<IpAddr>().unwrap()
        );
        assert_eq!(
            client_address("::ffff:10.0.0.1".parse().unwrap(), &headers, &trusted),
            "2.2.2.2".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn ipv6_nodes_are_quoted() {
        let mut headers = HeaderMap::new();
        asked(&mut headers, "2001:db8::1", true, false);
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";host=\"a.fr\";proto=https");
    }
}
