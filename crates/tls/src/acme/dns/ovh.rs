//! The zone API of OVH. May call it. Its zones take changes only after a `refresh`.
//!
//! Rights the consumer key needs: GET, POST and DELETE on `/domain/zone/*`.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use relais_core::config::Secret;
use serde_json::{Value, json};

use super::fault::{DnsFault, quoted};
use super::{Action, CALL, TTL, candidates};
use crate::acme::client::Client;

/// What OVH says of a caller whom it does not know, whatever he asks for.
const ABOUT_US: [&str; 6] =
    ["INVALID_KEY", "INVALID_CREDENTIAL", "NOT_CREDENTIAL", "INVALID_SIGNATURE", "BAD_SIGNATURE", "QUERY_TIME_OUT"];
const RIGHTS: &str = "make a key with the rights GET, POST and DELETE on /domain/zone/* (OVH: createToken)";

#[derive(Debug)]
pub(super) struct Ovh {
    endpoint: String,
    application_key: String,
    application_secret: Secret,
    consumer_key: Secret,
    client: Client,
}

/// Calls of one action, which count by OVH's clock.
struct Session<'a> {
    ovh: &'a Ovh,
    /// What must be added to our clock, in seconds.
    ahead: i64,
}

/// Where a name lies.
struct Place {
    zone: String,
    /// The name within its zone; empty: the zone's own.
    part: String,
    /// Ids of the TXT records that are there.
    records: Vec<u64>,
}

impl Ovh {
    pub(super) fn new(
        endpoint: &str,
        application_key: &str,
        application_secret: &Secret,
        consumer_key: &Secret,
        client: Client,
    ) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            application_key: application_key.to_owned(),
            application_secret: application_secret.clone(),
            consumer_key: consumer_key.clone(),
            client,
        }
    }

    pub(super) async fn run(&self, action: Action, fqdn: &str, value: &str) -> Result<(), DnsFault> {
        let session = Session { ovh: self, ahead: self.ahead().await? };
        let place = session.find(fqdn).await?;
        // What is there is asked for before anything is made: an attempt that was cut off may have left it.
        let mut ours = Vec::new();
        for id in &place.records {
            let record = session.get(&format!("/domain/zone/{}/record/{id}", place.zone)).await?;
            if record["target"].as_str().is_some_and(|target| target.trim_matches('"') == value) {
                ours.push(*id);
            }
        }
        match action {
            Action::Present if ours.is_empty() => {
                let record = json!({"fieldType": "TXT", "subDomain": place.part, "target": value, "ttl": TTL});
                session.post(&format!("/domain/zone/{}/record", place.zone), Some(&record)).await?;
            }
            Action::Present => {}
            Action::Clean => {
                for id in &ours {
                    let path = format!("/domain/zone/{}/record/{id}", place.zone);
                    let answer = session.call(Method::DELETE, &path, None).await?;
                    // Somebody else was faster.
                    if answer.status() != StatusCode::NOT_FOUND {
                        session.good(&path, &answer)?;
                    }
                }
            }
        }
        // Asked for in any case: the attempt that was cut off may have stopped just before it.
        session.post(&format!("/domain/zone/{}/refresh", place.zone), None).await.map(drop)
    }

    /// Signatures count by OVH's clock, so that a wrong one here costs nothing.
    async fn ahead(&self) -> Result<i64, DnsFault> {
        let path = "/auth/time";
        let request = Request::get(format!("{}{path}", self.endpoint)).header(ACCEPT, "application/json");
        let answer = self.send(path, request.body(Bytes::new())).await?;
        let theirs = std::str::from_utf8(answer.body()).ok().and_then(|text| text.trim().parse::<i64>().ok());
        match theirs {
            Some(theirs) if answer.status().is_success() => Ok(theirs - unix_now()),
            _ => Err(DnsFault::new(
                format!("OVH at {} does not say what time it is ({})", self.endpoint, answer.status()),
                "check `endpoint`, as https://eu.api.ovh.com/1.0",
            )),
        }
    }

    async fn send(&self, path: &str, request: http::Result<Request<Bytes>>) -> Result<Response<Bytes>, DnsFault> {
        let failed = |why: String| {
            DnsFault::new(
                format!("OVH {path} at {} failed: {why}", self.endpoint),
                "check `endpoint` and that relais can reach it",
            )
        };
        let request = request.map_err(|fault| failed(fault.to_string()))?;
        self.client.send(request, CALL).await.map_err(|fault| failed(fault.to_string()))
    }
}

