//! What a real CA does rarely, and `pebble` never: by script.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use relais_core::config::{Authority, Challenge, ExternalAccount, KeyKind};
use relais_tls::Issued;
use relais_tls::acme::{self, Begun, FaultKind, Job};
use rustls::version::TLS13;
use serde_json::json;

use crate::clerk::{self, Clerk, hurried, job};
use crate::edge::Edge;
use crate::fake::{Fake, Script, problem};
use crate::support::{curious, shake};

fn wanted() -> Job {
    job(&["s.a.test"], Challenge::Http01)
}

async fn ordered(fake: &Fake, job: &Job) -> (Clerk, Result<acme::Product, acme::OrderFault>) {
    let (clerk, edge) = (Clerk::default(), Edge::new().await);
    let result = clerk.order(&clerk::ca_of(fake), job, &edge.certs).await;
    (clerk, result)
}

#[tokio::test]
async fn a_limit_of_the_ca_is_told_with_its_word_on_when_to_come_again() {
    let script = Script::default();
    let said = "too many certificates already issued for a.test";
    let answer = problem(429, "rateLimited", said, "retry-after: 7200\r\n");
    script.instead.lock().insert("/order".into(), vec![answer]);
    let fake = Fake::start(script).await;
    let fault = ordered(&fake, &wanted()).await.1.unwrap_err();
    assert_eq!((fault.kind, fault.said.as_str()), (FaultKind::RateLimited, said));
    assert_eq!(fault.retry_after, Some(Duration::from_secs(7_200)));
    assert_eq!(fake.seen("/order").len(), 1, "an order that was refused is not tried again at once");
}

#[tokio::test]
async fn a_ca_that_is_down_behind_its_front_is_unreachable_and_says_until_when() {
    let script = Script::default();
    let page = (503, "content-type: text/html\r\nretry-after: 60\r\n".to_string(), "<h1>maintenance</h1>".to_string());
    script.instead.lock().insert("/dir".into(), vec![page.clone(), page.clone(), page]);
    let fake = Fake::start(script).await;
    let fault = ordered(&fake, &wanted()).await.1.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable);
    assert!(fault.said.contains("the CA answered 503"), "{fault}");
    assert_eq!(fault.retry_after, Some(Duration::from_secs(60)));
    // A page in passing costs nothing: the next order meets the good directory.
    ordered(&fake, &wanted()).await.1.unwrap();
}

#[tokio::test]
async fn what_answers_and_is_no_ca_is_told() {
    let script = Script::default();
    let portal = (200, "content-type: text/html\r\n".to_string(), "<html>Welcome</html>".to_string());
    script.instead.lock().insert("/dir".into(), vec![portal]);
    let fake = Fake::start(script).await;
    let fault = ordered(&fake, &wanted()).await.1.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable);
    assert!(fault.to_string().contains("check `directory`"), "{fault}");
}

#[tokio::test]
async fn an_order_that_never_ends_is_ended_and_nothing_stays_up() {
    let fake = Fake::start(Script { never: true, ..Script::default() }).await;
    let (clerk, edge) = (Clerk::default(), Edge::new().await);
    let fault = clerk.order(&hurried(clerk::ca_of(&fake)), &wanted(), &edge.certs).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable);
    assert!(fault.said.contains("did not finish the order in 1.5s"), "{fault}");
    assert!(clerk.logged().contains("challenge answered"), "{}", clerk.logged());
    assert_eq!(edge.certs.http01("s.a.test", "t"), None);
}

#[tokio::test]
async fn a_ca_that_takes_its_time_is_waited_for() {
    let fake = Fake::start(Script { slow_looks: 3, ..Script::default() }).await;
    ordered(&fake, &wanted()).await.1.unwrap();
}

#[tokio::test]
async fn an_answer_lost_on_the_way_costs_neither_the_order_nor_a_second_one() {
    for path in ["/dir", "/account", "/authz/0", "/chall/0", "/order/0", "/finalize/0", "/cert/0"] {
        let script = Script::default();
        script.lost.lock().push(path);
        let fake = Fake::start(script.clone()).await;
        let (clerk, result) = ordered(&fake, &wanted()).await;
        result.unwrap_or_else(|fault| panic!("{path}: {fault}\n{}", clerk.logged()));
        assert!(script.lost.lock().is_empty(), "{path} was asked for");
        let placed = fake.seen("/order").into_iter().filter(|order| order.get("identifiers").is_some()).count();
        assert_eq!((placed, fake.seen("/finalize").len()), (1, 1), "{path}");
    }
    // A nonce is asked for again, even the one for placing an order.
    let script = Script::default();
    let fake = Fake::start(script.clone()).await;
    let (clerk, edge) = (Clerk::default(), Edge::new().await);
    clerk.order(&clerk::ca_of(&fake), &wanted(), &edge.certs).await.unwrap();
    script.lost.lock().push("/nonce");
    clerk.order(&clerk::ca_of(&fake), &wanted(), &edge.certs).await.unwrap();
    assert!(script.lost.lock().is_empty());
    // Whether it was placed is not known: placing it again at once would count twice.
    let script = Script::default();
    script.lost.lock().push("/order");
    let fake = Fake::start(script).await;
    let fault = ordered(&fake, &wanted()).await.1.unwrap_err();
    assert_eq!((fault.kind, fake.seen("/order").len()), (FaultKind::Unreachable, 1), "{fault}");
}

