//! The API of OVH, as a fake that takes only what OVH takes: signed calls, on time, within the key's rights.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use relais_core::config::{DnsProvider, Secret};
use relais_tls::acme::dns::Dns;
use serde_json::json;

use crate::fake_http::{Asked, serve};
use crate::{blind, dns, present, refused};

const KEY: &str = "application";
const SECRET: &str = "application-secret";
const CONSUMER: &str = "consumer-key";
/// How wrong our clock is.
const AHEAD: i64 = -3 * 3600;

#[derive(Default)]
struct Account {
    /// By id: name within the zone, and value.
    records: BTreeMap<u64, (String, String)>,
    /// What name servers show: what was there at the last refresh.
    shown: Vec<(String, String)>,
    next: u64,
    calls: Vec<String>,
    /// Says 500 to this many creations, after carrying them out.
    lost: usize,
}

impl Account {
    fn values(&self) -> Vec<String> {
        self.shown.iter().map(|(name, value)| format!("{name} {value}")).collect()
    }
}

fn api() -> (String, Arc<Mutex<Account>>) {
    let account: Arc<Mutex<Account>> = Arc::default();
    let kept = Arc::clone(&account);
    let url = serve(move |asked| answer(asked, &mut kept.lock().unwrap()));
    (format!("{url}/1.0"), account)
}

fn fault(status: u16, code: &str, message: &str) -> (u16, String) {
    (status, json!({"errorCode": code, "message": message, "httpCode": status}).to_string())
}

