//! The DNS API of Cloudflare. May call it.
//!
//! Rights the token needs: `Zone:Read` and `DNS:Edit` for the zone.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use relais_core::config::Secret;
use serde_json::{Value, json};

use super::fault::{DnsFault, quoted};
use super::{Action, CALL, TTL, candidates};
use crate::acme::client::Client;

const RIGHTS: &str = "make a token with the rights Zone:Read and DNS:Edit for this zone, and give it in `token`";

#[derive(Debug)]
pub(super) struct Cloudflare {
    endpoint: String,
    token: Secret,
    client: Client,
}

/// What the API said to a call that it did not carry out.
struct Refusal {
    status: StatusCode,
    codes: Vec<i64>,
    fault: DnsFault,
}

impl Cloudflare {
    pub(super) fn new(endpoint: &str, token: &Secret, client: Client) -> Self {
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), token: token.clone(), client }
    }

    pub(super) async fn run(&self, action: Action, fqdn: &str, value: &str) -> Result<(), DnsFault> {
        let zone = self.zone(fqdn).await?;
        let path = format!("/zones/{zone}/dns_records");
        match action {
            Action::Present => {
                // With the quotes that a TXT record has in a zone file, which Cloudflare asks for.
                let record = json!({"type": "TXT", "name": fqdn, "content": format!("\"{value}\""), "ttl": TTL});
                match self.call(Method::POST, &path, Some(&record)).await {
                    // "An identical record already exists": an attempt that was cut off has left it.
                    Err(refusal) if refusal.codes.iter().any(|code| matches!(code, 81057 | 81058)) => Ok(()),
                    answer => answer.map(drop).map_err(|refusal| refusal.fault),
                }
            }
            Action::Clean => {
                let list = format!("{path}?type=TXT&name={fqdn}&per_page=100");
                let records = self.call(Method::GET, &list, None).await.map_err(|refusal| refusal.fault)?;
                for record in records.as_array().into_iter().flatten() {
                    let ours = record["content"].as_str().is_some_and(|text| text.trim_matches('"') == value);
                    if let Some(id) = record["id"].as_str().filter(|_| ours) {
                        match self.call(Method::DELETE, &format!("{path}/{id}"), None).await {
                            // Somebody else was faster.
                            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => {}
                            answer => drop(answer.map_err(|refusal| refusal.fault)?),
                        }
                    }
                }
                Ok(())
            }
        }
    }

    /// The id of the zone that holds a name.
    async fn zone(&self, fqdn: &str) -> Result<String, DnsFault> {
        for name in candidates(fqdn) {
            let found = self.call(Method::GET, &format!("/zones?name={name}"), None).await;
            let found = found.map_err(|refusal| refusal.fault)?;
            if let Some(id) = found[0]["id"].as_str() {
                return Ok(id.to_owned());
            }
        }
        Err(DnsFault::new(format!("the Cloudflare token sees no zone that holds {fqdn}"), RIGHTS))
    }

    /// The `result` of a call.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Refusal> {
        let shown = path.split('?').next().unwrap_or(path).to_owned();
        let failed = |why: String| Refusal {
            status: StatusCode::BAD_GATEWAY,
            codes: Vec::new(),
            fault: DnsFault::new(
                format!("Cloudflare {shown} at {} failed: {why}", self.endpoint),
                "check that relais can reach it",
            ),
        };
        let mut token = HeaderValue::from_str(&format!("Bearer {}", self.token.expose()))
            .map_err(|_| failed("the token holds characters that cannot be sent".to_owned()))?;
        token.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint))
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, token)
            .header(CONTENT_TYPE, "application/json")
            .body(Bytes::from(body.map(Value::to_string).unwrap_or_default()))
            .map_err(|fault| failed(fault.to_string()))?;
        let answer = self.client.send(request, CALL).await.map_err(|fault| failed(fault.to_string()))?;
        let mut told: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let status = answer.status();
        if status.is_success() && told["success"] != json!(false) {
            return Ok(told["result"].take());
        }
        let faults = told["errors"].as_array().cloned().unwrap_or_default();
        let codes: Vec<i64> = faults.iter().filter_map(|fault| fault["code"].as_i64()).collect();
        let words: Vec<String> = faults.iter().map(words).collect();
        let said =
            if words.is_empty() { String::from_utf8_lossy(answer.body()).into_owned() } else { words.join(", ") };
        let said = quoted(&said, &[self.token.expose()]);
        let fault = DnsFault::new(format!("Cloudflare {shown} answered {status}: {said}"), way_out(status, &codes));
        Err(Refusal { status, codes, fault })
    }
}

fn words(fault: &Value) -> String {
    format!("{} ({})", fault["message"].as_str().unwrap_or("no reason"), fault["code"])
}

fn way_out(status: StatusCode, codes: &[i64]) -> &'static str {
    // 6003 and 6111: the header cannot be read; 9109, 10000 and 1000: the token is not good; 9106: none was seen.
    if codes.iter().any(|code| matches!(code, 1000 | 6003 | 6111 | 9106 | 9109 | 10000)) {
        return "check `token`: an API token, not the global key, that is active and may be used from this address";
    }
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RIGHTS,
        StatusCode::TOO_MANY_REQUESTS => "Cloudflare allows so many calls and no more; it is tried again later",
        _ => "it is tried again; if it stays, look at the zone in Cloudflare's web page",
    }
}
