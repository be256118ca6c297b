//! One probe from order to result, under its deadline.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use relais_config::{CheckKind, UpstreamProtocol};
use relais_core::{Fault, ProbeOrder};
use relais_tls::CertStore;

use super::connect::{self, Tls};
use super::fault::{Phase, Progress, Trouble};
use super::http;
use super::reserve::Reserve;
use super::resolve::Resolver;

/// Pause before trying again after a shortage of our own.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);
/// At most one log line about it in this time.
const SHORTAGE_LOG: Duration = Duration::from_secs(10);

/// What all probes share: addresses already looked up and TLS settings. Never a connection.
pub(super) struct Prober {
    certs: Arc<CertStore>,
    resolver: Resolver,
    reserve: Reserve,
    born: Instant,
    /// Milliseconds since `born` of the last line about a shortage.
    complained: AtomicU64,
}

impl Prober {
    pub(super) fn new(certs: Arc<CertStore>) -> Self {
        Self {
            certs,
            resolver: Resolver::default(),
            reserve: Reserve::new(),
            born: Instant::now(),
            complained: AtomicU64::new(0),
        }
    }

    /// What came back, and how long it took.
    pub(super) async fn probe(&self, order: &ProbeOrder) -> (Result<(), Fault>, Duration) {
        let tls = match self.tls(order).await {
            Ok(tls) => tls,
            Err(why) => {
                tracing::debug!(backend = %order.backend.id, why, "no TLS for this probe");
                return (Err(Fault::Tls), Duration::ZERO);
            }
        };
        let mut overslept = false;
        loop {
            let (started, progress) = (Instant::now(), Progress::default());
            let attempt = self.attempt(order, tls.as_ref(), &progress);
            let outcome = tokio::time::timeout(order.timeout, attempt).await;
            let took = started.elapsed();
            let result = match outcome {
                Ok(Ok(())) => Ok(()),
                Ok(Err(Trouble::Fault(fault))) => Err(fault),
                Err(_) => Err(progress.overdue()),
                Ok(Err(Trouble::Local(error))) => {
                    self.complain(&error);
                    if !self.reserve.spend() {
                        tokio::time::sleep(SHORTAGE_PAUSE).await;
                    }
                    continue;
                }
            };
            // Far beyond the deadline: this process did not run (stopped, machine asleep). The clock accuses us, not
            // the backend; one second chance, so that a steady overload still gives a verdict.
            if result.is_err() && !overslept && took > order.timeout * 2 + SHORTAGE_PAUSE {
                overslept = true;
                continue;
            }
            self.reserve.refill();
            return (result, took);
        }
    }

    async fn attempt(&self, order: &ProbeOrder, tls: Option<&Tls>, progress: &Progress) -> Result<(), Trouble> {
        let mut stream = connect::connect(order, &self.resolver, progress).await?;
        progress.reach(Phase::Asking);
        let CheckKind::Http(check) = &order.check.health.kind else {
            // A connect is the whole question, unless the rule itself asks for TLS.
            if let (Some(tls), Some(true)) = (tls, order.check.health.tls) {
                tls.handshake(stream).await?;
            }
            return Ok(());
        };
        let mut h2 = order.backend.upstream.protocol == UpstreamProtocol::H2;
        if let Some(tls) = tls {
            let (encrypted, chosen) = tls.handshake(stream).await?;
            if h2 && !chosen {
                return Err(Fault::Tls.into());
            }
            (stream, h2) = (encrypted, chosen);
        }
        let host = check.host.as_deref().unwrap_or(&order.host);
        let host = if host.starts_with("unix:") { "localhost" } else { host };
        if h2 {
            http::ask_h2(stream, tls.is_some(), check, host).await?;
        } else {
            http::ask_h1(stream, check, host).await?;
        }
        Ok(())
    }

    /// TLS settings for one probe. The first use of a setting reads the system's roots: off the loop, before the clock.
    async fn tls(&self, order: &ProbeOrder) -> Result<Option<Tls>, String> {
        let Some(wanted) = connect::tls_of(order) else { return Ok(None) };
        let (certs, protocol) = (Arc::clone(&self.certs), order.backend.upstream.protocol);
        let setting = wanted.clone();
        let config = tokio::task::spawn_blocking(move || certs.client_config(&setting, protocol))
            .await
            .map_err(|error| error.to_string())??;
        Tls::new(&config, &wanted, &order.backend.address, &order.host).map(Some)
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
