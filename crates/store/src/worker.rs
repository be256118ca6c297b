//! The one thread that touches the disk. It takes what changed, latest value per key, and writes it as one batch: at most
//! every 500 ms, at once for the operator's words. When writing fails it says so once, keeps what is unsaved, closes the
//! database and tries to open it again, with growing pauses.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contents::Contents;
use crate::disk::{Folder, LOCK_PATIENCE};
use crate::engine::Engine;
use crate::entry::{Key, Value};
use crate::inner::{Batch, Inner, Shared};
use crate::ladder::{self, Opened};
use crate::last_good;
use crate::mirror::Mirror;
use crate::reading;
use crate::state::Mode;

/// Longest time a change waits for others to be written with it.
const GATHER: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The worker's own side: only this thread has it.
struct Worker {
    shared: Arc<Shared>,
    folder: Folder,
    /// `None`: there is no disk; another try is made at `retry_at`.
    engine: Option<Engine>,
    lock: Option<File>,
    last_write: Option<Instant>,
    retry_at: Instant,
    pause: Duration,
    /// `admin.json` or `last-good.toml` could not be written: both are tried again then.
    files_retry: Option<Instant>,
    last_words: bool,
    /// The directory was ours: what another process wrote there since is not read.
    knows_all: bool,
    /// It is to be taken again, and nobody was told yet how that went.
    called_back: bool,
}

/// How a batch fared in the database.
enum Fate {
    Written,
    /// Written, with everything else, to a new database after a time without.
    Returned,
    /// It failed now.
    Failed(String),
    /// It had failed before, and still does.
    Waiting,
}

/// The life of the thread.
pub(crate) fn run(shared: &Arc<Shared>, folder: Folder, gone: &[&str]) {
    let mut worker = Worker::new(shared, folder);
    worker.open(gone);
    loop {
        while let Some(batch) = worker.next_batch() {
            worker.write(batch);
        }
        worker.let_go();
        if !worker.wait_for_call() {
            break;
        }
    }
}

impl Worker {
    fn new(shared: &Arc<Shared>, folder: Folder) -> Self {
        Self {
            shared: Arc::clone(shared),
            folder,
            engine: None,
            lock: None,
            last_write: None,
            retry_at: Instant::now() + FIRST_PAUSE,
            pause: FIRST_PAUSE,
            files_retry: None,
            last_words: false,
            knows_all: false,
            called_back: false,
        }
    }

    fn open(&mut self, gone: &[&str]) {
        let mut opened = ladder::read(&self.folder);
        opened.contents.secrets.retain(|name, _| !gone.contains(&name.as_str()));
        let contents = self.told(&mut opened);
        ladder::settle(&mut opened, &self.folder, &contents);
        let path = self.folder.path.display();
        match opened.mode {
            Mode::Ok => tracing::debug!(%path, entries = contents.entries(), "store opened"),
            Mode::Healed => tracing::warn!(%path, "the store was repaired: {}", opened.detail),
            Mode::Fresh => tracing::error!(%path, "THE STORE WAS STARTED ANEW: {}", opened.detail),
            Mode::Memory => tracing::error!(%path, "NOTHING IS REMEMBERED ACROSS A RESTART: {}", opened.detail),
        }
        (self.engine, self.lock) = (opened.engine, opened.lock);
        let mut inner = self.shared.inner.lock();
        (inner.mode, inner.detail) = (opened.mode, opened.detail);
        (inner.settled, inner.writing_since) = (true, None);
        self.shared.news.notify_all();
    }

    /// Lets the callers have what was read, before the disk is written; gives what is to be written.
    fn told(&self, opened: &mut Opened) -> Contents {
        let mut inner = self.shared.inner.lock();
        (inner.mode, inner.detail, inner.skipped) = (opened.mode, opened.detail.clone(), opened.skipped);
        if inner.went_on {
            inner.soil();
        } else {
            inner.contents = std::mem::take(&mut opened.contents);
        }
        inner.mirror_dirty |= opened.is_mirror_stale;
        inner.shelf_dirty.extend(std::mem::take(&mut opened.stale_on_shelf));
        // The database of this process is written from now on.
        (inner.opened, inner.writing_since) = (true, Some(Instant::now()));
        self.shared.news.notify_all();
        inner.contents.clone()
    }

