//! A CA of our own for what `pebble` does not do: renewal information, profiles, limits, orders that never end, errors of
//! servers in front of it. It believes every signature and every challenge. The tests of the executable have it under TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const DAY: i64 = 86_400;

/// One answer: status, further headers, body.
pub(crate) type Answer = (u16, String, String);

/// What it does otherwise than a good CA.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// Answers to requests to a path, or to all below one that ends in `/`, each used once, before the good ones.
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
    /// Lifetime of what it signs, in days; 0: 90.
    pub(crate) days: i64,
    /// How far its clock is ahead of this machine's, in seconds.
    pub(crate) ahead: Arc<AtomicI64>,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    script: Script,
    signer: Signer,
    base: String,
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
        Self::under(script, None).await
    }

    /// Under TLS where there is an acceptor.
    pub(crate) async fn under(script: Script, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let base = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
        let state =
            Arc::new(State { script, signer: Signer::new(), base, seen: Mutex::default(), orders: Mutex::default() });
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&serving), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => talk(tls.accept(stream).await.ok()?, &state).await,
                        None => talk(stream, &state).await,
                    }
                });
            }
        });
        Self { address, state }
    }

    pub(crate) fn directory(&self) -> String {
        format!("{}/dir", self.state.base)
    }

    /// The certificate under which it signs, PEM.
    pub(crate) fn root(&self) -> &str {
        &self.state.signer.pem
    }

    /// The paths asked for below one, in order.
    pub(crate) fn asked(&self, below: &str) -> Vec<String> {
        let seen = self.state.seen.lock();
        seen.iter().filter_map(|(at, _)| at.strip_prefix(below)).map(str::to_owned).collect()
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

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, state: &State) -> Option<()> {
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
        let below = path.rfind('/').map_or(path, |at| &path[..=at]);
        let mut instead = self.script.instead.lock();
        for path in [path, below] {
            if let Some(queue) = instead.get_mut(path).filter(|queue| !queue.is_empty()) {
                return queue.remove(0);
            }
        }
        drop(instead);
        let base = &self.base;
        let mut parts = path.trim_start_matches('/').split('/');
        let (what, number) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let index: usize = number.parse().unwrap_or(0);
        match what {
            "dir" => ok(&self.directory(base)),
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
        let base = &self.base;
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
        let base = &self.base;
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
        let base = &self.base;
        let challenge = |kind: &str| json!({"type": kind, "url": format!("{base}/chall/{index}"), "token": "t", "status": "pending"});
        json!({
            "status": "pending", "identifier": self.orders.lock()[index].request["identifiers"][0],
            "challenges": [challenge("http-01"), challenge("tls-alpn-01")],
        })
    }

    fn finalize(&self, index: usize, payload: &Value) -> Answer {
        let csr = URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap()).unwrap();
        let mut orders = self.orders.lock();
        let days = if self.script.days == 0 { 90 } else { self.script.days };
        orders[index].chain = Some(self.signer.sign(&csr, self.script.ahead.load(Relaxed), days));
        ok(&self.order(&orders[index], index))
    }
}

fn ok(body: &Value) -> Answer {
    (200, "content-type: application/json\r\n".to_string(), body.to_string())
}

/// Signs whatever it is asked to.
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Signer {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Dated from an hour ago, as CAs do.
    fn sign(&self, csr: &[u8], ahead: i64, days: i64) -> String {
        let mut request = rcgen::CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + ahead;
        let from = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((now - 3600).try_into().unwrap());
        request.params.not_before = from;
        request.params.not_after = from + Duration::from_secs((days * DAY).try_into().unwrap());
        request.params.use_authority_key_identifier_extension = true;
        request.signed_by(&self.issuer).unwrap().pem() + &self.pem
    }
}
