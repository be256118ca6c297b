//! Probes against raw sockets that refuse, stall, cut and lie: each must come back as the right fault.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use relais_core::{Event, Fault, Health, ProbeReport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::sync::mpsc;

use crate::support::{Bench, HEAD, own_ip, probed, result};

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A file with one service, whose first backend is at this address.
pub(crate) fn with(health: &str, backend: &str) -> String {
    format!(
        "{HEAD}[service.api]\nhosts = [\"api.a.fr\"]\nfailover_within = \"2s\"\nbackends = [{backend}]\n\
         [service.api.health]\ninterval = \"300ms\"\ntimeout = \"300ms\"\n{health}\n"
    )
}

fn http(address: SocketAddr) -> String {
    with("path = \"/health\"", &format!("\"{address}\""))
}

/// Starts, waits for a first probe to end, and returns what it said.
pub(crate) async fn first_probe(text: &str) -> Result<(), Fault> {
    let bench = Bench::start(text).await;
    let status = bench.until("a probe has ended", |status| probed(status).is_some()).await;
    bench.stop().await;
    result(probed(&status).unwrap())
}

/// A backend that does this with every connection.
pub(crate) async fn backend<F, Fut>(converse: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream));
        }
    });
    address
}

/// A backend that reads a request head, then answers with these bytes and closes.
async fn answers(bytes: &'static str) -> SocketAddr {
    backend(move |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(bytes.as_bytes()).await;
    })
    .await
}

pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// An address where nothing listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind((own_ip(), 0)).await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_good_answer_is_good() {
    assert_eq!(first_probe(&http(answers(GOOD).await)).await, Ok(()));
}

#[tokio::test]
async fn refused() {
    assert_eq!(first_probe(&http(nobody().await)).await, Err(Fault::Refused));
}

#[tokio::test]
async fn a_host_that_takes_no_connection_is_a_connect_timeout() {
    // A listening queue that is full: the kernel then drops what knocks.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
        assert!(waiting.len() < 100, "the queue never fills");
    }
    assert_eq!(first_probe(&http(address)).await, Err(Fault::ConnectTimeout));
    drop(listener);
}

#[tokio::test]
async fn no_route_is_unreachable() {
    // TCP to a multicast address: the kernel says "network is unreachable" without sending anything.
    assert_eq!(first_probe(&http("224.0.0.1:80".parse().unwrap())).await, Err(Fault::Unreachable));
}

