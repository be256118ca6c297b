//! Records at Cloudflare, before a fake of its API.

use relais_core::config::{DnsProvider, Secret};
use relais_tls::acme::dns::Dns;

use crate::fake_cloudflare::{TOKEN, ZONE, api};
use crate::fake_http::serve;
use crate::{blind, dns, present, refused};

fn asking(endpoint: &str, token: &str) -> Dns {
    dns(blind(DnsProvider::Cloudflare { endpoint: endpoint.to_owned(), token: Secret::new(token) }))
}

#[tokio::test]
async fn records_are_made_and_removed() {
    let (url, account) = api("a.test", Box::new(|_, _, _, _| ()));
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
    let (url, _account) = api("a.test", Box::new(|_, _, _, _| ()));
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
