//! What files mean: each key, its default and its forms.

use std::path::PathBuf;
use std::time::Duration;

use relais_config::{
    Action, Address, Agent, Balance, CertificateFiles, CheckKind, ClientCertificate, ClientLimits, ClientTimeouts,
    ClientTls, Edge, Exchange, ExecCheck, Forward, GrpcCheck, HashKey, HeaderEdits, HealthCheck, HostHeader, Hsts,
    HttpCheck, Listener, ListenerProtocol, Log, LogFormat, Outlier, Redirect, Retry, ServiceTimeouts, StaticAnswer,
    TlsSource, TlsVersion, Upstream, UpstreamProtocol, UpstreamTls,
};

use crate::{config, forward, parse, service, with};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn the_edge_has_defaults() {
    let config = config(&with(""));
    let expected = Edge {
        email: None,
        state_dir: None,
        trusted_proxies: vec![],
        failover_within: seconds(1),
        drain: seconds(30),
        name: "relais".to_owned(),
        request_id_header: "X-Request-Id".to_owned(),
        workers: None,
        tls: TlsSource::Auto,
        min_tls: TlsVersion::Tls12,
        strict_sni: false,
        nameservers: vec![],
        client: ClientTimeouts {
            handshake: seconds(10),
            headers: seconds(10),
            keep_alive: seconds(75),
            body: seconds(60),
        },
        limit: ClientLimits {
            header_bytes: 65_536,
            header_count: 100,
            uri_bytes: 16_384,
            connections: None,
            h2_streams: 100,
            spool_bytes: 256 << 20,
        },
    };
    assert_eq!(config.edge, expected);
    assert_eq!(config.admin.socket, None);
    assert_eq!(config.metrics.address, Some("127.0.0.1:9180".parse().unwrap()));
    assert_eq!(config.log, Log { level: "info".to_owned(), format: LogFormat::Auto, access: true });
    assert_eq!(config.certificates, []);
}

#[test]
fn the_edge_is_set() {
    let text = r#"
[edge]
email = "ops@example.org"
state_dir = "state"
trusted_proxies = ["10.0.0.0/8", "192.0.2.7", "fd00::/64"]
nameservers = ["10.0.0.2", "[fd00::1]:5353"]
failover_within = "300ms"
drain = "0s"
name = "edge-1"
request_id_header = "X-Trace"
workers = 4
tls = "files"
min_tls = "1.3"
strict_sni = true
timeout = { handshake = "1s", headers = "2s", keep_alive = "3s", body = "4s" }
limit = { header_bytes = "2KiB", header_count = 8, uri_bytes = 4096, connections = 7, h2_streams = 9, spool_bytes = 5 }
[certificate.a]
cert = "certs/a.pem"
key = "/keys/a.key"
[admin]
socket = "/run/admin.sock"
[metrics]
address = false
[log]
level = "warn,relais_proxy=debug"
format = "json"
access = false
"#;
    let config = config(&(text.to_owned() + &with("")));
    let nets: Vec<ipnet::IpNet> = ["10.0.0.0/8", "192.0.2.7/32", "fd00::/64"].map(|net| net.parse().unwrap()).to_vec();
    let expected = Edge {
        email: Some("ops@example.org".to_owned()),
        state_dir: Some("/etc/relais/state".into()),
        trusted_proxies: nets,
        failover_within: milliseconds(300),
        drain: Duration::ZERO,
        name: "edge-1".to_owned(),
        request_id_header: "X-Trace".to_owned(),
        workers: Some(4),
        tls: TlsSource::Files,
        min_tls: TlsVersion::Tls13,
        strict_sni: true,
        nameservers: vec!["10.0.0.2:53".parse().unwrap(), "[fd00::1]:5353".parse().unwrap()],
        client: ClientTimeouts { handshake: seconds(1), headers: seconds(2), keep_alive: seconds(3), body: seconds(4) },
        limit: ClientLimits {
            header_bytes: 2048,
            header_count: 8,
            uri_bytes: 4096,
            connections: Some(7),
            h2_streams: 9,
            spool_bytes: 5,
        },
    };
    assert_eq!(config.edge, expected);
    let certificate =
        CertificateFiles { name: "a".to_owned(), cert: "/etc/relais/certs/a.pem".into(), key: "/keys/a.key".into() };
    assert_eq!(config.certificates, [certificate]);
    assert_eq!(config.admin.socket, Some("/run/admin.sock".into()));
    assert_eq!(config.metrics.address, None);
    assert_eq!(config.log, Log { level: "warn,relais_proxy=debug".to_owned(), format: LogFormat::Json, access: false });
    assert_eq!(config.services[0].tls, TlsSource::Files, "a service follows the edge");
    let Action::Forward(forward) = &config.services[0].action else { panic!("it forwards") };
    assert_eq!(forward.failover_within, milliseconds(300), "a service follows the edge");
}

