//! The look at all name servers of the zone, and the removal of what was written, whatever happens in between.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use relais_core::config::DnsChallenge;
use relais_tls::acme::dns::{Dns, Failed, Undo};

use crate::fake_dns::Late;
use crate::knot::Knot;
use crate::{plan, present, seeing, until};

const NAME: &str = "_acme-challenge.a.test";
const SECOND: &str = "@ NS ns2\nns2 A 127.0.0.3";

fn declared(knot: &Knot, within: Duration) -> DnsChallenge {
    DnsChallenge { propagation_timeout: within, ..seeing(knot.provider(), knot.address) }
}

fn dns(knot: &Knot, within: Duration) -> Dns {
    Dns::new(&[Arc::new(declared(knot, within))], &[]).unwrap().with_port(knot.address.port())
}

fn at(ip: &str, knot: &Knot) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), knot.address.port())
}

#[tokio::test]
async fn every_name_server_must_show_it() {
    let Some(knot) = Knot::start_beside(&[("a.test", SECOND)], &["127.0.0.3"]).await else { return };
    let late = Late::start(at("127.0.0.3", &knot), "v", 4, ResponseCode::NoError);
    let presented = present(&dns(&knot, Duration::from_secs(60)), &[("a.test", "v")]).await.unwrap();
    assert!(late.asked() >= 4, "asked {} times only", late.asked());
    assert_eq!(presented.clean().await, []);
}

#[tokio::test]
async fn one_that_never_shows_it_is_named_and_the_record_removed() {
    let Some(knot) = Knot::start_beside(&[("a.test", SECOND)], &["127.0.0.3"]).await else { return };
    let never = Late::start(at("127.0.0.3", &knot), "v", usize::MAX, ResponseCode::NXDomain);
    // On a busy machine a second may pass before the other server was asked twice.
    for seconds in [1, 5, 20] {
        let failed = present(&dns(&knot, Duration::from_secs(seconds)), &[("a.test", "v")]).await.unwrap_err();
        if never.asked() > 1 || seconds == 20 {
            never_shown(&failed, seconds);
            break;
        }
    }
    assert!(never.asked() > 1, "asked {} times", never.asked());
    assert!(knot.texts(NAME).await.is_empty());
}

#[track_caller]
fn never_shown(failed: &Failed, seconds: u64) {
    let said = failed.to_string();
    let words = format!("{NAME}. was not seen everywhere after {seconds}s: ns2.a.test. does not show it; ");
    assert!(said.contains(&words) && said.contains("raise `propagation_timeout`"), "{said}");
    assert_eq!(failed.left, []);
}

#[tokio::test]
async fn one_that_nobody_can_ask_holds_up_nothing_but_time() {
    // Not there at all, and there but not for this zone.
    let records = format!("{SECOND}\n@ NS ns3\nns3 A 127.0.0.4");
    let Some(knot) = Knot::start_beside(&[("a.test", &records)], &["127.0.0.3", "127.0.0.4"]).await else { return };
    let lame = Late::start(at("127.0.0.4", &knot), "v", usize::MAX, ResponseCode::Refused);
    let presented = present(&dns(&knot, Duration::from_secs(1)), &[("a.test", "v")]).await.unwrap();
    assert!(lame.asked() > 0);
    assert_eq!(presented.clean().await, []);
}

#[tokio::test]
async fn without_any_answer_the_check_says_so() {
    let Some(knot) = Knot::start_beside(&[("a.test", "")], &["127.0.0.3"]).await else { return };
    // The zone's server is asked at a port where nobody is.
    let dns = Dns::new(&[Arc::new(declared(&knot, Duration::from_secs(1)))], &[]).unwrap().with_port(1);
    let failed = present(&dns, &[("a.test", "v")]).await.unwrap_err();
    assert!(failed.fault.message.contains("ns1.a.test.: 127.0.0.2 "), "{failed}");
    assert!(failed.fault.help.contains("UDP and TCP to port 53"), "{failed}");
    assert!(knot.texts(NAME).await.is_empty());
}

#[tokio::test]
async fn what_is_cut_off_is_removed() {
    let Some(knot) = Knot::start_beside(&[("a.test", SECOND)], &["127.0.0.3"]).await else { return };
    let never = Late::start(at("127.0.0.3", &knot), "v", usize::MAX, ResponseCode::NoError);
    let dns = dns(&knot, Duration::from_secs(600));
    let planned = plan(&dns, &[("a.test", "v"), ("*.a.test", "w")]).await.unwrap();
    let order = tokio::spawn({
        let (dns, planned) = (dns.clone(), planned.clone());
        async move { dns.present(planned).await.map(drop) }
    });
    until("both records are written", async || knot.texts(NAME).await == ["v", "w"]).await;
    until("the second server is asked", async || never.asked() > 0).await;
    order.abort();
    until("the cut off order's records are gone", async || knot.texts(NAME).await.is_empty()).await;
    assert!(order.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn what_an_order_drops_is_removed() {
    let Some(knot) = Knot::start(&[("a.test", "")]).await else { return };
    let presented = present(&dns(&knot, Duration::from_secs(60)), &[("a.test", "v")]).await.unwrap();
    assert_eq!(knot.texts(NAME).await, ["v"]);
    drop(presented);
    until("the dropped record is gone", async || knot.texts(NAME).await.is_empty()).await;
}

#[tokio::test]
async fn what_a_killed_process_left_is_removed_by_the_next() {
    let Some(knot) = Knot::start(&[("a.test", "")]).await else { return };
    let first = dns(&knot, Duration::from_secs(60));
    let noted = serde_json::to_string(&plan(&first, &[("a.test", "v")]).await.unwrap()).unwrap();
    // Killed: nothing of it runs any more.
    std::mem::forget(present(&first, &[("a.test", "v")]).await.unwrap());
    assert_eq!(knot.texts(NAME).await, ["v"]);
    let next = dns(&knot, Duration::from_secs(60));
    let undos: Vec<Undo> = serde_json::from_str(&noted).unwrap();
    next.clean(&undos[0]).await.unwrap();
    assert!(knot.texts(NAME).await.is_empty());
    // The provider may have gone from the config meanwhile.
    let gone = Undo { provider: "gone".into(), ..undos[0].clone() };
    let said = next.clean(&gone).await.unwrap_err().to_string();
    assert!(
        said.contains("[acme.dns.gone]") && said.contains("remove the TXT record _acme-challenge.a.test"),
        "{said}"
    );
}

#[tokio::test]
async fn what_could_not_be_removed_is_told() {
    let Some(knot) = Knot::start(&[("a.test", "")]).await else { return };
    let presented = present(&dns(&knot, Duration::from_secs(60)), &[("a.test", "v")]).await.unwrap();
    let undos = presented.undos().to_vec();
    drop(knot);
    assert_eq!(presented.clean().await, undos);
}
