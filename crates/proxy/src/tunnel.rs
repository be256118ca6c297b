//! Upgraded connections (WebSocket and others): bytes both ways until one side ends, both fall silent, or the backend's
//! transport is declared dead. A WebSocket client is then told so with a close frame (1012), not left waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use relais_core::Left;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::access::Ticket;
use crate::connection::Client;
use crate::pool::{Slot, Verdicts};
use crate::websocket::{Frames, SERVICE_RESTART};
use crate::worker::Worker;

/// How long a close frame may take to reach a client's socket buffer.
const LAST_WORD: Duration = Duration::from_millis(200);

/// One tunnel.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) backend: OnUpgrade,
    pub(crate) slot: Arc<Slot>,
    /// Verdicts on the backend when the tunnel was asked for.
    pub(crate) before: Verdicts,
    /// The connection it came in on, which stays open for it.
    pub(crate) connection: Arc<Client>,
    /// Longest silence in both directions.
    pub(crate) idle: Duration,
    pub(crate) websocket: bool,
}

/// Bytes and time of one tunnel, shared by its two directions.
struct Meter {
    started: Instant,
    /// Milliseconds after `started` when a byte last passed.
    last: AtomicU64,
}

/// One direction.
#[derive(Default)]
struct Lane {
    bytes: AtomicU64,
    frames: Mutex<Frames>,
    /// Bytes are half written: nothing may be put between them.
    writing: AtomicBool,
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
        let _live = self.connection.worker.live();
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
        let (mut client_read, mut client_write) = tokio::io::split(TokioIo::new(client));
        let (mut backend_read, mut backend_write) = tokio::io::split(TokioIo::new(backend));
        let meter = Meter { started: Instant::now(), last: AtomicU64::new(0) };
        let (up, down) = (Lane::default(), Lane::default());
        let cut = tokio::select! {
            _ = async {
                tokio::join!(
                    copy(&mut client_read, &mut backend_write, &meter, &up, false),
                    copy(&mut backend_read, &mut client_write, &meter, &down, self.websocket)
                )
            } => None,
            cut = moved(&self.slot, self.before, &self.connection.worker) => Some(cut),
            () = silent(&meter, self.idle) => Some("idle"),
        };
        ticket.bytes_in = up.bytes.load(Relaxed);
        ticket.bytes_out = down.bytes.load(Relaxed);
        if let (Some("backend_dead"), Some(serving)) = (cut, &ticket.serving) {
            self.connection.worker.left(serving.backend().slot, Instant::now(), Left::Told);
        }
        if cut.is_some() {
            if self.websocket && !down.writing.load(Relaxed) && down.frames.lock().between() {
                let farewell = client_write.write_all(&SERVICE_RESTART);
                let _ = tokio::time::timeout(LAST_WORD, farewell).await;
            }
            let _ = tokio::time::timeout(LAST_WORD, client_write.shutdown()).await;
        }
        cut
    }
}

/// Copies one direction and passes its end on; an error ends it.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    meter: &Meter,
    lane: &Lane,
    follow_frames: bool,
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
        lane.writing.store(true, Relaxed);
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
        lane.writing.store(false, Relaxed);
        lane.bytes.fetch_add(n as u64, Relaxed);
        if follow_frames {
            lane.frames.lock().follow(&buffer[..n]);
        }
        meter.touch();
    }
}

/// Waits until the tunnel must end for its backend's sake: at once when its transport is dead, in its own time when it
/// is drained.
async fn moved(slot: &Slot, before: Verdicts, worker: &Worker) -> &'static str {
    let mut until: Option<Instant> = None;
    loop {
        let verdict = slot.verdict.notified();
        tokio::pin!(verdict);
        verdict.as_mut().enable();
        let now = slot.verdicts();
        if now.deaths != before.deaths || slot.cut.is_refused() {
            return "backend_dead";
        }
        if until.is_none() && now.drains != before.drains {
            until = Some(Instant::now() + worker.drain_delay());
        }
        match until {
            None => verdict.await,
            Some(until) => tokio::select! {
                () = verdict => {}
                () = tokio::time::sleep_until(until.into()) => return "drained",
            },
        }
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
