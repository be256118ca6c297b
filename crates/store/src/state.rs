//! How well the store works, for `status` and metrics. Touches nothing.

use std::path::PathBuf;

/// How well the store works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Opened as it was left.
    Ok,
    /// On disk after a repair; `detail` says what was lost, if anything.
    Healed,
    /// Could not be repaired: the old one was set aside under a dated name, a new one was started.
    Fresh,
    /// No disk: what is remembered ends with the process.
    Memory,
}

impl Mode {
    /// The word of the CLI, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Ok => "ok",
            Mode::Healed => "healed",
            Mode::Fresh => "fresh",
            Mode::Memory => "memory",
        }
    }
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
    /// What is remembered and not on disk yet. Ordinarily for half a second at most.
    pub unsaved: usize,
    /// Entries that could not be read at start and were skipped.
    pub skipped_records: u64,
    /// Writes that failed since start.
    pub failed_writes: u64,
    /// The last try to write the files beside the database failed; it is tried again.
    pub is_failing: bool,
    /// A write has not come back for 5 s: the disk fails nothing, and does nothing.
    pub is_stuck: bool,
    /// The directory was given to another process; see [`crate::Store::let_go`].
    pub is_handed_over: bool,
}
