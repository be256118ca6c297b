//! Certificates from CAs that speak ACME (RFC 8555): whom to ask, how to prove that a name is ours, what to ask for.
//!
//! Plain values, as in the room above: nothing here parses.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// `[acme]`, `[acme.dns.NAME]`, `[acme.on_demand]` and `[authority.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Acme {
    /// `[authority.NAME]` in order of trial. Never empty: without any it is Let's Encrypt, then ZeroSSL when
    /// `[edge] email` is set.
    pub authorities: Vec<Arc<Authority>>,
    /// Ways to prove that a name is ours, in order of trial. Never empty. Default `http-01`, `tls-alpn-01`, and `dns-01`
    /// when there is an `[acme.dns.NAME]`.
    pub challenges: Vec<Challenge>,
    /// Kind of the certificates' keys.
    pub key: KeyKind,
    /// A renewal keeps the key of the certificate before. Default false: each has a new one.
    pub reuse_key: bool,
    /// The CA's profile asked for; `None`: the CA's own default.
    pub profile: Option<String>,
    /// `[acme.dns.NAME]`: who can change the DNS of which names, in the order of the file.
    pub dns: Vec<Arc<DnsChallenge>>,
    /// Certificates for names that no one listed, made when a client asks for them.
    pub on_demand: Option<Arc<OnDemand>>,
    /// What plain HTTP does for a host whose first certificate is not there yet.
    pub waiting: Waiting,
    /// Orders under way at once. 1 to 100, default 4.
    pub orders: usize,
}

/// `[authority.NAME]`: one CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The name in the file.
    pub name: Arc<str>,
    /// Its directory, an `https://` URL (RFC 8555, section 7.1.1).
    pub directory: String,
    /// The directory of its rehearsal, which gives certificates nobody trusts.
    pub staging: Option<String>,
    /// PEM file with the root that the directory's own certificate is checked against, in place of the system's.
    pub root: Option<PathBuf>,
    /// How its account is tied to one that we have there otherwise (RFC 8555, section 7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// As [`Acme::profile`], for this CA.
    pub profile: Option<String>,
    /// What it allows.
    pub limits: AuthorityLimits,
}

/// External account binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExternalAccount {
    /// `eab_key_id` and `eab_hmac`, given by the CA's web page.
    Given {
        /// The key's id.
        key_id: String,
        /// The key, base64url as the CA shows it.
        hmac: Secret,
    },
    /// `eab_from`: the CA gives them for an e-mail address (`[edge] email`), POSTed there as the form field `email`.
    ByEmail {
        /// Where.
        url: String,
    },
}

/// `[authority.NAME] limits`: what a CA allows. `None`: no limit. Defaults are those that the CA has published, none for
/// a CA that relais does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuthorityLimits {
    /// New orders in 3 hours. Renewals that say what they replace do not count.
    pub orders: Option<u32>,
    /// New certificates for the names under one registered domain in 7 days. Renewals do not count.
    pub per_domain: Option<u32>,
    /// Certificates for exactly the same names in 7 days.
    pub per_set: Option<u32>,
    /// Failed validations of one name in an hour.
    pub failures: Option<u32>,
}

/// A way to prove that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Challenge {
    /// `http-01`: a file on port 80 (RFC 8555, section 8.3).
    Http01,
    /// `tls-alpn-01`: a certificate on port 443 (RFC 8737).
    TlsAlpn01,
    /// `dns-01`: a TXT record (RFC 8555, section 8.4). The only one for wildcards; not for IP addresses.
    Dns01,
}

impl Challenge {
    /// Its name on the wire and in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Challenge::Http01 => "http-01",
            Challenge::TlsAlpn01 => "tls-alpn-01",
            Challenge::Dns01 => "dns-01",
        }
    }
}

/// Kind of a certificate's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256 (default).
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 4096 bits.
    Rsa4096,
    /// Ed25519. No public CA takes it yet.
    Ed25519,
}

/// What plain HTTP does for a host whose first certificate is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Serve in plain HTTP: no redirect to an address that cannot answer yet (default).
    Serve,
    /// 503 with `Retry-After`.
    Unavailable,
}

/// `[acme.dns.NAME]`: who changes the DNS for `dns-01`.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsChallenge {
    /// The name in the file.
    pub name: Arc<str>,
    /// For names in these zones; empty: for all that no other one has. Lower case.
    pub zones: Vec<String>,
    /// Who.
    pub provider: DnsProvider,
    /// Follow a CNAME of `_acme-challenge.NAME` and write where it leads. Default true.
    pub delegation: bool,
    /// How long the record may take to be seen at all the zone's servers; zero: it is not looked for. Default 2 min.
    pub propagation_timeout: Duration,
    /// Name servers asked where a zone is; empty: those of `[edge] nameservers`, else the system's.
    pub resolvers: Vec<SocketAddr>,
}

/// Who changes the DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsProvider {
    /// A program: `PROGRAM ARGUMENTS... present|cleanup FQDN VALUE`, the same in its environment.
    Exec {
        /// The program's file.
        program: PathBuf,
        /// Its arguments, before those of the call.
        arguments: Vec<String>,
    },
    /// A web address that is POSTed JSON: `{"action": "present"|"cleanup", "fqdn": ..., "value": ...}`.
    Webhook {
        /// Where.
        url: String,
        /// Further headers, such as `Authorization`.
        headers: Vec<(String, Secret)>,
    },
    /// Dynamic update (RFC 2136) signed with TSIG (RFC 8945).
    Rfc2136 {
        /// The zone's primary server.
        server: SocketAddr,
        /// The zone; `None`: found by asking for its SOA.
        zone: Option<String>,
        /// Name of the key.
        key_name: String,
        /// Its algorithm.
        algorithm: TsigAlgorithm,
        /// The key, base64.
        secret: Secret,
    },
    /// The API of OVH.
    Ovh {
        /// Root of the API, as `https://eu.api.ovh.com/1.0`.
        endpoint: String,
        /// Of the application.
        application_key: String,
        /// Of the application.
        application_secret: Secret,
        /// Of the consumer.
        consumer_key: Secret,
    },
    /// The API of Cloudflare.
    Cloudflare {
        /// Root of the API. Default `https://api.cloudflare.com/client/v4`.
        endpoint: String,
        /// With the right `DNS:Edit` for the zone.
        token: Secret,
    },
}

/// Algorithm of a TSIG key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TsigAlgorithm {
    /// `hmac-sha256` (default).
    HmacSha256,
    /// `hmac-sha384`.
    HmacSha384,
    /// `hmac-sha512`.
    HmacSha512,
}

/// `[acme.on_demand]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDemand {
    /// Asked as `ASK?domain=NAME` before a name is ordered; 200 allows it, anything else does not.
    pub ask: String,
    /// PEM file of CA certificates that the certificate of `ask` may come from, in place of the system's.
    pub root: Option<PathBuf>,
    /// New names in an hour, over time. Default 20.
    pub per_hour: u32,
    /// New names at once. Default 20.
    pub burst: u32,
}

/// A text that must not be shown: its `Debug` form is empty of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}