#[tokio::test]
async fn connected_but_silent_is_a_response_timeout() {
    let address = backend(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    assert_eq!(first_probe(&http(address)).await, Err(Fault::ResponseTimeout));
}

#[tokio::test]
async fn half_an_answer_is_a_response_timeout() {
    let address = backend(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    assert_eq!(first_probe(&http(address)).await, Err(Fault::ResponseTimeout));
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_a_reset() {
    let closed = backend(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    assert_eq!(first_probe(&http(closed)).await, Err(Fault::Reset));
    let reset = backend(|stream| async move {
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(first_probe(&http(reset)).await, Err(Fault::Reset));
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_malformed() {
    let address = answers("SSH-2.0-OpenSSH_9.2\r\n").await;
    assert_eq!(first_probe(&http(address)).await, Err(Fault::Malformed));
}

#[tokio::test]
async fn a_wrong_status_is_told_with_its_number() {
    let address = answers("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(first_probe(&http(address)).await, Err(Fault::Status(503)));
}

#[tokio::test]
async fn expected_statuses_are_the_rule() {
    let address = answers("HTTP/1.1 204 No Content\r\n\r\n").await;
    let rule = |status: &str| with(&format!("path = \"/\"\nstatus = {status}"), &format!("\"{address}\""));
    assert_eq!(first_probe(&rule("[200, \"202-299\"]")).await, Ok(()));
    assert_eq!(first_probe(&rule("[200, 404]")).await, Err(Fault::Status(204)));
}

#[tokio::test]
async fn the_expected_text_must_be_there_even_across_packets() {
    let split = backend(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nall is re").await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        let _ = stream.write_all(b"ady.").await;
    })
    .await;
    let rule = |text: &str| with(&format!("path = \"/\"\nbody = \"{text}\""), &format!("\"{split}\""));
    assert_eq!(first_probe(&rule("ready")).await, Ok(()));
    assert_eq!(first_probe(&rule("well")).await, Err(Fault::BodyMismatch));
}

#[tokio::test]
async fn text_beyond_64_kib_is_not_looked_for() {
    let address = backend(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await;
        let _ = stream.write_all("x".repeat(70_000).as_bytes()).await;
        let _ = stream.write_all("ready".repeat(6_000).as_bytes()).await;
    })
    .await;
    let text = with("path = \"/\"\nbody = \"ready\"", &format!("\"{address}\""));
    assert_eq!(first_probe(&text).await, Err(Fault::BodyMismatch));
}

#[tokio::test]
async fn an_answer_cut_short_is_a_reset() {
    let address = answers("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await;
    let text = with("path = \"/\"\nbody = \"ready\"", &format!("\"{address}\""));
    assert_eq!(first_probe(&text).await, Err(Fault::Reset));
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let bench = Bench::start(&with("path = \"/\"", "\"no-such-host.invalid:80\"")).await;
    let backend = |status: &relais_control::Status| status.report.services[0].backends[0].clone();
    let status = bench.until("it is down", |status| backend(status).health == Health::Down).await;
    let backend = backend(&status);
    assert!(backend.why.starts_with("name does not resolve: "), "{}", backend.why);
    assert!(backend.probes.is_empty() && backend.addresses.is_empty(), "nobody to ask");
    bench.stop().await;
}

#[tokio::test]
async fn a_name_that_resolves() {
    let address = answers(GOOD).await;
    let text = with("path = \"/\"", &format!("\"localhost:{}\"", address.port()));
    assert_eq!(first_probe(&text).await, Ok(()));
}

#[tokio::test]
async fn a_tcp_check_only_connects() {
    let silent = backend(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    assert_eq!(first_probe(&with("type = \"tcp\"", &format!("\"{silent}\""))).await, Ok(()));
    assert_eq!(first_probe(&with("type = \"tcp\"", &format!("\"{}\"", nobody().await))).await, Err(Fault::Refused));
}

#[tokio::test]
async fn another_port_may_be_asked() {
    let address = answers(GOOD).await;
    let text = with(&format!("path = \"/\"\nport = {}", address.port()), "\"127.0.0.1:1\"");
    assert_eq!(first_probe(&text).await, Ok(()));
}

#[tokio::test]
async fn a_unix_socket_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(GOOD.as_bytes()).await;
        }
    });
    let unix = |path: &std::path::Path| with("path = \"/\"", &format!("\"unix:{}\"", path.display()));
    assert_eq!(first_probe(&unix(&path)).await, Ok(()));
    assert_eq!(first_probe(&unix(&dir.path().join("none.sock"))).await, Err(Fault::Refused));
}

#[tokio::test]
async fn the_question_is_the_rules() {
    let (heads, mut heard) = mpsc::unbounded_channel();
    let address = backend(move |mut stream| {
        let heads = heads.clone();
        async move {
            let _ = heads.send(read_head(&mut stream).await);
            let _ = stream.write_all(GOOD.as_bytes()).await;
        }
    })
    .await;
    let rule = "path = \"/deep?x=1\"\nmethod = \"OPTIONS\"\nheaders = { X-Probe = \"yes\" }";
    let bench = Bench::start(&with(rule, &format!("\"{address}\""))).await;
    let head = heard.recv().await.unwrap();
    assert!(head.starts_with("OPTIONS /deep?x=1 HTTP/1.1\r\n"), "{head}");
    for line in ["host: api.a.fr", "x-probe: yes", "connection: close"] {
        assert!(head.to_lowercase().contains(&format!("\r\n{line}\r\n")), "{line} missing in {head}");
    }
    assert!(head.contains(&format!("user-agent: relais-probe/{}\r\n", env!("CARGO_PKG_VERSION"))), "{head}");
    bench.stop().await;
}

#[tokio::test]
async fn every_probe_connects_afresh() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    // Would answer any number of requests on one connection.
    let address = backend(move |mut stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            while !read_head(&mut stream).await.is_empty() {
                let _ = stream.write_all(GOOD.as_bytes()).await;
            }
        }
    })
    .await;
    let bench = Bench::start(&http(address)).await;
    let status = bench.until("five probes", |status| status.report.services[0].backends[0].probes.len() >= 5).await;
    assert!(connections.load(Ordering::Relaxed) >= status.report.services[0].backends[0].probes.len());
    bench.stop().await;
}

#[tokio::test]
async fn a_silent_backend_does_not_delay_another() {
    let silent = backend(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let good = answers(GOOD).await;
    let text = format!(
        "{HEAD}[service.api]\nhosts = [\"a.fr\"]\nfailover_within = \"60s\"\nbackends = [\"{silent}\", \"{good}\"]\n\
         [service.api.health]\npath = \"/\"\ninterval = \"10s\"\ntimeout = \"10s\"\n"
    );
    let bench = Bench::start(&text).await;
    let health = |status: &relais_control::Status, index: usize| status.report.services[0].backends[index].health;
    let status = bench.until("the good one is up", |status| health(status, 1) == Health::Up).await;
    assert_eq!(health(&status, 0), Health::Probing, "the silent one is still being asked");
    bench.stop().await;
}

#[tokio::test]
async fn failed_requests_reach_the_fleet_and_snapshots_the_workers() {
    let backends = format!("\"{}\", \"{}\"", answers(GOOD).await, answers(GOOD).await);
    let bench = Bench::start(&with("path = \"/health\"", &backends)).await;
    bench.until("both up", |s| s.report.services[0].backends.iter().all(|b| b.health == Health::Up)).await;
    let snapshot = bench.snapshot.load_full();
    let slot = snapshot.pools[0].members[0].backend.slot;
    let mut changed = bench.changed.clone();
    changed.mark_unchanged();
    for _ in 0..10 {
        bench.events.send(Event::Served { slot, result: Err(Fault::Reset) }).await.unwrap();
    }
    tokio::time::timeout(crate::support::DEADLINE, changed.changed()).await.unwrap().unwrap();
    let told = bench.snapshot.load_full();
    assert!(told.generation > snapshot.generation);
    assert_ne!(told.pools[0].members[0].health, Health::Up, "accused in what workers read when they are told");
    bench.stop().await;
}

const BACKEND: &str = "RELAIS_TEST_BACKEND";

/// When clients have used up the file descriptors, probes must not make living backends look dead. Needs a low limit,
/// so the test runs itself again under one, against a backend outside.
#[tokio::test]
async fn a_shortage_of_file_descriptors_accuses_nobody() {
    if let Ok(address) = std::env::var(BACKEND) {
        return in_shortage(address.parse().unwrap()).await;
    }
    let address = answers(GOOD).await;
    let inner =
        "ulimit -n 128 && exec \"$0\" --exact probing::a_shortage_of_file_descriptors_accuses_nobody --nocapture";
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", inner]).arg(std::env::current_exe().unwrap()).env(BACKEND, address.to_string());
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "the inner test did not run: {said}");
}

async fn in_shortage(address: SocketAddr) {
    // Not late: the backend is another process, on a machine that may be busy.
    let text = http(address).replace("timeout = \"300ms\"", "timeout = \"5s\"").replace("\"2s\"", "\"20s\"");
    let bench = Bench::start(&text).await;
    bench.until("up", |status| status.report.services[0].backends[0].health == Health::Up).await;
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    let from = bench.status().await.report.now;
    let since = |status: &relais_control::Status| {
        let probes = status.report.services[0].backends[0].probes.clone();
        probes.into_iter().filter(|probe| probe.at > from).collect::<Vec<_>>()
    };
    let status = bench.until("probes in the shortage", |status| since(status).len() >= 6).await;
    let accuses = |probe: &ProbeReport| probe.fault.is_some_and(|fault| fault != Fault::Unwatched);
    assert!(!since(&status).iter().any(accuses), "{:?}", since(&status));
    let passes = |status: &relais_control::Status| since(status).iter().any(|probe| probe.fault.is_none());
    bench.until("one of them passes", passes).await;
    assert_eq!(status.report.services[0].backends[0].health, Health::Up);
    drop(hoard);
    bench.stop().await;
}
