//! What Prometheus is told: well-formed, moving, and bounded by the config whatever clients send.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::edge::Setup;
use crate::support::raw::{Addressed, Plain};
use crate::support::tools::have;
use crate::support::wire::{Conn, get};
use crate::support::{free_address, wait_for};

#[test]
fn promtool_finds_nothing_to_blame_on_the_live_endpoint() {
    let backend = Plain::saying("x");
    let address = free_address();
    let services =
        format!("[service.web]\nhosts = [\"*\"]\nbackends = [\"{}\", \"{}\"]\n", backend.address(), free_address());
    let edge = Setup::services(&services).and(&format!("[metrics]\naddress = \"{address}\"")).secure().start();
    for n in 0..20 {
        assert_eq!(edge.connect().ask(get(&format!("/{n}"))).status(), 200);
    }
    let answer = Conn::to(address).ask("GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n");
    assert_eq!(answer.status(), 200);
    assert!(answer.get("content-type").unwrap().starts_with("text/plain"), "{}", answer.head.raw);
    assert!(answer.text().contains("relais_requests_total{"), "{}", answer.text());
    if !have("promtool", "prometheus") {
        return;
    }
    let mut check = Command::new("/usr/bin/promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(&answer.body).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn counters_move_with_what_happens() {
    let backend = Plain::new(|request| {
        let status = request.head.target().trim_start_matches('/');
        format!("HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let dead = free_address();
    let edge = Setup::to(&[&backend, &dead]).start();
    let mut client = edge.connect();
    for (path, times) in [("/200", 30), ("/404", 5), ("/418", 3)] {
        for _ in 0..times {
            client.ask(get(path));
        }
    }
    drop(client);
    let address = backend.address();
    let here = format!("backend=\"{address}\"");
    let count = |code: &str| edge.sample("relais_requests_total", &[&here, &format!("code=\"{code}\"")]);
    wait_for("the last request is counted", || count("4xx") >= 3.0);
    assert_eq!((count("200"), count("404"), count("4xx")), (30.0, 5.0, 3.0));
    assert_eq!(edge.sample("relais_request_duration_seconds_count", &["service=\"web\""]), 38.0);
    assert_eq!(edge.sample("relais_backend_latency_seconds_count", &[&here]), 38.0);
    assert!(edge.sample("relais_retries_total", &["reason=\"refused\""]) > 0.0);
    assert!(edge.sample("relais_backend_attempts_failed_total", &[&format!("backend=\"{dead}\"")]) > 0.0);
    let (fresh, kept) = (
        edge.sample("relais_upstream_connections_total", &[&here, "fresh"]),
        edge.sample("relais_upstream_connections_total", &[&here, "reused"]),
    );
    assert_eq!(fresh + kept, 38.0, "{}", edge.metrics());
    assert!(kept > 30.0);
    assert_eq!(edge.sample("relais_build_info", &["version"]), 1.0);
    assert!(edge.sample("relais_connections_accepted_total", &[]) >= 1.0);
    wait_for("nothing is open", || edge.sample("relais_requests_inflight", &[]) == 0.0);
    // No route, no service: counted too, without a word of the client's.
    let before = edge.sample("relais_requests_total", &["code=\"400\""]);
    edge.connect().ask("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n");
    wait_for("the bad request is counted", || edge.sample("relais_requests_total", &["code=\"400\""]) > before);
}

/// Names and labels without the values.
fn series(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut names: Vec<String> =
        lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names
}

#[test]
fn clients_cannot_make_series() {
    let backend = Plain::new(|request| {
        let code = 200 + request.head.target().len() % 400;
        let code = if [204, 304].contains(&code) || code < 200 { 200 } else { code };
        format!("HTTP/1.1 {code} So\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let edge = Setup::to(&[&backend]).start();
    let ask = |n: usize| {
        let method = ["GET", "POST", "BREW", "PROPFIND", "X-ODD"][n % 5];
        let path = "a".repeat(n);
        let request = format!(
            "{method} /{path} HTTP/1.1\r\nHost: h{n}.test\r\nUser-Agent: u{n}\r\nX-{n}: {n}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        edge.connect().ask(request).status()
    };
    for n in 0..380 {
        ask(n);
    }
    let text = edge.metrics();
    for word in ["h1.test", "BREW", "aaaa", "u1\""] {
        assert!(!text.contains(word), "{word} is in the metrics");
    }
    // Every status there is was seen: what comes now finds its series there already.
    let before = series(&text);
    for n in 0..380 {
        ask(n);
    }
    assert_eq!(series(&edge.metrics()), before);
    assert!(before.len() < 500, "{} series", before.len());
}

#[test]
fn health_and_orders_are_gauges() {
    let backend = Plain::saying("x");
    let dead = free_address();
    let services = format!("[service.web]\nhosts = [\"*\"]\nbackends = [\"{}\", \"{dead}\"]\n", backend.address());
    let edge = Setup::services(&services).start();
    edge.wait_for_health(&dead, "down");
    edge.wait_for_health(&backend, "up");
    let gauge = |name: &str, address: &str, more: &[&str]| {
        let backend = format!("backend=\"{address}\"");
        edge.sample(name, &[&[backend.as_str()], more].concat())
    };
    let (alive, dead) = (backend.address(), dead.to_string());
    assert_eq!((gauge("relais_backend_up", &alive, &[]), gauge("relais_backend_up", &dead, &[])), (1.0, 0.0));
    assert_eq!(gauge("relais_backend_health", &dead, &["down"]), 1.0);
    assert!(gauge("relais_probes_total", &dead, &["refused"]) > 0.0, "{}", edge.metrics());
    edge.order("draining", &format!("web/{alive}"));
    assert_eq!(gauge("relais_backend_admin", &alive, &["draining"]), 1.0);
    assert_eq!(gauge("relais_backend_up", &alive, &[]), 0.0);
}
