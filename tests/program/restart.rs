//! What is remembered when the edge itself is killed: words of the operator, health, and what it could not keep.

use std::process::Command;

use crate::support::edge::Setup;
use crate::support::raw::{Addressed, Plain};
use crate::support::wire::get;
use crate::support::{free_address, wait_for};

#[test]
fn a_drain_survives_kill_9() {
    let (one, two) = (Plain::saying("one"), Plain::saying("two"));
    let mut edge = Setup::to(&[&one, &two]).start();
    // The answer to the order says that it is on disk.
    edge.order("draining", &format!("web/{}", one.address()));
    let before = one.count();
    edge.crash_and_restart();
    assert_eq!(edge.backend(&one)["admin"], "draining");
    for _ in 0..20 {
        assert_eq!(edge.connect().ask(get("/")).text(), "two");
    }
    assert_eq!(one.count(), before);
}

/// Opening a FIFO that nobody reads takes for ever, as on a disk that stands still.
#[test]
fn an_order_that_the_disk_does_not_take_is_in_force_and_says_so() {
    let (one, two) = (Plain::saying("one"), Plain::saying("two"));
    let edge = Setup::to(&[&one, &two]).start();
    wait_for("it is on disk", || edge.status()["store"]["unsaved"] == 0);
    let fifo = edge.state_dir().join("admin.new");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let answer = edge.order("draining", &format!("web/{}", one.address()));
    assert!(answer["warnings"].to_string().contains("a restart would forget it"), "{answer}");
    assert_eq!(edge.backend(&one)["admin"], "draining");
    assert!(edge.status()["store"]["unsaved"].as_u64().unwrap() > 0);
    wait_for("there is an alarm", || edge.status()["alarms"].to_string().contains("a write has not come back"));
    // It comes back.
    assert!(std::fs::read_to_string(&fifo).unwrap().contains("draining"));
    wait_for("the alarm is over", || !edge.status()["alarms"].to_string().contains("a write has not come back"));
}

#[test]
fn a_backend_known_dead_gets_no_request_after_a_restart() {
    let sick = Plain::new(|request| {
        let status = if request.head.target() == "/health" { "500 Sick" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let good = Plain::saying("x");
    let mut edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nbackends = [\"{}\", \"{}\"]\n",
        sick.address(),
        good.address()
    ))
    .start();
    let requests = || sick.seen().iter().filter(|seen| seen.head.target() == "/real").count();
    for _ in 0..3 {
        edge.wait_for_health(&sick, "down");
        edge.wait_for_health(&good, "up");
        wait_for("it is on disk", || edge.status()["store"]["unsaved"] == 0);
        let before = requests();
        edge.crash_and_restart();
        for _ in 0..30 {
            assert_eq!(edge.connect().ask(get("/real")).status(), 200);
        }
        assert_eq!(requests(), before, "a request at a backend known to be dead");
    }
}

#[test]
fn state_about_what_the_file_no_longer_names_is_not_believed() {
    let (one, two) = (Plain::saying("one"), Plain::saying("two"));
    let mut edge = Setup::to(&[&one, &two]).start();
    edge.order("disabled", &format!("web/{}", one.address()));
    wait_for("it is on disk", || edge.status()["store"]["unsaved"] == 0);
    edge.crash();
    // Another service of another name with the same address: nobody said a word about it.
    std::fs::write(&edge.config, edge.text().replace("service.web", "service.other")).unwrap();
    edge.restart();
    assert_eq!(edge.backend(&one)["admin"], "enabled");
}

#[test]
fn a_store_that_another_process_holds_does_not_keep_it_from_serving() {
    let backend = Plain::saying("x");
    let first = Setup::to(&[&backend]).start();
    let second = Setup::to(&[&backend]).state_in(&first.state_dir()).start();
    assert_eq!(second.connect().ask(get("/")).status(), 200);
    let status = second.status();
    assert_eq!(status["store"]["mode"], "memory", "{}", status["store"]);
    assert!(status["alarms"].to_string().contains("store"), "{}", status["alarms"]);
    assert_eq!(first.status()["store"]["mode"], "ok");
    // Orders work, and are known to be forgotten.
    second.order("draining", &format!("web/{}", backend.address()));
}

#[test]
fn a_damaged_store_does_not_keep_it_from_serving() {
    let (one, two) = (Plain::saying("one"), Plain::saying("two"));
    let mut edge = Setup::to(&[&one, &two]).start();
    edge.order("draining", &format!("web/{}", one.address()));
    wait_for("it is on disk", || edge.status()["store"]["unsaved"] == 0);
    edge.crash();
    damage(&edge.state_dir());
    edge.restart();
    let status = edge.status();
    assert!(!status["store"]["detail"].as_str().unwrap().is_empty(), "{}", status["store"]);
    assert!(status["alarms"].to_string().contains("store"), "{}", status["alarms"]);
    edge.line("the log says so", |line| line["level"] != "INFO" && line.to_string().contains("store"));
    // From now on it is whole again.
    edge.order("draining", &format!("web/{}", two.address()));
    wait_for("it is on disk", || edge.status()["store"]["unsaved"] == 0);
    edge.crash_and_restart();
    assert_eq!(edge.backend(&two)["admin"], "draining");
}

/// Writes noise over every file there.
fn damage(dir: &std::path::Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damage(&path);
        } else {
            std::fs::write(&path, crate::support::noise(4096)).unwrap();
        }
    }
}

#[test]
fn a_state_directory_that_is_none_does_not_keep_it_from_serving() {
    let backend = Plain::saying("x");
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("state");
    std::fs::write(&file, "a file").unwrap();
    let edge = Setup::to(&[&backend]).state_in(&file).start();
    assert_eq!(edge.connect().ask(get("/")).status(), 200);
    assert!(edge.status()["alarms"].to_string().contains("store"), "{}", edge.status()["alarms"]);
}

#[test]
fn killed_at_any_moment_it_starts_again() {
    let (one, dead) = (Plain::saying("x"), free_address());
    let mut edge =
        Setup::services(&format!("[service.web]\nhosts = [\"*\"]\nbackends = [\"{}\", \"{dead}\"]\n", one.address()))
            .start();
    for n in 0..8_u64 {
        for _ in 0..n {
            edge.order(if n % 2 == 0 { "draining" } else { "enabled" }, &format!("web/{dead}"));
        }
        edge.crash_and_restart();
        assert_eq!(edge.connect().ask(get("/")).status(), 200);
        assert_eq!(edge.status()["store"]["mode"], "ok", "{}", edge.status()["store"]);
    }
}