impl Session<'_> {
    /// Looks for the zone from the name upwards, by asking for the records that the name has there.
    async fn find(&self, fqdn: &str) -> Result<Place, DnsFault> {
        let mut refused = None;
        for zone in candidates(fqdn) {
            let part = fqdn.strip_suffix(zone).unwrap_or_default().trim_end_matches('.').to_owned();
            let path = format!("/domain/zone/{zone}/record?fieldType=TXT&subDomain={part}");
            let answer = self.call(Method::GET, &path, None).await?;
            let about_us = code(&answer).is_some_and(|code| ABOUT_US.contains(&code.as_str()));
            match answer.status() {
                // 400: OVH finds the name itself unfit for a zone.
                StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST if !about_us => {}
                // The key may be for the zone above only.
                StatusCode::FORBIDDEN if !about_us => refused = refused.or(self.good(&path, &answer).err()),
                _ => {
                    let records = self.good(&path, &answer)?;
                    let ids = records.as_array().map(|ids| ids.iter().filter_map(Value::as_u64).collect());
                    return Ok(Place { zone: zone.to_owned(), part, records: ids.unwrap_or_default() });
                }
            }
        }
        Err(refused.unwrap_or_else(|| {
            DnsFault::new(
                format!("OVH has no zone that holds {fqdn}"),
                "check that the zone is in this account and `endpoint` is the one of its region",
            )
        }))
    }

    async fn get(&self, path: &str) -> Result<Value, DnsFault> {
        let answer = self.call(Method::GET, path, None).await?;
        // Removed between two questions.
        if answer.status() == StatusCode::NOT_FOUND { Ok(Value::Null) } else { self.good(path, &answer) }
    }

    async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, DnsFault> {
        let answer = self.call(Method::POST, path, body).await?;
        self.good(path, &answer)
    }

    /// A signed call: `$1$` and the SHA-1 of secret, consumer, method, URL, body and time, joined by `+`.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Bytes>, DnsFault> {
        let ovh = self.ovh;
        let url = format!("{}{path}", ovh.endpoint);
        let body = body.map(Value::to_string).unwrap_or_default();
        let time = unix_now() + self.ahead;
        let signed = signature(ovh.application_secret.expose(), ovh.consumer_key.expose(), &method, &url, &body, time);
        let mut request = Request::builder()
            .method(method)
            .uri(&url)
            .header(ACCEPT, "application/json")
            .header("X-Ovh-Application", &ovh.application_key)
            .header("X-Ovh-Consumer", ovh.consumer_key.expose())
            .header("X-Ovh-Timestamp", time)
            .header("X-Ovh-Signature", signed);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json;charset=utf-8");
        }
        ovh.send(path, request.body(Bytes::from(body))).await
    }

    fn good(&self, path: &str, answer: &Response<Bytes>) -> Result<Value, DnsFault> {
        let (status, body) = (answer.status(), answer.body());
        if status.is_success() {
            return Ok(serde_json::from_slice(body).unwrap_or_default());
        }
        let secrets = [self.ovh.application_secret.expose(), self.ovh.consumer_key.expose()];
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = told["message"].as_str().map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
        let help = match (status, code(answer).as_deref()) {
            (_, Some("NOT_GRANTED_CALL")) => RIGHTS,
            (_, Some("INVALID_KEY")) => "check `application_key`, and that `endpoint` is the region it was made in",
            (_, Some("INVALID_CREDENTIAL" | "NOT_CREDENTIAL")) => {
                "check `consumer_key`: it may have run out or was never confirmed"
            }
            (_, Some("INVALID_SIGNATURE" | "BAD_SIGNATURE")) => "check `application_secret` and `consumer_key`",
            (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, _) => RIGHTS,
            (StatusCode::TOO_MANY_REQUESTS, _) => "OVH allows so many calls and no more; it is tried again later",
            _ => "it is tried again; if it stays, look at the zone in OVH's web page",
        };
        let path = path.split('?').next().unwrap_or(path);
        Err(DnsFault::new(format!("OVH {path} answered {status}: {}", quoted(&text, &secrets)), help))
    }
}

/// OVH's own word for what is wrong.
fn code(answer: &Response<Bytes>) -> Option<String> {
    let told: Value = serde_json::from_slice(answer.body()).ok()?;
    told["errorCode"].as_str().map(str::to_owned)
}

fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn signature(secret: &str, consumer: &str, method: &Method, url: &str, body: &str, time: i64) -> String {
    use std::fmt::Write;
    let text = format!("{secret}+{consumer}+{method}+{url}+{body}+{time}");
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    hash.as_ref().iter().fold("$1$".to_owned(), |mut signed, byte| {
        // Writing to a string cannot fail.
        let _ = write!(signed, "{byte:02x}");
        signed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of OVH's own client's tests (github.com/ovh/go-ovh, `ovh_test.go`).
    #[test]
    fn a_signature_is_as_ovh_makes_it() {
        let (secret, consumer) = ("9ufkBmLaTQ9nz5yMUlg79taH0GNnzDjk", "5mBuy6SUQcRw2ZUxg0cG68BoDKpED4KY");
        let url = "https://api.eu.ovhcloud.com/1.0/auth";
        let signed = |method: Method, body: &str| signature(secret, consumer, &method, url, body, 1_457_018_875);
        assert_eq!(signed(Method::GET, ""), "$1$52992e595b398f6aba591ee5925b379081614ced");
        assert_eq!(signed(Method::POST, r#"{"a":"b","c":"d"}"#), "$1$ea0e0d82447373a3ddf5947065f1d519ca0bcaf2");
        assert_eq!(signed(Method::DELETE, ""), "$1$f685c165fa9da88b294b5fd2504588588105f994");
    }
}
