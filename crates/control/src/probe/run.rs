//! One probe from order to result, under its deadline.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use relais_config::{CheckKind, UpstreamProtocol};
use relais_core::{Fault, ProbeOrder};
use relais_tls::CertStore;

use super::connect::{self, Stream, Tls};
use super::drill;
use super::fault::{Phase, Progress, Trouble};
use super::reserve::Reserve;
use super::{exchange, exec, grpc, http, mysql, redis};

/// Pause before trying again after a shortage of our own.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);
/// At most one log line about it in this time.
const SHORTAGE_LOG: Duration = Duration::from_secs(10);

/// What all probes share: TLS settings. Never a connection.
pub(super) struct Prober {
    certs: Arc<CertStore>,
    reserve: Reserve,
    born: Instant,
    /// Milliseconds since `born` of the last line about a shortage.
    complained: AtomicU64,
}

/// What a probe brought.
pub(super) struct Answer {
    /// What came back.
    pub(super) result: Result<(), Fault>,
    /// How long all of it took.
    pub(super) took: Duration,
    /// What was said, for people.
    pub(super) said: Option<Arc<str>>,
    /// How long the connect alone took.
    pub(super) round_trip: Option<Duration>,
}

impl Prober {
    pub(super) fn new(certs: Arc<CertStore>) -> Self {
        Self { certs, reserve: Reserve::new(), born: Instant::now(), complained: AtomicU64::new(0) }
    }

    /// What came back, how long it took, and what was said.
    pub(super) async fn probe(&self, order: &ProbeOrder) -> Answer {
        let tls = match self.tls(order).await {
            Ok(tls) => tls,
            Err(why) => {
                tracing::debug!(backend = %order.backend.id, why, "no TLS for this probe");
                return Answer {
                    result: Err(Fault::Tls),
                    took: Duration::ZERO,
                    said: Some(why.into()),
                    round_trip: None,
                };
            }
        };
        loop {
            let (started, progress) = (Instant::now(), Progress::default());
            let attempt = self.attempt(order, tls.as_ref(), &progress);
            let outcome = relais_attend::within(order.timeout, attempt).await;
            let took = started.elapsed();
            let result = match outcome {
                Ok(Ok(())) => Ok(()),
                Ok(Err(Trouble::Fault(fault))) => Err(fault),
                Err(waited) => Err(relais_attend::fault(waited, progress.overdue())),
                Ok(Err(Trouble::Local(error))) => {
                    self.complain(&error);
                    if !self.reserve.spend() {
                        tokio::time::sleep(SHORTAGE_PAUSE).await;
                    }
                    continue;
                }
            };
            self.reserve.refill();
            return Answer { result, took, said: progress.said(), round_trip: progress.round_trip() };
        }
    }

    async fn attempt(&self, order: &ProbeOrder, tls: Option<&Tls>, progress: &Progress) -> Result<(), Trouble> {
        drill::connect(order, progress).await?;
        let (stream, address) = connect::connect(order, progress).await?;
        progress.reach(Phase::Asking);
        drill::answer(order).await;
        let secured = |stream: Stream| async move {
            match tls {
                Some(tls) => tls.handshake(stream, progress).await,
                None => Ok((stream, false)),
            }
        };
        match &order.check.health.kind {
            CheckKind::Off | CheckKind::Tcp | CheckKind::Tls => {
                secured(stream).await?;
            }
            CheckKind::Exchange(check) => exchange::converse(secured(stream).await?.0, check, progress).await?,
            CheckKind::Http(check) => {
                let known = order.backend.upstream.protocol == UpstreamProtocol::H2;
                let (stream, chosen) = secured(stream).await?;
                match (tls.is_some(), known, chosen) {
                    (true, true, false) => return Err(no_h2(progress).into()),
                    (true, _, true) | (false, true, _) => {
                        http::ask_h2(stream, tls.is_some(), check, host_of(order)).await?;
                    }
                    (true, false, false) | (false, false, _) => http::ask_h1(stream, check, host_of(order)).await?,
                }
            }
            CheckKind::Grpc(check) => {
                let (stream, chosen) = secured(stream).await?;
                if tls.is_some() && !chosen {
                    return Err(no_h2(progress).into());
                }
                grpc::ask(stream, tls.is_some(), check, host_of(order), progress).await?;
            }
            CheckKind::MySql => mysql::greeting(stream, progress).await?,
            CheckKind::Redis => redis::ping(secured(stream).await?.0, progress).await?,
            CheckKind::Exec(check) => {
                drop(stream);
                exec::run(check, order, address, progress).await?;
            }
        }
        Ok(())
    }

    /// TLS settings for one probe. The first use of a setting reads the system's roots: off the loop, before the clock.
    async fn tls(&self, order: &ProbeOrder) -> Result<Option<Tls>, String> {
        let Some(wanted) = connect::tls_of(order) else { return Ok(None) };
        let spoken = connect::protocol_of(order);
        let protocol = spoken.unwrap_or(UpstreamProtocol::Auto);
        let (certs, setting) = (Arc::clone(&self.certs), wanted.clone());
        let config = tokio::task::spawn_blocking(move || certs.client_config(&setting, protocol))
            .await
            .map_err(|error| error.to_string())??;
        let tls = Tls::new(&config, &wanted, &order.backend.address, &order.host)?;
        Ok(Some(if spoken.is_none() { tls.silent() } else { tls }))
    }

    fn complain(&self, error: &io::Error) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let last = self.complained.load(Relaxed);
        let pause = u64::try_from(SHORTAGE_LOG.as_millis()).unwrap_or(u64::MAX);
        if last == 0 || now.saturating_sub(last) > pause {
            self.complained.store(now, Relaxed);
            tracing::error!(%error, "probes cannot connect for a lack of our own (see `ulimit -n`): nobody is accused");
        }
    }
}

/// Over TLS it would not speak HTTP/2, which is wanted.
fn no_h2(progress: &Progress) -> Fault {
    progress.say(b"it does not offer HTTP/2 (ALPN `h2`)");
    Fault::Tls
}

/// The host that is asked for.
fn host_of(order: &ProbeOrder) -> &str {
    if order.host.starts_with("unix:") { "localhost" } else { &order.host }
}
