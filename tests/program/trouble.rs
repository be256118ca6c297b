//! Bad input and a machine in trouble: a clear word at the start, and no spinning, crashing or silence later.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::certs::Authority;
use crate::support::edge::Setup;
use crate::support::raw::{Addressed, Plain};
use crate::support::tools::{run, skipped};
use crate::support::wait_for;
use crate::support::wire::{Conn, get};

/// Starts what cannot start; what it says about it.
#[track_caller]
fn refuses(setup: Setup) -> String {
    let mut edge = setup.launch();
    assert_eq!(edge.ended().code(), Some(1));
    edge.log()
}

#[test]
fn an_empty_file_is_told_what_is_missing() {
    let said = refuses(Setup::file(""));
    assert!(said.contains("proxy.toml") && said.contains("service"), "{said}");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind((crate::support::own_ip(), 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let listener = format!("[listener.http]\naddress = \"{address}\"\nprotocol = \"http\"\nredirect = false\n");
    let said = refuses(Setup::to(&[&address]).listening(&listener));
    assert!(said.contains(&address.to_string()) && said.contains("in use"), "{said}");
}

#[test]
fn a_second_edge_on_the_same_port_is_refused_not_joined() {
    let backend = Plain::saying("x");
    let first = Setup::to(&[&backend]).start();
    let listener = format!("[listener.http]\naddress = \"{}\"\nprotocol = \"http\"\nredirect = false\n", first.http());
    let said = refuses(Setup::to(&[&backend]).listening(&listener));
    assert!(said.contains("in use"), "{said}");
    for _ in 0..20 {
        assert_eq!(first.connect().ask(get("/")).status(), 200);
    }
}

fn with_certificate() -> Setup {
    Setup::services("[service.web]\nhosts = [\"one.test\"]\nrespond = { body = \"x\" }\n")
        .listening("[listener.https]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n")
        .and("[certificate.one]\ncert = \"one.pem\"\nkey = \"one.key\"")
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let said = refuses(with_certificate());
    assert!(said.contains("one.pem"), "{said}");

    let setup = with_certificate();
    let (a, b) = (Authority::new().issue(&["one.test"]), Authority::new().issue(&["one.test"]));
    std::fs::write(setup.dir().join("one.pem"), &a.cert).unwrap();
    std::fs::write(setup.dir().join("one.key"), &b.key).unwrap();
    let said = refuses(setup);
    assert!(said.contains("one.key") && said.contains("does not belong"), "{said}");

    let setup = with_certificate();
    std::fs::write(setup.dir().join("one.pem"), &a.cert).unwrap();
    std::fs::write(setup.dir().join("one.key"), "not a key").unwrap();
    let said = refuses(setup);
    assert!(said.contains("one.key"), "{said}");

    let setup = with_certificate();
    std::fs::write(setup.dir().join("one.pem"), &a.cert).unwrap();
    std::fs::create_dir(setup.dir().join("one.key")).unwrap();
    let said = refuses(setup);
    assert!(said.contains("one.key"), "{said}");
}

const CHECKED: &str = "[service.web]\nhosts = [\"*\"]\nhealth = { type = \"exec\", command = [\"check-it\"] }\n\
                       backends = [\"127.0.0.1:9\"]\nupstream.tls = { ca = \"backends.pem\" }\n";

/// What would take a whole service down, or have every handshake with its backends fail.
#[test]
fn programs_and_cas_that_cannot_be_used_are_named() {
    let setup = Setup::services(CHECKED);
    let text = setup.text();
    let place = |of: &str| {
        let (at, line) = text.lines().enumerate().find(|(_, line)| line.contains(of)).unwrap();
        format!("proxy.toml:{}:{}", at + 1, line.find(of).unwrap() + 1)
    };
    let places = ["\"check-it\"", "\"backends.pem\""].map(place);
    let said = refuses(setup);
    for part in [
        "check-it): does not exist",
        "command = [\"check-it\"]",
        "help: correct the path, or put the program there",
        "backends.pem): does not exist",
        "ca = \"backends.pem\"",
        "help: correct the path, or put the file there",
        "2 errors",
    ]
    .into_iter()
    .chain(places.iter().map(String::as_str))
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let setup = Setup::services(CHECKED);
    std::fs::write(setup.dir().join("check-it"), "#!/bin/sh\n").unwrap();
    std::fs::write(setup.dir().join("backends.pem"), "not a certificate").unwrap();
    let said = refuses(setup);
    assert!(said.contains("check-it): is not executable") && said.contains("chmod +x"), "{said}");
    assert!(said.contains("backends.pem): holds no PEM certificate"), "{said}");
}

/// Nothing was in force yet, and one service is not all of them.
#[test]
fn with_last_good_a_first_start_does_without_what_is_missing() {
    let text = format!("{CHECKED}[service.other]\nhosts = [\"b.test\"]\nrespond = {{ body = \"here\" }}\n");
    let edge = Setup::services(&text).under("exec \"$@\" --last-good").start();
    assert_eq!(edge.connect().ask("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").text(), "here");
    let log = edge.log();
    assert!(log.contains("starting without") && log.contains("check-it): does not exist"), "{log}");
}

/// While it runs the file is refused, and the arrival of what was missing is enough. A start without it serves what was in
/// force last.
#[test]
fn a_program_that_goes_or_comes_later_changes_nothing_else() {
    let with = |program: &str| {
        format!(
            "[service.web]\nhosts = [\"*\"]\nrespond = {{ body = \"{program}\" }}\n[service.checked]\nhosts = [\"b.test\"]\n\
             health = {{ type = \"exec\", command = [\"{program}\"] }}\nbackends = [\"127.0.0.1:9\"]\n"
        )
    };
    let make = |dir: &Path, name: &str| {
        let file = dir.join(name);
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    };
    let setup = Setup::services(&with("one")).under("exec \"$@\" --last-good");
    let one = make(setup.dir(), "one");
    let mut edge = setup.start();
    edge.save(&edge.text().replace("\"one\"", "\"two\""));
    let refused = || edge.status()["reload"]["message"].to_string();
    wait_for("the new file is refused", || refused().contains("two): does not exist"));
    assert_eq!(edge.connect().ask(get("/")).text(), "one");
    // Whole at once: a program that is there and cannot be run yet would be refused again.
    let made = make(edge.dir(), "new");
    std::fs::rename(made, edge.dir().join("two")).unwrap();
    wait_for("it is there, and the file in force", || edge.connect().ask(get("/")).text() == "two");
    wait_for("it is on disk", || edge.status()["store"]["unsaved"] == 0);
    edge.crash();
    std::fs::remove_file(one).unwrap();
    std::fs::remove_file(edge.dir().join("two")).unwrap();
    edge.restart();
    assert_eq!(edge.connect().ask(get("/")).text(), "two");
    assert!(edge.log().contains("two): does not exist"), "{}", edge.log());
}

#[test]
fn a_backend_whose_name_is_unknown_is_down_and_the_rest_serves() {
    let backend = Plain::saying("x");
    let nowhere = "nowhere.invalid:80".to_owned();
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nbackends = [\"{nowhere}\", \"{}\"]\n",
        backend.address()
    ))
    .start();
    for _ in 0..20 {
        assert_eq!(edge.connect().ask(get("/")).status(), 200);
    }
    edge.wait_for_health(&nowhere, "down");
    let why = edge.backend(&nowhere)["why"].as_str().unwrap().to_owned();
    assert!(why.contains("resolve"), "{why}");
}

#[test]
fn a_low_port_without_permission_tells_the_ways_out() {
    let lowest: u16 =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap().trim().parse().unwrap();
    if lowest <= 443 {
        skipped("every user may use low ports on this machine");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("proxy.toml");
    let text = "[metrics]\naddress = false\n[listener.http]\naddress = \"127.0.0.1:443\"\nprotocol = \"http\"\nredirect = false\n\
                [service.web]\nhosts = [\"*\"]\nrespond = { body = \"x\" }\n";
    std::fs::write(&config, text).unwrap();
    let executable = env!("CARGO_BIN_EXE_relais");
    let root = run(Command::new("id").arg("-u")).stdout.trim() == "0";
    let mut command = if root {
        if !Path::new("/usr/bin/setpriv").exists() {
            skipped("runs as root and needs Debian package util-linux (setpriv) to be somebody else");
            return;
        }
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
        command.arg(executable);
        open_to_all(place.path());
        command
    } else {
        Command::new(executable)
    };
    command.env_clear().args(["run", "--config"]).arg(&config);
    command.arg("--state-dir").arg(place.path().join("state")).arg("--socket").arg(place.path().join("admin.sock"));
    let ran = run(&mut command);
    if ran.stderr.contains("failed to execute") {
        skipped("runs as root, and other users cannot reach the executable");
        return;
    }
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    for part in ["127.0.0.1:443", "setcap", "AmbientCapabilities"] {
        assert!(ran.stderr.contains(part), "no {part} in {}", ran.stderr);
    }
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn without_file_descriptors_it_pauses_and_recovers() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend])
        .and("[edge.limit]\nconnections = 1000\n[edge.timeout]\nhandshake = \"1h\"\nheaders = \"1h\"")
        .under("ulimit -n 64; exec \"$@\"")
        .start();
    let mut first = edge.connect();
    assert_eq!(first.ask(get("/before")).status(), 200);
    let crowd: Vec<Conn> = (0..150)
        .map(|_| {
            let mut conn = edge.connect();
            let _ = conn.try_send("GET / HT");
            conn
        })
        .collect();
    edge.line("the pause is told", |line| line["message"].to_string().contains("accept failed"));
    // It waits, it does not spin. This is the one place where time itself is the matter.
    let before = edge.cpu();
    std::thread::sleep(Duration::from_secs(1));
    let used = edge.cpu() - before;
    assert!(used < Duration::from_millis(500), "{used:?} of CPU in a second of waiting");
    let complaints = edge.log().matches("accept failed").count();
    assert!(complaints < 20, "{complaints} lines about it");
    // Those who are in are served on.
    let status = first.ask(get("/meanwhile")).status();
    assert_eq!(status, 200);
    drop(crowd);
    wait_for("newcomers are served again", || edge.connect().ask(get("/after")).status() == 200);
    assert_eq!(edge.backend(&backend)["failed"], 0, "our own shortage is not held against the backend");
    wait_for("the file can be read again", || !edge.status()["alarms"].to_string().contains("\"config\""));
}

