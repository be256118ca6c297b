//! Debian's `pebble` and its name server, which says one loopback address for every name, and the config of an edge before them.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::certs::{self, Authority};
use crate::support::edge::Edge;
use crate::support::tools::{curl, have, run};
use crate::support::{own_ip, wait_for};

/// The HMAC key of `kid-1`.
pub(crate) const HMAC: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

pub(crate) struct Pebble {
    dir: tempfile::TempDir,
    /// Further settings.
    manner: &'static [(&'static str, &'static str)],
    /// Accounts need an external one: `kid-1`.
    external: bool,
    ca: Option<Child>,
    _names: Child,
    listen: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
    /// Where the CA looks for the edge.
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
}

/// Ports that were free a moment ago, at an address that no other test uses. All are held until the last one is found: who
/// lets go of each at once may get the same one twice.
fn free<const N: usize>(ip: IpAddr) -> [SocketAddr; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind((ip, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

impl Pebble {
    /// `None`: not installed, which is said.
    pub(crate) fn start() -> Option<Pebble> {
        Pebble::with(&[], false)
    }

    /// One that believes every challenge without looking, for tests of many orders.
    pub(crate) fn trusting() -> Option<Pebble> {
        Pebble::with(&[("PEBBLE_VA_ALWAYS_VALID", "1")], false)
    }

    /// One that rejects thirty nonces of a hundred, and serves only accounts that it was told of.
    pub(crate) fn reluctant() -> Option<Pebble> {
        Pebble::with(&[("PEBBLE_WFE_NONCEREJECT", "30")], true)
    }

    fn with(manner: &'static [(&'static str, &'static str)], external: bool) -> Option<Pebble> {
        if !have("pebble", "pebble") || !have("pebble-challtestsrv", "pebble") || !have("curl", "curl") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let own = Authority::new();
        let ip = own_ip();
        own.issue(&[&ip.to_string()]).write(dir.path(), "pebble");
        std::fs::write(dir.path().join("root.pem"), &own.root).unwrap();
        let [dns, names_management, listen, management, http, https] = free(ip);
        let names = Command::new("pebble-challtestsrv")
            .args([
                "-defaultIPv4",
                &ip.to_string(),
                "-defaultIPv6",
                "",
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
            ])
            .args(["-dns01", &dns.to_string(), "-management", &names_management.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut pebble =
            Pebble { dir, manner, external, ca: None, _names: names, listen, management, dns, http, https };
        pebble.validate_at(http.port(), https.port());
        pebble.again();
        Some(pebble)
    }

    /// Where it looks for the edge from its next start on.
    pub(crate) fn validate_at(&self, http: u16, https: u16) {
        let config = serde_json::json!({ "pebble": {
            "listenAddress": self.listen.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": self.dir.path().join("pebble.pem"),
            "privateKey": self.dir.path().join("pebble.key"),
            "httpPort": http,
            "tlsPort": https,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.external,
            "externalAccountMACKeys": { "kid-1": HMAC },
        } });
        std::fs::write(self.dir.path().join("config.json"), config.to_string()).unwrap();
    }

    /// Starts it, without any memory of what it did before.
    #[track_caller]
    pub(crate) fn again(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let child = Command::new("pebble")
            .args(["-strict", "-config"])
            .arg(self.dir.path().join("config.json"))
            .args(["-dnsserver", &self.dns.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "5")
            .envs(self.manner.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.ca = Some(child);
        wait_for("the CA listens", || std::net::TcpStream::connect(self.listen).is_ok());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut ca) = self.ca.take() {
            ca.kill().unwrap();
            ca.wait().unwrap();
        }
    }

    /// Asks another name server from now on: started again, without any memory.
    #[track_caller]
    pub(crate) fn ask(&mut self, names: SocketAddr) {
        self.kill();
        self.dns = names;
        self.again();
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Orders it took, in all its lives.
    pub(crate) fn orders(&self) -> usize {
        std::fs::read_to_string(self.log()).unwrap_or_default().matches("Added order ").count()
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://{}/dir", self.listen)
    }

    /// The root under which it signs, new with each of its lives.
    pub(crate) fn roots(&self) -> rustls::RootCertStore {
        let root = self.dir.path().join("root.pem");
        let url = format!("https://{}/roots/0", self.management);
        let ran = run(&mut curl(&["--cacert", root.to_str().unwrap(), &url]));
        certs::roots(ran.stdout.as_bytes())
    }

    /// The file of an edge before it: `hosts` of one service, and further lines.
    pub(crate) fn file(&self, hosts: &[&str], more: &str) -> String {
        format!(
            "[edge]\nemail = \"ops@a.fr\"\n[metrics]\naddress = false\n\
             [listener.http]\naddress = \"{}\"\nprotocol = \"http\"\n\
             [listener.https]\naddress = \"{}\"\nprotocol = \"https\"\n\
             [authority.pebble]\ndirectory = \"{}\"\nstaging = \"{}\"\nroot = {:?}\n{more}\n\
             [service.web]\nhosts = {hosts:?}\nrespond = {{ body = \"hello\" }}\n",
            self.http,
            self.https,
            self.directory(),
            self.directory(),
            self.dir.path().join("root.pem"),
        )
    }

    /// What the edge shows for a name; `None`: nothing that this CA signed.
    pub(crate) fn shown(&self, host: &str) -> Option<Vec<u8>> {
        certs::shown(self.https, host, self.roots()).ok()
    }

    /// Waits until the edge serves a name.
    #[track_caller]
    pub(crate) fn wait_for(&self, edge: &Edge, host: &str) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let roots = self.roots();
        loop {
            if let Ok(shown) = certs::shown(self.https, host, roots.clone()) {
                return shown;
            }
            assert!(Instant::now() < deadline, "no certificate for {host}: {}", edge.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.kill();
        let _ = self._names.kill();
        let _ = self._names.wait();
    }
}
