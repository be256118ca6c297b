//! Another executable takes the place of the one that runs: nobody is refused, nothing in flight is lost, what was remembered
//! goes on. And when it cannot, all is as before.

use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use command_fds::{CommandFdExt, FdMapping};

use crate::load::{Connections, Load};
use crate::support::edge::{Edge, Setup, send_signal};
use crate::support::h2::Client;
use crate::support::raw::{Addressed, Plain, Raw};
use crate::support::wire::{Conn, get, ok};
use crate::support::{free_address, until, wait_for};

/// Ends the process that took the place of the one that the test started.
struct Successor(u32);

impl Successor {
    /// Waits until another process than the first answers the admin socket.
    #[track_caller]
    fn of(edge: &Edge, first: u32) -> Successor {
        wait_for("the successor answers the admin socket", || pid(edge).is_some_and(|now| now != first));
        Successor(pid(edge).unwrap())
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        send_signal("KILL", self.0);
    }
}

/// The process that answers the admin socket; `None`: it is changing hands.
fn pid(edge: &Edge) -> Option<u32> {
    let (code, body) = edge.try_admin("GET", "/status", "").ok()?;
    let status: serde_json::Value = serde_json::from_str(&body).ok().filter(|_| code == 200)?;
    u32::try_from(status["process"]["pid"].as_u64()?).ok()
}

/// Clients that ask until they are told to stop, and connect anew for each request; each answer must be whole.
struct Visitors {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Visitors {
    fn of(address: SocketAddr) -> Visitors {
        Visitors::keeping(move |_: &mut Option<()>| assert_eq!(Conn::to(address).ask(get("/")).text(), "x"))
    }

    /// Clients that ask for ten things at once and keep their connection until they are told to leave it. What crosses with that
    /// word was not taken, and they ask for it again.
    fn over_http2(address: SocketAddr) -> Visitors {
        let visit = move |kept: &mut Option<Client>| {
            let client = kept.get_or_insert_with(|| Client::plain(address));
            let mut calls: Vec<_> = std::iter::from_fn(|| client.try_get("/")).take(10).collect();
            let mut goes = calls.len() < 10;
            for call in &mut calls {
                match call.finish() {
                    Ok((body, _)) => assert_eq!(body, b"x"),
                    Err(error) if error.is_go_away() => goes = true,
                    Err(error) => panic!("what was taken is answered: {error}"),
                }
            }
            if goes {
                *kept = None;
            }
        };
        Visitors::keeping(visit)
    }

    fn keeping<T>(visit: impl Fn(&mut Option<T>) + Clone + Send + 'static) -> Visitors {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let one = |_| {
            let (stop, served, visit) = (Arc::clone(&stop), Arc::clone(&served), visit.clone());
            std::thread::spawn(move || {
                let mut kept = None;
                while !stop.load(Relaxed) {
                    visit(&mut kept);
                    served.fetch_add(1, Relaxed);
                }
            })
        };
        let threads = (0..4).map(one).collect();
        Visitors { stop, served, threads }
    }

    /// Waits until so many more were served.
    #[track_caller]
    fn see(&self, more: usize) {
        let goal = self.served.load(Relaxed) + more;
        wait_for("visitors are served", || self.served.load(Relaxed) >= goal || self.gave_up());
        assert!(!self.gave_up(), "a visitor was not served");
    }

    fn gave_up(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    fn stop(self) {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("each answer whole"));
    }
}

const PLAIN: &str = "protocol = \"http\"\nredirect = false\n";

/// Fixed ports, as port 0 would be another one in another process; two services, one of them slow.
fn two_services(quick: &Plain, slow: &Raw) -> (Setup, SocketAddr) {
    let address = free_address();
    let setup = Setup::services(&format!(
        "[service.quick]\nhosts = [\"*\"]\nhealth = \"off\"\nbackends = [\"{}\", \"127.0.0.1:1\"]\n\
         [service.slow]\nhosts = [\"*\"]\npaths = [\"/slow\"]\nhealth = \"off\"\nbackends = [\"{}\"]\n",
        quick.address(),
        slow.address()
    ));
    (setup.listening(&format!("[listener.http]\naddress = \"{address}\"\n{PLAIN}")), address)
}

