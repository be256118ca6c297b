//! The load generator: sets up the connections, opens the window, sums up. What a connection does is in `modes`.
//!
//! `--mode closed` (the next request on each answer), `open` (at a fixed rate, timed from the moment due), `handshake` (a
//! connection for each request; `--resume 1` with a ticket), `websocket`, `hold` (opens all and keeps them until its
//! standard input ends; `--websocket 1`, and `--streams N` of them on each connection of HTTP/2). Prints one line of JSON.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::args::{Args, Outcome};
use crate::client::{self, WEBSOCKET_KEY, Way};
use crate::pace::drum;
use crate::tally::{Tally, cpu_micros};
use crate::{hold, modes};

/// Nothing is counted before the first phase, and after the last.
const OFF: usize = usize::MAX;

/// What all connections of one load share.
pub(crate) struct Plan {
    pub(crate) way: Way,
    /// The name asked for.
    pub(crate) host: String,
    pub(crate) requests: Vec<Vec<u8>>,
    pub(crate) upgrade: Vec<u8>,
    /// Requests on one host before the next.
    pub(crate) stick: usize,
    /// Bytes of each request's body.
    pub(crate) upload: usize,
    pub(crate) resume: bool,
    /// What a request that fails without an answer may take.
    pub(crate) patience: Duration,
    /// The phase that is counted now.
    pub(crate) phase: AtomicUsize,
    pub(crate) phases: usize,
    /// Moments at which requests are due, and how many.
    pub(crate) due: Mutex<VecDeque<Instant>>,
    pub(crate) ready: Semaphore,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Plan {
    /// The tally of the phase now, if any is counted.
    pub(crate) fn now<'a>(&self, tallies: &'a mut [Tally]) -> Option<&'a mut Tally> {
        tallies.get_mut(self.phase.load(Relaxed))
    }

    fn new(args: &Args, mode: &str) -> Outcome<Self> {
        let to: std::net::SocketAddr = args.text("addr", "").parse()?;
        if !to.ip().is_loopback() {
            return Err("loopback only".into());
        }
        let hosts: usize = args.get("hosts", 0)?;
        let upload = args.get("upload", 0)?;
        let path = args.text("path", "/s");
        let request = |host: String| {
            let rest = match (upload, mode) {
                (0, "handshake") => "Connection: close\r\n".to_owned(),
                (0, _) => "Accept: */*\r\n".to_owned(),
                (n, _) => format!("Content-Type: application/octet-stream\r\nContent-Length: {n}\r\n"),
            };
            let method = if upload == 0 { "GET" } else { "POST" };
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: load\r\n{rest}\r\n").into_bytes()
        };
        let name = args.text("host", "s0.bench.test");
        let requests = match hosts {
            0 => vec![request(name.clone())],
            n => (args.get("from", 0)?..n).map(|host| request(format!("s{host}.bench.test"))).collect(),
        };
        let upgrade = format!(
            "GET /ws HTTP/1.1\r\nHost: {name}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
        );
        let resume = args.get("resume", 0)? == 1;
        let encrypted = args.get("tls", 0)? == 1;
        let way = Way {
            to,
            name: encrypted.then(|| ServerName::try_from(name.clone())).transpose()?,
            spread: mode == "handshake" || mode == "hold",
            buffer: if mode == "hold" { 1024 } else { 64 * 1024 },
        };
        let protocol: &[u8] = if args.get("streams", 0)? > 0 { b"h2" } else { b"http/1.1" };
        Ok(Self {
            way,
            host: name,
            requests,
            upgrade: upgrade.into_bytes(),
            stick: args.get("stick", 1)?,
            upload,
            resume,
            patience: Duration::from_secs_f64(args.get("patience", 30.0)?),
            phase: AtomicUsize::new(OFF),
            phases: args.list::<f64>("secs").len().max(1),
            due: Mutex::default(),
            ready: Semaphore::new(0),
            tls: client::tls(resume, protocol)?,
        })
    }
}

pub(crate) async fn run(args: Args) -> Outcome<()> {
    let mode = args.text("mode", "closed");
    let plan = Arc::new(Plan::new(&args, &mode)?);
    let connections = args.get("connections", 64)?;
    if mode == "hold" {
        return hold::run(&plan, connections, args.get("websocket", 0)? == 1, args.get("streams", 0)?).await;
    }
    let mut all = JoinSet::new();
    for n in 0..connections {
        let plan = Arc::clone(&plan);
        match mode.as_str() {
            "closed" => all.spawn(modes::closed(plan, n)),
            "open" => all.spawn(modes::open(plan, n)),
            "handshake" => all.spawn(modes::handshake(plan)),
            "websocket" => all.spawn(modes::websocket(plan)),
            other => return Err(format!("no mode {other}").into()),
        };
    }
    if mode == "open" {
        drum(args.get("rate", 1000.0)?, Arc::clone(&plan));
    }
    let (pids, mut secs) = (args.list("pids"), args.list("secs"));
    if secs.is_empty() {
        secs.push(2.0);
    }
    tokio::time::sleep(Duration::from_secs_f64(args.get("warm", 0.5)?)).await;
    let (began, used) = (Instant::now(), cpu_micros(&pids));
    for (phase, secs) in secs.iter().enumerate() {
        plan.phase.store(phase, Relaxed);
        tokio::time::sleep(Duration::from_secs_f64(*secs)).await;
    }
    plan.phase.store(OFF, Relaxed);
    let (took, used) = (began.elapsed(), cpu_micros(&pids) - used);
    // Requests under way at the end are not counted; those waiting for a free connection are.
    let waiting = plan.due.lock().map_or(0, |due| due.len());
    plan.ready.close();
    let mut phases = vec![Tally::default(); plan.phases];
    while let Some(tallies) = all.join_next().await {
        phases.iter_mut().zip(&tallies?).for_each(|(sum, one)| sum.join(one));
    }
    println!("{}", told(&phases, took, used, waiting));
    Ok(())
}

fn told(phases: &[Tally], took: Duration, used: f64, waiting: usize) -> Value {
    let mut whole = Tally::default();
    phases.iter().for_each(|phase| whole.join(phase));
    let mut told = whole.told();
    told["secs"] = json!(took.as_secs_f64());
    told["cpu_us"] = json!(used);
    told["waiting"] = json!(waiting);
    told["phases"] = phases.iter().map(Tally::told).collect();
    told
}
