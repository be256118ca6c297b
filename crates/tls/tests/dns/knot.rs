//! Knot DNS (Debian package `knot`) with zones of the test's, on an address of its own and a port that needs no rights.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use relais_core::config::{DnsProvider, Secret, TsigAlgorithm};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// base64 of the keys that may update, one for each algorithm.
pub(crate) const SECRET: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// A running server. Dropping it ends it.
pub(crate) struct Knot {
    pub(crate) address: SocketAddr,
    child: Child,
    _dir: TempDir,
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `@` of each zone and the records of the test: (zone, records in the form of a zone file).
pub(crate) type Zones<'a> = &'a [(&'a str, &'a str)];

impl Knot {
    /// `None`: it is not installed, which is said.
    pub(crate) async fn start(zones: Zones<'_>) -> Option<Self> {
        Self::start_beside(zones, &[]).await
    }

    /// At a port that is free at `others`, too.
    pub(crate) async fn start_beside(zones: Zones<'_>, others: &[&str]) -> Option<Self> {
        if !Path::new("/usr/sbin/knotd").exists() {
            skipped("needs Debian package knot (knotd)");
            return None;
        }
        for _ in 0..10 {
            let knot = Self::launch(zones, free_port(others));
            let end = Instant::now() + Duration::from_secs(20);
            while Instant::now() < end {
                // By TCP: whoever else got this port by UDP meanwhile is found by the tests themselves.
                if let Ok(answer) = asked(knot.address, zones[0].0, RecordType::SOA).await
                    && !answer.answers.is_empty()
                {
                    return Some(knot);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        panic!("knotd does not start");
    }

    fn launch(zones: Zones<'_>, port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().display();
        let key = |name: &str, algorithm: &str| {
            format!("  - id: {name}\n    algorithm: {algorithm}\n    secret: \"{SECRET}\"\n")
        };
        let mut config = format!(
            "server:\n    rundir: \"{here}\"\n    listen: \"127.0.0.2@{port}\"\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n\
             log:\n  - target: stderr\n    any: info\ndatabase:\n    storage: \"{here}\"\nkey:\n"
        );
        config +=
            &(key("relais", "hmac-sha256") + &key("relais-384", "hmac-sha384") + &key("relais-512", "hmac-sha512"));
        config += &key("reader", "hmac-sha256");
        config += "acl:\n  - id: update\n    key: [relais, relais-384, relais-512]\n    action: update\n";
        config += &format!(
            "template:\n  - id: default\n    storage: \"{here}\"\n    file: \"%s.zone\"\n    zonefile-sync: -1\n    acl: update\nzone:\n"
        );
        for (zone, records) in zones {
            config += &format!("  - domain: {zone}\n");
            let text = format!(
                "$ORIGIN {zone}.\n$TTL 60\n@ SOA ns1 host 1 60 60 3600 60\n@ NS ns1\nns1 A 127.0.0.2\n{records}\n"
            );
            std::fs::write(dir.path().join(format!("{zone}.zone")), text).unwrap();
        }
        let file = dir.path().join("knot.conf");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new("/usr/sbin/knotd");
        command.arg("-c").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        Knot { address: SocketAddr::new(IpAddr::from([127, 0, 0, 2]), port), child, _dir: dir }
    }

    /// Its dynamic update as a provider.
    pub(crate) fn provider(&self) -> DnsProvider {
        self.provider_with("relais", TsigAlgorithm::HmacSha256, SECRET, None)
    }

    pub(crate) fn provider_with(
        &self,
        key: &str,
        algorithm: TsigAlgorithm,
        secret: &str,
        zone: Option<&str>,
    ) -> DnsProvider {
        DnsProvider::Rfc2136 {
            server: self.address,
            zone: zone.map(str::to_owned),
            key_name: key.to_owned(),
            algorithm,
            secret: Secret::new(secret),
        }
    }

    /// The TXT values at a name, sorted.
    pub(crate) async fn texts(&self, name: &str) -> Vec<String> {
        let answer = asked(self.address, name, RecordType::TXT).await.unwrap();
        let texts = answer.answers.iter().filter_map(|record| match &record.data {
            RData::TXT(text) => Some(String::from_utf8(text.txt_data.concat()).unwrap()),
            _ => None,
        });
        let mut texts: Vec<String> = texts.collect();
        texts.sort();
        texts
    }
}

/// One question by TCP, by a client that is not the one under test.
async fn asked(server: SocketAddr, name: &str, kind: RecordType) -> std::io::Result<Message> {
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    let question = question.to_vec().unwrap();
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&[&u16::try_from(question.len()).unwrap().to_be_bytes(), &question[..]].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(Message::from_vec(&answer).unwrap())
}

/// Below the ports that the system gives to clients, so that few take it before knotd does.
fn free_port(others: &[&str]) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).unwrap();
    for _ in 0..10_000 {
        let port = 20_000 + (start + NEXT.fetch_add(7, Ordering::SeqCst)) % 10_000;
        let free = |ip: &str| TcpListener::bind((ip, port)).is_ok() && UdpSocket::bind((ip, port)).is_ok();
        if free("127.0.0.2") && others.iter().all(|ip| free(ip)) {
            return port;
        }
    }
    panic!("no free port");
}

/// Says visibly that a test did not run: cargo shows only the output of tests that fail, so this goes to the terminal.
fn skipped(why: &str) {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED: {name}: {why}\n");
    let stderr = std::fs::OpenOptions::new().append(true).open("/dev/stderr");
    if !stderr.is_ok_and(|mut stderr| stderr.write_all(line.as_bytes()).is_ok()) {
        eprint!("{line}");
    }
}