#[test]
fn more_connections_than_allowed_wait_their_turn() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend])
        .and("[edge]\nworkers = 1\n[edge.limit]\nconnections = 4\n[edge.timeout]\nhandshake = \"1h\"\nheaders = \"1h\"")
        .start();
    let mut held: Vec<Conn> = (0..4).map(|_| edge.connect()).collect();
    wait_for("four are in", || edge.sample("relais_connections_open", &[]) >= 4.0);
    let mut fifth = edge.connect();
    fifth.send(get("/fifth"));
    wait_for("the pause is counted", || edge.sample("relais_accept_paused_total", &[]) > 0.0);
    assert_eq!(edge.sample("relais_connections_open", &[]), 4.0);
    assert_eq!(held[0].ask(get("/held")).status(), 200);
    held.clear();
    assert_eq!(fifth.answer().status(), 200);
}

#[test]
fn a_client_that_speaks_nonsense_harms_nobody() {
    let backend = Plain::saying("x");
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"a.test\"]\nhealth = \"off\"\nbackends = [\"{}\"]\n",
        backend.address()
    ))
    .secure()
    .start();
    let nonsense = crate::support::noise(100_000);
    for (n, piece) in nonsense.chunks(2000).enumerate() {
        for address in [edge.http(), edge.https()] {
            let mut conn = Conn::to(address);
            if n % 3 == 0 {
                let _ = conn.try_send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            }
            let _ = conn.try_send(piece);
            if n % 2 == 0 {
                drop(conn);
            } else {
                conn.reset();
            }
        }
    }
    assert_eq!(edge.connect().ask(get("/")).status(), 200);
    assert_eq!(edge.sample("relais_panics_total", &[]), 0.0);
    wait_for("they are all gone", || edge.sample("relais_connections_open", &[]) <= 1.0);
    assert!(TcpStream::connect(edge.https()).is_ok());
}