#[test]
fn an_upgrade_refuses_nobody_and_loses_nothing() {
    let (quick, slow) = (Plain::saying("x"), Raw::new());
    let (setup, address) = two_services(&quick, &slow);
    let mut edge = setup.start();
    edge.order("draining", "quick/127.0.0.1:1");
    let first = edge.pid();
    let visitors = Visitors::of(address);
    let mut waiting = edge.connect();
    waiting.send(get("/slow"));
    let (mut upstream, _) = slow.request();
    visitors.see(20);
    let (code, said, wrong) = edge.cli(&["upgrade"]);
    assert_eq!((code, wrong.as_str()), (Some(0), ""), "{said}");
    let second = Successor::of(&edge, first);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!("pid {} (relais {version}) serves; pid {first} (relais {version}) accepts", second.0);
    assert!(said.contains(&expected), "{said}");
    visitors.see(200);
    // What was asked before is answered by who was asked.
    upstream.send(ok("late"));
    let answer = waiting.answer();
    assert_eq!((answer.text().as_str(), answer.get("connection")), ("late", Some("close")));
    assert!(edge.ended().success());
    visitors.see(200);
    // And once more, from the one that took the place of the first.
    let (code, said, wrong) = edge.cli(&["upgrade"]);
    assert_eq!((code, wrong.as_str()), (Some(0), ""), "{said}");
    let third = Successor::of(&edge, second.0);
    std::mem::forget(second);
    visitors.see(200);
    visitors.stop();
    assert_eq!(edge.backend(&"127.0.0.1:1".parse::<SocketAddr>().unwrap())["admin"], "draining", "the operator's word");
    wait_for("the store works", || edge.status()["store"]["mode"] == "ok" && edge.status()["store"]["unsaved"] == 0);
    assert_eq!(edge.status()["alarms"].as_array().map(Vec::len), Some(0), "{}", edge.status()["alarms"]);
    drop(third);
}

/// Each client asks again at once on the connection it has, until it is told to take another one.
#[test]
fn kept_connections_lose_no_request_of_many() {
    let (quick, slow) = (Plain::saying("x"), Raw::new());
    let (setup, address) = two_services(&quick, &slow);
    let mut edge = setup.start();
    let first = edge.pid();
    let load = Load::start(address, 3, Connections::Kept, get);
    let http2 = Visitors::over_http2(address);
    load.go_on_for(200);
    http2.see(200);
    assert_eq!(edge.cli(&["upgrade"]).0, Some(0));
    let _second = Successor::of(&edge, first);
    assert!(edge.ended().success());
    load.go_on_for(200);
    http2.see(200);
    http2.stop();
    let bad = load.stop().bad;
    assert!(bad.is_empty(), "{bad:?}");
}

/// Each worker has listening sockets of its own.
#[test]
fn a_successor_with_fewer_or_more_workers_refuses_nobody() {
    let (quick, slow) = (Plain::saying("x"), Raw::new());
    let (setup, address) = two_services(&quick, &slow);
    let mut edge = setup.start();
    let (first, file) = (edge.pid(), edge.text());
    let with = |workers| format!("[edge]\nworkers = {workers}\n{file}");
    let visitors = Visitors::of(address);
    visitors.see(50);
    edge.save(&with(1));
    assert_eq!(edge.cli(&["upgrade"]).0, Some(0));
    let second = Successor::of(&edge, first);
    assert!(edge.ended().success());
    visitors.see(200);
    edge.save(&with(3));
    assert_eq!(edge.cli(&["upgrade"]).0, Some(0));
    let third = Successor::of(&edge, second.0);
    std::mem::forget(second);
    visitors.see(200);
    visitors.stop();
    wait_for("each starts with its workers", || {
        let starts = edge.lines().into_iter().filter(|line| line["message"] == "starting");
        let workers: Vec<_> = starts.map(|line| line["workers"].clone()).collect();
        workers.ends_with(&[1.into(), 3.into()])
    });
    drop(third);
}

#[test]
fn a_file_that_is_refused_is_told_and_nothing_changes() {
    let (quick, slow) = (Plain::saying("x"), Raw::new());
    let (setup, _) = two_services(&quick, &slow);
    let edge = setup.start();
    let good = edge.text();
    edge.save(&good.replace("hosts", "hots"));
    let (code, _, wrong) = edge.cli(&["upgrade"]);
    assert_eq!(code, Some(1));
    assert!(wrong.contains("proxy.toml:") && wrong.contains("`hots`"), "{wrong}");
    assert_eq!(pid(&edge), Some(edge.pid()));
    assert_eq!(edge.connect().ask(get("/")).text(), "x");
    assert_eq!(edge.status()["store"]["mode"], "ok");
}

#[test]
fn a_successor_that_cannot_serve_leaves_everything_as_it_was() {
    let (quick, slow) = (Plain::saying("x"), Raw::new());
    let (setup, address) = two_services(&quick, &slow);
    let mut edge = setup.start();
    let visitors = Visitors::of(address);
    // Nothing is wrong with the file, but somebody listens there.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("[listener.more]\naddress = \"{}\"\n{PLAIN}", taken.local_addr().unwrap());
    let good = edge.text();
    edge.save(&format!("{good}{more}"));
    let (code, _, wrong) = edge.cli(&["upgrade"]);
    assert_eq!(code, Some(1));
    assert!(wrong.contains("the successor ended"), "{wrong}");
    assert_eq!(pid(&edge), Some(edge.pid()));
    visitors.see(50);
    visitors.stop();
    // It remembers as before, also what is said only now.
    let answer = edge.order("draining", "quick/127.0.0.1:1");
    assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(0), "{answer}");
    edge.save(&good);
    edge.crash_and_restart();
    assert_eq!(edge.backend(&"127.0.0.1:1".parse::<SocketAddr>().unwrap())["admin"], "draining");
}

