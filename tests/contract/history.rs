//! Real failovers are timed, told, counted and remembered.

use serde_json::Value;

use crate::load::{Connections, Load};
use crate::support::edge::{Edge, Setup};
use crate::support::process::Process;
use crate::support::raw::Addressed;
use crate::support::until;
use crate::support::wire::get;

/// The contract is long: on a busy machine no check of a living backend is late then.
fn two_sites(backends: &[Process]) -> Edge {
    let at = |n: usize| backends[n].address();
    let edge = Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nfailover_within = \"3s\"\n\
         [service.web.backends]\ndijon = [\"{}\", \"{}\"]\nthory = [\"{}\", \"{}\"]\n",
        at(0),
        at(1),
        at(2),
        at(3)
    ))
    .start();
    for backend in backends {
        edge.wait_for_health(backend, "up");
    }
    edge
}

fn failovers(edge: &Edge) -> Vec<Value> {
    let (code, body) = edge.admin("GET", "/history", "");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["failovers"].as_array().unwrap().clone()
}

#[test]
fn a_killed_site_is_timed_told_and_remembered_across_a_restart() {
    let mut backends: Vec<Process> = (0..4).map(|_| Process::start()).collect();
    let mut edge = two_sites(&backends);
    let load = Load::start(edge.http(), 4, Connections::Kept, get);
    load.go_on_for(200);
    assert!(failovers(&edge).is_empty());
    backends[0].kill();
    backends[1].kill();
    let record = until("the failover is booked", || failovers(&edge).first().cloned());
    assert!(load.stop().bad.is_empty());
    assert_eq!((record["service"].as_str(), record["sites"][0].as_str()), (Some("web"), Some("dijon")));
    let number = |key: &str| record[key].as_u64().unwrap_or_else(|| panic!("no {key} in {record:#}"));
    assert!(number("moved") > 0, "{record:#}");
    assert!(number("began") <= number("declared") && number("declared") <= number("ended"), "{record:#}");
    assert!(number("took_micros") > 0 && number("took_micros") <= number("ended") - number("began"), "{record:#}");
    assert_eq!(number("contract_micros"), 3_000_000);
    assert_eq!(edge.sample("relais_failover_seconds_count", &["service=\"web\""]), 1.0);
    let overran = number("took_micros") > 3_000_000;
    assert_eq!(edge.sample("relais_failover_overruns_total", &["service=\"web\""]), f64::from(u8::from(overran)));
    edge.line("the failover is told", |line| {
        line["message"].as_str().is_some_and(|m| m.starts_with("failover away from"))
    });
    let (_, picture, _) = edge.cli(&["status"]);
    assert!(picture.contains("LAST FAILOVER") && picture.contains(" of 3 s, "), "{picture}");
    let (code, told, _) = edge.cli(&["history", "--service", "web"]);
    assert_eq!(code, Some(0));
    assert!(told.contains("dijon") && told.contains("TOOK"), "{told}");
    let (_, told, _) = edge.cli(&["history", "--service", "other"]);
    assert!(told.contains("no failover and no drill of a service `other` is remembered"), "{told}");

    edge.signal("TERM");
    assert!(edge.ended().success());
    edge.restart();
    assert_eq!(failovers(&edge), [record]);
    let (_, told, _) = edge.cli(&["history", "--json"]);
    assert!(serde_json::from_str::<Value>(&told).unwrap()["drills"].as_array().unwrap().is_empty());
}

/// With nobody left there is no failover to time.
#[test]
fn an_outage_is_not_booked_as_a_failover() {
    let mut backends: Vec<Process> = (0..4).map(|_| Process::start()).collect();
    let edge = two_sites(&backends);
    // Were one site dead before the other, that would be a failover.
    Process::kill_all(&mut backends);
    for backend in &backends {
        edge.wait_for_health(backend, "down");
    }
    edge.line("the outage is told", |line| line["message"] == "service has no backend left");
    for backend in &mut backends {
        backend.again();
    }
    for backend in &backends {
        edge.wait_for_health(backend, "up");
    }
    let (code, told, _) = edge.cli(&["drill", "site", "dijon", "--for", "2s"]);
    assert!(code.is_some(), "{told}");
    let booked = failovers(&edge);
    assert!(booked.iter().all(|record| record["drill"] == true), "{booked:#?}");
}
