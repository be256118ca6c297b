//! A CA of our own for what `pebble` does not do: renewal information, profiles, limits, orders that never end, errors of
//! servers in front of it. It believes every signature and every challenge.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use relais_tls::acme::Ca;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::clerk;
use crate::support;

/// One answer: status, further headers, body.
pub(crate) type Answer = (u16, String, String);

/// What it does otherwise than a good CA.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// Answers to requests to a path, each used once, before the good ones.
    pub(crate) instead: Arc<Mutex<BTreeMap<String, Vec<Answer>>>>,
    /// Paths whose next answer is lost on the way, after the request was carried out.
    pub(crate) lost: Arc<Mutex<Vec<&'static str>>>,
    /// The profiles of the directory.
    pub(crate) profiles: Vec<&'static str>,
    /// Whether the directory knows renewal information; it is the answer.
    pub(crate) renewal: Option<Value>,
    /// `Retry-After` beside it.
    pub(crate) again: Option<&'static str>,
    /// Orders stay pending.
    pub(crate) never: bool,
    /// Orders are processed for so many looks after they were asked for.
    pub(crate) slow_looks: usize,
    /// ARI ids that were replaced already.
    pub(crate) replaced: Vec<String>,
    /// `replaces` is not heeded.
    pub(crate) deaf: bool,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    script: Script,
    ca: support::Ca,
    base: Mutex<String>,
    seen: Mutex<Vec<(String, Value)>>,
    orders: Mutex<Vec<Placed>>,
}

#[derive(Default)]
struct Placed {
    request: Value,
    answered: bool,
    chain: Option<String>,
    looks: usize,
}

impl Fake {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ca = support::Ca::new();
        let base = Mutex::new(format!("http://{address}"));
        let state = Arc::new(State { script, ca, base, seen: Mutex::default(), orders: Mutex::default() });
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                tokio::spawn(async move { talk(stream, &state).await });
            }
        });
        Self { address, state }
    }

    pub(crate) fn ca(&self) -> Ca {
        clerk::ca(clerk::authority(format!("http://{}/dir", self.address)))
    }

    /// The payloads of the requests to a path, in order.
    pub(crate) fn seen(&self, path: &str) -> Vec<Value> {
        self.state
            .seen
            .lock()
            .iter()
            .filter(|(at, _)| at.starts_with(path))
            .map(|(_, payload)| payload.clone())
            .collect()
    }
}

/// A problem document (RFC 7807).
pub(crate) fn problem(status: u16, word: &str, detail: &str, headers: &str) -> Answer {
    let body = json!({"type": format!("urn:ietf:params:acme:error:{word}"), "detail": detail, "status": status});
    (status, format!("content-type: application/problem+json\r\n{headers}"), body.to_string())
}

async fn talk(stream: TcpStream, state: &State) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut line, mut length) = (String::new(), String::new(), 0);
        while stream.read_line(&mut line).await.ok()? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            head += &line;
            line.clear();
        }
        if head.is_empty() {
            return None;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let path = head.split(' ').nth(1)?.to_string();
        let payload = payload(&body);
        state.seen.lock().push((path.clone(), payload.clone()));
        let (status, headers, body) = state.answer(&path, &payload);
        let lost = state.script.lost.lock().iter().position(|lost| *lost == path);
        if let Some(at) = lost {
            state.script.lost.lock().remove(at);
            return None;
        }
        let length = if head.starts_with("HEAD") { 0 } else { body.len() };
        let text = format!(
            "HTTP/1.1 {status} X\r\nreplay-nonce: n{}\r\ncontent-length: {length}\r\n{headers}\r\n",
            state.seen.lock().len()
        );
        stream.write_all(text.as_bytes()).await.ok()?;
        if length > 0 {
            stream.write_all(body.as_bytes()).await.ok()?;
        }
    }
}

fn payload(body: &[u8]) -> Value {
    let Ok(signed) = serde_json::from_slice::<Value>(body) else {
        return Value::String(String::from_utf8_lossy(body).into_owned());
    };
    let bytes = URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap_or_default()).unwrap();
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

