//! Notices that a file changed, however it was saved: in place, by rename, removed and made again, by a swapped link.
//!
//! Events only make the look come sooner. What counts is the content: a file has changed when its bytes have. The
//! directory and the file are both watched, and every two seconds everything is read again, because no event at all
//! comes through some mounts. Decides nothing: the loop is told what changed.

mod arm;
mod content;
mod mount;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use crate::alarm::AlarmReport;
use arm::Armed;
use content::Contents;

pub(crate) use content::hash;
pub(crate) use mount::is_mount_point;

/// Quiet time after an event before the files are read: an editor writes in several steps.
const DEBOUNCE: Duration = Duration::from_millis(150);
/// Longest wait for quiet.
const PATIENCE: Duration = Duration::from_secs(1);
/// The safety net.
const POLL: Duration = Duration::from_secs(2);

/// One watched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    /// What a change of it is.
    pub(crate) kind: Change,
    /// Hash of the content in force; `None`: none could be read. Whatever differs from it is news, also when it
    /// changed before anybody watched.
    pub(crate) in_force: Option<u64>,
}

impl Target {
    /// A file as it is on disk now. Blocks.
    pub(crate) fn now(path: PathBuf, kind: Change) -> Target {
        let in_force = std::fs::read(&path).ok().map(|bytes| hash(&bytes));
        Target { path, kind, in_force }
    }
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// `proxy.toml` or a part of it.
    Config,
    /// A certificate or a key, and nothing of the config.
    Certificates,
}

/// Where the watcher reports to: the loop.
pub(crate) struct Reports {
    pub(crate) changes: mpsc::Sender<Change>,
    pub(crate) alarms: mpsc::UnboundedSender<AlarmReport>,
}

/// Watches until the loop is gone. New targets come through `targets`.
pub(crate) async fn run(mut targets: watch::Receiver<Vec<Target>>, reports: Reports) {
    let (nudge, mut nudged) = mpsc::channel::<()>(1);
    let mut armed = Armed::new(nudge);
    report_watcher(&reports, armed.trouble());
    let mut now = targets.borrow_and_update().clone();
    let mut contents = Contents::default();
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due: Option<Due> = None;
    loop {
        let quiet_at = due.as_ref().map_or_else(Instant::now, Due::at);
        tokio::select! {
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
                now = targets.borrow_and_update().clone();
            }
            Some(()) = nudged.recv() => {
                due = Some(Due::again(due));
                continue;
            }
            () = sleep_until(quiet_at), if due.is_some() => due = None,
            _ = poll.tick() => {}
        }
        // Armed before read: a change after the read is then an event for certain.
        armed = arm(armed, &now).await;
        report_watcher(&reports, armed.trouble());
        let Some(looked) = content::look(contents, now.clone()).await else { return };
        contents = looked.contents;
        if let Some(change) = looked.change
            && reports.changes.send(change).await.is_err()
        {
            return;
        }
    }
}

/// Arming opens directories: off the loop's thread.
async fn arm(mut armed: Armed, targets: &[Target]) -> Armed {
    let paths: Vec<PathBuf> = targets.iter().map(|target| target.path.clone()).collect();
    let work = move || {
        armed.arm(&paths);
        armed
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(armed) => armed,
        // Only when the runtime is shutting down, or arming panicked: the poll goes on without events.
        Err(_) => Armed::deaf(),
    }
}

fn report_watcher(reports: &Reports, trouble: Option<&str>) {
    let trouble = trouble.map(|why| {
        let message = format!("file changes are noticed by a look every {} s only: {why}", POLL.as_secs());
        (message, "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches".to_string())
    });
    // A send fails only when the loop is gone; `run` notices that by itself.
    let _ = reports.alarms.send(AlarmReport { about: "watch", trouble });
}

/// When the files shall be read: after quiet, but not for ever later.
struct Due {
    first: Instant,
    last: Instant,
}

impl Due {
    fn again(before: Option<Due>) -> Due {
        let last = Instant::now();
        Due { first: before.map_or(last, |due| due.first), last }
    }

    fn at(&self) -> Instant {
        (self.last + DEBOUNCE).min(self.first + PATIENCE)
    }
}
