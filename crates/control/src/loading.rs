//! The disk work of reloads and certificates: one piece at a time, off the loop, so that a slow disk delays neither a
//! probe nor a failover.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;

use relais_config::Config;
use relais_tls::CertStore;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::reload::{self, Prepared, Refused, Trigger, Verdict};
use crate::watch::Target;

/// One wish for a reload.
pub(crate) struct Ask {
    pub(crate) trigger: Trigger,
    /// Passes the guard.
    pub(crate) force: bool,
    pub(crate) reply: Option<oneshot::Sender<Verdict>>,
}

/// What is known before disk work begins.
pub(crate) struct Ground<'a> {
    pub(crate) path: Option<&'a Path>,
    pub(crate) state_dir: &'a Path,
    pub(crate) running: &'a Arc<Config>,
}

/// A finished piece of work.
pub(crate) enum Finished {
    Reload { asks: Vec<Ask>, result: Result<Box<Prepared>, Refused> },
    Certificates(Result<Certificates, String>),
}

/// Certificates of the running config, with the files they were read from.
pub(crate) struct Certificates {
    pub(crate) loaded: Box<relais_tls::Loaded>,
    pub(crate) files: Vec<Target>,
}

enum Work {
    Reload(Result<Box<Prepared>, Refused>),
    Certificates(Result<Certificates, String>),
}

/// What is under way and what waits.
#[derive(Default)]
pub(crate) struct Loading {
    work: JoinSet<Work>,
    /// Those who wait for the reload under way; empty while certificates alone are read.
    served: Vec<Ask>,
    waiting: Vec<Ask>,
    certificates_wait: bool,
}

impl Loading {
    /// Wishes for a reload. All that wait are served by one look at the file.
    pub(crate) fn reload(&mut self, ask: Ask, ground: &Ground<'_>) {
        self.waiting.push(ask);
        self.next(ground);
    }

    /// Wishes for fresh certificates of the running config.
    pub(crate) fn certificates(&mut self, ground: &Ground<'_>) {
        self.certificates_wait = true;
        self.next(ground);
    }

    /// Begins what waits, when nothing is under way.
    pub(crate) fn next(&mut self, ground: &Ground<'_>) {
        if !self.work.is_empty() {
            return;
        }
        let (running, state_dir) = (Arc::clone(ground.running), ground.state_dir.to_path_buf());
        if let (Some(path), false) = (ground.path, self.waiting.is_empty()) {
            self.served = std::mem::take(&mut self.waiting);
            // A reload reads the certificates too.
            self.certificates_wait = false;
            let (path, force) = (path.to_path_buf(), self.served.iter().any(|ask| ask.force));
            self.work.spawn_blocking(move || {
                Work::Reload(reload::prepare(&path, &running, &state_dir, force).map(Box::new))
            });
        } else if std::mem::take(&mut self.certificates_wait) {
            self.work.spawn_blocking(move || Work::Certificates(certificates(&running, &state_dir)));
        }
    }

    /// The next finished piece; waits for ever when nothing is under way. Nothing is lost when the wait is given up.
    pub(crate) async fn finished(&mut self) -> Finished {
        let Some(joined) = self.work.join_next().await else { return pending().await };
        let asks = std::mem::take(&mut self.served);
        match joined {
            Ok(Work::Reload(result)) => Finished::Reload { asks, result },
            Ok(Work::Certificates(result)) => Finished::Certificates(result),
            Err(error) if asks.is_empty() => Finished::Certificates(Err(error.to_string())),
            Err(error) => {
                let message = format!("relais itself failed while it read the file: {error}");
                let help = "the running config stays; please report this with the file".to_string();
                Finished::Reload { asks, result: Err(Refused { message, help, wanted: Vec::new() }) }
            }
        }
    }
}

fn certificates(running: &Config, state_dir: &Path) -> Result<Certificates, String> {
    let files = reload::certificate_files(running);
    let loaded = CertStore::load(running, state_dir).map_err(|problems| reload::lines(&problems))?;
    Ok(Certificates { loaded: Box::new(loaded), files })
}