/// The listeners of a file, as `NAME ADDRESSES PROTOCOL REDIRECT`.
fn listeners(text: &str) -> Vec<String> {
    let show = |listener: &Listener| {
        let addresses: Vec<String> = listener.addresses.iter().map(ToString::to_string).collect();
        let protocol = if listener.protocol == ListenerProtocol::Https { "https" } else { "http" };
        format!("{} {} {protocol} {:?}", listener.name, addresses.join(","), listener.redirect_to)
    };
    config(&(text.to_owned() + &with(""))).listeners.iter().map(|listener| show(listener)).collect()
}

#[test]
fn listeners_mean_addresses() {
    assert_eq!(
        listeners(""),
        ["http 0.0.0.0:80,[::]:80 http Some(443)", "https 0.0.0.0:443,[::]:443 https None"],
        "without any"
    );
    assert_eq!(listeners("[edge]\nredirect = false\n")[0], "http 0.0.0.0:80,[::]:80 http None");
    let text = r#"
[listener.web]
address = ["127.0.0.1:8080", "[::1]:8080"]
[listener.secure]
address = "10.0.0.1:8443"
[listener.odd]
address = "*:81"
protocol = "http"
redirect = 444
[listener.plain]
address = ":82"
protocol = "http"
redirect = false
[listener.any]
address = "127.0.0.1:0"
protocol = "http"
[listener.any2]
address = "127.0.0.1:0"
protocol = "https"
"#;
    assert_eq!(
        listeners(text),
        [
            "web 127.0.0.1:8080,[::1]:8080 http Some(8443)",
            "secure 10.0.0.1:8443 https None",
            "odd 0.0.0.0:81,[::]:81 http Some(444)",
            "plain 0.0.0.0:82,[::]:82 http None",
            "any 127.0.0.1:0 http Some(8443)",
            "any2 127.0.0.1:0 https None"
        ]
    );
    assert_eq!(listeners("[listener.web]\naddress = \":80\"\n"), ["web 0.0.0.0:80,[::]:80 http None"], "no HTTPS");
    let forced = "[edge]\nredirect = false\n[listener.a]\naddress = \":80\"\nredirect = true\n[listener.b]\naddress = \":443\"\n";
    assert_eq!(listeners(forced)[0], "a 0.0.0.0:80,[::]:80 http Some(443)");
}

#[test]
fn sites_have_tiers_networks_and_labels() {
    let text = r#"
[sites]
dijon = 3
thory = { tier = 2, network = "10.200.1.0/24", labels = { city = "Thory", b = "${PORT}" } }
ovh = {}
[service.api]
hosts = ["api.test"]
[service.api.backends]
ovh = "127.0.0.1:1"
thory = ["10.200.1.1:1", { addr = "10.200.1.2:1", tier = 9 }]
dijon = { addr = "a.test:1" }
"#;
    let config = config(text);
    let sites: Vec<_> = config.sites.iter().map(|site| (&*site.name, site.tier, site.network.is_some())).collect();
    assert_eq!(sites, [("dijon", 3, false), ("thory", 2, true), ("ovh", 1, false)]);
    assert_eq!(config.sites[1].labels, [pair("city", "Thory"), pair("b", "8080")], "in the order of the file");
    let Action::Forward(forward) = &config.services[0].action else { panic!("it forwards") };
    let backends: Vec<_> =
        forward.backends.iter().map(|backend| (backend.address.to_string(), &*backend.site, backend.tier)).collect();
    assert_eq!(
        backends,
        [
            ("127.0.0.1:1".to_owned(), "ovh", 1),
            ("10.200.1.1:1".to_owned(), "thory", 2),
            ("10.200.1.2:1".to_owned(), "thory", 9),
            ("a.test:1".to_owned(), "dijon", 3)
        ]
    );
}

