//! The real executable from outside: what it prints, what it exits with, how it starts and stops.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// The executable with nothing of the outside in its environment, in a directory of its own.
fn relais(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
    command.current_dir(dir).env_clear().env("HOME", dir).env("STATE_DIRECTORY", dir.join("state"));
    command.env("RUNTIME_DIRECTORY", dir.join("run")).env("PATH", "/usr/bin:/bin");
    command
}

/// The same in a network of its own, where every port is free. It takes root and iproute2.
fn alone(command: &mut Command) -> Command {
    let mut outer = Command::new("unshare");
    outer.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).arg(command.get_program());
    outer.args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        outer.current_dir(dir).env_clear();
    }
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stderr(Stdio::null());
    outer
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

const GOOD: &str = r#"
[metrics]
address = false
[listener.http]
address = "127.0.0.1:0"
protocol = "http"
redirect = false
[sites]
dijon = 1
thory = 2
[service.api]
hosts = ["api.example"]
[service.api.backends]
dijon = ["127.0.0.1:9"]
thory = ["127.0.0.1:10"]
"#;

/// A daemon that is killed with its test.
struct Daemon {
    child: Child,
    dir: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Started, and answering its admin socket.
    fn start(dir: &Path, config: &Path) -> Daemon {
        Daemon::start_with(dir, config, &[])
    }

    fn start_with(dir: &Path, config: &Path, more: &[&str]) -> Daemon {
        let mut command = relais(dir);
        command.args(["run", "--config"]).arg(config).args(more);
        Daemon::run(command, dir)
    }

    fn run(mut command: Command, dir: &Path) -> Daemon {
        command.stdout(Stdio::null()).stderr(std::fs::File::create(dir.join("log")).unwrap());
        let mut daemon = Daemon { child: command.spawn().unwrap(), dir: dir.to_owned() };
        daemon.until("answers", |daemon| daemon.cli(&["status"]).0 != Some(3));
        daemon
    }

    fn cli(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        output(relais(&self.dir).args(arguments))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap()
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Daemon) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "waited in vain: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Its exit code, once it has ended by itself.
    fn ended(mut self) -> Option<i32> {
        let mut code = None;
        self.until("ends", |daemon| {
            code = daemon.child.try_wait().unwrap().map(|status| status.code());
            code.is_some()
        });
        code.unwrap()
    }
}

#[test]
fn check_tells_every_mistake_with_its_place_and_exits_1() {
    let dir = tempfile::tempdir().unwrap();
    let text = GOOD.replace("hosts", "hostz").replace("thory = [", "thorry = [");
    let (code, _, stderr) = output(relais(dir.path()).arg("check").arg(write(dir.path(), "bad.toml", &text)));
    assert_eq!(code, Some(1), "{stderr}");
    for part in ["bad.toml:12:", "hostz", "did you mean", "thorry", "error"] {
        assert!(stderr.contains(part), "no {part} in\n{stderr}");
    }
    assert!(!stderr.contains('\x1b'), "no colour without a terminal");
}

#[test]
fn check_sums_up_a_good_file_and_exits_0() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "proxy.toml", GOOD);
    let (code, stdout, stderr) = output(relais(dir.path()).arg("check"));
    assert_eq!(code, Some(0), "{stderr}");
    for part in ["api: 2 backends on 2 sites", "survives: any 1 site", "times of api", "proxy.toml: good"] {
        assert!(stdout.contains(part), "no {part} in\n{stdout}");
    }
}

#[test]
fn check_finds_a_certificate_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{GOOD}[certificate.api]\ncert = \"api.crt\"\nkey = \"api.key\"\n");
    let (code, _, stderr) = output(relais(dir.path()).arg("check").arg(write(dir.path(), "proxy.toml", &text)));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("api.crt"), "{stderr}");
    let (code, _, stderr) = output(relais(dir.path()).arg("check").arg(write(
        dir.path(),
        "two.toml",
        &text.replace("thory = 2", "thory = \"x\""),
    )));
    assert_eq!(code, Some(1), "{stderr}");
    for part in ["two.toml:10:9", "two.toml:17:8", "cert = \"api.crt\"", "two.toml:18:7", "3 errors"] {
        assert!(stderr.contains(part), "no {part} in\n{stderr}");
    }
}

