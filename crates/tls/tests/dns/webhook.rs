//! A web address of the operator's.

use std::sync::{Arc, Mutex};

use relais_core::config::{DnsProvider, Secret};
use relais_tls::acme::dns::Dns;

use crate::fake_http::serve;
use crate::{blind, dns, present, refused};

const TOKEN: &str = "t0p-s3cret";

fn calling(url: &str) -> Dns {
    let headers = vec![("Authorization".to_owned(), Secret::new(&format!("Bearer {TOKEN}")))];
    dns(blind(DnsProvider::Webhook { url: url.to_owned(), headers }))
}

#[tokio::test]
async fn it_is_told_what_to_do() {
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&calls);
    let url = serve(move |asked| {
        let (json, key) = (asked.json(), asked.header("authorization"));
        let call = format!("{} {} {key} {} {json}", asked.method, asked.path, asked.header("content-type"));
        noted.lock().unwrap().push(call);
        (204, String::new())
    });
    let presented = present(&calling(&format!("{url}/dns?zone=1")), &[("*.a.test", "v")]).await.unwrap();
    assert_eq!(presented.clean().await, []);
    let call = |action: &str| {
        let json = serde_json::json!({
            "action": action, "fqdn": "_acme-challenge.a.test", "value": "v", "host": "a.test",
        });
        format!("POST /dns?zone=1 Bearer {TOKEN} application/json {json}")
    };
    assert_eq!(*calls.lock().unwrap(), [call("present"), call("cleanup")]);
}

#[tokio::test]
async fn what_it_answers_is_said_without_secrets() {
    let url = serve(|asked| (403, format!("<b>no</b>\n\n {} is bad", asked.header("authorization"))));
    let said = refused(&calling(&format!("{url}/dns?key=qwertz")), "a.test").await;
    let expected = format!(
        "the webhook http://127.0.0.1/dns for present _acme-challenge.a.test answered 403 Forbidden: \"<b>no</b> {} is bad\"; check the `headers`",
        "***"
    );
    assert!(said.starts_with(&expected), "{said}");
    assert!(!said.contains(TOKEN) && !said.contains("qwertz"), "{said}");
    let url = serve(|_| (302, String::new()));
    let said = refused(&calling(&url), "a.test").await;
    assert!(said.contains("answered 302 Found") && said.ends_with("the address it redirects to in `url`"), "{said}");
    let said = refused(&calling("http://127.0.0.1:1/"), "a.test").await;
    assert!(said.contains("failed: cannot connect to 127.0.0.1:1"), "{said}");
}
