//! Checks that are no request: bytes, TLS, Redis and MySQL, against servers that are right, wrong and silent.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use relais_control::Status;
use relais_core::{Fault, Health};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::probing::{backend, first_probe, nobody, with};
use crate::probing_tls::tls_backend;
use crate::support::{Bench, DEADLINE, probed, result};

const LONG: Duration = Duration::from_secs(60);

/// A backend that says one thing, reads, says another and then keeps the connection open.
async fn says(first: &'static [u8], then: &'static [u8]) -> SocketAddr {
    backend(move |mut stream| async move {
        let _ = stream.write_all(first).await;
        if !then.is_empty() {
            let mut some = [0; 1024];
            let _ = stream.read(&mut some).await;
            let _ = stream.write_all(then).await;
        }
        tokio::time::sleep(LONG).await;
    })
    .await
}

/// A backend that says one thing and closes.
async fn says_and_closes(bytes: &'static [u8]) -> SocketAddr {
    backend(move |mut stream| async move {
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut some = [0; 1024];
        while stream.read(&mut some).await.is_ok_and(|read| read > 0) {}
    })
    .await
}

/// What the first probe said, in a fault and in words.
async fn first_words(text: &str) -> (Result<(), Fault>, Option<String>) {
    let bench = Bench::start(text).await;
    let status = bench.until("a probe has ended", |status| probed(status).is_some()).await;
    bench.stop().await;
    let probe = probed(&status).unwrap();
    (result(probe), probe.said.as_ref().map(ToString::to_string))
}

fn check(rule: &str, address: SocketAddr) -> String {
    with(rule, &format!("\"{address}\""))
}

#[tokio::test]
async fn bytes_are_sent_and_an_answer_is_expected() {
    let rule = "type = \"tcp\"\nsend = 'PING\\r\\n'\nexpect = \"+PONG\"";
    let (tell, mut heard) = mpsc::unbounded_channel();
    let good = backend(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut some = [0; 64];
            let read = stream.read(&mut some).await.unwrap_or(0);
            let _ = tell.send(some[..read].to_vec());
            let _ = stream.write_all(b"hello +PO").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = stream.write_all(b"NG\r\n").await;
            tokio::time::sleep(LONG).await;
        }
    })
    .await;
    assert_eq!(first_probe(&check(rule, good)).await, Ok(()));
    assert_eq!(heard.recv().await.unwrap(), b"PING\r\n");
    let wrong = (Err(Fault::BodyMismatch), Some("-ERR no".to_owned()));
    assert_eq!(first_words(&check(rule, says(b"", b"-ERR no\r\n").await)).await, wrong, "and it stays open");
    assert_eq!(first_words(&check(rule, says_and_closes(b"-ERR no\r\n").await)).await, wrong);
    assert_eq!(first_probe(&check(rule, says_and_closes(b"").await)).await, Err(Fault::Reset));
    assert_eq!(first_probe(&check(rule, says(b"", b"").await)).await, Err(Fault::ResponseTimeout));
    assert_eq!(first_probe(&check(rule, nobody().await)).await, Err(Fault::Refused));
}

#[tokio::test]
async fn a_greeting_can_be_awaited_and_bytes_be_sent_alone() {
    let greeting = "type = \"tcp\"\nexpect = '\\x32\\x32\\x30 '";
    assert_eq!(first_probe(&check(greeting, says(b"220 mail.a.fr\r\n", b"").await)).await, Ok(()));
    assert_eq!(first_probe(&check(greeting, says(b"554 no\r\n", b"").await)).await, Err(Fault::BodyMismatch));
    let alone = "type = \"tcp\"\nsend = \"x\"";
    assert_eq!(first_probe(&check(alone, says(b"", b"").await)).await, Ok(()));
}

#[tokio::test]
async fn no_more_than_64_kib_are_searched() {
    let endless = backend(|mut stream| async move { while stream.write_all(&[b'x'; 4096]).await.is_ok() {} }).await;
    let rule = "type = \"tcp\"\nexpect = \"y\"";
    let (result, said) = first_words(&check(rule, endless).replace("300ms", "5s").replace("2s\"", "30s\"")).await;
    assert_eq!(result, Err(Fault::BodyMismatch));
    assert_eq!(said.map(|said| said.len()), Some(200), "and little of it is shown");
}

#[tokio::test]
async fn tls_is_a_handshake_that_verifies() {
    let state = tempfile::tempdir().unwrap();
    let (tell, _asked) = mpsc::unbounded_channel();
    let (address, ca) = tls_backend(state.path(), tell).await;
    let backend = |tls: &str| with("type = \"tls\"", &format!("{{ addr = \"{address}\"{tls} }}"));
    let ours = format!(", tls = {{ sni = \"api.internal\", ca = \"{}\" }}", ca.display());
    assert_eq!(first_probe(&backend(&ours)).await, Ok(()));
    assert_eq!(first_probe(&backend(&ours.replace("api.", "other."))).await, Err(Fault::Tls));
    assert_eq!(first_probe(&backend(", tls = { verify = false }")).await, Ok(()));
    assert_eq!(first_probe(&backend("")).await, Err(Fault::Tls), "the system does not trust it");
    assert_eq!(first_probe(&check("type = \"tls\"", says(b"220 hello\r\n", b"").await)).await, Err(Fault::Tls));
    assert_eq!(first_probe(&check("type = \"tls\"", says(b"", b"").await)).await, Err(Fault::ResponseTimeout));
}

