//! Every way to write into the DNS, each for a wildcard of its own zone, all in one edge: a program, a web address, RFC 2136,
//! OVH and Cloudflare, as far as the name server that the CA asks.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::first::said;
use crate::knot::Knot;
use crate::pebble::Pebble;
use crate::support::edge::Setup;
use crate::support::wait_for;
use crate::{fake_cloudflare, fake_http, fake_ovh};

/// A program as operators write them; and one behind a web address that says "done" before it is.
fn declared(knot: &Knot, dir: &std::path::Path) -> String {
    let hook = dir.join("hook");
    let text = format!(
        "#!/bin/sh\necho \"$RELAIS_ACTION $RELAIS_HOST\" >> {0}/calls\ncase \"$1\" in\n\
         present) exec {1} hook.fr \"$2.\" \"$3\" set ;;\ncleanup) exec {1} hook.fr \"$2.\" \"$3\" unset ;;\nesac\nexit 1\n",
        dir.display(),
        knot.writer().display()
    );
    std::fs::write(&hook, text).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let write = knot.shown();
    let slow = fake_http::serve(move |asked| {
        let (call, write) = (asked.json(), write.clone());
        if asked.header("authorization") != "Bearer t0ken" {
            return (403, "who are you?".to_owned());
        }
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1500));
            let word = |key: &str| call[key].as_str().unwrap().to_owned();
            write("web.fr", &(word("fqdn") + "."), &word("value"), word("action") == "present");
        });
        (202, String::new())
    });
    let write = knot.shown();
    let (ovh, _) = fake_ovh::api("ovh.fr", Box::new(move |zone, name, value, there| write(zone, name, value, there)));
    let write = knot.shown();
    let (cloudflare, _) =
        fake_cloudflare::api("cf.fr", Box::new(move |zone, name, value, there| write(zone, name, value, there)));
    let resolvers = format!("resolvers = [\"{}\"]", knot.address.ip());
    format!(
        "{}zones = [\"a.fr\"]\n\
         [acme.dns.program]\nprovider = \"exec\"\nzones = [\"hook.fr\"]\ncommand = [{hook:?}]\n{resolvers}\n\
         [acme.dns.webhook]\nzones = [\"web.fr\"]\nurl = \"{slow}/dns\"\ntoken = \"t0ken\"\n{resolvers}\n\
         [acme.dns.ovh]\nzones = [\"ovh.fr\"]\nendpoint = \"{ovh}\"\napplication_key = {:?}\n\
         application_secret = {:?}\nconsumer_key = {:?}\n{resolvers}\n\
         [acme.dns.cloudflare]\nzones = [\"cf.fr\"]\nendpoint = \"{cloudflare}\"\ntoken = {:?}\n{resolvers}\n",
        knot.declared(),
        fake_ovh::KEY,
        fake_ovh::SECRET,
        fake_ovh::CONSUMER,
        fake_cloudflare::TOKEN,
    )
}

#[test]
fn a_wildcard_by_every_provider() {
    let Some(knot) = Knot::start() else { return };
    let Some(mut pebble) = Pebble::start() else { return };
    pebble.ask(knot.address);
    let zones = ["a.fr", "hook.fr", "web.fr", "ovh.fr", "cf.fr"];
    let wildcards = zones.map(|zone| format!("*.{zone}"));
    let hosts: Vec<&str> = wildcards.iter().map(String::as_str).collect();
    let edge = Setup::file(&pebble.file(&hosts, &declared(&knot, pebble.dir()))).start();
    for zone in zones {
        pebble.wait_for(&edge, &format!("any.{zone}"));
    }
    wait_for("all are told", || said(&edge, "certificate issued") == 5);
    assert_eq!(pebble.orders(), 5, "the record was there before the CA looked: {}", edge.log());
    assert_eq!(edge.sample("relais_acme_orders_total", &[]), 5.0, "none failed: {}", edge.metrics());
    let left = || zones.map(|zone| knot.zone_of(zone)).concat();
    wait_for("the records are removed", || !left().contains("TXT"));
    let calls = std::fs::read_to_string(pebble.dir().join("calls")).unwrap();
    assert_eq!(calls, "present hook.fr\ncleanup hook.fr\n");
    for secret in ["t0ken", fake_ovh::SECRET, fake_ovh::CONSUMER, fake_cloudflare::TOKEN, crate::knot::SECRET] {
        assert!(!edge.log().contains(secret), "{secret} is in the log");
    }
}
