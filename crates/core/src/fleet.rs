//! The fleet: every decision about health, admin and publication. A pure state machine.

use std::sync::Arc;

use relais_config::Config;

use crate::effect::{Effect, Saved};
use crate::event::{Event, Target};
use crate::report::Report;
use crate::time::Instant;

/// The one writer's state.
#[derive(Debug)]
pub struct Fleet {}

impl Fleet {
    /// `seed` drives jitter. Emits the first `Publish` and the first probes at once.
    #[must_use]
    pub fn new(_config: Arc<Config>, _saved: Saved, _now: Instant, _seed: u64) -> Self {
        Self {}
    }
    /// Takes one event.
    pub fn handle_event(&mut self, _event: Event, _now: Instant) {}
    /// To be called at or after `poll_timeout`.
    pub fn handle_timeout(&mut self, _now: Instant) {}
    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    /// What to do next; call until `None` after every `handle_*`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        None
    }
    /// What it believes and why.
    #[must_use]
    pub fn report(&self, now: Instant) -> Report {
        Report { now, sites: vec![], services: vec![] }
    }
    /// The target an operator's words name: `SITE`, `SERVICE/ADDRESS`. `Err`: a sentence with the nearest name.
    pub fn target(&self, words: &str) -> Result<Target, String> {
        Err(words.to_string())
    }
}
