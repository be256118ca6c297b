//! What one connection of a load does until the end. A failure is counted, and the next connection opened.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::{self, Conn};
use crate::load::Plan;
use crate::tally::Tally;

type Tallies = Vec<Tally>;

/// Ends with the load; until then a connection that failed is followed by another.
async fn until_closed(plan: Arc<Plan>, work: impl AsyncFn(&Plan, &mut Tallies) -> io::Result<()>) -> Tallies {
    let mut tallies = vec![Tally::default(); plan.phases];
    let closed = async {
        while !plan.ready.is_closed() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let working = async {
        loop {
            let Err(error) = work(&plan, &mut tallies).await else { continue };
            if plan.ready.is_closed() {
                return;
            }
            if let Some(tally) = plan.now(&mut tallies) {
                tally.failed(&error);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! { () = working => {}, () = closed => {} }
    tallies
}

pub(crate) async fn in_time<T>(plan: &Plan, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(plan.patience, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The next request as soon as the last is answered.
pub(crate) async fn closed(plan: Arc<Plan>, n: usize) -> Tallies {
    until_closed(plan, async move |plan, tallies| {
        let (mut conn, _) = in_time(plan, plan.way.open(&plan.tls)).await?;
        let mut turn = n * 37 * plan.stick;
        loop {
            let request = &plan.requests[turn / plan.stick % plan.requests.len()];
            turn += 1;
            let began = Instant::now();
            // No deadline here: the load's core would pay for a timer in each request.
            let status = conn.exchange(request, plan.upload).await?;
            if let Some(tally) = plan.now(tallies) {
                tally.answered(status, began.elapsed());
            }
        }
    })
    .await
}

/// A request whenever one is due, timed from then.
pub(crate) async fn open(plan: Arc<Plan>, n: usize) -> Tallies {
    until_closed(plan, async move |plan, tallies| {
        let (mut conn, _) = in_time(plan, plan.way.open(&plan.tls)).await?;
        let mut turn = n * 37;
        loop {
            let permit = plan.ready.acquire().await.map_err(io::Error::other)?;
            permit.forget();
            let due = plan.due.lock().ok().and_then(|mut due| due.pop_front()).unwrap_or_else(Instant::now);
            let request = &plan.requests[turn % plan.requests.len()];
            turn += 1;
            if conn.is_gone() {
                conn = in_time(plan, plan.way.open(&plan.tls)).await?.0;
            }
            let status = in_time(plan, conn.exchange(request, plan.upload)).await?;
            if let Some(tally) = plan.now(tallies) {
                tally.answered(status, due.elapsed());
            }
        }
    })
    .await
}

/// A connection for each request.
pub(crate) async fn handshake(plan: Arc<Plan>) -> Tallies {
    // Tickets of its own: each connection finds one that nobody else has used.
    let tls = client::tls(plan.resume, b"http/1.1").unwrap_or_else(|_| Arc::clone(&plan.tls));
    until_closed(plan, async move |plan, tallies| {
        let began = Instant::now();
        let (mut conn, resumed) = in_time(plan, plan.way.open(&tls)).await?;
        let status = in_time(plan, conn.exchange(&plan.requests[0], 0)).await?;
        if let Some(tally) = plan.now(tallies) {
            tally.answered(status, began.elapsed());
            tally.resumed += u64::from(resumed);
        }
        Ok(())
    })
    .await
}

/// A message as soon as the last came back.
pub(crate) async fn websocket(plan: Arc<Plan>) -> Tallies {
    until_closed(plan, async move |plan, tallies| {
        let mut conn = upgraded(plan).await?;
        loop {
            let began = Instant::now();
            conn.message().await?;
            if let Some(tally) = plan.now(tallies) {
                tally.answered(200, began.elapsed());
            }
        }
    })
    .await
}

pub(crate) async fn upgraded(plan: &Plan) -> io::Result<Conn> {
    let (mut conn, _) = in_time(plan, plan.way.open(&plan.tls)).await?;
    match in_time(plan, conn.exchange(&plan.upgrade, 0)).await? {
        101 => Ok(conn),
        other => Err(io::Error::other(format!("status {other} to an upgrade"))),
    }
}