#[test]
fn systemd_hears_which_process_is_the_main_one_and_of_no_stop() {
    let backend = Plain::saying("x");
    let setup = Setup::to(&[&backend]);
    let listener = format!("[listener.http]\naddress = \"{}\"\n{PLAIN}", free_address());
    let setup = setup.listening(&listener).under(r#"export NOTIFY_SOCKET="$HOME/notify"; exec "$@""#);
    let systemd = UnixDatagram::bind(setup.dir().join("notify")).unwrap();
    systemd.set_nonblocking(true).unwrap();
    let mut told = String::new();
    let hear = |told: &mut String| {
        let mut bytes = [0; 4096];
        while let Ok(len) = systemd.recv(&mut bytes) {
            told.push_str(&String::from_utf8_lossy(&bytes[..len]));
            told.push('\n');
        }
    };
    let mut edge = setup.start();
    wait_for("it is ready", || {
        hear(&mut told);
        told.contains("READY=1")
    });
    let first = edge.pid();
    edge.signal("USR2");
    let second = Successor::of(&edge, first);
    assert!(edge.ended().success());
    hear(&mut told);
    assert!(told.contains(&format!("MAINPID={}", second.0)) && !told.contains("STOPPING=1"), "{told}");
    send_signal("TERM", second.0);
    wait_for("the stop of the successor is one of the unit", || {
        hear(&mut told);
        told.contains("STOPPING=1")
    });
    std::mem::forget(second);
}

#[test]
fn a_successor_that_dies_before_its_predecessor_has_ended_is_a_failure_that_is_started_again() {
    let (quick, slow) = (Plain::saying("x"), Raw::new());
    let (setup, _) = two_services(&quick, &slow);
    let mut edge = setup.start();
    let first = edge.pid();
    let mut waiting = edge.connect();
    waiting.send(get("/slow"));
    let _upstream = slow.request();
    assert_eq!(edge.cli(&["upgrade"]).0, Some(0));
    drop(Successor::of(&edge, first));
    assert_eq!(edge.ended().code(), Some(1));
    assert!(edge.log().contains("the successor has ended"), "{}", edge.log());
}

/// By the command, which only the successor hears, or by systemd, which tells all processes of the unit.
#[test]
fn a_stop_after_an_upgrade_is_a_stop_of_both_and_what_is_in_flight_finishes() {
    for by_systemd in [false, true] {
        let (quick, slow) = (Plain::saying("x"), Raw::new());
        let (setup, _) = two_services(&quick, &slow);
        let mut edge = setup.start();
        let first = edge.pid();
        let mut waiting = edge.connect();
        waiting.send(get("/slow"));
        let (mut upstream, _) = slow.request();
        assert_eq!(edge.cli(&["upgrade"]).0, Some(0));
        let second = Successor::of(&edge, first);
        let (code, _, wrong) = edge.cli(&["upgrade"]);
        assert!(code == Some(1) && wrong.contains("the process before this one still finishes"), "{wrong}");
        if by_systemd {
            send_signal("TERM", first);
            send_signal("TERM", second.0);
        } else {
            assert_eq!(edge.cli(&["stop"]).0, Some(0));
        }
        edge.line("the first hears of it", |line| {
            line["message"].as_str().is_some_and(|said| said.starts_with("the successor was stopped"))
        });
        std::mem::forget(second);
        upstream.send(ok("late"));
        assert_eq!(waiting.answer().text(), "late");
        assert!(edge.ended().success());
    }
}

/// An edge whose executable is a link.
fn linked(setup: Setup) -> Edge {
    setup.under(r#"ln -s "$1" "$HOME/relais"; shift; exec "$HOME/relais" "$@""#).start()
}

/// From now on the link leads to this shell script.
fn lead_to(edge: &Edge, script: &str) {
    let (executable, other) = (edge.dir().join("relais"), edge.dir().join("other"));
    std::fs::write(&other, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&other, Permissions::from_mode(0o755)).unwrap();
    std::fs::remove_file(&executable).unwrap();
    std::os::unix::fs::symlink(&other, &executable).unwrap();
}

/// It looks at the file and never serves.
const HANGS: &str = "if [ \"$1\" = run ]; then exec sleep 600; fi";

/// The process id of the successor.
fn started(edge: &Edge) -> u32 {
    let line = edge.line("the successor is started", |line| {
        line["message"].as_str().is_some_and(|said| said.ends_with("the successor is started"))
    });
    u32::try_from(line["pid"].as_u64().unwrap()).unwrap()
}

/// Somebody ends it before its time is over.
#[test]
fn a_successor_that_hangs_and_is_killed_before_it_serves_changes_nothing() {
    let (quick, slow) = (Plain::saying("x"), Raw::new());
    let (setup, address) = two_services(&quick, &slow);
    let edge = linked(setup);
    lead_to(&edge, HANGS);
    let visitors = Visitors::of(address);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| edge.cli(&["upgrade"]));
        let successor = started(&edge);
        visitors.see(100);
        send_signal("KILL", successor);
        let (code, _, wrong) = asked.join().unwrap();
        assert!(code == Some(1) && wrong.contains("the successor ended"), "{wrong}");
    });
    visitors.see(100);
    visitors.stop();
    assert_eq!((pid(&edge), edge.status()["store"]["mode"].as_str()), (Some(edge.pid()), Some("ok")));
    let answer = edge.order("draining", "quick/127.0.0.1:1");
    assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(0), "{answer}");
}

