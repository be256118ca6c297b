//! dns-01: records written by every kind of provider, seen at real name servers, and removed whatever happens. Providers
//! and servers are at the other end of real sockets; the name server is Knot DNS.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says when it is skipped")]

mod cloudflare;
mod delegation;
mod exec;
mod fake_cloudflare;
mod fake_dns;
mod fake_http;
mod fake_ovh;
mod knot;
mod ovh;
mod propagation;
mod update;
mod webhook;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relais_core::config::{DnsChallenge, DnsProvider};
use relais_tls::acme::dns::{Dns, DnsFault, Failed, Presented, Undo};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A provider without any look at the DNS: for those whose records no name server shows.
fn blind(provider: DnsProvider) -> DnsChallenge {
    DnsChallenge {
        name: "test".into(),
        zones: Vec::new(),
        provider,
        delegation: false,
        propagation_timeout: Duration::ZERO,
        resolvers: Vec::new(),
    }
}

/// A provider whose records are looked for with the help of one name server.
fn seeing(provider: DnsProvider, resolver: SocketAddr) -> DnsChallenge {
    DnsChallenge { delegation: true, propagation_timeout: PATIENCE, resolvers: vec![resolver], ..blind(provider) }
}

fn dns(declared: DnsChallenge) -> Dns {
    Dns::new(&[Arc::new(declared)], &[]).unwrap()
}

async fn plan(dns: &Dns, values: &[(&str, &str)]) -> Result<Vec<Undo>, DnsFault> {
    let values: Vec<(String, String)> =
        values.iter().map(|(host, value)| ((*host).to_owned(), (*value).to_owned())).collect();
    dns.plan(&values).await
}

async fn present(dns: &Dns, values: &[(&str, &str)]) -> Result<Presented, Failed> {
    let plan = plan(dns, values).await.unwrap();
    tokio::time::timeout(PATIENCE * 2, dns.present(plan)).await.expect("no end of presenting")
}

/// What a call that must fail says.
async fn refused(dns: &Dns, host: &str) -> String {
    match present(dns, &[(host, "value-of-a-refused-one")]).await {
        Ok(presented) => panic!("it was not refused: {presented:?}"),
        Err(failed) => failed.to_string(),
    }
}

/// Asks again and again until it is so.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < end, "in {PATIENCE:?} it did not come about that {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
