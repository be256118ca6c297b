//! Agents over real sockets: what they say reaches the snapshot and the status, and what they do not say is forgotten.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relais_control::Status;
use relais_core::{Admin, BackendReport, Health};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::probing::{backend, nobody};
use crate::support::{Bench, HEAD};

/// An agent whose line can be changed; empty: it takes connections and says nothing.
async fn agent(line: &Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let line = Arc::clone(line);
    backend(move |mut stream| {
        let line = line.lock().unwrap().clone();
        async move {
            let _ = stream.write_all(&line).await;
            if line.is_empty() {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        }
    })
    .await
}

fn with(agent: SocketAddr, more: &str, backends: &str) -> String {
    format!(
        "{HEAD}[service.api]\nhosts = [\"api.a.fr\"]\nbackends = [{backends}]\n\
         agent = {{ port = {}, interval = \"100ms\"{more} }}\n",
        agent.port()
    )
}

async fn listening() -> SocketAddr {
    backend(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await
}

fn first(status: &Status) -> &BackendReport {
    &status.report.services[0].backends[0]
}

#[tokio::test]
async fn what_an_agent_says_is_believed_until_it_is_silent() {
    let line = Arc::new(Mutex::new(b"up 75%\r\n".to_vec()));
    let address = agent(&line).await;
    let bench = Bench::start(&with(address, "", &format!("\"{}\"", listening().await))).await;
    let says = |what: &'static [u8]| *line.lock().unwrap() = what.to_vec();
    bench.until("it is heard", |status| first(status).agent.as_ref().is_some_and(|agent| agent.percent == 75)).await;
    assert_eq!(bench.snapshot.load().pools[0].members[0].percent, 75);
    says(b"drain # replication lag 40 s");
    let status = bench.until("it drains", |status| first(status).admin == Admin::Draining).await;
    assert_eq!(first(&status).why, "draining by its agent: drain # replication lag 40 s");
    assert_eq!(bench.snapshot.load().pools[0].members[0].admin, Admin::Draining);
    says(b"ready down # disk full\n");
    bench.until("it is down", |status| first(status).health == Health::Down).await;
    says(b"up\n");
    bench.until("it is up", |status| first(status).health == Health::Up).await;
    says(b"maint\n");
    bench.until("it is disabled", |status| first(status).admin == Admin::Disabled).await;
    says(b"");
    let status = bench.until("it is forgotten", |status| first(status).agent.is_none()).await;
    assert_eq!(first(&status).admin, Admin::Enabled);
    bench.stop().await;
}

#[tokio::test]
async fn words_can_be_sent_to_an_agent() {
    let (tell, mut heard) = mpsc::unbounded_channel();
    let address = backend(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut some = [0; 64];
            let read = stream.read(&mut some).await.unwrap_or(0);
            let _ = tell.send(some[..read].to_vec());
            // Byte by byte, and the connection stays open.
            for byte in b"drain\n" {
                let _ = stream.write_all(&[*byte]).await;
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    })
    .await;
    let text = with(address, ", send = 'db1 lag\\n'", &format!("\"{}\"", listening().await));
    let bench = Bench::start(&text.replace("100ms", "5s")).await;
    bench.until("it drains", |status| first(status).admin == Admin::Draining).await;
    assert_eq!(heard.recv().await.unwrap(), b"db1 lag\n");
    bench.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_not_there_changes_nothing() {
    let bench = Bench::start(&with(nobody().await, "", &format!("\"{}\"", listening().await))).await;
    bench.until("it is up", |status| first(status).health == Health::Up).await;
    bench.until("ten probes", |status| first(status).probes.len() == 10).await;
    let status = bench.status().await;
    assert_eq!((first(&status).health, first(&status).admin), (Health::Up, Admin::Enabled));
    assert!(first(&status).agent.is_none());
    bench.stop().await;
}
