//! What the fleet remembers of each site, and the suspicion against one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::paths::Path;
use super::tunnels::TunnelState;
use crate::health::Health;
use crate::history::Shape;
use crate::time::Instant;

/// Suspicion against a site that no sign of life has ended yet.
#[derive(Debug)]
pub(super) struct Accusation {
    pub(super) last: Instant,
    /// Transport faults since it began.
    pub(super) signals: u32,
    /// At least one of them was silence.
    pub(super) silence: bool,
    /// Whom they came from.
    pub(super) accusers: BTreeSet<u32>,
}

impl Accusation {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, signals: 0, silence: false, accusers: BTreeSet::new() }
    }
}

/// One site.
#[derive(Debug)]
pub(super) struct SiteState {
    pub(super) name: Arc<str>,
    /// Slots of its backends.
    pub(super) members: Vec<u32>,
    /// Places of the services that have backends there.
    pub(super) services: Vec<usize>,
    /// `Up`, `Suspect` or `Down`: the verdict about the site as a whole.
    pub(super) health: Health,
    pub(super) since: Instant,
    /// What `status` says of it, by that verdict or by what all its backends have in common, and since when.
    pub(super) shown: Option<(Health, Instant)>,
    pub(super) why: String,
    pub(super) accusation: Option<Accusation>,
    /// How far away it is.
    pub(super) path: Path,
    /// When something there last answered.
    pub(super) lived: Option<Instant>,
    /// When the last of the probes that were answered there was sent.
    pub(super) answered: Option<Instant>,
    /// When all its backends were last looked at for a sign of life.
    pub(super) looked: Instant,
    /// The WireGuard tunnel to it; `None`: there is none, or it cannot be read.
    pub(super) tunnel: Option<TunnelState>,
    /// It is in a drill, and behaves like this.
    pub(super) drill: Option<Shape>,
    /// Outages of the whole site, latest last.
    pub(super) downs: Vec<Instant>,
    /// Share of probes that lately met silence although the site lives: rises fast, falls slowly.
    pub(super) loss: f64,
    /// The shortest contract among the services there.
    pub(super) contract: Duration,
    /// The shortest confirming deadline among the services there.
    pub(super) confirm: Duration,
}

impl SiteState {
    pub(super) fn new(name: Arc<str>, now: Instant) -> Self {
        Self {
            name,
            members: Vec::new(),
            services: Vec::new(),
            health: Health::Up,
            since: now,
            shown: None,
            why: String::new(),
            accusation: None,
            path: Path::default(),
            lived: None,
            answered: None,
            looked: Instant::default(),
            tunnel: None,
            drill: None,
            downs: Vec::new(),
            loss: 0.0,
            contract: Duration::MAX,
            confirm: Duration::MAX,
        }
    }
}