/// It would be cut off by what it began behind.
#[test]
fn no_drill_begins_while_the_new_executable_looks_at_the_file() {
    let (quick, slow) = (Plain::saying("x"), Raw::new());
    let (setup, _) = two_services(&quick, &slow);
    let edge = linked(setup);
    lead_to(&edge, r#"touch "$HOME/looks"; while [ ! -e "$HOME/seen" ]; do sleep 0.02; done; exit 1"#);
    let drill = || edge.admin("POST", "/drill", r#"{"site": "nowhere", "seconds": 5}"#);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| edge.cli(&["upgrade"]));
        wait_for("it looks", || edge.dir().join("looks").exists());
        let (code, said) = drill();
        std::fs::write(edge.dir().join("seen"), "").unwrap();
        assert!(code == 409 && said.contains("an upgrade is under way"), "{code} {said}");
        let (code, _, wrong) = asked.join().unwrap();
        assert!(code == Some(1) && wrong.contains("refuses"), "{wrong}");
    });
    let (code, said) = drill();
    assert!(code == 404 && said.contains("there is no site"), "{code} {said}");
}

#[test]
fn a_stop_while_a_successor_starts_ends_both() {
    let (quick, slow) = (Plain::saying("x"), Raw::new());
    let (setup, address) = two_services(&quick, &slow);
    let mut edge = linked(setup);
    lead_to(&edge, HANGS);
    edge.signal("USR2");
    let successor = started(&edge);
    // What is said now it would not know.
    let order = r#"{"target": "quick/127.0.0.1:1", "word": "draining"}"#;
    let (code, said) = edge.admin("POST", "/admin", order);
    assert!(code == 409 && said.contains("an upgrade is under way"), "{code} {said}");
    assert_eq!(edge.connect().ask(get("/")).text(), "x");
    assert_eq!(edge.admin("POST", "/stop", "").0, 202);
    assert!(edge.ended().success());
    let process = format!("/proc/{successor}/stat");
    let lives = || std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z "));
    wait_for("it ends with the one that started it", || !lives());
    assert!(TcpStream::connect(address).is_err(), "somebody listens");
}

/// Killed when it goes out of scope.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_socket_of_a_socket_unit_is_listened_on() {
    let backend = Plain::saying("x");
    let given = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = given.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = format!(
        "[edge]\nworkers = 2\n[metrics]\naddress = false\n[listener.http]\naddress = \"{address}\"\n{PLAIN}\
         [service.web]\nhosts = [\"*\"]\nhealth = \"off\"\nbackends = [\"{}\"]\n",
        backend.address()
    );
    std::fs::write(dir.path().join("proxy.toml"), file).unwrap();
    // Who connects before it runs waits in the socket's queue.
    let mut early = Conn::to(address);
    early.send(get("/early"));
    // A second process gets it when the first has stopped: what that one did with it is over.
    for early in [Some(early), None] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
        command.args(["run", "--config", "proxy.toml", "--state-dir", "state", "--socket", "admin.sock"]);
        command.current_dir(dir.path()).env("LISTEN_FDS", "1").stdout(Stdio::null()).stderr(Stdio::null());
        let parent_fd = OwnedFd::from(given.try_clone().unwrap());
        command.fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }]).unwrap();
        let mut edge = Killed(command.spawn().unwrap());
        drop(command);
        if let Some(mut early) = early {
            assert_eq!(early.answer().text(), "x");
        }
        for _ in 0..20 {
            assert_eq!(Conn::to(address).ask(get("/")).text(), "x");
        }
        send_signal("TERM", edge.0.id());
        let ended = until("it ends", || edge.0.try_wait().unwrap());
        assert!(ended.success());
    }
}
