//! Drills under load: nobody fails, the site is really left alone and comes back, and what goes wrong is told.

use std::collections::HashSet;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::load::{Connections, Load};
use crate::place::Place;
use crate::support::edge::{Edge, Setup, send_signal};
use crate::support::process::Process;
use crate::support::raw::Addressed;
use crate::support::wait_for;
use crate::support::wire::{get, ok, post};

const SITES: &[(&str, u32)] = &[("dijon", 1), ("thory", 1), ("lyon", 2)];

/// A drill that passes shows that the site was left within the contract: on a busy machine that takes a long one, where no
/// check of a living backend is late.
const LONG: &str = "failover_within = \"3s\"";

#[track_caller]
fn nobody_failed(load: Load) {
    let tally = load.stop();
    assert!(tally.bad.is_empty(), "{} of {} failed: {:?}", tally.bad.len(), tally.good, tally.bad.first());
}

/// Runs a drill beside the test; gives back its exit code and what it printed.
fn drilled<T>(place: &Place, arguments: &[&str], meanwhile: impl FnOnce() -> T) -> (Option<i32>, String, T) {
    std::thread::scope(|scope| {
        let drill = scope.spawn(|| place.edge.cli(&[&["drill", "site"], arguments].concat()));
        let seen = meanwhile();
        let (code, out, err) = drill.join().unwrap();
        (code, out + &err, seen)
    })
}

/// As long as it was told, or some seconds longer on a busy machine.
#[track_caller]
fn was_cut_for(least: f64, shape: &str, told: &str) {
    let words = format!("dijon was cut ({shape}) for ");
    let (_, rest) = told.split_once(&words).unwrap_or_else(|| panic!("no {words:?} in\n{told}"));
    let seconds = rest.split(' ').next().and_then(|word| word.parse::<f64>().ok());
    assert!(seconds.is_some_and(|seconds| (least..least + 15.0).contains(&seconds)), "{seconds:?} s:\n{told}");
}

#[test]
fn a_silent_drill_fails_nobody_and_really_cuts_the_site() {
    let place = Place::new(SITES, LONG);
    let kept = Load::start(place.edge.http(), 6, Connections::Kept, get);
    let fresh = Load::start(place.edge.http(), 2, Connections::Fresh, get);
    kept.go_on_for(300);
    let before = place.seen("dijon");
    assert!(before > 50, "the site has its share of the load: {before}");
    let (code, told, ()) = drilled(&place, &["dijon", "--for", "7s"], || {
        place.wait_until_cut("dijon");
        place.wait_until_left("dijon");
        let (cut, others) = (place.seen("dijon"), place.seen("thory"));
        let mut steps = 0;
        while steps < 10 {
            kept.go_on_for(50);
            let now = place.seen("dijon");
            // On a busy machine it may be over by then.
            if place.drill()["until"].is_null() || !place.drill()["ended"].is_null() {
                break;
            }
            assert_eq!(now, cut, "neither requests nor checks reach it");
            steps += 1;
        }
        assert!(steps > 0 && place.seen("thory") > others, "{steps} steps");
    });
    assert_eq!(code, Some(0), "{told}");
    for part in ["PASSED: dijon can be lost", "1 of 1 service kept", "web"] {
        assert!(told.contains(part), "no {part} in\n{told}");
    }
    was_cut_for(7.0, "silent", &told);
    place.all_up();
    let back = place.seen("dijon");
    wait_for("the site serves again", || place.seen("dijon") > back + 50);
    nobody_failed(kept);
    nobody_failed(fresh);
    let record = place.drill();
    let service = &record["services"][0];
    assert!(record["done"] == true && record["problems"].as_array().unwrap().is_empty(), "{record:#}");
    assert!(service["moved"].as_u64().unwrap() > 0, "{record:#}");
    assert!(
        service["declared_micros"].as_u64().is_some() && record["returned_micros"].as_u64().is_some(),
        "{record:#}"
    );
    assert_eq!(place.edge.sample("relais_requests_lost_total", &["service=\"web\""]), 0.0);
    assert_eq!(place.edge.sample("relais_failover_seconds_count", &["service=\"web\""]), 1.0);
    assert_eq!(place.edge.sample("relais_failover_contract_seconds", &["service=\"web\""]), 3.0);
    let (code, told, _) = place.edge.cli(&["history"]);
    assert_eq!(code, Some(0));
    assert!(told.contains("passed") && told.contains("drill: "), "{told}");
}

#[test]
fn refused_and_slow_drills_fail_nobody_either() {
    let place = Place::new(SITES, LONG);
    for shape in ["refused", "slow"] {
        let load = Load::start(place.edge.http(), 6, Connections::Kept, get);
        load.go_on_for(200);
        let (code, told, ()) = drilled(&place, &["dijon", "--shape", shape, "--for", "6s"], || {
            place.wait_until_cut("dijon");
            if shape == "refused" {
                place.wait_until_left("dijon");
            }
            load.go_on_for(100);
        });
        assert_eq!(code, Some(0), "{told}");
        was_cut_for(6.0, shape, &told);
        place.all_up();
        nobody_failed(load);
    }
}

