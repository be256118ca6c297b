//! What Prometheus reads: names and labels are an interface, so they are written down here.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use relais_core::{Fault, Health};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Bench, answering, converse, eventually, own_ip};

fn head(metrics: &str) -> String {
    format!("[listener.http]\naddress = \"127.0.0.1:8080\"\nredirect = false\n[metrics]\naddress = {metrics}\n")
}

/// A bench with one backend that has seen a little of everything, and a second that refuses.
async fn busy() -> (Bench, TcpListener) {
    let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = good.local_addr().unwrap();
    let dead = free_address().await;
    let text = format!(
        "{}[service.api]\nhosts = [\"a.fr\"]\nbackends = [\"{address}\", \"{dead}\"]\n{}",
        head("false"),
        answering("page")
    );
    let bench = Bench::start(&text).await;
    let health = |s: &relais_control::Status, i: usize| s.report.services[0].backends[i].health;
    bench.until("verdicts", |s| health(s, 0) == Health::Up && health(s, 1) == Health::Down).await;
    let snapshot = bench.snapshot.load_full();
    let backend =
        &snapshot.pools[0].members.iter().find(|m| *m.backend.id.address == *address.to_string()).unwrap().backend;
    for code in [200, 200, 503, 418] {
        backend.stats.codes.count(code);
    }
    backend.stats.latency.observe(Duration::from_millis(3));
    backend.stats.latency.observe(Duration::from_secs(300));
    backend.stats.reused.inc();
    backend.stats.connected.add(2);
    let service = &snapshot.pools[0].stats;
    service.own_codes.count(503);
    service.duration.observe(Duration::from_millis(40));
    service.retried("refused");
    service.budget_exhausted.inc();
    snapshot.stats.handshakes.add(5);
    snapshot.stats.handshakes_resumed.add(2);
    snapshot.stats.unrouted.count(421);
    snapshot.stats.events_dropped.add(7);
    (bench, good)
}

/// The value of one sample, whatever the order of its labels.
fn sample(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: BTreeSet<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
    text.lines().find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels: BTreeSet<String> =
            labels.trim_end_matches('}').split(',').filter(|l| !l.is_empty()).map(String::from).collect();
        (found == name && labels == wanted).then(|| value.parse().unwrap())
    })
}

