//! What the other rooms see of the store; certificates and accounts are next door, in `certs`, and what a process does with its
//! directory when another one follows it, in `handover`. No call waits for the disk but [`Store::open`], [`Store::flush`], what
//! keeps a certificate or an account, what hands the directory over, and the drop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use relais_core::{Record, RecordKey, Saved};

use crate::contents::Contents;
use crate::disk::Folder;
use crate::entry::Key;
use crate::inner::{Inner, Shared};
use crate::state::{Mode, StoreState};
use crate::worker;

/// A disk that answers no sooner is treated as none.
const OPEN_PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const FLUSH_PATIENCE: Duration = Duration::from_secs(10);
/// Nor is one that is slow so slow.
const STUCK: Duration = Duration::from_secs(5);

/// What must survive a restart: held in memory, copied to the disk by a thread of its own.
///
/// A change is on disk within a second (the operator's words, configs and secrets at once). A kill at any moment loses at most
/// that. Dropping the store writes what is left.
#[derive(Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    /// Held by who lets go of the directory or takes it again.
    pub(crate) handover: Mutex<()>,
    /// `None`: no disk wanted.
    pub(crate) path: Option<PathBuf>,
}

impl Store {
    /// Opens the store in `dir`, which is made where missing; see the crate's first page for the files in it. Never fails
    /// and never panics: the worst case is a store in memory, and [`Store::state`] tells. Returns after 40 s at the latest.
    #[must_use]
    pub fn open(dir: &Path) -> Store {
        let store = Store::begin(dir);
        store.wait(OPEN_PATIENCE, |inner| inner.settled || inner.went_on);
        store
    }

    /// As [`Store::open`], and returns as soon as it is known what there is, which is less than half of it: the rest, the
    /// database of this process, comes behind, and what it meets is told by [`Store::state`] then.
    #[must_use]
    pub fn begin(dir: &Path) -> Store {
        Store::begin_without(dir, &[])
    }

