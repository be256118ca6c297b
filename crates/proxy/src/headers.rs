//! Which header fields cross the edge, and how (RFC 9110 section 7.6, RFC 9113 section 8.2).
//!
//! Pure functions over header maps. Who the client is and what is believed of it is decided in `forwarded`.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use relais_core::config::HeaderEdits;

/// Fields that belong to one connection and never cross it.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
];

/// What a message asked for on its connection, read before the fields are removed.
#[derive(Debug, Default, Clone)]
pub struct Hop {
    /// `Upgrade`, when `Connection` names it.
    pub(crate) upgrade: Option<HeaderValue>,
    /// `TE: trailers`.
    pub(crate) trailers: bool,
}

/// Which of the fields that the edge cares about a message has: found in one pass, as most messages have none.
#[derive(Debug, Default, Clone, Copy)]
pub struct Present {
    /// A field of [`strip_hop_by_hop`].
    hop: bool,
    /// A field that says who the client is, see `forwarded`.
    pub(crate) forwarded: bool,
    pub(crate) transfer_encoding: bool,
    pub(crate) expect: bool,
    pub(crate) idempotency_key: bool,
    pub(crate) cookie: bool,
    /// A field that says who the client is by its certificate, see `identity`.
    pub(crate) identity: bool,
    /// A field that tells one version of a body from another.
    pub(crate) validator: bool,
    /// The answer that is asked for, or this one, is an event stream (HTML Living Standard 9.2.3).
    pub(crate) accepts_events: bool,
    pub(crate) events: bool,
    /// A name with `_`: many backends take it for the one with `-`.
    pub(crate) underscored: bool,
}

impl Present {
    /// Looks at every name once.
    #[must_use]
    pub fn in_(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "connection" | "keep-alive" | "proxy-connection" | "te" | "upgrade" => present.hop = true,
                "transfer-encoding" => (present.hop, present.transfer_encoding) = (true, true),
                "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-port" | "x-real-ip"
                | "forwarded" => present.forwarded = true,
                "expect" => present.expect = true,
                "idempotency-key" => present.idempotency_key = true,
                "cookie" => present.cookie = true,
                "client-cert" | "client-cert-chain" | "x-client-cert-subject" => present.identity = true,
                "etag" | "last-modified" => present.validator = true,
                "accept" => present.accepts_events |= is_events(value),
                "content-type" => present.events |= is_events(value),
                // Nearly every message has some of these: they need not be searched.
                "host" | "user-agent" | "accept-encoding" | "accept-language" | "cache-control" | "content-length"
                | "date" | "server" => {}
                other => present.underscored |= other.contains('_'),
            }
        }
        present
    }
}

/// Removes fields that backends behind CGI or WSGI could not tell from those that only the edge may set.
pub(crate) fn remove_twins(headers: &mut HeaderMap) {
    let is_twin = |name: &&HeaderName| {
        let twin = name.as_str().contains('_').then(|| name.as_str().replace('_', "-"));
        twin.as_deref().is_some_and(|twin| {
            twin.starts_with("x-forwarded-")
                || twin.starts_with("client-cert")
                || ["x-real-ip", "x-client-cert-subject"].contains(&twin)
        })
    };
    let twins: Vec<HeaderName> = headers.keys().filter(is_twin).cloned().collect();
    for name in twins {
        headers.remove(name);
    }
}

/// Removes hop-by-hop fields, also those named in `Connection`, and says what they asked for.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, present: Present) -> Hop {
    let mut hop = Hop::default();
    if !present.hop {
        return hop;
    }
    if headers.contains_key(header::TE) {
        hop.trailers = has_token(headers, &header::TE, "trailers");
    }
    if headers.contains_key(header::CONNECTION) {
        if has_token(headers, &header::CONNECTION, "upgrade") {
            hop.upgrade = offered_upgrades(headers);
        }
        remove_named_in_connection(headers);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    hop
}

/// The protocols of `Upgrade`, but for HTTP/2: RFC 9113 3.1 withdrew that upgrade, and passed on it would let a client
/// speak past the edge.
fn offered_upgrades(headers: &HeaderMap) -> Option<HeaderValue> {
    let text = headers.get_all(header::UPGRADE).iter().map(|value| value.to_str().ok()).collect::<Option<Vec<_>>>()?;
    let offered = text.iter().flat_map(|value| value.split(',')).map(str::trim);
    let kept: Vec<&str> = offered.filter(|one| !one.is_empty() && !is_http2(one)).collect();
    if kept.is_empty() { None } else { HeaderValue::from_str(&kept.join(", ")).ok() }
}

fn is_http2(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default();
    name.eq_ignore_ascii_case("h2c") || name.eq_ignore_ascii_case("h2") || protocol.eq_ignore_ascii_case("HTTP/2.0")
}

