//! Configs for tests, written as values. Shared by the unit tests and the simulation.

use std::sync::Arc;
use std::time::Duration;

use relais_config::{
    Acme, Action, Address, AdminSocket, Authority, AuthorityLimits, BackendDecl, Balance, Challenge, CheckKind,
    ClientLimits, ClientTimeouts, ClientTls, Config, Edge, Forward, HeaderEdits, HealthCheck, HostHeader, KeyKind,
    Listener, ListenerProtocol, Log, LogFormat, Metrics, Outlier, Retry, Service, ServiceTimeouts, Site, TlsSource,
    TlsVersion, Upstream, UpstreamProtocol, Waiting,
};

/// A forward with every default of the file and no backends: contract 1 s, TCP checks.
pub(crate) fn forward() -> Forward {
    Forward {
        backends: Vec::new(),
        failover_within: Duration::from_secs(1),
        balance: Balance::LeastInflight,
        sticky: None,
        health: HealthCheck {
            kind: CheckKind::Tcp,
            port: None,
            tls: None,
            interval: None,
            timeout: None,
            rise: None,
            fall: None,
            jitter: 0.1,
        },
        agent: None,
        passive_fall: None,
        outlier: Outlier::default(),
        timeout: ServiceTimeouts {
            connect: None,
            response: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            tunnel: Duration::from_secs(3600),
            request: None,
        },
        retry: Retry {
            attempts: 4,
            budget_percent: 20,
            budget_floor: 10,
            replay_bytes: 65_536,
            spool_bytes: 16 << 20,
            hedge: false,
            statuses: vec![502, 503, 504],
        },
        max_inflight: None,
        max_queue: 1000,
        queue_timeout: None,
        fail_open: false,
        maintenance: None,
        host: HostHeader::Keep,
        keep_idle: 512,
        keep_idle_for: Duration::from_secs(60),
    }
}

/// A backend at `site` with `address` (`IP:PORT`), weight 1.
pub(crate) fn backend(site: &str, address: &str, tier: u32) -> BackendDecl {
    BackendDecl {
        site: site.into(),
        address: Address::Socket(address.parse().unwrap()),
        weight: 1,
        tier,
        upstream: Arc::new(Upstream { protocol: UpstreamProtocol::H1, tls: None }),
    }
}

/// A service that forwards to `backends`, on the host `NAME.example`, with further changes made by `edit`.
pub(crate) fn service(name: &str, backends: Vec<BackendDecl>, edit: impl FnOnce(&mut Forward)) -> Service {
    let mut forward = Forward { backends, ..forward() };
    edit(&mut forward);
    Service {
        name: name.into(),
        hosts: vec![format!("{name}.example")],
        paths: vec!["/".to_owned()],
        canonical: None,
        tls: TlsSource::Internal,
        client_tls: ClientTls { lowest: TlsVersion::Tls12, certificate: None },
        hsts: None,
        action: Action::Forward(Box::new(forward)),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        max_body: None,
    }
}

/// A config with these services and every site they name (tier 1).
pub(crate) fn config(services: Vec<Service>) -> Config {
    let mut sites: Vec<Arc<Site>> = Vec::new();
    for service in &services {
        let Action::Forward(forward) = &service.action else { continue };
        for decl in &forward.backends {
            if sites.iter().all(|site| site.name != decl.site) {
                let site = Site { name: Arc::clone(&decl.site), tier: decl.tier, network: None, labels: Vec::new() };
                sites.push(Arc::new(site));
            }
        }
    }
    Config {
        edge: edge(),
        listeners: vec![Arc::new(Listener {
            name: "http".to_owned(),
            addresses: vec!["127.0.0.1:8080".parse().unwrap()],
            protocol: ListenerProtocol::Http,
            redirect_to: None,
        })],
        sites,
        services: services.into_iter().map(Arc::new).collect(),
        certificates: Vec::new(),
        acme: acme(&["first"]),
        admin: AdminSocket { socket: None },
        metrics: Metrics { address: None },
        log: Log { level: "info".to_owned(), format: LogFormat::Auto, access: true },
    }
}

/// Authorities of these names, every other key at its default.
pub(crate) fn acme(authorities: &[&str]) -> Acme {
    let authority = |name: &&str| Authority {
        name: (*name).into(),
        directory: format!("https://{name}.example/directory"),
        staging: None,
        root: None,
        external_account: None,
        profile: None,
        limits: AuthorityLimits::default(),
    };
    Acme {
        authorities: authorities.iter().map(|name| Arc::new(authority(name))).collect(),
        challenges: vec![Challenge::Http01, Challenge::TlsAlpn01],
        key: KeyKind::P256,
        reuse_key: false,
        profile: None,
        dns: Vec::new(),
        on_demand: None,
        waiting: Waiting::Serve,
        orders: 4,
    }
}

fn edge() -> Edge {
    Edge {
        email: None,
        state_dir: None,
        trusted_proxies: Vec::new(),
        failover_within: Duration::from_secs(1),
        drain: Duration::from_secs(30),
        name: "relais".to_owned(),
        request_id_header: "X-Request-Id".to_owned(),
        workers: None,
        tls: TlsSource::Internal,
        min_tls: TlsVersion::Tls12,
        strict_sni: false,
        nameservers: Vec::new(),
        client: ClientTimeouts {
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body: Duration::from_secs(60),
        },
        limit: ClientLimits {
            header_bytes: 65_536,
            header_count: 100,
            uri_bytes: 16_384,
            connections: None,
            h2_streams: 100,
            spool_bytes: 256 << 20,
        },
    }
}