/// Two processes at dijon and two at thory, all of them up.
fn processes() -> (Edge, Vec<Process>) {
    let backends: Vec<Process> = (0..4).map(|_| Process::start()).collect();
    let list = |which: &[Process]| which.iter().map(|p| format!("{:?}", p.address())).collect::<Vec<_>>().join(", ");
    let edge = Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 1\n[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\n{LONG}\n[service.web.backends]\n\
         dijon = [{}]\nthory = [{}]\n",
        list(&backends[..2]),
        list(&backends[2..])
    ))
    .start();
    for backend in &backends {
        edge.wait_for_health(backend, "up");
    }
    (edge, backends)
}

/// A POST that waits at the cut site is told at once, and never executed a second time.
#[test]
fn no_post_is_executed_twice_in_a_drill() {
    let (edge, backends) = processes();
    let load = Load::start(edge.http(), 6, Connections::Kept, |path| post(path, "once"));
    load.go_on_for(200);
    let (code, out, err) = edge.cli(&["drill", "site", "dijon", "--for", "6s"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let tally = load.stop();
    let told = |bad: &String| bad.ends_with(": 502") || bad.ends_with(": 504");
    assert!(tally.bad.iter().all(told), "{:?}", tally.bad);
    let executed: Vec<String> = backends.iter().flat_map(Process::executed).collect();
    let once: HashSet<&String> = executed.iter().collect();
    assert_eq!(executed.len(), once.len(), "executed twice");
    assert!(once.len() >= tally.good);
}

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A WebSocket of the cut site is closed with 1012, so that the client comes back elsewhere.
#[test]
fn streams_of_the_cut_site_are_told() {
    for shape in ["silent", "refused"] {
        let place = Place::answering(&[("dijon", 1), ("thory", 2)], LONG, |_| YES.as_bytes().to_vec());
        let mut client = place.edge.connect();
        client.send(ASK);
        assert_eq!(client.head().status(), 101);
        let (code, told, ()) = drilled(&place, &["dijon", "--shape", shape, "--for", "6s"], || {
            let last = client.rest();
            // A broken connection ends the stream by itself; a silent one must be ended.
            assert!(shape == "refused" || last == [0x88, 2, 0x03, 0xf4], "close frame 1012, not {last:?}");
        });
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(place.drill()["services"][0]["told"], 1, "{}", place.drill());
    }
}

#[test]
fn a_drill_is_refused_where_it_would_hurt_or_makes_no_sense() {
    let place = Place::new(&[("dijon", 1)], "");
    let refused = |arguments: &[&str], code: i32, parts: &[&str]| {
        let (got, out, err) = place.edge.cli(&[&["drill", "site"], arguments].concat());
        assert_eq!(got, Some(code), "{out}{err}");
        for part in parts {
            assert!(err.contains(part), "no {part} in\n{err}");
        }
    };
    refused(&["dijon"], 1, &["web would have no backend", "--force"]);
    refused(&["paris"], 1, &["there is no site `paris`", "sites: dijon"]);
    refused(&["dijon", "--force", "--for", "1s"], 1, &["2 s (two contracts)"]);
    refused(&["dijon", "--for", "soon"], 2, &["write a time"]);
    refused(&["dijon", "--shape", "loud"], 2, &["silent", "refused", "slow"]);
    refused(&[], 2, &["<SITE>"]);
    assert!(place.drill().is_null());
    let (code, body) = place.edge.admin("DELETE", "/drill", "");
    assert_eq!(code, 409, "{body}");
    let (code, body) = place.edge.admin("POST", "/drill", "{\"site\": \"dijon\", \"seconds\": -1}");
    assert_eq!(code, 400, "{body}");
    let output = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["drill", "site", "dijon", "--socket", "/nonexistent/admin.sock"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_forced_drill_of_the_only_site_says_what_it_cost() {
    let place = Place::new(&[("dijon", 1)], "");
    let load = Load::start(place.edge.http(), 2, Connections::Kept, get);
    load.go_on_for(100);
    let (code, told, ()) = drilled(&place, &["dijon", "--force", "--for", "2s"], || {});
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("web: had no backend left") && told.contains("FAILED"), "{told}");
    assert!(!load.stop().bad.is_empty(), "visitors got errors, as announced");
    place.all_up();
}

/// The other site cannot carry the service: the first visitor who gets an error ends the drill.
#[test]
fn the_first_lost_request_ends_it() {
    let place = Place::answering(&[("dijon", 1), ("thory", 2)], "", |site| match site {
        "dijon" => ok("fine").into_bytes(),
        _ => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    let load = Load::start(place.edge.http(), 3, Connections::Kept, get);
    load.go_on_for(100);
    let (code, told, ()) = drilled(&place, &["dijon", "--for", "60s"], || {});
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("aborted: a request that could have been repeated failed"), "{told}");
    place.all_up();
    drop(load);
}

#[test]
fn a_drill_ends_with_its_command() {
    let place = Place::new(SITES, LONG);
    let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
    command.args(["drill", "site", "dijon", "--for", "10m", "--socket"]).arg(place.edge.dir().join("admin.sock"));
    let mut command = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    place.wait_until_cut("dijon");
    place.wait_until_left("dijon");
    command.kill().unwrap();
    command.wait().unwrap();
    place.all_up();
    wait_for("the drill is over", || {
        let (_, told, _) = place.edge.cli(&["history"]);
        told.contains("aborted: whoever ordered it is gone")
    });
}

/// The operator's emergency stop: the cut ends at once, and what it showed is told.
#[test]
fn ctrl_c_ends_a_drill_and_its_verdict_is_told() {
    let place = Place::new(SITES, LONG);
    let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
    command.args(["drill", "site", "dijon", "--for", "10m", "--socket"]).arg(place.edge.dir().join("admin.sock"));
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    place.wait_until_cut("dijon");
    place.wait_until_left("dijon");
    send_signal("INT", command.id());
    let ended = command.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(ended.status.code(), Some(1), "what was ended proves nothing: {told}");
    assert!(told.contains("ended by the operator") && told.contains("all of it was up again"), "{told}");
    place.all_up();
}

/// The cut has ended by itself, and its site is not back yet: there is nothing to end, and the verdict is still to come.
#[test]
fn ctrl_c_while_the_site_returns_loses_no_verdict() {
    let (edge, backends) = processes();
    let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
    command.args(["drill", "site", "dijon", "--for", "6s", "--socket"]).arg(edge.dir().join("admin.sock"));
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let dijon = &backends[..2];
    for backend in dijon {
        edge.wait_for_health(backend, "down");
        backend.stop();
    }
    let drill = || serde_json::from_str::<Value>(&edge.admin("GET", "/drill", "").1).unwrap()["drill"].take();
    wait_for("the cut is over", || !drill()["ended"].is_null());
    send_signal("INT", command.id());
    wait_for("the command has heard it", || hears(command.id()));
    dijon.iter().for_each(Process::resume);
    let ended = command.wait_with_output().unwrap();
    let told = [ended.stdout, ended.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert_eq!(ended.status.code(), Some(0), "{told}");
    assert!(told.contains("all of it was up again") && told.contains("PASSED: dijon can be lost"), "{told}");
}

/// No signal waits for this process, or it is no more.
fn hears(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let waiting = |line: &&str| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:");
    status.lines().filter(waiting).all(|line| line.ends_with("0000000000000000"))
}

#[test]
fn one_at_a_time_and_the_operator_can_end_it() {
    let place = Place::new(SITES, LONG);
    let (code, told, ()) = drilled(&place, &["dijon", "--for", "60s"], || {
        place.wait_until_cut("dijon");
        let (code, _, err) = place.edge.cli(&["drill", "site", "thory"]);
        assert_eq!(code, Some(1));
        assert!(err.contains("a drill of dijon is under way"), "{err}");
        let (_, picture, _) = place.edge.cli(&["status"]);
        assert!(picture.contains("DRILL: dijon is treated as cut (silent)"), "{picture}");
        let (code, body) = place.edge.admin("DELETE", "/drill", "");
        assert_eq!(code, 200, "{body}");
    });
    assert_eq!(code, Some(1), "what was ended proves nothing: {told}");
    assert!(told.contains("ended by the operator"), "{told}");
}

#[test]
fn reload_and_stop_end_it() {
    let place = Place::new(SITES, LONG);
    let (code, told, ()) = drilled(&place, &["dijon", "--for", "60s"], || {
        place.wait_until_cut("dijon");
        let text = place.edge.text();
        place.edge.save(&(text + "\n[service.page]\nhosts = [\"page.test\"]\nrespond = { status = 200 }\n"));
        wait_for("the file is in force", || {
            place.edge.status()["report"]["services"].as_array().is_some_and(|services| services.len() == 2)
        });
    });
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("aborted: the config changed"), "{told}");
    place.all_up();
    let (code, told, ()) = drilled(&place, &["dijon", "--for", "60s"], || {
        place.wait_until_cut("dijon");
        let (code, out, err) = place.edge.cli(&["stop"]);
        assert_eq!(code, Some(0), "{out}{err}");
    });
    assert!(code == Some(3) || told.contains("aborted: the edge stops"), "{code:?} {told}");
}
