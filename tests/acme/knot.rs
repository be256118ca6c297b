//! Debian's knot as the name server of the zones that tests prove names in.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::serialize::binary::BinDecodable;

use crate::support::tools::{have, run, skipped};
use crate::support::{own_ip, wait_for};

pub(crate) const SECRET: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// Zones that programs write into by [`Knot::writer`].
const OTHERS: [&str; 4] = ["hook.fr", "web.fr", "ovh.fr", "cf.fr"];

/// The name server of `a.fr`, and of two zones that delegate their challenges to it.
pub(crate) struct Knot {
    dir: tempfile::TempDir,
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Knot {
    /// `None`: not installed, or port 53 is not ours to take, which is said. Name servers are asked nowhere else.
    pub(crate) fn start() -> Option<Knot> {
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
        for name in OTHERS {
            zone(name, "");
        }
        write_writer(dir.path());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new("/usr/sbin/knotd");
        command.arg("-c").arg(dir.path().join("knot.conf"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let knot = Knot { dir, child, address: SocketAddr::new(ip, 53) };
        wait_for("the name server has its zone", || knot.zone().contains("proofs.elsewhere"));
        Some(knot)
    }

    /// All that is in `a.fr` now.
    pub(crate) fn zone(&self) -> String {
        self.zone_of("a.fr")
    }

    pub(crate) fn zone_of(&self, zone: &str) -> String {
        let mut knotc = Command::new("/usr/sbin/knotc");
        knotc.arg("-s").arg(self.dir.path().join("knot.sock")).args(["zone-read", zone]);
        run(&mut knotc).stdout
    }

    /// A program that is called with a zone, a name in it, the value of a TXT record there, and `set` or `unset`.
    pub(crate) fn writer(&self) -> PathBuf {
        self.dir.path().join("write")
    }

    /// The same as a function.
    pub(crate) fn shown(&self) -> impl Fn(&str, &str, &str, bool) + Clone + Send + Sync + use<> {
        let writer = self.writer();
        move |zone, name, value, there| {
            let mut command = Command::new(&writer);
            let ran = run(command.args([zone, name, value, if there { "set" } else { "unset" }]));
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
    }

    /// All that happened to it.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// The part of proxy.toml that writes into it.
    pub(crate) fn declared(&self) -> String {
        let ip = self.address.ip();
        format!(
            "[acme]\nchallenges = [\"dns-01\"]\n[acme.dns.rfc2136]\nserver = \"{ip}\"\nkey_name = \"relais\"\n\
             algorithm = \"hmac-sha256\"\nsecret = \"{SECRET}\"\nresolvers = [\"{ip}\"]\n"
        )
    }
}

/// One transaction at a time.
fn write_writer(dir: &Path) {
    let text = format!(
        "#!/bin/sh\nset -e\nexec 9>{0}/lock\nflock 9\nk() {{ /usr/sbin/knotc -s {0}/knot.sock \"$@\"; }}\n\
         k zone-begin \"$1\"\nttl=60\n[ \"$4\" = set ] || ttl=\n\
         k \"zone-$4\" \"$1\" \"$2\" $ttl TXT \"\\\"$3\\\"\"\nk zone-commit \"$1\"\n",
        dir.display()
    );
    std::fs::write(dir.join("write"), text).unwrap();
    std::fs::set_permissions(dir.join("write"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn config(ip: IpAddr, dir: &Path) -> String {
    let here = dir.display();
    let others = OTHERS.map(|zone| {
        format!("  - domain: {zone}\n    storage: \"{here}\"\n    file: \"{zone}.zone\"\n    zonefile-sync: -1\n")
    });
    let others = others.concat();
    format!(
        "server:\n    rundir: \"{here}\"\n    listen: \"{ip}@53\"\n    udp-workers: 1\n    tcp-workers: 1\n    \
         background-workers: 1\nlog:\n  - target: stderr\n    any: info\ndatabase:\n    storage: \"{here}\"\n\
         key:\n  - id: relais\n    algorithm: hmac-sha256\n    secret: \"{SECRET}\"\n\
         acl:\n  - id: update\n    key: relais\n    action: update\n\
         zone:\n  - domain: a.fr\n    storage: \"{here}\"\n    file: \"a.fr.zone\"\n    zonefile-sync: -1\n    acl: update\n\
         \x20 - domain: b.fr\n    storage: \"{here}\"\n    file: \"b.fr.zone\"\n\
         \x20 - domain: c.fr\n    storage: \"{here}\"\n    file: \"c.fr.zone\"\n{others}"
    )
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What CAs ask: it follows CNAMEs into other zones, which a name server need not. Lives as long as the process.
pub(crate) fn resolver(server: SocketAddr) -> SocketAddr {
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
    let read = loop {
        match socket.recv(&mut packet) {
            // The test was stopped meanwhile, and goes on.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => break read.unwrap(),
        }
    };
    Message::from_bytes(&packet[..read]).unwrap()
}