#[tokio::test]
async fn an_order_that_was_cut_off_goes_on_where_it_stood_with_its_key() {
    let placed = |fake: &Fake| fake.seen("/order").into_iter().filter(|one| one.get("identifiers").is_some()).count();
    for step in ["order placed", "challenge answered", "every name is proven", "certificate asked for"] {
        let fake = Fake::start(Script { slow_looks: 2, ..Script::default() }).await;
        let (clerk, edge) = (Clerk::default(), Edge::new().await);
        let cut = async {
            while !clerk.logged().contains(step) {
                tokio::task::yield_now().await;
            }
        };
        let (ca, job) = (clerk::ca_of(&fake), wanted());
        tokio::select! {
            biased;
            () = cut => {}
            done = clerk.order(&ca, &job, &edge.certs) => panic!("{step}: {done:?}"),
        }
        let begun = clerk.begun.lock().clone();
        let product = clerk.order(&clerk::ca_of(&fake), &Job { begun: begun.clone(), ..wanted() }, &edge.certs).await;
        let product = product.unwrap_or_else(|fault| panic!("{step}: {fault}\n{}", clerk.logged()));
        assert_eq!(product.key_pem, begun.unwrap().key_pem, "{step}");
        assert_eq!((placed(&fake), fake.seen("/finalize").len()), (1, 1), "{step}");
        assert!(clerk.logged().contains("order goes on"), "{}", clerk.logged());
    }
    // One that the CA does not know any more is in nobody's way.
    let fake = Fake::start(Script::default()).await;
    let (clerk, edge) = (Clerk::default(), Edge::new().await);
    let first = clerk.order(&clerk::ca_of(&fake), &wanted(), &edge.certs).await.unwrap();
    let url = format!("http://{}/order/9", fake.address);
    let begun = Some(Begun { url, key_pem: first.key_pem.clone() });
    let second = clerk.order(&clerk::ca_of(&fake), &Job { begun, ..wanted() }, &edge.certs).await.unwrap();
    assert_ne!(first.key_pem, second.key_pem);
    assert!(clerk.logged().contains("ordering without `the order begun before`"), "{}", clerk.logged());
    assert_eq!(placed(&fake), 2);
}

#[tokio::test]
async fn every_kind_of_key_is_asked_for_and_served() {
    let fake = Fake::start(Script::default()).await;
    let (clerk, edge) = (Clerk::default(), Edge::new().await);
    for key in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519, KeyKind::Rsa2048, KeyKind::Rsa4096] {
        let product = clerk.order(&clerk::ca_of(&fake), &Job { key, ..wanted() }, &edge.certs).await.unwrap();
        let issued = Issued { name: "s".into(), chain_pem: product.chain_pem, key_pem: product.key_pem };
        assert_eq!(edge.certs.install_issued(&[issued]), [], "{key:?}");
        shake(&edge.server, &curious(&[&TLS13]), "s.a.test").await.unwrap();
    }
}

#[tokio::test]
async fn a_profile_is_asked_for_where_there_are_any() {
    let short = Job { profile: Some("shortlived".into()), ..wanted() };
    let fake = Fake::start(Script { profiles: vec!["classic", "shortlived"], ..Script::default() }).await;
    ordered(&fake, &short).await.1.unwrap();
    assert_eq!(fake.seen("/order")[0]["profile"], "shortlived");

    let fake = Fake::start(Script { profiles: vec!["tlsserver", "classic"], ..Script::default() }).await;
    let fault = ordered(&fake, &short).await.1.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
    assert_eq!(fault.to_string(), "the CA has no profile `shortlived`; it has: classic, tlsserver");

    let fake = Fake::start(Script::default()).await;
    let (clerk, result) = ordered(&fake, &short).await;
    result.unwrap();
    assert!(clerk.logged().contains("ordering without `profile`"), "{}", clerk.logged());
    assert_eq!(fake.seen("/order")[0].get("profile"), None);
}

/// The id of a certificate as RFC 9773 has it, from its parts.
fn some_ari_id() -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    format!("{}.{}", part("authority"), part("serial"))
}

#[tokio::test]
async fn what_is_replaced_is_named_and_never_in_the_way() {
    let id = some_ari_id();
    let renewal = Job { replaces: Some(id.clone()), ..wanted() };
    let knows = || Script { renewal: Some(json!({})), ..Script::default() };
    let fake = Fake::start(knows()).await;
    ordered(&fake, &renewal).await.1.unwrap();
    assert_eq!(fake.seen("/order")[0]["replaces"], id.as_str());

    let twice = Script { replaced: vec![id.clone()], ..knows() };
    for (script, placed) in [(twice, 2), (Script { deaf: true, ..knows() }, 2), (Script::default(), 1)] {
        let fake = Fake::start(script).await;
        let (clerk, result) = ordered(&fake, &renewal).await;
        result.unwrap();
        assert!(clerk.logged().contains("ordering without `replaces`"), "{}", clerk.logged());
        let orders: Vec<_> =
            fake.seen("/order").into_iter().filter(|order| order.get("identifiers").is_some()).collect();
        assert_eq!(orders.len(), placed);
        assert_eq!(orders.last().unwrap().get("replaces"), None);
    }
}

