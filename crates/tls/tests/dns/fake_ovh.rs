//! The API of OVH, as a fake that takes only what OVH takes: signed calls, on time, within the key's rights.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::json;

use crate::fake_http::{Asked, Shown, serve};

pub(crate) const KEY: &str = "application";
pub(crate) const SECRET: &str = "application-secret";
pub(crate) const CONSUMER: &str = "consumer-key";
/// How wrong our clock is.
const AHEAD: i64 = -3 * 3600;

pub(crate) struct Account {
    /// The only zone that the key may write into.
    zone: &'static str,
    /// By id: name within the zone, and value.
    pub(crate) records: BTreeMap<u64, (String, String)>,
    /// What name servers show: what was there at the last refresh.
    pub(crate) shown: Vec<(String, String)>,
    pub(crate) next: u64,
    pub(crate) calls: Vec<String>,
    /// Says 500 to this many creations, after carrying them out.
    pub(crate) lost: usize,
    /// The name servers.
    servers: Shown,
}

impl Account {
    fn refresh(&mut self) {
        let shown: Vec<(String, String)> = self.records.values().cloned().collect();
        for (name, value) in self.shown.iter().filter(|one| !shown.contains(one)) {
            (self.servers)(self.zone, name, value, false);
        }
        for (name, value) in shown.iter().filter(|one| !self.shown.contains(one)) {
            (self.servers)(self.zone, name, value, true);
        }
        self.shown = shown;
    }

    pub(crate) fn values(&self) -> Vec<String> {
        self.shown.iter().map(|(name, value)| format!("{name} {value}")).collect()
    }
}

/// Its endpoint, for one zone.
pub(crate) fn api(zone: &'static str, servers: Shown) -> (String, Arc<Mutex<Account>>) {
    let (records, shown, calls) = (BTreeMap::new(), Vec::new(), Vec::new());
    let account = Arc::new(Mutex::new(Account { zone, records, shown, next: 0, calls, lost: 0, servers }));
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
        zone if zone == account.zone => {}
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
            account.refresh();
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
