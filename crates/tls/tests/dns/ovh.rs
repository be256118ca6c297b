//! Records at OVH, before a fake of its API.

use relais_core::config::{DnsProvider, Secret};
use relais_tls::acme::dns::Dns;

use crate::fake_ovh::{CONSUMER, KEY, SECRET, api};
use crate::{blind, dns, present, refused};

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
    let (url, account) = api("a.test", Box::new(|_, _, _, _| ()));
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
    let (url, account) = api("a.test", Box::new(|_, _, _, _| ()));
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
    let (url, account) = api("a.test", Box::new(|_, _, _, _| ()));
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
