//! Names that only the DNS can prove, from the config file to the certificate: a wildcard, and one whose challenge is
//! delegated by a CNAME. Debian's knot is the name server: relais writes into it, and the CA asks it.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::serialize::binary::BinDecodable;

use crate::first::said;
use crate::pebble::Pebble;
use crate::support::edge::Setup;
use crate::support::tools::{have, run, skipped};
use crate::support::{own_ip, wait_for};

const SECRET: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// The name server of `a.fr`, and of two zones that delegate their challenges to it.
struct Knot {
    dir: tempfile::TempDir,
    child: Child,
    address: SocketAddr,
}

impl Knot {
    /// `None`: not installed, or port 53 is not ours to take, which is said. Name servers are asked nowhere else.
    fn start() -> Option<Knot> {
        if !have("knotd", "knot") || !have("knotc", "knot") {
            return None;
        }
        let ip = own_ip();
        if let Err(fault) = TcpListener::bind((ip, 53)).and(UdpSocket::bind((ip, 53)).map(drop)) {
            skipped(&format!("needs the right to listen on port 53: {fault}"));
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("knot.conf"), config(ip, dir.path())).unwrap();
        let zone = |name: &str, more: &str| {
            let own = "@ SOA ns1 host 1 60 60 3600 60\n@ NS ns1";
            let text = format!("$ORIGIN {name}.\n$TTL 60\n{own}\nns1 A {ip}\n{more}");
            std::fs::write(dir.path().join(format!("{name}.zone")), text).unwrap();
        };
        zone("a.fr", "_acme-challenge.away CNAME proofs.elsewhere\n");
        // Nobody may write into this one.
        zone("b.fr", "_acme-challenge CNAME b-fr.a.fr.\n_acme-challenge.far CNAME hop.c.fr.\n");
        zone("c.fr", "hop CNAME far.a.fr.\n");
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new("/usr/sbin/knotd");
        command.arg("-c").arg(dir.path().join("knot.conf"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let knot = Knot { dir, child, address: SocketAddr::new(ip, 53) };
        wait_for("the name server has its zone", || knot.zone().contains("proofs.elsewhere"));
        Some(knot)
    }

    /// All that is in the zone now.
    fn zone(&self) -> String {
        let mut knotc = Command::new("/usr/sbin/knotc");
        knotc.arg("-s").arg(self.dir.path().join("knot.sock")).args(["zone-read", "a.fr"]);
        run(&mut knotc).stdout
    }

    /// All that happened to it.
    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// The part of proxy.toml that writes into it.
    fn declared(&self) -> String {
        let ip = self.address.ip();
        format!(
            "[acme]\nchallenges = [\"dns-01\"]\n[acme.dns.rfc2136]\nserver = \"{ip}\"\nkey_name = \"relais\"\n\
             algorithm = \"hmac-sha256\"\nsecret = \"{SECRET}\"\nresolvers = [\"{ip}\"]\n"
        )
    }
}

fn config(ip: IpAddr, dir: &std::path::Path) -> String {
    let here = dir.display();
    format!(
        "server:\n    rundir: \"{here}\"\n    listen: \"{ip}@53\"\n    udp-workers: 1\n    tcp-workers: 1\n    \
         background-workers: 1\nlog:\n  - target: stderr\n    any: info\ndatabase:\n    storage: \"{here}\"\n\
         key:\n  - id: relais\n    algorithm: hmac-sha256\n    secret: \"{SECRET}\"\n\
         acl:\n  - id: update\n    key: relais\n    action: update\n\
         zone:\n  - domain: a.fr\n    storage: \"{here}\"\n    file: \"a.fr.zone\"\n    zonefile-sync: -1\n    acl: update\n\
         \x20 - domain: b.fr\n    storage: \"{here}\"\n    file: \"b.fr.zone\"\n\
         \x20 - domain: c.fr\n    storage: \"{here}\"\n    file: \"c.fr.zone\"\n"
    )
}

/// What CAs ask: it follows CNAMEs into other zones, which a name server need not. Lives as long as the process.
fn resolver(server: SocketAddr) -> SocketAddr {
    let socket = UdpSocket::bind((own_ip(), 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((read, peer)) = socket.recv_from(&mut packet) {
            let _ = socket.send_to(&resolved(server, &packet[..read]), peer);
        }
    });
    address
}

fn resolved(server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let question = Message::from_bytes(packet).unwrap();
    let mut query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query.clone());
    for _ in 0..8 {
        let said = asked(server, &query);
        answer.metadata.response_code = said.metadata.response_code;
        let leads_to = said.answers.iter().rev().find_map(|record| match &record.data {
            RData::CNAME(to) => Some(to.0.clone()),
            _ => None,
        });
        let is_there = said.answers.iter().any(|record| record.record_type() == query.query_type());
        answer.add_answers(said.answers);
        match leads_to {
            Some(name) if !is_there => query.set_name(name),
            _ => break,
        };
    }
    answer.to_vec().unwrap()
}

fn asked(server: SocketAddr, query: &Query) -> Message {
    let mut question = Message::query();
    question.add_query(query.clone());
    let socket = UdpSocket::bind((own_ip(), 0)).unwrap();
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    socket.send_to(&question.to_vec().unwrap(), server).unwrap();
    let mut packet = [0; 4096];
    let read = socket.recv(&mut packet).unwrap();
    Message::from_bytes(&packet[..read]).unwrap()
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_wildcard_and_a_delegated_name_are_proven_by_the_dns() {
    let Some(knot) = Knot::start() else { return };
    let Some(mut pebble) = Pebble::start() else { return };
    pebble.ask(knot.address);
    let edge = Setup::file(&pebble.file(&["*.w.a.fr", "away.a.fr"], &knot.declared())).start();
    for host in ["one.w.a.fr", "two.w.a.fr", "away.a.fr"] {
        pebble.wait_for(&edge, host);
    }
    assert_eq!(pebble.orders(), 2);
    assert_eq!(said(&edge, "challenge answered: dns-01 for *.w.a.fr"), 1, "{}", edge.log());
    let refused = crate::support::certs::shown(pebble.https, "a.b.w.a.fr", pebble.roots());
    assert!(refused.is_err(), "a wildcard is one label");
    wait_for("the records are removed", || !knot.zone().contains("TXT"));
    assert!(knot.log().contains("DDNS"), "{}", knot.log());
    let (_, text, _) = edge.cli(&["certs"]);
    assert!(text.contains("*.w.a.fr") && text.matches("valid").count() == 2, "{text}");
}

/// The usual way where the zone of the name cannot be written: a CNAME for its challenge into one that can.
#[test]
fn challenges_are_delegated_into_another_zone() {
    let Some(knot) = Knot::start() else { return };
    let Some(mut pebble) = Pebble::start() else { return };
    pebble.ask(resolver(knot.address));
    let edge = Setup::file(&pebble.file(&["b.fr", "*.b.fr", "far.b.fr"], &knot.declared())).start();
    for host in ["b.fr", "any.b.fr", "far.b.fr"] {
        pebble.wait_for(&edge, host);
    }
    assert_eq!(pebble.orders(), 3, "{}", edge.log());
    wait_for("the records are removed", || !knot.zone().contains("TXT"));
    let log = knot.log();
    assert!(log.contains("[a.fr.] DDNS"), "{log}");
    assert!(!log.contains("[b.fr.] DDNS") && !log.contains("[c.fr.] DDNS"), "{log}");
}

#[test]
fn records_of_an_order_that_a_kill_cut_short_are_removed() {
    let Some(knot) = Knot::start() else { return };
    let Some(mut pebble) = Pebble::start() else { return };
    pebble.kill();
    // Nobody answers the CA's question: it looks for a while.
    let deaf = UdpSocket::bind((own_ip(), 0)).unwrap();
    pebble.ask(deaf.local_addr().unwrap());
    let mut edge = Setup::file(&pebble.file(&["*.w.a.fr"], &knot.declared())).start();
    wait_for("the record is there", || knot.zone().contains("TXT"));
    edge.crash();
    assert!(knot.zone().contains("TXT"), "nobody removed it");
    pebble.ask(knot.address);
    edge.restart();
    pebble.wait_for(&edge, "one.w.a.fr");
    wait_for("the records are removed", || !knot.zone().contains("TXT"));
}