impl State {
    fn answer(&self, path: &str, payload: &Value) -> Answer {
        if let Some(queue) = self.script.instead.lock().get_mut(path)
            && !queue.is_empty()
        {
            return queue.remove(0);
        }
        let base = self.base.lock().clone();
        let mut parts = path.trim_start_matches('/').split('/');
        let (what, number) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let index: usize = number.parse().unwrap_or(0);
        match what {
            "dir" => ok(&self.directory(&base)),
            "account" => (201, format!("location: {base}/account/1\r\n"), "{}".to_string()),
            "order" if number.is_empty() => self.place(payload),
            "order" => self.look(index),
            "authz" => ok(&self.authorization(index)),
            "chall" => {
                self.orders.lock()[index].answered = true;
                ok(
                    &json!({"type": "http-01", "url": format!("{base}/chall/{index}"), "token": "t", "status": "processing"}),
                )
            }
            "finalize" => self.finalize(index, payload),
            "cert" => (200, String::new(), self.orders.lock()[index].chain.clone().unwrap_or_default()),
            "ari" => {
                let again = self.script.again.map(|after| format!("retry-after: {after}\r\n")).unwrap_or_default();
                (200, again, self.script.renewal.clone().unwrap_or_default().to_string())
            }
            "eab" if payload.as_str() == Some("email=ops%40a.test") => {
                ok(&json!({"success": true, "eab_kid": "kid-7", "eab_hmac_key": URL_SAFE_NO_PAD.encode([7; 32])}))
            }
            "eab" => ok(&json!({"success": false, "error": {"code": 2900, "type": "invalid_email"}})),
            _ => ok(&Value::Null),
        }
    }

    fn directory(&self, base: &str) -> Value {
        let profiles: BTreeMap<&str, &str> = self.script.profiles.iter().map(|name| (*name, "a profile")).collect();
        let mut directory = json!({
            "newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/account"),
            "newOrder": format!("{base}/order"), "revokeCert": format!("{base}/revoke"),
            "meta": {"profiles": profiles},
        });
        if self.script.renewal.is_some() {
            directory["renewalInfo"] = json!(format!("{base}/ari"));
        }
        directory
    }

    fn place(&self, payload: &Value) -> Answer {
        let replaces = payload["replaces"].as_str().unwrap_or_default();
        if self.script.replaced.iter().any(|id| id == replaces) {
            return problem(409, "alreadyReplaced", "cannot indicate an order replaces a certificate twice", "");
        }
        let mut orders = self.orders.lock();
        orders.push(Placed { request: payload.clone(), ..Placed::default() });
        let index = orders.len() - 1;
        let base = self.base.lock().clone();
        (201, format!("location: {base}/order/{index}\r\n"), self.order(&orders[index], index).to_string())
    }

    fn look(&self, index: usize) -> Answer {
        let mut orders = self.orders.lock();
        let Some(order) = orders.get_mut(index) else {
            return problem(404, "malformed", "No order found for this id", "");
        };
        order.looks += usize::from(order.chain.is_some());
        ok(&self.order(order, index))
    }

    fn order(&self, placed: &Placed, index: usize) -> Value {
        let base = self.base.lock().clone();
        let done = placed.chain.is_some() && placed.looks >= self.script.slow_looks;
        let status = match (&placed.chain, placed.answered && !self.script.never) {
            (Some(_), _) if done => "valid",
            (Some(_), _) => "processing",
            (None, true) => "ready",
            (None, false) => "pending",
        };
        let mut order = json!({
            "status": status, "identifiers": placed.request["identifiers"],
            "authorizations": [format!("{base}/authz/{index}")],
            "finalize": format!("{base}/finalize/{index}"),
        });
        if done {
            order["certificate"] = json!(format!("{base}/cert/{index}"));
        }
        if !self.script.deaf {
            for field in ["replaces", "profile"] {
                if let Some(value) = placed.request.get(field) {
                    order[field] = value.clone();
                }
            }
        }
        order
    }

    fn authorization(&self, index: usize) -> Value {
        let base = self.base.lock().clone();
        let challenge = |kind: &str| json!({"type": kind, "url": format!("{base}/chall/{index}"), "token": "t", "status": "pending"});
        json!({
            "status": "pending", "identifier": self.orders.lock()[index].request["identifiers"][0],
            "challenges": [challenge("http-01"), challenge("tls-alpn-01")],
        })
    }

    fn finalize(&self, index: usize, payload: &Value) -> Answer {
        let csr = URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap()).unwrap();
        let mut orders = self.orders.lock();
        orders[index].chain = Some(self.ca.sign_csr(&csr));
        ok(&self.order(&orders[index], index))
    }
}

fn ok(body: &Value) -> Answer {
    (200, "content-type: application/json\r\n".to_string(), body.to_string())
}

/// The id of a certificate as RFC 9773 has it, from its parts.
pub(crate) fn some_ari_id() -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    format!("{}.{}", part("authority"), part("serial"))
}

/// Short waits, for orders that are to end by them.
pub(crate) fn hurried(mut ca: Ca) -> Ca {
    ca.patience.order = Duration::from_millis(1_500);
    ca
}
