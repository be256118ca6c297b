//! Debian's `pebble` and its name server, started for one test with an edge before them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use relais_core::config::Authority;
use relais_tls::acme::Ca;
use relais_tls::acme::client::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::clerk;
use crate::edge::Edge;
use crate::support;

/// How a CA is to behave.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// Reject so many nonces of a hundred.
    pub(crate) bad_nonces: u8,
    /// Accounts need an external one: `kid-1`.
    pub(crate) external: bool,
    /// Validation looks for the edge at ports where nobody is.
    pub(crate) closed: bool,
}

/// The HMAC key of `kid-1`.
pub(crate) const HMAC: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

pub(crate) struct Pebble {
    pub(crate) edge: Edge,
    pub(crate) root: PathBuf,
    pub(crate) directory: String,
    management: SocketAddr,
    manner: Manner,
    dns: SocketAddr,
    /// Where TXT records are set.
    pub(crate) dns_management: SocketAddr,
    ca: Running,
    _names: Running,
    dir: tempfile::TempDir,
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A loopback address no other test uses, and no connection to elsewhere leaves from: a port that was free there a moment
/// ago still is.
fn own_ip() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (n, pid) = (NEXT.fetch_add(1, Relaxed), std::process::id());
    let byte = |value: u32| u8::try_from(value % 250).unwrap() + 1;
    IpAddr::V4(Ipv4Addr::new(127, byte(pid) + 1, byte(pid / 250 + n / 250), byte(n)))
}

/// All are held until the last one is found: who lets go of each at once may get the same one twice.
fn free<const N: usize>(ip: IpAddr) -> [SocketAddr; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind((ip, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

impl Pebble {
    /// `None`: not installed, which is said.
    pub(crate) async fn start(manner: Manner) -> Option<Self> {
        if !support::have("pebble", "pebble") {
            return None;
        }
        let edge = Edge::new().await;
        let dir = tempfile::tempdir().unwrap();
        let own = support::Ca::new();
        let ip = own_ip();
        let pair = own.sign(&[&ip.to_string()]);
        pair.put(dir.path(), "pebble");
        let root = dir.path().join("root.pem");
        std::fs::write(&root, &own.pem).unwrap();
        let [listen, management, dns, dns_management] = free(ip);
        let names = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-dns01", &dns.to_string(), "-management", &dns_management.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let names = Running(names.unwrap());
        // Nobody is given ports below 1024.
        let ports = if manner.closed { (1, 2) } else { (edge.http.port(), edge.tls.port()) };
        write_config(dir.path(), listen, management, manner, ports);
        let ca = spawn(dir.path(), dns, manner);
        let directory = format!("https://{listen}/dir");
        let pebble = Self { edge, root, directory, management, manner, dns, dns_management, ca, _names: names, dir };
        pebble.until_there().await;
        Some(pebble)
    }

    async fn until_there(&self) {
        let client = Client::new(Some(&self.root)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let request = Request::get(&self.directory).body(Bytes::new()).unwrap();
            match client.send(request, Duration::from_secs(5)).await {
                Ok(_) => return,
                Err(fault) => assert!(Instant::now() < deadline, "pebble does not start: {fault}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn authority(&self) -> Authority {
        Authority { root: Some(self.root.clone()), ..clerk::authority(self.directory.clone()) }
    }

    pub(crate) fn ca(&self) -> Ca {
        clerk::ca(self.authority())
    }

    pub(crate) fn kill(&mut self) {
        self.ca.0.kill().unwrap();
        self.ca.0.wait().unwrap();
    }

    /// Starts it again where it was; it has forgotten everything.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.ca = spawn(self.dir.path(), self.dns, self.manner);
        self.until_there().await;
    }

    /// The root it signs under: a new one at every start.
    pub(crate) async fn issuing_root(&self) -> CertificateDer<'static> {
        let client = Client::new(Some(&self.root)).unwrap();
        let request = Request::get(format!("https://{}/roots/0", self.management)).body(Bytes::new()).unwrap();
        let answer = client.send(request, Duration::from_secs(20)).await.unwrap();
        CertificateDer::from_pem_slice(answer.body()).unwrap()
    }
}

fn write_config(dir: &Path, listen: SocketAddr, management: SocketAddr, manner: Manner, ports: (u16, u16)) {
    let config = serde_json::json!({"pebble": {
        "listenAddress": listen.to_string(),
        "managementListenAddress": management.to_string(),
        "certificate": dir.join("pebble.pem"),
        "privateKey": dir.join("pebble.key"),
        "httpPort": ports.0,
        "tlsPort": ports.1,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": manner.external,
        "externalAccountMACKeys": {"kid-1": HMAC},
        "domainBlocklist": ["blocked.test"],
    }});
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

fn spawn(dir: &Path, dns: SocketAddr, manner: Manner) -> Running {
    let child = Command::new("pebble")
        .arg("-strict")
        .arg("-config")
        .arg(dir.join("config.json"))
        .args(["-dnsserver", &dns.to_string()])
        .env("PEBBLE_VA_NOSLEEP", "1")
        .env("PEBBLE_AUTHZREUSE", "0")
        .env("PEBBLE_WFE_NONCEREJECT", manner.bad_nonces.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Running(child.unwrap())
}
