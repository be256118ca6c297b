//! The DNS API of Cloudflare, as a fake that takes only its token.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use relais_core::config::{DnsProvider, Secret};
use relais_tls::acme::dns::Dns;
use serde_json::{Value, json};

use crate::fake_http::{Asked, serve};
use crate::{blind, dns, present, refused};

const TOKEN: &str = "cf-t0ken-of-the-zone";
const ZONE: &str = "023e105f4ecef8ad9ca31a8372d0c353";

#[derive(Default)]
struct Account {
    /// By id: name and content.
    records: BTreeMap<usize, (String, String)>,
    next: usize,
    calls: Vec<String>,
}

fn api() -> (String, Arc<Mutex<Account>>) {
    let account: Arc<Mutex<Account>> = Arc::default();
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
            "a.test" => vec![json!({"id": ZONE, "name": name})],
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
            Some(_) => good(&json!({"id": id})),
            None => bad(404, 81044, "Record does not exist."),
        },
        other => panic!("{other:?}"),
    }
}

fn asking(endpoint: &str, token: &str) -> Dns {
    dns(blind(DnsProvider::Cloudflare { endpoint: endpoint.to_owned(), token: Secret::new(token) }))
}

#[tokio::test]
async fn records_are_made_and_removed() {
    let (url, account) = api();
    let name = "_acme-challenge.a.test".to_owned();
    account.lock().unwrap().records.insert(1000, (name.clone(), "\"somebody else's\"".into()));
    let dns = asking(&format!("{url}/"), TOKEN);
    let presented = present(&dns, &[("a.test", "v"), ("*.a.test", "w")]).await.unwrap();
    let again = present(&dns, &[("a.test", "v")]).await.unwrap();
    let values = || -> Vec<String> {
        account.lock().unwrap().records.values().map(|(name, content)| format!("{name} {content}")).collect()
    };
    let all = [format!("{name} \"v\""), format!("{name} \"w\""), format!("{name} \"somebody else's\"")];
    assert_eq!(values(), all);
    assert_eq!(presented.clean().await, []);
    assert_eq!(values(), all[2..]);
    assert_eq!(again.clean().await, [], "removing what is gone is no fault");
    let calls = account.lock().unwrap().calls.join("\n");
    let first =
        format!("GET /zones?name=_acme-challenge.a.test\nGET /zones?name=a.test\nPOST /zones/{ZONE}/dns_records\n");
    assert!(calls.starts_with(&first), "{calls}");
}

#[tokio::test]
async fn what_cloudflare_refuses_is_said_with_the_way_out() {
    let (url, _account) = api();
    let wrong = "another-t0ken";
    let said = refused(&asking(&url, wrong), "a.test").await;
    let expected =
        "Cloudflare /zones answered 403 Forbidden: \"Invalid access token Bearer *** (9109)\"; check `token`";
    assert!(said.starts_with(expected), "{said}");
    let said = refused(&asking(&url, TOKEN), "www.other.test").await;
    assert!(
        said.starts_with("the Cloudflare token sees no zone that holds _acme-challenge.www.other.test; "),
        "{said}"
    );
    let said = refused(&asking(&url, TOKEN), "readonly.test").await;
    assert!(said.contains("no permission (7003)\"; make a token with the rights Zone:Read and DNS:Edit"), "{said}");
    let broken = serve(|_| (502, "<html>bad gateway</html>".to_owned()));
    let said = refused(&asking(&broken, TOKEN), "a.test").await;
    assert!(said.contains("answered 502 Bad Gateway: \"<html>bad gateway</html>\"; "), "{said}");
}
