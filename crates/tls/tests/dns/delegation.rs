//! CNAMEs of `_acme-challenge`: followed where they mean delegation, and nowhere else.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use hickory_proto::op::Message;
use relais_core::config::DnsChallenge;
use relais_tls::acme::dns::Dns;

use crate::knot::Knot;
use crate::{plan, present, seeing};

const RECORDS: &str = "\
_acme-challenge.www CNAME One.b.test.
_acme-challenge.far CNAME hop
_acme-challenge.cut NS ns1
hop CNAME two.b.test.
_acme-challenge.circle CNAME back
back CNAME _acme-challenge.circle
*.wild CNAME elsewhere.b.test.
_acme-challenge.long CNAME c1
c1 CNAME c2
c2 CNAME c3
c3 CNAME c4
c4 CNAME c5
c5 CNAME c6
c6 CNAME c7
c7 CNAME c8
c8 CNAME c9
";

const ZONES: &[(&str, &str)] = &[("a.test", RECORDS), ("b.test", ""), ("_acme-challenge.cut.a.test", "")];

#[tokio::test]
async fn a_delegated_name_is_written_where_it_leads() {
    let Some(knot) = Knot::start(ZONES).await else { return };
    let dns = Dns::new(&[Arc::new(seeing(knot.provider(), knot.address))], &[]).unwrap().with_port(knot.address.port());
    let presented = present(&dns, &[("www.a.test", "one"), ("*.far.a.test", "two")]).await.unwrap();
    let written: Vec<&str> = presented.undos().iter().map(|undo| undo.fqdn.as_str()).collect();
    assert_eq!(written, ["one.b.test", "two.b.test"]);
    assert_eq!(
        (knot.texts("one.b.test").await, knot.texts("two.b.test").await),
        (vec!["one".into()], vec!["two".into()])
    );
    assert_eq!(presented.clean().await, []);
    assert!(knot.texts("one.b.test").await.is_empty());
}

#[tokio::test]
async fn circles_and_long_chains_end_and_a_wildcard_is_no_delegation() {
    let Some(knot) = Knot::start(ZONES).await else { return };
    let declared = seeing(knot.provider(), knot.address);
    let dns = Dns::new(&[Arc::new(declared.clone())], &[]).unwrap().with_port(knot.address.port());
    let said = plan(&dns, &[("circle.a.test", "v")]).await.unwrap_err().to_string();
    assert!(said.contains("the CNAME of _acme-challenge.circle.a.test. leads in a circle"), "{said}");
    let said = plan(&dns, &[("long.a.test", "v")]).await.unwrap_err().to_string();
    assert!(said.contains("_acme-challenge.long.a.test. leads through more than 7 CNAMEs"), "{said}");
    let presented = present(&dns, &[("wild.a.test", "v")]).await.unwrap();
    assert_eq!(presented.undos()[0].fqdn, "_acme-challenge.wild.a.test");
    assert_eq!(presented.clean().await, []);
    // Switched off, nothing is asked for.
    let here = Dns::new(&[Arc::new(DnsChallenge { delegation: false, ..declared })], &[]).unwrap();
    assert_eq!(plan(&here, &[("circle.a.test", "v")]).await.unwrap()[0].fqdn, "_acme-challenge.circle.a.test");
}

#[tokio::test]
async fn the_one_declared_for_the_domain_it_leads_to_writes_it() {
    let Some(knot) = Knot::start(ZONES).await else { return };
    let declared = |name: &str, zones: &[&str]| {
        let zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        Arc::new(DnsChallenge { name: name.into(), zones, ..seeing(knot.provider(), knot.address) })
    };
    let who = async |all: &[Arc<DnsChallenge>], host: &str| -> Result<String, String> {
        let planned = plan(&Dns::new(all, &[]).unwrap().with_port(knot.address.port()), &[(host, "v")]).await;
        planned.map(|mut plan| plan.remove(0).provider).map_err(|fault| fault.to_string())
    };
    let (home, away, rest) = (declared("home", &["a.test"]), declared("away", &["b.test"]), declared("rest", &[]));
    let all = [home.clone(), away.clone(), rest];
    assert_eq!(who(&all, "www.a.test").await.as_deref(), Ok("away"));
    assert_eq!(who(&all, "plain.a.test").await.as_deref(), Ok("home"));
    assert_eq!(who(&all[1..], "plain.a.test").await.as_deref(), Ok("rest"));
    assert_eq!(who(std::slice::from_ref(&away), "www.a.test").await.as_deref(), Ok("away"));
    let closer = declared("closer", &["deep.a.test"]);
    assert_eq!(who(&[home, closer], "*.deep.a.test").await.as_deref(), Ok("closer"));
    let said = who(&[away], "plain.a.test").await.unwrap_err();
    assert!(
        said.contains("no [acme.dns.NAME] is for _acme-challenge.plain.a.test; add its domain to the `zones`"),
        "{said}"
    );
}

/// Passes questions on to a name server, and notes the names.
fn noting(server: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let names: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&names);
    std::thread::spawn(move || {
        let mut packet = [0; 4096];
        while let Ok((read, peer)) = socket.recv_from(&mut packet) {
            let question = Message::from_vec(&packet[..read]).unwrap();
            noted.lock().unwrap().push(question.queries[0].name().to_string());
            let onward = UdpSocket::bind("127.0.0.1:0").unwrap();
            onward.send_to(&packet[..read], server).unwrap();
            let read = onward.recv(&mut packet).unwrap();
            socket.send_to(&packet[..read], peer).unwrap();
        }
    });
    (address, names)
}

#[tokio::test]
async fn no_resolver_learns_that_the_name_is_not_there_yet() {
    let Some(knot) = Knot::start(ZONES).await else { return };
    let (resolver, names) = noting(knot.address);
    let dns = Dns::new(&[Arc::new(seeing(knot.provider(), resolver))], &[]).unwrap().with_port(knot.address.port());
    let presented = present(&dns, &[("plain.a.test", "v"), ("www.a.test", "w")]).await.unwrap();
    assert_eq!(presented.clean().await, []);
    let names = names.lock().unwrap();
    assert!(names.iter().any(|name| name == "plain.a.test."), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("_acme") || name.contains("one")), "{names:?}");
}

#[tokio::test]
async fn a_name_that_is_a_zone_of_its_own_is_written_there() {
    let Some(knot) = Knot::start(ZONES).await else { return };
    let dns = Dns::new(&[Arc::new(seeing(knot.provider(), knot.address))], &[]).unwrap().with_port(knot.address.port());
    let presented = present(&dns, &[("cut.a.test", "v")]).await.unwrap();
    assert_eq!(knot.texts("_acme-challenge.cut.a.test").await, ["v"]);
    assert_eq!(presented.clean().await, []);
}