#[test]
fn without_a_config_file_the_places_are_named() {
    let dir = tempfile::tempdir().unwrap();
    if Path::new("/etc/relais/proxy.toml").exists() {
        return;
    }
    for command in ["check", "run"] {
        let (code, _, stderr) = output(relais(dir.path()).arg(command));
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("/etc/relais/proxy.toml") && stderr.contains("--config"), "{stderr}");
    }
}

#[test]
fn usage_errors_exit_2_and_no_daemon_exits_3_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(output(relais(dir.path()).arg("dance")).0, Some(2));
    assert_eq!(output(relais(dir.path()).args(["status", "--json", "--watch"])).0, Some(2));
    for order in [&["status"][..], &["drain", "dijon"], &["reload"], &["stop"], &["log-level"]] {
        let socket = dir.path().join("nobody.sock");
        let (code, _, stderr) = output(relais(dir.path()).args(order).arg("--socket").arg(&socket));
        assert_eq!(code, Some(3), "{order:?}: {stderr}");
        assert!(stderr.contains("nobody.sock") && stderr.contains("relais run"), "{stderr}");
    }
}

#[test]
fn trust_makes_the_local_ca_once_and_says_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (code, first, stderr) = output(relais(dir.path()).arg("trust"));
    assert_eq!(code, Some(0), "{stderr}");
    let root = dir.path().join("state/internal-ca/root.crt");
    assert!(first.contains(root.to_str().unwrap()), "{first}");
    assert!(std::fs::read_to_string(&root).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(first.contains("it was made just now"), "{first}");
    let (_, second, _) = output(relais(dir.path()).arg("trust"));
    assert!(!second.contains("just now"), "{second}");
    let said = |text: &str, word: &str| text.lines().find(|line| line.starts_with(word)).unwrap().to_owned();
    assert_eq!(said(&first, "fingerprint"), said(&second, "fingerprint"), "the same CA, not a new one");
}

/// An edge with a socket and a state directory of its own: only its file says where.
fn elsewhere(dir: &Path) -> (PathBuf, Daemon) {
    let own = "[edge]\nstate_dir = \"own-state\"\n[admin]\nsocket = \"own.sock\"\n";
    let tls = "[listener.https]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n";
    let text = GOOD.replace("api.example", "localhost");
    let config = write(dir, "edge.toml", &format!("{own}{tls}{text}"));
    let mut command = relais(dir);
    command.args(["run", "--config"]).arg(&config).stdout(Stdio::null());
    command.stderr(std::fs::File::create(dir.join("log")).unwrap());
    let mut daemon = Daemon { child: command.spawn().unwrap(), dir: dir.to_owned() };
    daemon.until("answers", |daemon| daemon.cli(&["status", "--config", "edge.toml"]).0 != Some(3));
    (config, daemon)
}

#[test]
fn commands_find_the_edge_by_its_file_even_when_that_was_just_broken() {
    let dir = tempfile::tempdir().unwrap();
    let (config, daemon) = elsewhere(dir.path());
    assert_eq!(daemon.cli(&["log-level"]).0, Some(3), "no file here says where");
    let text = std::fs::read_to_string(&config).unwrap();
    write(dir.path(), "proxy.toml", &text);
    assert_eq!(daemon.cli(&["log-level"]).0, Some(0), "./proxy.toml says where");
    write(dir.path(), "proxy.toml", &format!("{text}[[[ broken = "));
    assert_eq!(daemon.cli(&["log-level"]).0, Some(0), "mistakes elsewhere in it do not matter");
    let (code, _, stderr) = daemon.cli(&["--socket", "nobody.sock", "log-level", "--config", "edge.toml"]);
    assert_eq!(code, Some(3), "what is typed wins over the file: {stderr}");
    let (code, _, stderr) = daemon.cli(&["log-level", "--config", "gone.toml"]);
    assert!(code == Some(1) && stderr.contains("cannot read gone.toml"), "{stderr}");
    assert_eq!(daemon.cli(&["stop"]).0, Some(0));
    let (code, _, stderr) = daemon.cli(&["log-level"]);
    assert!(code == Some(3) && stderr.contains("own.sock") && stderr.contains("which proxy.toml names"), "{stderr}");
}