    fn let_go(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
        self.knows_all |= self.lock.is_some();
        drop(self.lock.take());
    }

    /// Waits, without the directory, until it is to be taken again. `false`: never, the store is dropped.
    fn wait_for_call(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut inner = shared.inner.lock();
        while inner.closing {
            inner.closed = true;
            shared.news.notify_all();
            if inner.ending {
                return false;
            }
            shared.work.wait(&mut inner);
        }
        (self.called_back, self.retry_at, self.pause) = (true, Instant::now(), FIRST_PAUSE);
        true
    }

    /// Waits until there is something to do. `None`: the store is closing, and the rest was written or tried.
    fn next_batch(&mut self) -> Option<Batch> {
        let shared = Arc::clone(&self.shared);
        let mut inner = shared.inner.lock();
        loop {
            let now = Instant::now();
            if self.files_retry.is_some_and(|at| at <= now) {
                self.files_retry = None;
                inner.mirror_dirty = true;
                inner.config_dirty = inner.contents.config.is_some();
                let failed = std::mem::take(&mut inner.shelf_failed);
                inner.shelf_dirty.extend(failed);
            }
            match self.due(&inner, now) {
                Some(due) if due <= now => break,
                Some(due) => drop(shared.work.wait_until(&mut inner, due)),
                None => shared.work.wait(&mut inner),
            }
        }
        if inner.closing && (inner.is_idle() || self.last_words) {
            return None;
        }
        self.last_words = inner.closing;
        if inner.closing {
            self.retry_at = Instant::now();
        }
        Some(inner.take())
    }

    fn due(&self, inner: &Inner, now: Instant) -> Option<Instant> {
        let database = match (&self.engine, inner.is_idle()) {
            _ if inner.urgent || inner.closing => Some(now),
            (Some(_), true) => None,
            (Some(_), false) => Some(self.last_write.map_or(now, |last| last + GATHER)),
            (None, _) => Some(self.retry_at),
        };
        database.into_iter().chain(self.files_retry).min()
    }

    fn write(&mut self, batch: Batch) {
        let fate = self.write_database(&batch.changes);
        // The database first: of two copies of the operator's words, the mirror is never the newer one by a crash.
        let failed_files = self.write_files(batch.mirror.as_ref(), batch.config.as_deref());
        let failed_keys = self.write_shelf(batch.shelf);
        let mut inner = self.shared.inner.lock();
        (inner.tried, inner.writing, inner.writing_since) = (batch.asked, 0, None);
        inner.failed += failed_files + u64::from(!failed_keys.is_empty());
        inner.shelf_failed.extend(failed_keys);
        inner.files_failing = self.files_retry.is_some();
        let keys = batch.changes.into_iter().map(|(key, _)| key).filter(|key| *key != Key::Meta);
        if matches!(fate, Fate::Failed(_) | Fate::Waiting) {
            let keys: Vec<Key> = keys.collect();
            inner.dirty.extend(keys.iter().cloned());
            inner.failing.extend(keys);
        } else {
            let written: BTreeSet<Key> = keys.collect();
            inner.failing.retain(|key| !written.contains(key));
        }
        match fate {
            Fate::Written | Fate::Waiting => {}
            // As it was before it let go of the directory.
            Fate::Returned if inner.mode != Mode::Memory => {}
            Fate::Returned => {
                inner.mode = Mode::Healed;
                inner.detail = format!("on disk again; before that: {}", inner.detail);
                inner.soil_files();
                tracing::warn!(path = %self.folder.path.display(), "the store is {}", inner.detail);
            }
            Fate::Failed(words) => {
                inner.failed += 1;
                inner.mode = Mode::Memory;
                inner.detail = format!("writing to {} failed: {words}", self.folder.path.display());
                tracing::error!("NOTHING IS REMEMBERED ACROSS A RESTART: {}; relais goes on trying", inner.detail);
            }
        }
        drop(inner);
        self.shared.news.notify_all();
    }