    /// As [`Store::begin`], and of the secrets kept under these names no trace is left: neither here nor, when the database of
    /// this process is there, on the disk. Only a damaged database, which is set aside for its owner to look at, stays as it is.
    #[must_use]
    pub fn begin_without(dir: &Path, gone: &'static [&'static str]) -> Store {
        let store = Self::new("not opened yet", Some(dir.to_path_buf()));
        let (shared, folder) = (Arc::clone(&store.shared), Folder::new(dir));
        let spawned =
            std::thread::Builder::new().name("relais-store".into()).spawn(move || worker::run(&shared, folder, gone));
        if let Err(fault) = spawned {
            let mut inner = store.inner();
            inner.detail = format!("no thread for the store can be started: {fault}");
            inner.closed = true;
            tracing::error!("NOTHING IS REMEMBERED ACROSS A RESTART: {}", inner.detail);
            drop(inner);
            return store;
        }
        if !store.wait(OPEN_PATIENCE, |inner| inner.opened) {
            let mut inner = store.inner();
            inner.went_on = !inner.opened;
            inner.detail = format!("{} did not answer for {} s", dir.display(), OPEN_PATIENCE.as_secs());
            tracing::error!("NOTHING IS REMEMBERED ACROSS A RESTART: {}", inner.detail);
        }
        store
    }

    /// A store that remembers until it is dropped: for embedding and tests.
    #[must_use]
    pub fn memory() -> Store {
        let store = Self::new("", None);
        store.inner().closed = true;
        store
    }

    fn new(detail: &str, path: Option<PathBuf>) -> Self {
        let inner = Mutex::new(Inner::new(Contents::default(), detail.to_string()));
        let shared = Arc::new(Shared { inner, work: Condvar::new(), news: Condvar::new() });
        Self { shared, handover: Mutex::new(()), path }
    }

    /// Everything remembered about backends and the operator's words, in any order.
    #[must_use]
    pub fn load(&self) -> Saved {
        Saved { records: self.inner().contents.records.values().cloned().collect() }
    }

    /// Remembers a record in the place of the one with the same key. Never waits.
    pub fn save(&self, record: Record) {
        let key = record.key();
        let is_admin = matches!(record, Record::Admin(_));
        self.change(Some(Key::Record(key.clone())), is_admin, |contents| {
            let is_new = contents.records.get(&key) != Some(&record);
            contents.admin_revision += u64::from(is_new && is_admin);
            contents.records.insert(key, record);
            is_new
        });
    }

    /// Forgets a record; one that is not there is no error. Never waits.
    pub fn forget(&self, key: RecordKey) {
        let is_admin = matches!(key, RecordKey::Admin(_));
        let gone = key.clone();
        self.change(Some(Key::Record(key)), is_admin, |contents| {
            let was_there = contents.records.remove(&gone).is_some();
            contents.admin_revision += u64::from(was_there && is_admin);
            was_there
        });
    }

    /// Remembers the text of the config that was applied. Never waits.
    pub fn save_config(&self, text: &str) {
        self.change(None, true, |contents| {
            let is_new = contents.config.as_deref() != Some(text);
            contents.config = Some(text.to_string());
            is_new
        });
    }

    /// The text given to [`Store::save_config`] last.
    #[must_use]
    pub fn last_good_config(&self) -> Option<String> {
        self.inner().contents.config.clone()
    }

    /// A random secret of `len` bytes: made when first asked for, then the same as long as the store lives. Always ask for
    /// one name with one length; another length makes a new secret.
    #[must_use]
    pub fn secret(&self, name: &str, len: usize) -> Vec<u8> {
        if let Some(known) = self.inner().contents.secrets.get(name).filter(|known| known.len() == len) {
            return known.clone();
        }
        let mut secret = random(len);
        self.change(Some(Key::Secret(name.to_string())), true, |contents| {
            // Another thread may have been faster.
            let known = contents.secrets.entry(name.to_string()).or_default();
            let is_new = known.len() != len;
            if is_new {
                known.clone_from(&secret)
            } else {
                secret.clone_from(known)
            }
            is_new
        });
        secret
    }

    /// The secret kept under a name; `None`: none.
    #[must_use]
    pub fn known_secret(&self, name: &str) -> Option<Vec<u8>> {
        self.inner().contents.secrets.get(name).cloned()
    }

    /// Remembers a secret in the place of the one with the same name. Never waits.
    pub fn keep_secret(&self, name: &str, secret: &[u8]) {
        self.change(Some(Key::Secret(name.to_string())), true, |contents| {
            let before = contents.secrets.insert(name.to_string(), secret.to_vec());
            before.as_deref() != Some(secret)
        });
    }

    /// How well it works.
    #[must_use]
    pub fn state(&self) -> StoreState {
        let inner = self.inner();
        let (mode, detail) = inner.told();
        StoreState {
            mode,
            path: self.path.clone(),
            detail: detail.to_string(),
            records: inner.contents.records.len(),
            unsaved: inner.unsaved(),
            skipped_records: inner.skipped,
            failed_writes: inner.failed,
            is_failing: inner.files_failing,
            is_stuck: inner.writing_since.is_some_and(|since| since.elapsed() >= STUCK),
            is_handed_over: inner.is_handed_over(),
        }
    }

    /// Waits until everything given before is on the disk, or until that was tried and failed ([`Store::state`] tells), or 10 s.
    pub fn flush(&self) {
        if !self.write_now(FLUSH_PATIENCE) {
            tracing::warn!("the disk of the store did not answer for {} s", FLUSH_PATIENCE.as_secs());
        }
    }

    /// Whether all words of the operator given before are on the disk, for which this waits for so long at most. `true` as well
    /// where no directory was ever given.
    #[must_use]
    pub fn keep(&self, patience: Duration) -> bool {
        let tried = self.write_now(patience);
        let inner = self.inner();
        let failing = inner.failing.iter().any(|key| matches!(key, Key::Record(RecordKey::Admin(_))));
        self.path.is_none() || (tried && inner.told().0 != Mode::Memory && !failing)
    }

    /// Whether that was tried in time.
    pub(crate) fn write_now(&self, patience: Duration) -> bool {
        let mut inner = self.inner();
        // What was given and not tried yet is one turn with what was asked for.
        inner.asked += u64::from(inner.asked == inner.tried);
        inner.urgent = true;
        let asked = inner.asked;
        drop(inner);
        self.shared.work.notify_one();
        self.wait(patience, |inner| inner.tried >= asked)
    }

    /// Changes the contents and wakes the worker when `change` says that something is different.
    /// No key: the config.
    pub(crate) fn change(&self, key: Option<Key>, is_urgent: bool, change: impl FnOnce(&mut Contents) -> bool) {
        let mut inner = self.inner();
        if !change(&mut inner.contents) || self.path.is_none() {
            return;
        }
        inner.config_dirty |= key.is_none();
        inner.mirror_dirty |= matches!(key, Some(Key::Record(RecordKey::Admin(_))));
        if let Some(key @ (Key::Certificate(_) | Key::Account(_))) = &key {
            inner.shelf_dirty.insert(key.clone());
        }
        inner.dirty.extend(key);
        inner.asked += 1;
        inner.urgent |= is_urgent;
        drop(inner);
        self.shared.work.notify_one();
    }

    /// Whether it came true in time. A worker that is gone makes nothing come true: then this returns at once.
    pub(crate) fn wait(&self, patience: Duration, mut is_so: impl FnMut(&Inner) -> bool) -> bool {
        let until = Instant::now() + patience;
        let mut inner = self.inner();
        while !is_so(&inner) && !inner.closed {
            if self.shared.news.wait_until(&mut inner, until).timed_out() {
                return is_so(&inner);
            }
        }
        true
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let mut inner = self.inner();
        (inner.closing, inner.ending) = (true, true);
        drop(inner);
        self.shared.work.notify_one();
        if !self.wait(FLUSH_PATIENCE, |inner| inner.closed) {
            tracing::error!("the disk of the store did not answer: the last changes may be lost");
        }
    }
}

/// From the system; a system without randomness cannot run TLS either, so the second source only has to be unlike zero.
fn random(len: usize) -> Vec<u8> {
    use std::hash::{BuildHasher, RandomState};
    let mut bytes = vec![0; len];
    if let Err(fault) = getrandom::fill(&mut bytes) {
        tracing::error!("the system's random source failed ({fault}): secrets made now are weak");
        let seed = RandomState::new();
        bytes.iter_mut().enumerate().for_each(|(place, byte)| *byte = seed.hash_one(place).to_le_bytes()[0]);
    }
    bytes
}
