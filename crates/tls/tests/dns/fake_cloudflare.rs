//! The DNS API of Cloudflare, as a fake that takes only its token.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::fake_http::{Asked, Shown, serve};

pub(crate) const TOKEN: &str = "cf-t0ken-of-the-zone";
pub(crate) const ZONE: &str = "023e105f4ecef8ad9ca31a8372d0c353";

pub(crate) struct Account {
    /// The name of the only zone that the token may write into.
    zone: &'static str,
    /// By id: name and content.
    pub(crate) records: BTreeMap<usize, (String, String)>,
    next: usize,
    pub(crate) calls: Vec<String>,
    /// The name servers.
    servers: Shown,
}

impl Account {
    fn show(&self, (name, content): &(String, String), there: bool) {
        let name = name.strip_suffix(self.zone).unwrap_or(name).trim_end_matches('.');
        (self.servers)(self.zone, name, content.trim_matches('"'), there);
    }
}

/// Its endpoint, for one zone.
pub(crate) fn api(zone: &'static str, servers: Shown) -> (String, Arc<Mutex<Account>>) {
    let (records, calls) = (BTreeMap::new(), Vec::new());
    let account = Arc::new(Mutex::new(Account { zone, records, next: 0, calls, servers }));
    let kept = Arc::clone(&account);
    let url = serve(move |asked| answer(asked, &mut kept.lock().unwrap()));
    (format!("{url}/client/v4"), account)
}

fn good(result: &Value) -> (u16, String) {
    (200, json!({"success": true, "errors": [], "messages": [], "result": result}).to_string())
}

fn bad(status: u16, code: i64, message: &str) -> (u16, String) {
    let errors = [json!({"code": code, "message": message})];
    (status, json!({"success": false, "errors": errors, "messages": [], "result": null}).to_string())
}

fn answer(asked: &Asked, account: &mut Account) -> (u16, String) {
    let path = asked.path.strip_prefix("/client/v4").unwrap();
    account.calls.push(format!("{} {path}", asked.method));
    let token = asked.header("authorization");
    if token != format!("Bearer {TOKEN}") {
        return bad(403, 9109, &format!("Invalid access token {token}"));
    }
    if let Some(name) = path.strip_prefix("/zones?name=") {
        let found: Vec<Value> = match name {
            name if name == account.zone => vec![json!({"id": ZONE, "name": name})],
            "readonly.test" => vec![json!({"id": "readonly", "name": name})],
            _ => Vec::new(),
        };
        return good(&json!(found));
    }
    let Some(rest) = path.strip_prefix(&format!("/zones/{ZONE}/dns_records")) else {
        return bad(403, 7003, "Could not route, or no permission");
    };
    let (id, query) = (rest.strip_prefix('/'), rest.strip_prefix("?type=TXT&name="));
    match (asked.method.as_str(), id, query) {
        ("POST", None, None) => {
            let record = asked.json();
            assert_eq!((&record["type"], &record["ttl"]), (&json!("TXT"), &json!(60)), "{record}");
            let text = |field: &str| record[field].as_str().unwrap().to_owned();
            let new = (text("name"), text("content"));
            if account.records.values().any(|old| *old == new) {
                return bad(400, 81058, "An identical record already exists.");
            }
            account.next += 1;
            account.show(&new, true);
            account.records.insert(account.next, new);
            good(&json!({"id": account.next.to_string()}))
        }
        ("GET", None, Some(query)) => {
            let name = query.strip_suffix("&per_page=100").unwrap();
            let found = account.records.iter().filter(|(_, (here, _))| here == name);
            let found =
                found.map(|(id, (name, content))| json!({"id": id.to_string(), "name": name, "content": content}));
            good(&json!(found.collect::<Vec<_>>()))
        }
        ("DELETE", Some(id), None) => match account.records.remove(&id.parse().unwrap()) {
            Some(old) => {
                account.show(&old, false);
                good(&json!({"id": id}))
            }
            None => bad(404, 81044, "Record does not exist."),
        },
        other => panic!("{other:?}"),
    }
}