#[tokio::test]
async fn the_ca_says_when_to_renew() {
    let answer = json!({
        "suggestedWindow": {"start": "2026-01-02T04:00:00Z", "end": "2026-01-03T04:00:00Z"},
        "explanationURL": "https://ca.example/why",
    });
    let fake = Fake::start(Script { renewal: Some(answer.clone()), again: Some("21600"), ..Script::default() }).await;
    let info = acme::renewal_info(&clerk::ca_of(&fake), "aki.serial").await.unwrap().unwrap();
    assert_eq!(info.end.since(info.start), Duration::from_secs(86_400));
    assert_eq!(info.start.0, 1_767_326_400_000_000);
    assert_eq!(info.explanation.as_deref(), Some("https://ca.example/why"));
    assert_eq!(info.ask_again, Duration::from_secs(21_600));
    assert_eq!(info.date, None);
    assert_eq!(fake.seen("/ari/aki.serial").len(), 1);
    // What time it is there, so that a wrong clock here is found out.
    let dated = (200, "date: Fri, 02 Jan 2026 05:00:00 GMT\r\n".to_string(), answer.to_string());
    let script = Script { renewal: Some(answer.clone()), ..Script::default() };
    script.instead.lock().insert("/ari/aki.serial".into(), vec![dated]);
    let fake = Fake::start(script).await;
    let info = acme::renewal_info(&clerk::ca_of(&fake), "aki.serial").await.unwrap().unwrap();
    assert_eq!(info.date, Some(info.start + Duration::from_secs(3600)));

    // Too often, or never again: bounded.
    for (again, meant) in [("1", 60), ("9999999", 86_400)] {
        let fake = Fake::start(Script { renewal: Some(answer.clone()), again: Some(again), ..Script::default() }).await;
        let info = acme::renewal_info(&clerk::ca_of(&fake), "aki.serial").await.unwrap().unwrap();
        assert_eq!(info.ask_again, Duration::from_secs(meant));
    }
    let fake = Fake::start(Script::default()).await;
    assert_eq!(acme::renewal_info(&clerk::ca_of(&fake), "aki.serial").await.unwrap(), None);
    let turned = json!({"suggestedWindow": {"start": "2026-01-03T04:00:00Z", "end": "2026-01-02T04:00:00Z"}});
    let fake = Fake::start(Script { renewal: Some(turned), ..Script::default() }).await;
    let fault = acme::renewal_info(&clerk::ca_of(&fake), "aki.serial").await.unwrap_err();
    assert!(fault.said.contains("ends before it begins"), "{fault}");
}

#[tokio::test]
async fn an_external_account_is_fetched_by_e_mail() {
    let fake = Fake::start(Script::default()).await;
    let url = format!("http://{}/eab", fake.address);
    let directory = format!("http://{}/dir", fake.address);
    let external_account = Some(ExternalAccount::ByEmail { url });
    let mut ca = clerk::ca(Authority { external_account, ..clerk::authority(directory) });
    let edge = Edge::new().await;
    Clerk::default().order(&ca, &wanted(), &edge.certs).await.unwrap();
    let account = &fake.seen("/account")[0];
    assert_eq!(account["contact"], json!(["mailto:ops@a.test"]));
    let bound = account["externalAccountBinding"]["protected"].as_str().unwrap();
    assert!(!bound.is_empty());

    ca.email = Some("nobody".into());
    let fault = Clerk::default().order(&ca, &wanted(), &edge.certs).await.unwrap_err();
    assert!(fault.to_string().contains("invalid_email") && fault.kind == FaultKind::Refused, "{fault}");
    ca.email = None;
    let fault = Clerk::default().order(&ca, &wanted(), &edge.certs).await.unwrap_err();
    assert!(fault.to_string().contains("set `email` in `[edge]`"), "{fault}");
}

#[tokio::test]
async fn a_rehearsal_goes_to_the_staging_directory() {
    let (live, staging) = (Fake::start(Script::default()).await, Fake::start(Script::default()).await);
    let declared = clerk::authority(format!("http://{}/dir", live.address));
    let rehearsal = format!("http://{}/dir", staging.address);
    let mut ca = clerk::ca(Authority { staging: Some(rehearsal), ..declared.clone() });
    ca.staging = true;
    let edge = Edge::new().await;
    Clerk::default().order(&ca, &wanted(), &edge.certs).await.unwrap();
    assert_eq!((live.seen("/").len(), staging.seen("/order").is_empty()), (0, false));
    let mut without = clerk::ca(declared);
    without.staging = true;
    let fault = Clerk::default().order(&without, &wanted(), &edge.certs).await.unwrap_err();
    assert!(fault.to_string().contains("the authority `test` has no staging"), "{fault}");
}