/// Whether a backend's switch is to a protocol that was offered to it.
pub(crate) fn is_offered(offer: &HeaderValue, chosen: &HeaderMap) -> bool {
    let (Ok(offer), Some(chosen)) = (offer.to_str(), chosen.get(header::UPGRADE).and_then(|value| value.to_str().ok()))
    else {
        return false;
    };
    offer.split(',').any(|one| one.trim().eq_ignore_ascii_case(chosen.trim()))
}

/// RFC 9110 7.6.1: fields that `Connection` names are for this connection only. Fields a message cannot do without
/// are kept, or a client could strip them from what the backend sees.
fn remove_named_in_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .filter(|name: &HeaderName| {
            ![header::HOST, header::CONTENT_LENGTH, header::TRAILER, header::AUTHORIZATION, header::COOKIE]
                .contains(name)
                && !name.as_str().starts_with("x-forwarded-")
                && name != header::FORWARDED
        })
        .collect();
    for name in named {
        headers.remove(name);
    }
}

fn is_events(kind: &HeaderValue) -> bool {
    kind.as_bytes().starts_with(b"text/event-stream")
}

/// Whether a comma-separated field holds a token, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.split(';').next().is_some_and(|word| word.trim().eq_ignore_ascii_case(token)))
}

/// Joins the `Cookie` fields that HTTP/2 allows to be split (RFC 9113 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut values = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (values.next(), values.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(value.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}

/// Header edits as parsed once per service, ready to apply: remove, set, add.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    /// The config has proven every name and value valid; what is not is left out.
    pub(crate) fn new(edits: &HeaderEdits) -> Self {
        let pair = |(name, value): &(String, String)| Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?));
        Self {
            remove: edits.remove.iter().filter_map(|name| name.parse().ok()).collect(),
            set: edits.set.iter().filter_map(pair).collect(),
            add: edits.add.iter().filter_map(pair).collect(),
        }
    }

    /// Applies the edits.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(headers: &mut HeaderMap) -> Hop {
        let present = Present::in_(headers);
        strip_hop_by_hop(headers, present)
    }

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn fields_named_in_connection_do_not_cross() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "x-two"),
            ("x-secret", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
        ]);
        strip(&mut headers);
        assert_eq!(headers, map(&[("x-three", "3")]));
    }

    #[test]
    fn a_client_cannot_strip_fields_the_backend_relies_on() {
        let mut headers =
            map(&[("connection", "x-forwarded-for, host, authorization"), ("host", "a"), ("authorization", "b")]);
        strip(&mut headers);
        assert_eq!(headers, map(&[("host", "a"), ("authorization", "b")]));
    }

    #[test]
    fn upgrade_needs_connection_to_name_it() {
        let mut named = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(strip(&mut named).upgrade.unwrap(), "websocket");
        let mut unnamed = map(&[("upgrade", "websocket")]);
        assert!(strip(&mut unnamed).upgrade.is_none());
        assert!(unnamed.is_empty());
    }

    #[test]
    fn an_upgrade_to_http2_is_not_offered_on() {
        let offered = |protocols: &str| strip(&mut map(&[("connection", "upgrade"), ("upgrade", protocols)])).upgrade;
        assert_eq!(offered("h2c"), None);
        assert_eq!(offered("H2C, websocket").unwrap(), "websocket");
        assert_eq!(offered("HTTP/2.0, TLS/1.0").unwrap(), "TLS/1.0");
    }

    #[test]
    fn only_what_was_offered_may_be_chosen() {
        let offer = HeaderValue::from_static("websocket, other/2");
        for (chosen, good) in [("WebSocket", true), ("other/2", true), ("other", false), ("websocket, other/2", false)]
        {
            assert_eq!(is_offered(&offer, &map(&[("upgrade", chosen)])), good, "{chosen}");
        }
        assert!(!is_offered(&offer, &HeaderMap::new()));
    }

    #[test]
    fn names_that_backends_take_for_ours_are_found() {
        let all = [
            ("x_forwarded_for", "1"),
            ("client_cert", "2"),
            ("x_client-cert_subject", "3"),
            ("x_real_ip", "4"),
            ("my_own", "5"),
        ];
        let mut headers = map(&all);
        assert!(Present::in_(&headers).underscored);
        remove_twins(&mut headers);
        assert_eq!(headers, map(&[("my_own", "5")]));
    }

    #[test]
    fn only_trailers_of_te_is_understood() {
        assert!(strip(&mut map(&[("te", "gzip, trailers;q=0.5")])).trailers);
        assert!(!strip(&mut map(&[("te", "gzip")])).trailers);
    }

    #[test]
    fn split_cookies_become_one_field() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2; c=3")]));
    }
}