#[tokio::test]
async fn counters_come_out_under_their_names() {
    let (bench, _good) = busy().await;
    let text = bench.handle.metrics().await.unwrap();
    let status = bench.status().await;
    let (good, dead) =
        (&*status.report.services[0].backends[0].address, &*status.report.services[0].backends[1].address);
    let labelled = |name: &str, backend: &str, more: &[(&str, &str)]| {
        let labels: Vec<(&str, &str)> = [("service", "api"), ("site", "default"), ("backend", backend)]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        sample(&text, name, &labels).unwrap_or_else(|| panic!("{name} {labels:?} missing in\n{text}"))
    };
    assert_eq!(labelled("relais_requests_total", good, &[("code", "200")]), 2.0);
    assert_eq!(labelled("relais_requests_total", good, &[("code", "503")]), 1.0);
    assert_eq!(labelled("relais_requests_total", good, &[("code", "4xx")]), 1.0);
    assert_eq!(labelled("relais_backend_latency_seconds_count", good, &[]), 2.0);
    assert_eq!(labelled("relais_backend_latency_seconds_bucket", good, &[("le", "0.005")]), 1.0);
    assert_eq!(labelled("relais_backend_latency_seconds_bucket", good, &[("le", "60")]), 1.0);
    assert_eq!(labelled("relais_backend_latency_seconds_bucket", good, &[("le", "+Inf")]), 2.0);
    assert_eq!(labelled("relais_backend_latency_seconds_sum", good, &[]), 300.003);
    assert_eq!(labelled("relais_upstream_connections_total", good, &[("kind", "fresh")]), 2.0);
    assert_eq!(labelled("relais_upstream_connections_total", good, &[("kind", "reused")]), 1.0);
    assert_eq!(labelled("relais_backend_up", good, &[]), 1.0);
    assert_eq!(labelled("relais_backend_up", dead, &[]), 0.0);
    assert_eq!(labelled("relais_backend_health", dead, &[("state", "down")]), 1.0);
    assert_eq!(labelled("relais_backend_health", dead, &[("state", "up")]), 0.0);
    assert_eq!(labelled("relais_backend_admin", dead, &[("state", "enabled")]), 1.0);
    assert_eq!(labelled("relais_backend_inflight", good, &[]), 0.0);
    assert!(labelled("relais_probes_total", dead, &[("result", Fault::Refused.as_str())]) >= 2.0);
    assert!(labelled("relais_probes_total", good, &[("result", "ok")]) >= 1.0);
    assert!(labelled("relais_probe_duration_seconds_count", good, &[]) >= 1.0);

    let plain = |name: &str, labels: &[(&str, &str)]| {
        sample(&text, name, labels).unwrap_or_else(|| panic!("{name} {labels:?} missing in\n{text}"))
    };
    let own = [("service", "api"), ("site", ""), ("backend", ""), ("code", "503")];
    assert_eq!(plain("relais_requests_total", &own), 1.0);
    let unrouted = [("service", ""), ("site", ""), ("backend", ""), ("code", "421")];
    assert_eq!(plain("relais_requests_total", &unrouted), 1.0);
    assert_eq!(plain("relais_request_duration_seconds_count", &[("service", "api")]), 1.0);
    assert_eq!(plain("relais_requests_inflight", &[("service", "api")]), 0.0);
    assert_eq!(plain("relais_retries_total", &[("service", "api"), ("reason", "refused")]), 1.0);
    assert_eq!(plain("relais_retry_budget_exhausted_total", &[("service", "api")]), 1.0);
    assert_eq!(plain("relais_site_up", &[("site", "default")]), 1.0);
    assert_eq!(plain("relais_tls_handshakes_total", &[("result", "full")]), 3.0);
    assert_eq!(plain("relais_tls_handshakes_total", &[("result", "resumed")]), 2.0);
    assert_eq!(plain("relais_events_dropped_total", &[]), 7.0);
    assert_eq!(plain("relais_log_lines_dropped_total", &[]), 3.0);
    assert_eq!(plain("relais_config_last_reload_success", &[]), 1.0);
    assert_eq!(plain("relais_store_state", &[("state", "memory")]), 1.0);
    assert_eq!(plain("relais_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    for name in ["relais_connections_open", "relais_connections_accepted_total", "relais_accept_paused_total"] {
        assert_eq!(plain(name, &[]), 0.0);
    }
    assert!(plain("relais_config_last_reload_timestamp_seconds", &[]) > 1.6e9);
    if cfg!(target_os = "linux") {
        assert!(plain("process_resident_memory_bytes", &[]) > 0.0);
    }
    bench.stop().await;
}

#[tokio::test]
async fn promtool_has_no_complaint() {
    let (bench, _good) = busy().await;
    let text = bench.handle.metrics().await.unwrap();
    bench.stop().await;
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        eprintln!("SKIPPED: promtool_has_no_complaint needs promtool (Debian package `prometheus`)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{text}");
    // The names of `process_*` are not ours to choose.
    let complaints: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[tokio::test]
async fn a_refused_file_shows() {
    let bench = Bench::start(&format!("{}{}", head("false"), answering("a"))).await;
    bench.write("nothing");
    bench.handle.reload(false).await.unwrap();
    let text = bench.handle.metrics().await.unwrap();
    assert_eq!(sample(&text, "relais_config_last_reload_success", &[]), Some(0.0));
    // By the request, and perhaps by the watcher already.
    assert!(sample(&text, "relais_config_reloads_total", &[("result", "refused")]).is_some_and(|n| n >= 1.0), "{text}");
    bench.stop().await;
}

async fn free_address() -> SocketAddr {
    TcpListener::bind((own_ip(), 0)).await.unwrap().local_addr().unwrap()
}

async fn get(address: SocketAddr, target: &str) -> Option<(u16, String)> {
    let stream = TcpStream::connect(address).await.ok()?;
    Some(converse(stream, "GET", target, "").await)
}

#[tokio::test]
async fn the_listener_serves_metrics_alone_and_follows_the_file() {
    let (first, second) = (free_address().await, free_address().await);
    let text = |address: SocketAddr| format!("{}{}", head(&format!("\"{address}\"")), answering("a"));
    let bench = Bench::start(&text(first)).await;
    let (code, body) = eventually("metrics are served", async || get(first, "/metrics").await).await;
    assert_eq!(code, 200);
    assert!(body.contains("relais_build_info"), "{body}");
    assert_eq!(get(first, "/status").await.unwrap().0, 404, "nothing but metrics is here");
    bench.write(&text(second));
    bench.handle.reload(false).await.unwrap();
    eventually("metrics are served at the new address", async || get(second, "/metrics").await).await;
    eventually("the old address is free", async || TcpListener::bind(first).await.ok()).await;
    bench.stop().await;
}

#[tokio::test]
async fn an_address_in_use_is_an_alarm_until_it_is_free() {
    let taken = TcpListener::bind((own_ip(), 0)).await.unwrap();
    let address = taken.local_addr().unwrap();
    let bench = Bench::start(&format!("{}{}", head(&format!("\"{address}\"")), answering("a"))).await;
    let status = bench.until("the alarm", |s| s.alarms.iter().any(|alarm| alarm.about == "metrics")).await;
    assert!(status.alarms[0].message.contains(&address.to_string()), "{:?}", status.alarms);
    drop(taken);
    bench.until("the alarm is over", |s| s.alarms.is_empty()).await;
    assert_eq!(get(address, "/metrics").await.unwrap().0, 200);
    bench.stop().await;
}
