//! What follows from a contract, in words; and timers that contradict it, refused everywhere alike.

use std::process::Command;

use crate::place::Place;
use crate::support::edge::Setup;
use crate::support::wait_for;

/// The executable in a directory, without any edge.
fn alone(dir: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
    command.args(arguments).current_dir(dir).env_clear().env("HOME", dir).env("XDG_RUNTIME_DIR", dir);
    command.env("STATE_DIRECTORY", dir.join("state")).env("RUNTIME_DIRECTORY", dir.join("run"));
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn the_running_edge_explains_itself_with_what_it_measures() {
    let place = Place::new(&[("dijon", 1), ("thory", 2)], "failover_within = \"2s\"");
    wait_for("paths are measured", || {
        let sites = place.edge.status()["report"]["sites"].as_array().cloned().unwrap_or_default();
        !sites.is_empty() && sites.iter().all(|site| site["round_trip_micros"].as_u64().is_some())
    });
    let (code, told, err) = place.edge.cli(&["explain", "timers", "web"]);
    assert_eq!(code, Some(0), "{err}");
    for part in [
        "times of web (as the running edge measures)",
        "each backend is checked every 500 ms",
        "site dijon is ",
        "site thory is ",
        "away (measured)",
    ] {
        assert!(told.contains(part), "no {part} in\n{told}");
    }
    let (code, _, err) = place.edge.cli(&["explain", "timers", "wab"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("no service `wab` forwards requests") && err.contains("services: web"), "{err}");
    assert_eq!(place.edge.sample("relais_failover_contract_holds", &["service=\"web\""]), 1.0);
    assert!(place.edge.sample("relais_site_round_trip_seconds", &["site=\"dijon\""]) > 0.0);
}

#[test]
fn without_an_edge_the_file_must_do() {
    let setup = Setup::services("[service.web]\nhosts = [\"*\"]\nbackends = [\"127.0.0.1:9\"]\n");
    std::fs::write(setup.dir().join("proxy.toml"), setup.text()).unwrap();
    for arguments in [vec!["explain", "timers", "web"], vec!["explain", "timers", "web", "--file", "proxy.toml"]] {
        let (code, told) = alone(setup.dir(), &arguments);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("round trips are not known") && told.contains("checked every 250 ms"), "{told}");
    }
    let (code, told) = alone(setup.dir(), &["explain", "timers", "nope"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("services: web"), "{told}");
    let (code, told) = alone(setup.dir(), &["check"]);
    assert_eq!(code, Some(0));
    assert!(told.contains("times of web"), "{told}");
}

const BAD: &str = "[service.web]\nhosts = [\"*\"]\nbackends = [\"127.0.0.1:9\"]\n[service.web.health]\npath = \"/\"\n\
                   interval = \"2s\"\ntimeout = \"1s\"\n";

#[test]
fn contradictory_timers_are_refused_by_check_run_and_reload_alike() {
    let setup = Setup::services(BAD);
    let text = setup.text();
    std::fs::write(setup.dir().join("proxy.toml"), &text).unwrap();
    let line = text.lines().position(|line| line.starts_with("interval")).unwrap() + 1;
    let sum = "interval 2 s + jitter 200 ms + timeout 1 s + 3 more checks of 80 ms = 3.44 s is more than \
               failover_within = 1 s";
    for command in ["check", "run"] {
        let (code, told) = alone(setup.dir(), &[command]);
        assert_eq!(code, Some(1), "{told}");
        for part in [sum, &format!("proxy.toml:{line}:12"), "interval = \"2s\"", "write `failover_within = \"5s\"`"] {
            assert!(told.contains(part), "{command}: no {part} in\n{told}");
        }
    }
    let good = BAD.replace("interval = \"2s\"", "interval = \"200ms\"").replace("timeout = \"1s\"\n", "");
    let edge = Setup::services(&good).start();
    edge.save(&edge.text().replace("\"200ms\"", "\"30s\""));
    let (code, verdict) = edge.reload();
    assert_eq!(code, 422, "{verdict}");
    assert!(verdict["error"].as_str().unwrap().contains("is more than failover_within = 1 s"), "{verdict}");
    let (_, told, _) = edge.cli(&["explain", "timers", "web"]);
    assert!(told.contains("checked every 200 ms"), "the running config stays: {told}");
}