#[test]
fn trust_tells_of_the_ca_that_the_running_edge_uses() {
    let dir = tempfile::tempdir().unwrap();
    let (_, daemon) = elsewhere(dir.path());
    let (code, stdout, stderr) = daemon.cli(&["trust", "--config", "edge.toml"]);
    assert_eq!(code, Some(0), "{stderr}");
    let root = dir.path().join("own-state/internal-ca/root.crt").canonicalize().unwrap();
    assert!(stdout.contains(root.to_str().unwrap()) && stdout.contains("of the running relais"), "{stdout}");
    let (_, stdout, _) = daemon.cli(&["trust", "--config", "edge.toml", "--state-dir", "other"]);
    assert!(stdout.starts_with("NOT the local CA of the running relais") && stdout.contains("other/"), "{stdout}");
    assert_eq!(daemon.cli(&["stop", "--config", "edge.toml"]).0, Some(0));
    let (_, stdout, _) = daemon.cli(&["trust", "--config", "edge.toml"]);
    assert!(stdout.contains("no relais answers") && stdout.contains("own-state/internal-ca/root.crt"), "{stdout}");
}

#[test]
fn what_is_missing_is_told_with_help_that_fits() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = output(relais(dir.path()).args(["certs", "import", "nowhere"]));
    assert!(code == Some(1) && stderr.contains("/var/lib/caddy") && !stderr.contains("sudo"), "{stderr}");
    let (code, _, stderr) = output(relais(dir.path()).args(["check", "gone.toml"]));
    assert!(code == Some(1) && stderr.contains("gone.toml") && !stderr.contains("--config"), "{stderr}");
}

#[test]
fn the_shipped_file_starts_as_it_is_and_stops_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml");
    let mut command = relais(dir.path());
    let daemon = if alone(&mut Command::new("true")).status().is_ok_and(|status| status.success()) {
        Daemon::run(alone(command.args(["run", "--config"]).arg(shipped)), dir.path())
    } else {
        // Any program of this machine may have its ports: others then, all else as it is.
        let text = std::fs::read_to_string(&shipped).unwrap();
        let text = [":8080\"", ":8443\"", ":9180\""].iter().fold(text, |text, port| text.replace(port, ":0\""));
        Daemon::start(dir.path(), &write(dir.path(), "proxy.toml", &text))
    };
    let (code, stdout, stderr) = daemon.cli(&["status"]);
    assert!(matches!(code, Some(0 | 4 | 5)), "{stdout}{stderr}");
    assert!(stdout.contains("relais ") && stdout.contains("SERVICE"), "{stdout}");
    daemon.signal("-TERM");
    assert_eq!(daemon.ended(), Some(0));
}

#[test]
fn orders_reach_a_running_edge_and_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let config = write(dir.path(), "proxy.toml", GOOD);
    let mut daemon = Daemon::start(dir.path(), &config);
    daemon.until("both backends are down", |daemon| daemon.cli(&["status"]).0 == Some(5));
    let (code, stdout, stderr) = daemon.cli(&["drain", "dijon", "--wait", "--reason", "fibre works"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("nothing in flight"), "{stdout}");
    let (_, stdout, _) = daemon.cli(&["status"]);
    assert!(stdout.contains("draining") && stdout.contains("fibre works"), "{stdout}");
    let (code, _, stderr) = daemon.cli(&["disable", "dijn"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("dijon"), "the nearest name is suggested: {stderr}");
    let (_, json, _) = daemon.cli(&["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["report"]["sites"][0]["admin"], "draining");
    assert_eq!(daemon.cli(&["log-level", "debug"]).0, Some(0));
    assert_eq!(daemon.cli(&["log-level"]).1.trim(), "debug");
    assert_eq!(daemon.cli(&["log-level", "loud"]).0, Some(1));
    write(dir.path(), "proxy.toml", &GOOD.replace("hosts", "hostz"));
    let (code, _, stderr) = daemon.cli(&["reload"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("hostz"), "{stderr}");
    let (code, stdout, stderr) = daemon.cli(&["stop"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("stopped"), "{stdout}");
    assert_eq!(daemon.ended(), Some(0));
}

#[test]
fn a_broken_file_is_refused_at_start_unless_the_last_good_one_may_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let config = write(dir.path(), "proxy.toml", GOOD);
    let daemon = Daemon::start(dir.path(), &config);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended(), Some(0));
    write(dir.path(), "proxy.toml", "garbage");
    let (code, _, stderr) = output(relais(dir.path()).args(["run", "--config"]).arg(&config));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("--last-good"), "the way out is named: {stderr}");
    let mut daemon = Daemon::start_with(dir.path(), &config, &["--last-good"]);
    assert!(daemon.cli(&["status"]).1.contains("api.example"), "serves what was in force");
    daemon.until("the alarm", |daemon| daemon.cli(&["status"]).1.contains("proxy.toml:1"));
}

#[test]
fn a_port_in_use_is_named_with_the_way_to_find_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let text = GOOD.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let config = write(dir.path(), "proxy.toml", &text);
    let (code, _, stderr) = output(relais(dir.path()).args(["run", "--config"]).arg(config));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&format!("127.0.0.1:{port} is in use")) && stderr.contains("ss -ltnp"), "{stderr}");
}