fn answer(asked: &Asked, account: &mut Account) -> (u16, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + AHEAD;
    let path = asked.path.strip_prefix("/1.0").unwrap();
    account.calls.push(format!("{} {path}", asked.method));
    if path == "/auth/time" {
        return (200, now.to_string());
    }
    if asked.header("x-ovh-application") != KEY {
        return fault(403, "INVALID_KEY", "This application key is invalid");
    }
    let consumer = asked.header("x-ovh-consumer");
    if consumer != CONSUMER {
        return fault(403, "NOT_CREDENTIAL", &format!("This credential {consumer} does not exist"));
    }
    let time: i64 = asked.header("x-ovh-timestamp").parse().unwrap();
    let url = format!("http://{}{}", asked.header("host"), asked.path);
    let text = format!("{SECRET}+{CONSUMER}+{}+{url}+{}+{time}", asked.method, asked.body);
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    let signature = hash.as_ref().iter().fold("$1$".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    if asked.header("x-ovh-signature") != signature || (now - time).abs() > 30 {
        return fault(400, "INVALID_SIGNATURE", "Invalid signature");
    }
    zone(asked, path, account)
}

fn zone(asked: &Asked, path: &str, account: &mut Account) -> (u16, String) {
    let (zone, rest) = path.strip_prefix("/domain/zone/").unwrap().split_once('/').unwrap();
    match zone {
        "a.test" => {}
        "forbidden.test" | "closed.a.test" => return fault(403, "NOT_GRANTED_CALL", "This call has not been granted"),
        _ => return fault(404, "NOT_FOUND", "This service does not exist"),
    }
    if let Some(query) = rest.strip_prefix("record?fieldType=TXT&subDomain=") {
        assert_eq!(asked.method, "GET");
        let ids: Vec<u64> = account.records.iter().filter(|(_, (name, _))| name == query).map(|(id, _)| *id).collect();
        return (200, json!(ids).to_string());
    }
    match (asked.method.as_str(), rest, rest.strip_prefix("record/").map(|id| id.parse::<u64>().unwrap())) {
        ("POST", "record", _) => {
            let record = asked.json();
            assert_eq!((&record["fieldType"], &record["ttl"]), (&json!("TXT"), &json!(60)), "{record}");
            let text = |field: &str| record[field].as_str().unwrap().to_owned();
            account.next += 1;
            account.records.insert(account.next, (text("subDomain"), text("target")));
            if account.lost > 0 {
                account.lost -= 1;
                return fault(500, "INTERNAL", "Internal server error");
            }
            (200, json!({"id": account.next}).to_string())
        }
        ("POST", "refresh", _) => {
            account.shown = account.records.values().cloned().collect();
            (200, "null".to_owned())
        }
        ("GET", _, Some(id)) => match account.records.get(&id) {
            // In quotes, as OVH gives back what was given without.
            Some((name, value)) => {
                (200, json!({"id": id, "subDomain": name, "target": format!("\"{value}\"")}).to_string())
            }
            None => fault(404, "NOT_FOUND", "This record does not exist"),
        },
        ("DELETE", _, Some(id)) => {
            account.records.remove(&id);
            (200, "null".to_owned())
        }
        other => panic!("{other:?}"),
    }
}

fn asking(endpoint: &str, key: &str, secret: &str, consumer: &str) -> Dns {
    dns(blind(DnsProvider::Ovh {
        endpoint: endpoint.to_owned(),
        application_key: key.to_owned(),
        application_secret: Secret::new(secret),
        consumer_key: Secret::new(consumer),
    }))
}

#[tokio::test]
async fn records_are_made_and_removed_with_a_clock_that_is_wrong() {
    let (url, account) = api();
    account.lock().unwrap().records.insert(1000, ("_acme-challenge".into(), "somebody else's".into()));
    account.lock().unwrap().next = 1000;
    let dns = asking(&url, KEY, SECRET, CONSUMER);
    let presented = present(&dns, &[("a.test", "v"), ("*.a.test", "w"), ("www.closed.a.test", "x")]).await.unwrap();
    let all =
        ["_acme-challenge somebody else's", "_acme-challenge v", "_acme-challenge w", "_acme-challenge.www.closed x"];
    assert_eq!(account.lock().unwrap().values(), all);
    let again = present(&dns, &[("a.test", "v")]).await.unwrap();
    assert_eq!(account.lock().unwrap().values(), all, "what is there is not made twice");
    assert_eq!(presented.clean().await, []);
    assert_eq!(account.lock().unwrap().values(), all[..1]);
    assert_eq!(again.clean().await, [], "removing what is gone is no fault");
    let calls = account.lock().unwrap().calls.join("\n");
    let first = "GET /auth/time\n\
        GET /domain/zone/_acme-challenge.a.test/record?fieldType=TXT&subDomain=\n\
        GET /domain/zone/a.test/record?fieldType=TXT&subDomain=_acme-challenge\n\
        GET /domain/zone/a.test/record/1000\n\
        POST /domain/zone/a.test/record\n\
        POST /domain/zone/a.test/refresh\n";
    assert!(calls.starts_with(first), "{calls}");
}

#[tokio::test]
async fn a_record_that_was_made_by_a_call_that_failed_is_removed() {
    let (url, account) = api();
    account.lock().unwrap().lost = 1;
    let failed = present(&asking(&url, KEY, SECRET, CONSUMER), &[("a.test", "v")]).await.unwrap_err();
    let said = failed.to_string();
    assert!(
        said.starts_with(
            "OVH /domain/zone/a.test/record answered 500 Internal Server Error: \"Internal server error\"; "
        ),
        "{said}"
    );
    assert_eq!(failed.left, []);
    let account = account.lock().unwrap();
    assert!(account.records.is_empty() && account.shown.is_empty());
    assert!(account.calls.iter().any(|call| call == "DELETE /domain/zone/a.test/record/1"), "{:?}", account.calls);
}

#[tokio::test]
async fn what_ovh_refuses_is_said_with_the_way_out() {
    let (url, account) = api();
    let said = refused(&asking(&url, "wrong-key", SECRET, CONSUMER), "a.test").await;
    assert!(said.contains("\"This application key is invalid\"; check `application_key`"), "{said}");
    let said = refused(&asking(&url, KEY, "wrong-secret", CONSUMER), "a.test").await;
    assert!(said.contains("\"Invalid signature\"; check `application_secret`"), "{said}");
    let said = refused(&asking(&url, KEY, SECRET, "wrong-consumer"), "a.test").await;
    assert!(said.contains("\"This credential *** does not exist\"; check `consumer_key`"), "{said}");
    let dns = asking(&url, KEY, SECRET, CONSUMER);
    let said = refused(&dns, "www.forbidden.test").await;
    assert!(said.contains("make a key with the rights GET, POST and DELETE on /domain/zone/*"), "{said}");
    let said = refused(&dns, "other.test").await;
    assert!(said.starts_with("OVH has no zone that holds _acme-challenge.other.test; "), "{said}");
    assert!(account.lock().unwrap().records.is_empty());
    let said = refused(&asking("http://127.0.0.1:1/1.0", KEY, SECRET, CONSUMER), "a.test").await;
    assert!(
        said.contains("at http://127.0.0.1:1/1.0 failed: cannot connect") && said.contains("check `endpoint`"),
        "{said}"
    );
}
