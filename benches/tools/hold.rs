//! Connections, or WebSockets, that are opened, kept, and used once more. A failure is counted and not repeated.

use std::io;
use std::time::Instant;

use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::args::Outcome;
use crate::client::Conn;
use crate::load::Plan;
use crate::modes::{in_time, upgraded};
use crate::streams::{Sessions, Socket};
use crate::tally::Tally;

/// What is kept.
enum Held {
    Idle(Conn),
    WebSocket(Conn),
    Stream(Box<Socket>),
}

impl Held {
    /// One request or message there and back.
    async fn used(&mut self, plan: &Plan) -> io::Result<()> {
        match self {
            Held::Idle(conn) => match in_time(plan, conn.exchange(&plan.requests[0], 0)).await? {
                200 => Ok(()),
                other => Err(io::Error::other(format!("status {other}"))),
            },
            Held::WebSocket(conn) => in_time(plan, conn.message()).await,
            Held::Stream(socket) => in_time(plan, socket.message()).await,
        }
    }
}

/// Opens `all`, says so, keeps them until standard input ends, then uses each once more. Of WebSockets `streams` share a
/// connection; none: each has one of HTTP/1.1.
pub(crate) async fn run(plan: &Plan, all: usize, websocket: bool, streams: usize) -> Outcome<()> {
    let (mut kept, mut failed, mut first) = (Vec::with_capacity(all), 0, String::new());
    let mut sessions = Sessions::of(streams);
    let began = Instant::now();
    while kept.len() + failed < all {
        match opened(plan, websocket, &mut sessions).await {
            Ok(one) => kept.push(one),
            Err(error) => {
                failed += 1;
                first = if first.is_empty() { error.to_string() } else { first };
            }
        }
    }
    let secs = began.elapsed().as_secs_f64();
    println!("{}", json!({ "open": kept.len(), "errors": failed, "first_error": first, "secs": secs }));
    let mut nothing = [0; 16];
    while tokio::io::stdin().read(&mut nothing).await? > 0 {}
    let (mut alive, mut tally) = (0, Tally::default());
    for one in &mut kept {
        let began = Instant::now();
        match one.used(plan).await {
            Ok(()) => {
                alive += 1;
                tally.answered(200, began.elapsed());
            }
            Err(error) => tally.failed(&error),
        }
    }
    println!("{}", json!({ "alive": alive, "again": tally.told() }));
    Ok(())
}

/// One more, which has been used once.
async fn opened(plan: &Plan, websocket: bool, sessions: &mut Sessions) -> io::Result<Held> {
    let mut one = match (websocket, sessions.each) {
        (false, _) => Held::Idle(in_time(plan, plan.way.open(&plan.tls)).await?.0),
        (true, 0) => Held::WebSocket(upgraded(plan).await?),
        (true, _) => Held::Stream(Box::new(in_time(plan, sessions.open(plan)).await?)),
    };
    one.used(plan).await?;
    Ok(one)
}
