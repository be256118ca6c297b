//! What callers and the worker share: the contents, and what of them is not on the disk yet. Touches no disk itself.

use std::collections::BTreeSet;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::contents::Contents;
use crate::entry::{Key, Value};
use crate::mirror::Mirror;
use crate::state::Mode;

/// What the state says between letting go of the directory and taking it again.
const HANDED_OVER: &str = "the directory was handed over; what changes from then on is lost when this process ends";

/// What callers and the worker share. The lock is never held across a call to the disk.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) inner: Mutex<Inner>,
    /// Something changed for the worker.
    pub(crate) work: Condvar,
    /// Something changed for those who wait for the worker.
    pub(crate) news: Condvar,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) contents: Contents,
    /// Keys whose value on disk may differ from `contents`.
    pub(crate) dirty: BTreeSet<Key>,
    /// Those of them that could not be written when it was tried last; a newer value of one may wait already.
    pub(crate) failing: BTreeSet<Key>,
    pub(crate) mirror_dirty: bool,
    pub(crate) config_dirty: bool,
    /// Keys whose files in `certs/` may differ from `contents`.
    pub(crate) shelf_dirty: BTreeSet<Key>,
    /// Those of them that could not be written, and wait for another try.
    pub(crate) shelf_failed: BTreeSet<Key>,
    /// How much of what was taken is being written just now.
    pub(crate) writing: usize,
    /// Since when.
    pub(crate) writing_since: Option<Instant>,
    /// Write without gathering.
    pub(crate) urgent: bool,
    /// Counts changes and flushes asked for, and those that were tried: a flush waits until `tried` has reached it.
    pub(crate) asked: u64,
    pub(crate) tried: u64,
    /// What was there is known.
    pub(crate) opened: bool,
    /// The database of this process is there, or there is none.
    pub(crate) settled: bool,
    /// The caller of `open` went on without waiting any longer.
    pub(crate) went_on: bool,
    /// The worker is to write what is left, and to let go of the directory.
    pub(crate) closing: bool,
    /// It did, or there is none: nobody waits for it.
    pub(crate) closed: bool,
    /// The store is dropped: the worker does not wait to be called back.
    pub(crate) ending: bool,
    pub(crate) mode: Mode,
    pub(crate) detail: String,
    pub(crate) skipped: u64,
    pub(crate) failed: u64,
    /// The last try to write the files beside the database failed.
    pub(crate) files_failing: bool,
}

impl Inner {
    pub(crate) fn new(contents: Contents, detail: String) -> Self {
        Self {
            contents,
            dirty: BTreeSet::new(),
            failing: BTreeSet::new(),
            mirror_dirty: false,
            config_dirty: false,
            shelf_dirty: BTreeSet::new(),
            shelf_failed: BTreeSet::new(),
            writing: 0,
            writing_since: None,
            urgent: false,
            asked: 0,
            tried: 0,
            opened: false,
            settled: false,
            went_on: false,
            closing: false,
            closed: false,
            ending: false,
            mode: Mode::Memory,
            detail,
            skipped: 0,
            failed: 0,
            files_failing: false,
        }
    }

    /// Whether another process has the directory, or may.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.closing && self.closed
    }

    /// How well it works, and why, as callers are told.
    pub(crate) fn told(&self) -> (Mode, &str) {
        if self.is_handed_over() { (Mode::Memory, HANDED_OVER) } else { (self.mode, &self.detail) }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.to_take() == 0 && self.asked == self.tried
    }

    /// What is remembered and not on disk.
    pub(crate) fn unsaved(&self) -> usize {
        self.to_take() + self.writing + self.shelf_failed.len()
    }

    /// What the next batch will have.
    fn to_take(&self) -> usize {
        let files = usize::from(self.mirror_dirty) + usize::from(self.config_dirty);
        self.dirty.len() + files + self.shelf_dirty.len()
    }

    /// Takes what must be written.
    pub(crate) fn take(&mut self) -> Batch {
        (self.writing, self.writing_since) = (self.to_take(), Some(Instant::now()));
        let dirty = std::mem::take(&mut self.dirty);
        let mut changes: Vec<_> =
            dirty.into_iter().map(|key| (self.contents.get(&key), key)).map(|(value, key)| (key, value)).collect();
        changes.push((Key::Meta, Some(Value::Meta(self.contents.meta()))));
        let mirror = self.mirror_dirty.then(|| Mirror::new(self.contents.admin_revision, self.contents.admin()));
        let config = self.contents.config.clone().filter(|_| self.config_dirty);
        let shelf = std::mem::take(&mut self.shelf_dirty);
        self.shelf_failed.retain(|key| !shelf.contains(key));
        let shelf =
            shelf.into_iter().map(|key| (self.contents.get(&key), key)).map(|(value, key)| (key, value)).collect();
        (self.urgent, self.mirror_dirty, self.config_dirty) = (false, false, false);
        Batch { changes, mirror, config, shelf, asked: self.asked }
    }

    /// Everything must be written again.
    pub(crate) fn soil(&mut self) {
        self.dirty.extend(self.contents.keys());
        self.soil_files();
    }

    pub(crate) fn soil_files(&mut self) {
        self.mirror_dirty = true;
        self.config_dirty = self.contents.config.is_some();
        self.shelf_dirty.extend(self.contents.shelved());
    }
}

/// What one turn writes.
pub(crate) struct Batch {
    pub(crate) changes: Vec<(Key, Option<Value>)>,
    pub(crate) mirror: Option<Mirror>,
    pub(crate) config: Option<String>,
    pub(crate) shelf: Vec<(Key, Option<Value>)>,
    pub(crate) asked: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_written_is_not_saved_yet() {
        let mut inner = Inner::new(Contents::default(), String::new());
        inner.dirty.insert(Key::Secret("sticky".into()));
        inner.config_dirty = true;
        inner.mirror_dirty = true;
        assert_eq!(inner.unsaved(), 3);
        drop(inner.take());
        assert_eq!((inner.to_take(), inner.unsaved()), (0, 3), "the batch is not on the disk");
    }
}