#[test]
fn demo_once_tells_the_story_and_its_verdict_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) =
        output(relais(dir.path()).args(["demo", "--once", "--port", "0"]).env("TMPDIR", dir.path()));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("failed               0"), "{stdout}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_second_edge_is_told_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let config = write(dir.path(), "proxy.toml", GOOD);
    let daemon = Daemon::start(dir.path(), &config);
    let (code, _, stderr) = output(relais(dir.path()).args(["run", "--config"]).arg(&config));
    assert_eq!(code, Some(1), "{stderr}");
    let first = format!("relais runs here already: pid {}", daemon.child.id());
    assert!(stderr.contains(&first) && !stderr.contains("WARN") && !stderr.contains("ERROR"), "{stderr}");
    assert_eq!(daemon.cli(&["log-level"]).0, Some(0), "the first one is untouched");
}

/// Takes every connection and ends it, until it is dropped: then nobody listens there.
struct Taking {
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Taking {
    fn at(ip: &str) -> Taking {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                if listener.accept().is_err() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Taking { address, stop, thread: Some(thread) }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn an_order_that_leaves_nobody_is_followed_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    // Addresses nobody else listens at: the first one's port is to stay free.
    let [first, second] = ["127.0.71.1", "127.0.71.2"].map(Taking::at);
    let (one, two) = (&first.address, &second.address);
    let text = GOOD.replace("127.0.0.1:9\"", &format!("{one}\"")).replace("127.0.0.1:10\"", &format!("{two}\""));
    let config = write(dir.path(), "proxy.toml", &text);
    let mut daemon = Daemon::start(dir.path(), &config);
    daemon.until("both are up", |daemon| daemon.cli(&["status"]).0 == Some(0));
    let (code, _, stderr) = daemon.cli(&["drain", "dijon"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "thory is left");
    let (code, stdout, stderr) = daemon.cli(&["disable", "thory"]);
    assert!(code == Some(0) && stdout.starts_with("thory: disabled"), "{stdout}{stderr}");
    let at_once = "warning: service api has no backend left: its requests get 503 at once, or its maintenance page\n";
    assert_eq!(stderr, at_once);
    let (_, _, stderr) = daemon.cli(&["enable", "thory"]);
    assert_eq!(stderr, "");
    // Who is down may come back, and is waited for.
    daemon.until("thory is up", |daemon| daemon.cli(&["status"]).1.contains("thory (tier 2)"));
    daemon.cli(&["enable", "dijon"]);
    drop(first);
    daemon.until("dijon is down", |daemon| daemon.cli(&["status"]).0 == Some(4));
    let (_, _, stderr) = daemon.cli(&["drain", "thory"]);
    assert!(stderr.contains("its requests wait a moment for one that is down, then get 503"), "{stderr}");
    daemon.cli(&["enable", "thory"]);
    write(dir.path(), "proxy.toml", &text.replace("hosts =", "fail_open = true\nhosts ="));
    let (code, _, stderr) = daemon.cli(&["reload"]);
    assert_eq!(code, Some(0), "{stderr}");
    let (_, _, stderr) = daemon.cli(&["drain", "thory"]);
    let tried =
        "warning: service api has no backend left: its requests go to those that are down at once (`fail_open`)\n";
    assert_eq!(stderr, tried);
    let (_, shown, _) = daemon.cli(&["status"]);
    assert!(shown.contains("nobody up, all are tried (fail_open)"), "{shown}");
}