#[test]
fn a_plain_list_lives_at_the_default_site() {
    let config = config(&with(""));
    let sites: Vec<_> = config.sites.iter().map(|site| (&*site.name, site.tier)).collect();
    assert_eq!(sites, [("default", 1)]);
    let declared = crate::config(&("[sites]\ndefault = 5\n".to_owned() + &with("")));
    assert_eq!((declared.sites.len(), declared.sites[0].tier), (1, 5));
    let Action::Forward(forward) = &declared.services[0].action else { panic!("it forwards") };
    assert_eq!(forward.backends[0].tier, 5);
}

#[test]
fn networks_may_lie_in_one_another() {
    let text = r#"
[sites]
wide = { network = "10.0.0.0/8" }
narrow = { network = "10.1.0.0/16" }
[service.api]
hosts = ["api.test"]
[service.api.backends]
wide = ["10.2.0.1:1"]
narrow = ["10.1.0.1:1"]
"#;
    assert_eq!(config(text).sites.len(), 2);
    let swapped = text.replace("10.2.0.1", "10.1.0.2");
    assert_eq!(parse(&swapped).unwrap_err().problems.len(), 1, "the narrower network decides");
}

#[test]
fn a_service_has_defaults() {
    let service = service("");
    assert_eq!(service.hosts, ["api.test"]);
    assert_eq!(service.paths, ["/"]);
    assert_eq!((service.canonical, service.max_body, service.tls), (None, None, TlsSource::Auto));
    assert_eq!((service.request_headers, service.response_headers), (HeaderEdits::default(), HeaderEdits::default()));
    let Action::Forward(found) = service.action else { panic!("it forwards") };
    let expected = Forward {
        backends: found.backends.clone(),
        failover_within: seconds(1),
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
        outlier: Outlier {
            errors_percent: 20,
            slow_factor: 10,
            volume: 10,
            hold: seconds(10),
            max_hold: seconds(300),
            max_ejected_percent: 50,
        },
        timeout: ServiceTimeouts {
            connect: None,
            response: seconds(60),
            idle: seconds(60),
            tunnel: seconds(3600),
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
        keep_idle_for: seconds(60),
    };
    assert_eq!(*found, expected);
    assert_eq!((found.backends[0].weight, found.backends[0].tier), (1, 1));
    assert_eq!(*found.backends[0].upstream, Upstream { protocol: UpstreamProtocol::Auto, tls: None });
}

#[test]
fn outliers_are_set() {
    let of = |lines: &str| forward(lines).outlier;
    let all = "[service.api.outlier]\nerrors_percent = 0\nslow_factor = 0\nvolume = 3\nhold = \"1m\"\n\
               max_hold = \"1h\"\nmax_ejected_percent = 100\n";
    let expected = Outlier {
        errors_percent: 0,
        slow_factor: 0,
        volume: 3,
        hold: seconds(60),
        max_hold: seconds(3600),
        max_ejected_percent: 100,
    };
    let set = of(all);
    assert_eq!(set, expected);
    assert!(!set.is_on());
    assert!(of("").is_on());
    assert!(!of("outlier = { max_ejected_percent = 0 }").is_on());
    let times = |lines: &str| (of(lines).hold, of(lines).max_hold);
    assert_eq!(times("outlier = { hold = \"10m\" }"), (seconds(600), seconds(600)));
    assert_eq!(times("outlier = { max_hold = \"5s\" }"), (seconds(5), seconds(5)));
    let hashed = of("balance = { hash = \"uri\" }");
    assert_eq!((hashed.errors_percent, hashed.slow_factor), (0, 0), "every path has its own backend");
    let asked = of("balance = { hash = \"uri\" }\noutlier = { errors_percent = 30 }");
    assert_eq!((asked.errors_percent, asked.slow_factor), (30, 0));
    let unlike = ["client-address", "uri", "header:X-Tenant", "cookie:tenant"];
    let unlike = unlike.map(|key| format!("balance = {{ hash = \"{key}\" }}"));
    for lines in unlike.into_iter().chain(["sticky = \"here\"".to_owned()]) {
        assert!(!of(&lines).is_on(), "requests are not spread alike: {lines}");
        assert!(of(&format!("{lines}\noutlier = {{ slow_factor = 5 }}")).is_on(), "{lines}");
    }
    assert!(of("balance = \"round-robin\"").is_on());
}

#[test]
fn a_service_is_set() {
    let lines = r#"
paths = ["/v1/", "/v2"]
canonical = "API.test"
tls = "internal"
max_body = "10MB"
passive_fall = 0
failover_within = "60s"
max_inflight = 5
max_queue = 6
queue_timeout = "0s"
fail_open = true
timeout = { connect = "1s", response = "2s", idle = "3s", tunnel = "4s", request = "5s" }
retry = { attempts = 1, budget_percent = 0, budget_floor = 0, replay_bytes = 0, spool_bytes = 0, hedge = true, statuses = [] }
"#;
    let service = service(lines);
    assert_eq!(service.paths, ["/v1", "/v2"]);
    assert_eq!(service.canonical.as_deref(), Some("api.test"));
    assert_eq!(service.max_body, Some(10_000_000));
    let forward = forward(lines);
    assert_eq!((forward.passive_fall, forward.failover_within, forward.max_inflight), (Some(0), seconds(60), Some(5)));
    assert_eq!(forward.max_queue, 6);
    assert_eq!((forward.queue_timeout, forward.fail_open), (Some(Duration::ZERO), true));
    let timeout = ServiceTimeouts {
        connect: Some(seconds(1)),
        response: seconds(2),
        idle: seconds(3),
        tunnel: seconds(4),
        request: Some(seconds(5)),
    };
    assert_eq!(forward.timeout, timeout);
    let retry = Retry {
        attempts: 1,
        budget_percent: 0,
        budget_floor: 0,
        replay_bytes: 0,
        spool_bytes: 0,
        hedge: true,
        statuses: vec![],
    };
    assert_eq!(forward.retry, retry);
}

#[test]
fn hosts_are_lower_case_and_may_be_patterns() {
    let text = "[service.a]\nhosts = [\"API.Example.ORG\", \"*.Example.org\", \"*\", \"127.0.0.1\", \"::1\", \"[::2]\"]\nredirect = \"https://b.test\"\n";
    assert_eq!(
        config(text).services[0].hosts,
        ["api.example.org", "*.example.org", "*", "127.0.0.1", "[::1]", "[::2]"]
    );
    assert_eq!(
        config(&text.replace(
            "[\"API.Example.ORG\", \"*.Example.org\", \"*\", \"127.0.0.1\", \"::1\", \"[::2]\"]",
            "\"a.test\""
        ))
        .services[0]
            .hosts,
        ["a.test"],
        "one host needs no list"
    );
}

#[test]
fn one_host_may_have_services_by_path() {
    let text = "[service.a]\nhosts = [\"a.test\"]\npaths = [\"/a\"]\nredirect = \"/b\"\n[service.b]\nhosts = [\"a.test\"]\nrespond = {}\n";
    assert_eq!(config(text).services.len(), 2);
}

#[test]
fn tunnels_rest_as_long_as_bodies_or_an_hour() {
    assert_eq!(forward("timeout = { idle = \"1h\" }").timeout.tunnel, seconds(3600));
    assert_eq!(forward("timeout = { idle = \"2h\" }").timeout.tunnel, seconds(7200));
    assert_eq!(forward("timeout = { idle = \"2h\", tunnel = \"1m\" }").timeout.tunnel, seconds(60));
    assert_eq!(forward("timeout = { idle = \"5s\" }").timeout.tunnel, seconds(3600));
}

fn http_check() -> HttpCheck {
    HttpCheck {
        path: "/".to_owned(),
        method: "GET".to_owned(),
        host: None,
        status: vec![(200, 399)],
        body: None,
        headers: vec![],
    }
}

#[test]
fn health_has_short_forms() {
    assert_eq!(forward("health = \"tcp\"").health.kind, CheckKind::Tcp);
    assert_eq!(forward("health = \"off\"").health.kind, CheckKind::Off);
    let path = HttpCheck { path: "/health?full=1".to_owned(), ..http_check() };
    assert_eq!(forward("health = \"/health?full=1\"").health.kind, CheckKind::Http(path));
    assert_eq!(forward("health = {}").health.kind, CheckKind::Tcp);
    assert_eq!(forward("health = { type = \"off\" }").health.kind, CheckKind::Off);
    assert_eq!(forward("health = { type = \"http\" }").health.kind, CheckKind::Http(http_check()));
    let teapot = HttpCheck { status: vec![(418, 418)], ..http_check() };
    assert_eq!(forward("health = { status = 418 }").health.kind, CheckKind::Http(teapot));
    assert_eq!(forward("failover_within = \"2s\"\nhealth = { interval = \"1s\" }").health.interval, Some(seconds(1)));
}

#[test]
fn health_has_kinds() {
    let kind = |lines: &str| forward(lines).health.kind;
    let grpc = |service: &str, host: Option<&str>| {
        CheckKind::Grpc(GrpcCheck { service: service.to_owned(), host: host.map(str::to_owned) })
    };
    assert_eq!(kind("health = \"tls\""), CheckKind::Tls);
    assert_eq!(kind("health = { type = \"tls\", tls = true }"), CheckKind::Tls);
    assert_eq!(kind("health = \"grpc\""), grpc("", None));
    assert_eq!(kind("health = { type = \"grpc\" }"), grpc("", None));
    assert_eq!(kind("health = { service = \"a.B\", host = \"b.test:1\" }"), grpc("a.B", Some("b.test:1")));
    assert_eq!(kind("health = \"mysql\""), CheckKind::MySql);
    assert_eq!(kind("health = { type = \"redis\", tls = true }"), CheckKind::Redis);
    let exec = |program: &str, arguments: &[&str]| {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        CheckKind::Exec(ExecCheck { program: program.into(), arguments })
    };
    assert_eq!(kind("health = { type = \"exec\", command = [\"/bin/a\", \"-x\", \"\"] }"), exec("/bin/a", &["-x", ""]));
    assert_eq!(kind("health = { command = \"checks/a\" }"), exec("/etc/relais/checks/a", &[]));
    assert_eq!(kind("health = { command = [\"/bin/a b\", \"${PORT}\"] }"), exec("/bin/a b", &["8080"]));
}

#[test]
fn bytes_of_a_check_have_escapes() {
    let exchange =
        |send: &[u8], expect: &[u8]| CheckKind::Exchange(Exchange { send: send.to_vec(), expect: expect.to_vec() });
    let kind = |lines: &str| forward(lines).health.kind;
    let ping = exchange(b"PING\r\n", b"+PONG");
    assert_eq!(kind("health = { type = \"tcp\", send = \"PING\\r\\n\", expect = \"+PONG\" }"), ping);
    assert_eq!(kind("health = { send = 'PING\\r\\n', expect = \"+PONG\" }"), ping, "without TOML's own escapes");
    assert_eq!(kind("health = { expect = '\\x00\\\\' }"), exchange(b"", b"\0\\"));
    assert_eq!(kind("health = { send = \"x\" }"), exchange(b"x", b""));
    assert_eq!(kind("health = { send = \"\" }"), CheckKind::Tcp, "nothing to say is a connect");
}

#[test]
fn an_agent_has_a_short_form() {
    let agent = |port, interval, send: &str| Some(Agent { port, interval, send: send.into() });
    assert_eq!(forward("agent = 9999").agent, agent(9999, seconds(2), ""));
    assert_eq!(forward("agent = { port = 1 }").agent, agent(1, seconds(2), ""));
    let lines = "agent = { port = 1, interval = \"5s\", send = 'db1\\n' }";
    assert_eq!(forward(lines).agent, agent(1, seconds(5), "db1\n"));
}

#[test]
fn health_has_a_full_form() {
    let lines = r#"
health = { path = "/h", method = "HEAD", host = "h.test:81", status = [200, "204-206"], headers = { X-A = "b" }, port = 90, tls = true, interval = "200ms", timeout = "100ms", rise = 4, fall = 5, jitter = 0 }
"#;
    let check = HttpCheck {
        path: "/h".to_owned(),
        method: "HEAD".to_owned(),
        host: Some("h.test:81".to_owned()),
        status: vec![(200, 200), (204, 206)],
        body: None,
        headers: vec![pair("x-a", "b")],
    };
    let expected = HealthCheck {
        kind: CheckKind::Http(check),
        port: Some(90),
        tls: Some(true),
        interval: Some(milliseconds(200)),
        timeout: Some(milliseconds(100)),
        rise: Some(4),
        fall: Some(5),
        jitter: 0.0,
    };
    assert_eq!(forward(lines).health, expected);
    let CheckKind::Http(check) = forward("health = { body = \"ready\" }").health.kind else { panic!("http") };
    assert_eq!(check.body.as_deref(), Some("ready"));
    assert!((forward("health = { jitter = 0.5 }").health.jitter - 0.5).abs() < f64::EPSILON);
}

#[test]
fn every_way_to_balance() {
    for (text, balance) in [
        ("\"least-inflight\"", Balance::LeastInflight),
        ("\"round-robin\"", Balance::RoundRobin),
        ("\"least-latency\"", Balance::LeastLatency),
        ("\"random\"", Balance::Random),
        ("{ hash = \"client-address\" }", Balance::Hash(HashKey::ClientAddress)),
        ("{ hash = \"uri\" }", Balance::Hash(HashKey::Uri)),
        ("{ hash = \"header:X-User\" }", Balance::Hash(HashKey::Header("x-user".to_owned()))),
        ("{ hash = \"cookie:Sid\" }", Balance::Hash(HashKey::Cookie("Sid".to_owned()))),
    ] {
        assert_eq!(forward(&format!("balance = {text}")).balance, balance, "{text}");
    }
}

#[test]
fn sticky_cookies() {
    let short = forward("sticky = \"sid\"").sticky.unwrap();
    assert_eq!((short.cookie.as_str(), short.ttl, short.key), ("sid", None, None));
    let full = forward("sticky = { cookie = \"sid\", ttl = \"1d\", key = \"0123456789abcdef\" }").sticky.unwrap();
    assert_eq!((full.ttl, full.key.as_deref()), (Some(seconds(86_400)), Some(b"0123456789abcdef".as_slice())));
    let file = forward("sticky = { cookie = \"sid\", key_file = \"secrets/cookie\" }").sticky.unwrap();
    assert_eq!(file.key.as_deref(), Some(b"0123456789abcdef".as_slice()), "without the newline");
    assert!(!format!("{full:?}").contains("0123456789abcdef"), "a key is not shown");
}

/// The backends of a list, as they are declared.
fn backends(list: &str, lines: &str) -> Vec<(Address, Upstream)> {
    let text = format!("[service.api]\nhosts = [\"api.test\"]\nbackends = {list}\n{lines}\n");
    let Action::Forward(forward) = config(&text).services[0].action.clone() else { panic!("it forwards") };
    forward.backends.iter().map(|backend| (backend.address.clone(), (*backend.upstream).clone())).collect()
}

#[test]
fn addresses_of_backends() {
    let addresses: Vec<Address> = backends(
        r#"["10.0.0.1:80", "[2001:db8::1]:80", "[::ffff:10.0.0.2]:80", "My_Api.test:${PORT}", "unix:/run/a.sock"]"#,
        "",
    )
    .into_iter()
    .map(|(address, _)| address)
    .collect();
    assert_eq!(
        addresses,
        [
            Address::Socket("10.0.0.1:80".parse().unwrap()),
            Address::Socket("[2001:db8::1]:80".parse().unwrap()),
            Address::Socket("10.0.0.2:80".parse().unwrap()),
            Address::Name("my_api.test".to_owned(), 8080),
            Address::Unix(PathBuf::from("/run/a.sock")),
        ]
    );
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.1:80", "[2001:db8::1]:80", "10.0.0.2:80", "my_api.test:8080", "unix:/run/a.sock"]);
}

#[test]
fn ways_to_speak_to_backends() {
    let list = r#"["10.0.0.1:80", { addr = "10.0.0.2:80", weight = 1000, tls = false, protocol = "h2c" }, { addr = "10.0.0.3:80", tls = { sni = "B.test", ca = "ca.pem", verify = false }, protocol = "h1" }]"#;
    let upstreams: Vec<Upstream> =
        backends(list, "upstream = { tls = true, protocol = \"h2\" }").into_iter().map(|(_, it)| it).collect();
    let tls = UpstreamTls { sni: None, ca: None, verify: true };
    assert_eq!(upstreams[0], Upstream { protocol: UpstreamProtocol::H2, tls: Some(tls) }, "as the service says");
    assert_eq!(upstreams[1], Upstream { protocol: UpstreamProtocol::H2, tls: None });
    let own = UpstreamTls { sni: Some("b.test".to_owned()), ca: Some("/etc/relais/ca.pem".into()), verify: false };
    assert_eq!(upstreams[2], Upstream { protocol: UpstreamProtocol::H1, tls: Some(own) });
    assert_eq!(
        backends("[\"10.0.0.1:80\"]", "upstream = { protocol = \"auto\" }")[0].1.protocol,
        UpstreamProtocol::Auto
    );
    let forward = forward("upstream = { host = \"backend\", keep_idle = 0, keep_idle_for = \"1s\" }");
    assert_eq!((forward.host, forward.keep_idle, forward.keep_idle_for), (HostHeader::Backend, 0, seconds(1)));
    assert_eq!(crate::forward("upstream = { host = \"keep\" }").host, HostHeader::Keep);
    assert_eq!(crate::forward("upstream = { host = \"B.test:81\" }").host, HostHeader::Set("b.test:81".to_owned()));
}

#[test]
fn answers_of_relais_itself() {
    let action =
        |lines: &str| config(&format!("[service.a]\nhosts = [\"a.test\"]\n{lines}\n")).services[0].action.clone();
    let redirect = |to: &str, status, keep_path| Action::Redirect(Redirect { to: to.to_owned(), status, keep_path });
    assert_eq!(action("redirect = \"https://b.test/x\""), redirect("https://b.test/x", 308, true));
    assert_eq!(
        action("redirect = { to = \"http://a.test:81/x?y=1\", status = 302, keep_path = false }"),
        redirect("http://a.test:81/x?y=1", 302, false)
    );
    assert_eq!(action("paths = [\"/old\"]\nredirect = \"/new\""), redirect("/new", 308, true));
    let answer = |status, body: &[u8], content_type: &str, headers| {
        Action::Respond(StaticAnswer { status, body: body.into(), content_type: content_type.to_owned(), headers })
    };
    assert_eq!(action("respond = {}"), answer(200, b"", "text/plain; charset=utf-8", vec![]));
    assert_eq!(
        action("respond = { status = 404, body = \"no\", content_type = \"a/b\", headers = { X-A = \"b\" } }"),
        answer(404, b"no", "a/b", vec![pair("x-a", "b")])
    );
    assert_eq!(
        action("respond = { body_file = \"pages/closed.html\" }"),
        answer(200, b"<p>closed\n", "text/html; charset=utf-8", vec![]),
        "a page keeps its newline"
    );
    assert_eq!(action("respond = { status = 204 }"), answer(204, b"", "text/plain; charset=utf-8", vec![]));
    assert_eq!(forward("maintenance = { body = \"back soon\" }").maintenance.map(|answer| answer.status), Some(503));
}

#[test]
fn header_edits() {
    let lines = r#"
request_headers = { remove = ["X-A"], set = { X-B = "1", X-C = "${PORT}" }, set_file = { Authorization = "/run/secrets/token", X-D = "/run/secrets/crlf" }, add = { X-E = "1", X-F = ["2", "3"] } }
response_headers = { remove = ["Server"], set = { Host = "allowed here" } }
"#;
    let service = service(lines);
    let expected = HeaderEdits {
        remove: vec!["x-a".to_owned()],
        set: vec![
            pair("x-b", "1"),
            pair("x-c", "8080"),
            pair("authorization", "Bearer abc"),
            pair("x-d", "Bearer abc"),
        ],
        add: vec![pair("x-e", "1"), pair("x-f", "2"), pair("x-f", "3")],
    };
    assert_eq!(service.request_headers, expected);
    let expected =
        HeaderEdits { remove: vec!["server".to_owned()], set: vec![pair("host", "allowed here")], add: vec![] };
    assert_eq!(service.response_headers, expected);
}

#[test]
fn variables_are_replaced_once() {
    let name = |text: &str| {
        let lines = format!("respond = {{ body = \"{text}\" }}");
        match &config(&format!("[service.a]\nhosts = [\"a.test\"]\n{lines}\n")).services[0].action {
            Action::Respond(answer) => String::from_utf8(answer.body.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(name("${PORT}"), "8080");
    assert_eq!(name("a${PORT}b${EMPTY}c${PORT}"), "a8080bc8080");
    assert_eq!(name("$${PORT} $PORT $$ {PORT}"), "${PORT} $PORT $$ {PORT}");
    assert_eq!(name("$$${PORT}"), "$${PORT}");
    assert_eq!(name("${DOLLAR}"), "${PORT}", "what a variable holds is not looked at again");
}

#[test]
fn files_are_named_once_each() {
    let lines = "request_headers = { set_file = { A = \"/run/secrets/token\", B = \"/run/secrets/token\" } }\nmaintenance = { body_file = \"pages/closed.html\" }";
    let files = parse(&with(lines)).unwrap().files;
    assert_eq!(files, [PathBuf::from("/etc/relais/pages/closed.html"), PathBuf::from("/run/secrets/token")]);
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let text = with("") + "[certificate.a]\ncert = \"a.pem\"\nkey = \"/a.key\"\n";
    for (file, cert) in [("proxy.toml", "a.pem"), ("./conf/proxy.toml", "./conf/a.pem"), ("/x/proxy.toml", "/x/a.pem")]
    {
        let parsed = crate::outside(|lookup| relais_config::Config::parse(file, &text, lookup)).unwrap();
        assert_eq!(parsed.config.certificates[0].cert, PathBuf::from(cert));
        assert_eq!(parsed.config.certificates[0].key, PathBuf::from("/a.key"));
    }
}

#[test]
fn a_mark_at_the_start_and_windows_lines_are_harmless() {
    let text = format!("\u{feff}{}", with("health = \"/h\"").replace('\n', "\r\n"));
    assert_eq!(config(&text).services[0].hosts, ["api.test"]);
}

#[test]
fn what_is_asked_of_clients_is_set_for_each_service() {
    let text = "[edge]\nmin_tls = \"1.3\"\n".to_owned() + &with("");
    assert_eq!(config(&text).services[0].client_tls, ClientTls { lowest: TlsVersion::Tls13, certificate: None });
    let told = service("min_tls = \"1.3\"\nclient_certificate = { ca = \"ca.pem\" }\nhsts = \"1d\"");
    let rule = ClientCertificate { ca: "/etc/relais/ca.pem".into(), required: true };
    assert_eq!(told.client_tls, ClientTls { lowest: TlsVersion::Tls13, certificate: Some(rule) });
    assert_eq!(told.hsts, Some(Hsts { max_age: seconds(86_400), subdomains: false, preload: false }));
    let told = service(
        "client_certificate = { ca = \"/ca.pem\", required = false }\nhsts = { subdomains = true, preload = true }",
    );
    let rule = ClientCertificate { ca: "/ca.pem".into(), required: false };
    assert_eq!(told.client_tls, ClientTls { lowest: TlsVersion::Tls12, certificate: Some(rule) });
    assert_eq!(told.hsts, Some(Hsts { max_age: seconds(365 * 86_400), subdomains: true, preload: true }));
}
