//! The executable under test: a directory of its own, ports of its own, and an end with the test.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::raw::Addressed;
pub(crate) use super::setup::Setup;
use super::setup::spawn;
use super::wire::{Conn, Head};
use super::{PATIENCE, until, wait_for};

/// A running edge; killed when it goes out of scope. When the test fails its log is printed.
pub(crate) struct Edge {
    pub(super) child: Child,
    pub(crate) config: PathBuf,
    pub(super) log: PathBuf,
    pub(super) dir: TempDir,
    pub(crate) shell: Option<String>,
    pub(super) state: PathBuf,
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("--- the end of the edge's log ---");
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

impl Edge {
    #[track_caller]
    pub(super) fn wait_until_ready(&mut self) {
        let socket = self.socket();
        let child = &mut self.child;
        wait_for("the edge answers its admin socket", || {
            if let Some(status) = child.try_wait().unwrap() {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                panic!("the edge ended with {status}:\n{log}");
            }
            UnixStream::connect(&socket).is_ok()
        });
        // The line comes after every listener accepts.
        let listeners = self.status()["listeners"].as_array().map_or(0, Vec::len);
        wait_for("the edge listens", || self.listening().len() >= listeners);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.state.clone()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// Everything logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Log lines, as JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a log line.
    #[track_caller]
    pub(crate) fn line(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.lines().into_iter().find(|line| fits(line)))
    }

    /// The access line of a request.
    #[track_caller]
    pub(crate) fn access(&self, request_id: &str) -> Value {
        self.line(&format!("the access line of {request_id}"), |line| {
            line["target"] == "access" && line["request_id"] == request_id
        })
    }

    /// The access line of the only request with this path.
    #[track_caller]
    pub(crate) fn access_to(&self, path: &str) -> Value {
        self.line(&format!("the access line of {path}"), |line| line["target"] == "access" && line["path"] == path)
    }

    /// (listener, address) of every address listened on since the last start.
    fn listening(&self) -> Vec<(String, SocketAddr)> {
        let line = |line: &Value| {
            let listener = line["listener"].as_str()?.to_owned();
            let address = line["address"].as_str()?.parse().ok()?;
            (line["message"] == "listening").then_some((listener, address))
        };
        let mut found: Vec<(String, SocketAddr)> = self.lines().iter().filter_map(line).collect();
        // After a restart the log holds the lines of both lives: the later ones count.
        found.reverse();
        found
    }

    /// The address of a listener, as bound.
    #[track_caller]
    pub(crate) fn address_of(&self, listener: &str) -> SocketAddr {
        let found = self.listening();
        found.iter().find(|(name, _)| name == listener).unwrap_or_else(|| panic!("no {listener} in {found:?}")).1
    }

    /// The plain listener.
    #[track_caller]
    pub(crate) fn http(&self) -> SocketAddr {
        self.address_of("http")
    }

    #[track_caller]
    pub(crate) fn https(&self) -> SocketAddr {
        self.address_of("https")
    }

    /// A connection to the plain listener.
    #[track_caller]
    pub(crate) fn connect(&self) -> Conn {
        Conn::to(self.http())
    }

    /// Status and body of one order or question to the admin socket.
    #[track_caller]
    pub(crate) fn admin(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.try_admin(method, path, body).unwrap()
    }

    pub(crate) fn try_admin(&self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: relais\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        assert!(!chunked, "admin answers have a length");
        Ok((status, body.to_owned()))
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let (code, body) = self.admin("GET", "/status", "");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// What is believed of a backend.
    #[track_caller]
    pub(crate) fn backend(&self, address: &dyn Addressed) -> Value {
        let address = address.address();
        let status = self.status();
        let services = status["report"]["services"].as_array().unwrap();
        let backends = services.iter().flat_map(|service| service["backends"].as_array().unwrap());
        backends
            .clone()
            .find(|backend| backend["address"] == address.as_str())
            .unwrap_or_else(|| panic!("no backend {address}"))
            .clone()
    }

    #[track_caller]
    pub(crate) fn wait_for_health(&self, backend: &dyn Addressed, health: &str) {
        wait_for(&format!("{} is {health}", backend.address()), || self.backend(backend)["health"] == health);
    }

    /// Gives the operator's word about a site or a backend.
    #[track_caller]
    pub(crate) fn order(&self, word: &str, target: &str) -> Value {
        let body = serde_json::json!({ "target": target, "word": word, "reason": null }).to_string();
        let (code, answer) = self.admin("POST", "/admin", &body);
        assert_eq!(code, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// Saves the config as a careful editor does: a new file, renamed over the old one.
    pub(crate) fn save(&self, text: &str) {
        let new = self.dir.path().join(".proxy.toml.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.config).unwrap();
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(&self.config).unwrap()
    }

    /// Has the file read again; the verdict and its HTTP status.
    #[track_caller]
    pub(crate) fn reload(&self) -> (u16, Value) {
        let (code, body) = self.admin("POST", "/reload", "");
        (code, serde_json::from_str(&body).unwrap())
    }

    /// Saves the config and waits until it is in force; the watcher may be faster than the order.
    #[track_caller]
    pub(crate) fn apply(&self, text: &str) {
        self.save(text);
        let (code, verdict) = self.reload();
        assert_eq!(code, 200, "{verdict}");
    }

    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        let (code, body) = self.admin("GET", "/metrics", "");
        assert_eq!(code, 200, "{body}");
        body
    }

    /// The value of one sample, 0 when it is not there.
    #[track_caller]
    pub(crate) fn sample(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics();
        let fits = |line: &&str| {
            line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label))
        };
        text.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Runs a command of the executable against this edge.
    pub(crate) fn cli(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
        command.args(arguments).arg("--socket").arg(self.socket()).current_dir(self.dir.path());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.dir.path());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    pub(crate) fn signal(&self, name: &str) {
        send_signal(name, self.pid());
    }

    /// `kill -9` and start again with the same files.
    #[track_caller]
    pub(crate) fn crash_and_restart(&mut self) {
        self.crash();
        self.restart();
    }

    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again with the same files, after its end.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        // The addresses in the log of the first life are no longer true.
        let mut first = self.log.clone();
        first.set_extension(format!("{}", self.pid()));
        std::fs::rename(&self.log, first).unwrap();
        self.child = spawn(self.dir.path(), &self.config, &self.log, &self.state, self.shell.as_deref());
        self.wait_until_ready();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its exit, once it has ended by itself.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the edge ends", || child.try_wait().unwrap())
    }

    /// CPU time used so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// The root certificate of the local CA, PEM.
    pub(crate) fn root(&self) -> PathBuf {
        self.state_dir().join("internal-ca/root.crt")
    }
}

/// Sends a signal by name, as `STOP`.
pub(crate) fn send_signal(name: &str, pid: u32) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// The id a head carries.
#[track_caller]
pub(crate) fn request_id(head: &Head) -> String {
    head.get("x-request-id").expect("a request id").to_owned()
}