    fn write_database(&mut self, changes: &[(Key, Option<Value>)]) -> Fate {
        let Some(engine) = &self.engine else {
            return if Instant::now() < self.retry_at { Fate::Waiting } else { self.return_to_disk(changes) };
        };
        let written = engine.write(changes);
        self.last_write = Some(Instant::now());
        match written {
            Ok(()) => Fate::Written,
            Err(fault) => {
                // It refuses everything from now on: another one must be started.
                if let Some(engine) = self.engine.take() {
                    engine.close();
                }
                self.put_off();
                Fate::Failed(fault.words().to_string())
            }
        }
    }

    fn put_off(&mut self) {
        self.retry_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Tries to write everything to a new database.
    fn return_to_disk(&mut self, changes: &[(Key, Option<Value>)]) -> Fate {
        let called_back = std::mem::take(&mut self.called_back);
        match self.start_anew(changes, if called_back { LOCK_PATIENCE } else { Duration::ZERO }) {
            Ok(engine) => {
                (self.engine, self.pause, self.last_write) = (Some(engine), FIRST_PAUSE, Some(Instant::now()));
                Fate::Returned
            }
            Err(words) => {
                self.put_off();
                if called_back { Fate::Failed(words) } else { Fate::Waiting }
            }
        }
    }

    /// `patience`: how long another process may hold the directory.
    fn start_anew(&mut self, changes: &[(Key, Option<Value>)], patience: Duration) -> Result<Engine, String> {
        if self.lock.is_none() {
            self.lock = Some(self.folder.lock(patience).map_err(|fault| fault.words())?);
            // What another process, or we in better days, wrote there and this one could not read.
            if !self.knows_all
                && let Ok(reading) = reading::read(&self.folder, true)
            {
                let mut known = reading.found.contents;
                self.folder.shelf().read().reconcile(&mut known);
                let forgotten = changes.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key);
                self.shared.inner.lock().contents.absorb(known, forgotten);
            }
        }
        let contents = self.shared.inner.lock().contents.clone();
        let started = ladder::start(&self.folder, &contents, &[]).map_err(|fault| fault.words().to_string());
        started.map(|(engine, _)| engine)
    }

    /// Gives what could not be written.
    fn write_shelf(&mut self, shelf: Vec<(Key, Option<Value>)>) -> Vec<Key> {
        if shelf.is_empty() {
            return Vec::new();
        }
        let failed: Vec<(Key, String)> = match self.lock {
            Some(_) => {
                self.folder.shelf().put(shelf).into_iter().map(|(key, fault)| (key, fault.to_string())).collect()
            }
            None => shelf.into_iter().map(|(key, _)| (key, "another process uses the directory".to_owned())).collect(),
        };
        if let Some((_, fault)) = failed.first() {
            tracing::error!("certs/ cannot be written: {fault}");
            self.files_retry = Some(Instant::now() + LONGEST_PAUSE);
        }
        failed.into_iter().map(|(key, _)| key).collect()
    }

    /// How many could not be written.
    fn write_files(&mut self, mirror: Option<&Mirror>, config: Option<&str>) -> u64 {
        // A directory that another process uses is not ours to write.
        if self.lock.is_none() {
            return 0;
        }
        let mirror = mirror.map(|mirror| (self.folder.mirror(), mirror.write(&self.folder)));
        let config = config.map(|text| (self.folder.last_good(), last_good::write(&self.folder, text)));
        let mut failed = 0;
        for (path, result) in mirror.into_iter().chain(config) {
            if let Err(fault) = result {
                tracing::error!(path = %path.display(), "cannot be written: {fault}");
                self.files_retry = Some(Instant::now() + LONGEST_PAUSE);
                failed += 1;
            }
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::{Condvar, Mutex};

    use super::*;

    #[test]
    fn a_disk_that_stops_while_the_database_is_started_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let inner = Mutex::new(Inner::new(Contents::default(), String::new()));
        let shared = Arc::new(Shared { inner, work: Condvar::new(), news: Condvar::new() });
        let mut worker = Worker::new(&shared, Folder::new(dir.path()));
        let mut opened = ladder::read(&worker.folder);
        worker.told(&mut opened);
        assert!(shared.inner.lock().writing_since.is_some(), "it is on its way to the disk");
        drop(opened);
        worker.open(&[]);
        let inner = shared.inner.lock();
        assert!(inner.settled && inner.writing_since.is_none(), "{}", inner.detail);
    }
}
