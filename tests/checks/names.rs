//! Backends that are known by name.

use crate::backend;
use crate::dns::Dns;
use crate::support::edge::Setup;
use crate::support::wire::get;
use crate::support::{own_ip, wait_for};

fn edge(dns: &Dns, backend: &String, more: &str) -> Setup {
    Setup::to(&[backend]).with(more).and(&format!("[edge]\nworkers = 1\nnameservers = [\"{}\"]", dns.address))
}

#[test]
fn a_name_that_moves_takes_new_requests_along() {
    let (old, new) = (own_ip(), own_ip());
    let port = backend(old, 0, "old");
    backend(new, port, "new");
    let dns = Dns::start(Some(old));
    let name = format!("app.internal:{port}");
    let edge = edge(&dns, &name, "").start();
    let mut client = edge.connect();
    for _ in 0..3 {
        assert_eq!(client.ask(get("/")).text(), "old");
    }
    dns.lead_to(new);
    let there = format!("{new}:{port}");
    wait_for("the new address is in use", || edge.backend(&name)["addresses"][0] == there.as_str());
    // The old backend lives, and its connection is open: requests go where the name leads all the same.
    wait_for("requests go there", || client.ask(get("/")).text() == "new");
    for _ in 0..3 {
        assert_eq!(client.ask(get("/")).text(), "new");
    }
}

#[test]
fn a_name_that_leads_nowhere_does_not_keep_the_edge_from_serving_others() {
    let ip = own_ip();
    let port = backend(ip, 0, "here");
    let dns = Dns::start(None);
    let name = format!("late.internal:{port}");
    let other = own_ip();
    let other_port = backend(other, 0, "other");
    let text = format!("\n[service.other]\nhosts = [\"other.test\"]\nbackends = [\"{other}:{other_port}\"]");
    let edge = edge(&dns, &name, &format!("queue_timeout = \"0s\"{text}")).start();
    edge.wait_for_health(&name, "down");
    assert_eq!(edge.backend(&name)["why"], "name does not resolve: no such name");
    let (_, shown, _) = edge.cli(&["status"]);
    assert!(shown.contains("name does not resolve: no such name"), "{shown}");
    let mut client = edge.connect();
    assert_eq!(client.ask(get("/")).status(), 503);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n").text(), "other");
    dns.lead_to(ip);
    edge.wait_for_health(&name, "up");
    assert_eq!(client.ask(get("/")).text(), "here");
}
