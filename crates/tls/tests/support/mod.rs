//! What the tests of this crate share: configs, certificates on disk, and whole handshakes over an in-memory pipe.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part, and a test may panic")]

mod take_all;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use relais_core::config::{
    CertificateFiles, Config, Listener, ListenerProtocol, Lookup, Service, TlsSource, TlsVersion,
};
use relais_tls::{CertProblem, CertStore, Tickets};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use take_all::TakeAll;

pub(crate) const DAY: i64 = 86_400;

pub(crate) fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Ticket keys that nobody keeps.
pub(crate) fn tickets() -> Arc<Tickets> {
    Tickets::new(&[], Box::new(|_| ()))
}

/// A config with one HTTPS listener and nothing else.
pub(crate) fn config(edge_tls: TlsSource) -> Config {
    let mut config = parsed();
    config.edge.tls = edge_tls;
    config.edge.min_tls = TlsVersion::Tls12;
    config.listeners = vec![Arc::new(Listener {
        name: "https".into(),
        addresses: vec!["0.0.0.0:443".parse().unwrap(), "192.0.2.9:443".parse().unwrap()],
        protocol: ListenerProtocol::Https,
        redirect_to: None,
    })];
    config.services.clear();
    config
}

pub(crate) fn service(name: &str, hosts: &[&str], tls: TlsSource) -> Arc<Service> {
    let mut service = (*parsed().services[0]).clone();
    service.name = name.into();
    service.hosts = hosts.iter().map(|host| (*host).to_string()).collect();
    service.tls = tls;
    Arc::new(service)
}

/// Any usable config: tests put what they are about in its place.
fn parsed() -> Config {
    let text = "[edge]\ntls = \"internal\"\n[service.any]\nhosts = [\"any.test\"]\nrespond = { body = \"any\" }\n";
    let lookup = Lookup::blind();
    Config::parse("proxy.toml", text, &lookup).unwrap_or_else(|errors| panic!("{errors}")).config
}

/// A CA outside of relais.
pub(crate) struct Ca {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        // Each under its own name, or a client would take one for another whose signature is bad.
        let name = format!("Test CA {:x?}", &key.public_key_raw()[1..9]);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Self { der: certificate.der().clone(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn sign(&self, hosts: &[&str]) -> Pair {
        self.sign_for(hosts, -DAY, 90 * DAY, &KeyPair::generate().unwrap())
    }

    /// Valid from and until seconds from now.
    pub(crate) fn sign_for(&self, hosts: &[&str], from: i64, until: i64, key: &KeyPair) -> Pair {
        let certificate = params(hosts, from, until).signed_by(key, &self.issuer).unwrap();
        Pair { cert: certificate.pem() + &self.pem, key: key.serialize_pem(), der: certificate.der().clone() }
    }
}

pub(crate) fn params(hosts: &[&str], from: i64, until: i64) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_string()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    let at = |offset: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs((unix_now() + offset) as u64);
    params.not_before = at(from);
    params.not_after = at(until);
    params
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

impl Pair {
    /// Writes `NAME.pem` and `NAME.key` and declares them.
    pub(crate) fn put(&self, dir: &Path, name: &str) -> CertificateFiles {
        let files = declared(dir, name);
        std::fs::write(&files.cert, &self.cert).unwrap();
        std::fs::write(&files.key, &self.key).unwrap();
        private(&files.key);
        files
    }
}

/// Whether a program is there; says visibly what to install when it is not. Where a change is judged it must be there.
pub(crate) fn have(program: &str, package: &str) -> bool {
    let found = ["/usr/bin", "/usr/local/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing: it is in Debian's package `{package}`");
    if !found {
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let line = format!("SKIPPED: {name}: needs Debian package {package} ({program})\n");
        // Test output is captured; the file is not.
        if let Ok(mut stderr) = std::fs::OpenOptions::new().append(true).open("/dev/stderr") {
            std::io::Write::write_all(&mut stderr, line.as_bytes()).unwrap();
        }
    }
    found
}

/// Settings of a plain TLS server with this certificate.
pub(crate) fn serving(pair: &Pair) -> Arc<ServerConfig> {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.der.clone()], key);
    Arc::new(config.unwrap())
}

pub(crate) fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn declared(dir: &Path, name: &str) -> CertificateFiles {
    let file = |ending: &str| -> PathBuf { dir.join(format!("{name}.{ending}")) };
    CertificateFiles { name: name.into(), cert: file("pem"), key: file("key") }
}

pub(crate) fn load(config: &Config, dir: &Path) -> Arc<CertStore> {
    CertStore::new(CertStore::load(config, dir).unwrap_or_else(|problems| panic!("{}", said(&problems))), tickets())
}

pub(crate) fn said(problems: &[CertProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What a client saw of a handshake that succeeded.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) leaf: CertificateDer<'static>,
    pub(crate) alpn: Option<String>,
    pub(crate) version: ProtocolVersion,
    pub(crate) group: Option<NamedGroup>,
    pub(crate) kind: HandshakeKind,
}

/// A client that trusts `roots` alone.
pub(crate) fn trusting(roots: &[&CertificateDer<'static>]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add((*root).clone()).unwrap();
    }
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth()
}

/// A client that takes any certificate, to look at it.
pub(crate) fn curious(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    curious_with(aws_lc_rs::default_provider(), versions, None)
}

pub(crate) fn curious_with(
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
    schemes: Option<Vec<SignatureScheme>>,
) -> ClientConfig {
    let all = || provider.signature_verification_algorithms.supported_schemes();
    let schemes = schemes.unwrap_or_else(all);
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakeAll { schemes }))
        .with_no_client_auth()
}

/// One whole handshake and one byte, so that tickets arrive. `Err`: what the client said.
pub(crate) async fn shake(server: &Arc<ServerConfig>, client: &ClientConfig, name: &str) -> Result<Seen, String> {
    shake_shared(server, &Arc::new(client.clone()), name).await
}

pub(crate) async fn shake_shared(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<Seen, String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(Arc::clone(server));
    tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await?;
        stream.write_all(b"x").await?;
        stream.shutdown().await
    });
    let name = ServerName::try_from(name.to_string()).unwrap();
    let client = async {
        let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, near).await?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await?;
        assert_eq!(all, b"x");
        let (_, connection) = stream.get_ref();
        Ok::<_, std::io::Error>(Seen {
            leaf: connection.peer_certificates().unwrap()[0].clone(),
            alpn: connection.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap()),
            version: connection.protocol_version().unwrap(),
            group: connection.negotiated_key_exchange_group().map(|group| group.name()),
            kind: connection.handshake_kind().unwrap(),
        })
    };
    let seen = tokio::time::timeout(Duration::from_secs(30), client).await.expect("no handshake in 30 s");
    seen.map_err(|fault| fault.to_string())
}
