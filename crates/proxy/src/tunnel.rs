//! Upgraded connections (WebSocket and others): bytes both ways until one side ends, both fall silent, or the backend's
//! transport is declared dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::access::Ticket;
use crate::pool::Slot;

/// One tunnel.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) backend: OnUpgrade,
    pub(crate) slot: Arc<Slot>,
    /// Longest silence in both directions.
    pub(crate) idle: Duration,
}

/// Bytes and time of one tunnel, shared by its two directions.
struct Meter {
    started: Instant,
    /// Milliseconds after `started` when a byte last passed.
    last: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

impl Meter {
    fn touch(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Relaxed);
    }

    fn silent_for(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last.load(Relaxed)))
    }
}

impl Tunnel {
    /// Carries bytes until it ends, then closes the ticket. Spawned: the request's own future ends with the 101.
    pub(crate) async fn run(self, mut ticket: Box<Ticket>) {
        let pool = ticket.pool.clone();
        if let Some(pool) = &pool {
            pool.stats.tunnels.inc();
        }
        let cut = self.carry(&mut ticket).await;
        if let Some(pool) = &pool {
            pool.stats.tunnels.dec();
        }
        ticket.cut = cut;
        ticket.completed();
    }

    async fn carry(self, ticket: &mut Ticket) -> Option<&'static str> {
        let (client, backend) = match tokio::try_join!(self.client, self.backend) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "upgrade did not finish");
                return Some("upgrade_failed");
            }
        };
        let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
        let (backend_read, backend_write) = tokio::io::split(TokioIo::new(backend));
        let meter =
            Meter { started: Instant::now(), last: AtomicU64::new(0), up: AtomicU64::new(0), down: AtomicU64::new(0) };
        let deaths = self.slot.verdicts().deaths;
        let cut = {
            let both = async {
                tokio::join!(
                    copy(client_read, backend_write, &meter, &meter.up),
                    copy(backend_read, client_write, &meter, &meter.down)
                )
            };
            tokio::select! {
                _ = both => None,
                () = died(&self.slot, deaths) => Some("backend_dead"),
                () = silent(&meter, self.idle) => Some("idle"),
            }
        };
        ticket.bytes_in = meter.up.load(Relaxed);
        ticket.bytes_out = meter.down.load(Relaxed);
        cut
    }
}

/// Copies one direction and passes its end on; an error ends it.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    meter: &Meter,
    count: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0_u8; 16 << 10];
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(n) => n,
            Err(error) => {
                let _ = to.shutdown().await;
                return Err(error);
            }
        };
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
        count.fetch_add(n as u64, Relaxed);
        meter.touch();
    }
}

/// Waits until the backend's transport is declared dead.
async fn died(slot: &Slot, before: u64) {
    loop {
        let verdict = slot.verdict.notified();
        tokio::pin!(verdict);
        verdict.as_mut().enable();
        if slot.verdicts().deaths != before {
            return;
        }
        verdict.await;
    }
}

/// Waits until no byte has passed for `idle`.
async fn silent(meter: &Meter, idle: Duration) {
    loop {
        let silent = meter.silent_for();
        if silent >= idle {
            return;
        }
        tokio::time::sleep(idle - silent).await;
    }
}