#[tokio::test]
async fn redis_answers_have_their_meaning() {
    let rule = "type = \"redis\"";
    for (answer, expected) in [
        (b"+PONG\r\n".as_slice(), Ok(())),
        (b"-NOAUTH Authentication required.\r\n", Ok(())),
        (b"-LOADING Redis is loading the dataset in memory\r\n", Err(Fault::Unwell)),
        (b"HTTP/1.1 400 Bad Request\r\n", Err(Fault::Malformed)),
    ] {
        assert_eq!(first_probe(&check(rule, says(b"", answer).await)).await, expected);
    }
    assert_eq!(first_probe(&check(rule, says_and_closes(b"").await)).await, Err(Fault::Reset));
    assert_eq!(first_probe(&check(rule, says(b"", b"").await)).await, Err(Fault::ResponseTimeout));
}

#[tokio::test]
async fn mysql_greets_or_says_why_not() {
    let rule = "type = \"mysql\"";
    const GREETING: &[u8] = b"\x11\0\0\0\x0a8.0.36\0\x08\0\0\0abcdefgh\0";
    let too_many: &[u8] = b"\x17\0\0\0\xff\x10\x04Too many connections";
    // The length of a greeting is what follows its head.
    let greeting: Vec<u8> = [&[u8::try_from(GREETING.len() - 4).unwrap()], &GREETING[1..]].concat();
    let greeting: &'static [u8] = Vec::leak(greeting);
    assert_eq!(first_probe(&check(rule, says(greeting, b"").await)).await, Ok(()));
    let (result, said) = first_words(&check(rule, says_and_closes(too_many).await)).await;
    assert_eq!((result, said.as_deref()), (Err(Fault::Unwell), Some("1040 Too many connections")));
    assert_eq!(first_probe(&check(rule, says(b"SSH-2.0-OpenSSH\r\n", b"").await)).await, Err(Fault::Malformed));
    assert_eq!(first_probe(&check(rule, says_and_closes(&greeting[..9]).await)).await, Err(Fault::Reset));
    assert_eq!(first_probe(&check(rule, says(b"", b"").await)).await, Err(Fault::ResponseTimeout));
}

#[tokio::test]
async fn the_reason_is_in_the_backends_own_words() {
    let loading = says(b"", b"-LOADING Redis is loading the dataset in memory\r\n").await;
    let fine = says(b"", b"+PONG\r\n").await;
    let bench = Bench::start(&with("type = \"redis\"", &format!("\"{loading}\", \"{fine}\""))).await;
    let down = |status: &Status| status.report.services[0].backends[0].health == Health::Down;
    let status = bench.until("it is down", down).await;
    let why = &status.report.services[0].backends[0].why;
    assert!(why.starts_with("says it is not well: LOADING Redis is loading the dataset in memory, "), "{why}");
    assert_eq!(status.report.services[0].check.as_deref(), Some("Redis PING"));
    bench.stop().await;
}

/// A real server, ended with the test.
struct Redis {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None`: it is not installed.
fn redis_server() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join("redis-server")).find(|file| file.exists())
}

/// Says visibly that a test did not run: the output of tests that pass is not shown, the file descriptor is.
#[expect(clippy::print_stderr, reason = "a test that does not run speaks to whoever runs it")]
fn skipped(why: &str) {
    use std::io::Write;
    let stderr = std::fs::OpenOptions::new().append(true).open("/dev/stderr");
    let shown = stderr.is_ok_and(|mut stderr| writeln!(stderr, "SKIPPED: {why}").is_ok());
    if !shown {
        eprintln!("SKIPPED: {why}");
    }
}

async fn redis(program: &Path, options: &[&str]) -> Redis {
    let address = nobody().await;
    let dir = tempfile::tempdir().unwrap();
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let child = Command::new(program)
        .args(["--port", &port, "--bind", &ip, "--save", "", "--dir"])
        .arg(dir.path())
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let redis = Redis { child, address, _dir: dir };
    let end = std::time::Instant::now() + DEADLINE;
    while TcpStream::connect(address).await.is_err() {
        assert!(std::time::Instant::now() < end, "redis-server does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    redis
}

#[tokio::test]
async fn a_real_redis_is_asked() {
    let Some(program) = redis_server() else {
        skipped("a_real_redis_is_asked: needs Debian package redis-server");
        return;
    };
    let open = redis(&program, &[]).await;
    assert_eq!(first_probe(&check("type = \"redis\"", open.address)).await, Ok(()));
    let closed = redis(&program, &["--requirepass", "secret"]).await;
    assert_eq!(first_probe(&check("type = \"redis\"", closed.address)).await, Ok(()), "a password is no fault");
    let lost = redis(&program, &["--replicaof", "127.0.0.1 1", "--replica-serve-stale-data", "no"]).await;
    let (result, said) = first_words(&check("type = \"redis\"", lost.address)).await;
    assert_eq!(result, Err(Fault::Unwell));
    assert!(said.as_deref().is_some_and(|said| said.starts_with("MASTERDOWN")), "{said:?}");
    let rule = "type = \"tcp\"\nsend = 'INFO replication\\r\\n'\nexpect = \"role:master\"";
    assert_eq!(first_probe(&check(rule, open.address)).await, Ok(()), "by hand");
}
