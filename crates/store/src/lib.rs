//! Floor 2: what must survive a restart. The only room that knows the embedded database.

use std::path::{Path, PathBuf};

use relais_core::{Record, RecordKey, Saved};

/// How well the store works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Opened as it was left.
    Ok,
    /// Opened after a repair that kept the records.
    Healed,
    /// Could not be repaired: set aside, started empty.
    Fresh,
    /// No disk: remembers until the process ends.
    Memory,
}

/// What `status` and metrics show about the store.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StoreState {
    /// How well it works.
    pub mode: Mode,
    /// Its directory; `None`: made without one.
    pub path: Option<PathBuf>,
    /// What happened, in words; empty when nothing did.
    pub detail: String,
    /// Records held.
    pub records: usize,
    /// Records that could not be read at start and were skipped.
    pub skipped_records: u64,
    /// Writes that failed since start.
    pub failed_writes: u64,
}

/// What must survive a restart.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens the store in `dir`. Never fails.
    #[must_use]
    pub fn open(_dir: &Path) -> Store {
        Self {}
    }
    /// A store that remembers until the process ends.
    #[must_use]
    pub fn memory() -> Store {
        Self {}
    }
    /// Everything remembered.
    #[must_use]
    pub fn load(&self) -> Saved {
        Saved::default()
    }
    /// Remembers; never waits.
    pub fn save(&self, _record: Record) {}
    /// Forgets; never waits.
    pub fn forget(&self, _key: RecordKey) {}
    /// Remembers the text of a config that was applied.
    pub fn save_config(&self, _text: &str) {}
    /// The config applied last.
    #[must_use]
    pub fn last_good_config(&self) -> Option<String> {
        None
    }
    /// A random secret: made at first use, then the same for ever.
    #[must_use]
    pub fn secret(&self, _name: &str, len: usize) -> Vec<u8> {
        vec![0; len]
    }
    /// How well it works.
    #[must_use]
    pub fn state(&self) -> StoreState {
        StoreState { mode: Mode::Memory, path: None, detail: String::new(), records: 0, skipped_records: 0, failed_writes: 0 }
    }
    /// Waits until everything given so far is on disk.
    pub fn flush(&self) {}
}
