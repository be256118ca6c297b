//! What is remembered of failovers and drills: plain values, kept by the store, shown by `history` and `status`.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// So many of each kind are kept; a newer one takes the place of the oldest.
pub(crate) const KEPT: u64 = 100;

/// How a request left a backend that did not answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// It waited there when the backend was declared down, and was sent elsewhere at once.
    Rescued,
    /// Its attempt there failed, or fell silent in the middle of an answer of which the client had nothing yet, and it was sent
    /// elsewhere.
    Failed,
    /// Another backend, asked beside as this one may be dead, was faster.
    Overtaken,
    /// This one was later than practically any answer before, or slower than most where its service asks beside then; another
    /// had it. How long it waited is this one's doing.
    Late,
    /// It may have been received and must not be sent twice, or its answer had begun: the client was told.
    Told,
}

/// One failover of one service: backends that had traffic were lost, others took over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailoverRecord {
    /// Counts up, one per failover of any service.
    pub number: u64,
    /// Which service.
    pub service: Arc<str>,
    /// Sites that lost backends.
    pub sites: Vec<Arc<str>>,
    /// The backends lost, as in the file.
    pub backends: Vec<Arc<str>>,
    /// The evidence, in words.
    pub why: String,
    /// When the first probe or attempt was sent that was never answered.
    pub began: Instant,
    /// When the last of the backends was declared down.
    pub declared: Instant,
    /// When the last request that had been sent there was moved off, or told; `declared` when there was none.
    pub ended: Instant,
    /// From the first lost packet the edge could know of to the last request affected, in microseconds: of the slowest,
    /// where backends were lost one after the other.
    pub took_micros: u64,
    /// The contract it is measured against, in microseconds.
    pub contract_micros: u64,
    /// Attempts that went elsewhere, for whatever reason.
    pub moved: u64,
    /// Of those, the ones that waited for an answer when the verdict came.
    pub rescued: u64,
    /// Requests that must not be sent twice, or whose answer had begun: their clients were told.
    pub told: u64,
    /// Longest time one attempt was held up there, in microseconds.
    pub slowest_micros: u64,
    /// It happened in a drill.
    pub drill: bool,
    /// In one of slow answers: nothing was dead, and the contract does not bind how soon that is left.
    #[serde(default)]
    pub slow: bool,
}

impl FailoverRecord {
    /// See `took_micros`.
    #[must_use]
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.took_micros)
    }

    /// Whether it took longer than the contract, where that binds.
    #[must_use]
    pub fn overran(&self) -> bool {
        !self.slow && self.took_micros > self.contract_micros
    }
}

/// How a site in a drill behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// As if the cable were cut: nothing arrives, nothing is refused, nothing closes.
    Silent,
    /// As if its processes were dead: connections break, new ones are refused.
    Refused,
    /// As if its application were overloaded: connects succeed, every answer is late by half a contract.
    Slow,
}

impl Shape {
    /// The word of the CLI, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Shape::Silent => "silent",
            Shape::Refused => "refused",
            Shape::Slow => "slow",
        }
    }
}

/// Why a drill's cut ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillEnd {
    /// Its time was over.
    Time,
    /// A request that could have been repeated failed.
    Lost,
    /// A service had no backend left.
    NobodyLeft,
    /// Nobody asked for it any more.
    Unattended,
    /// The operator ended it.
    Asked,
    /// The config changed.
    Reload,
    /// The edge stops.
    Stop,
}

impl DrillEnd {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DrillEnd::Time => "its time was over",
            DrillEnd::Lost => "aborted: a request that could have been repeated failed",
            DrillEnd::NobodyLeft => "aborted: a service had no backend left",
            DrillEnd::Unattended => "aborted: whoever ordered it is gone",
            DrillEnd::Asked => "ended by the operator",
            DrillEnd::Reload => "aborted: the config changed",
            DrillEnd::Stop => "aborted: the edge stops",
        }
    }
}

/// What a drill did to one service. Times count from the cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillService {
    /// Which.
    pub name: Arc<str>,
    /// Its contract, in microseconds.
    pub contract_micros: u64,
    /// It had a backend at every moment.
    pub kept: bool,
    /// The site was its only one, and the operator wanted it all the same.
    pub alone: bool,
    /// Its backends there are checked: they must have been declared down.
    pub checked: bool,
    /// When the last of its backends there was declared down, in microseconds; `None`: not all were.
    pub declared_micros: Option<u64>,
    /// When the last request was moved off, in microseconds; `None`: none was there.
    pub last_moved_micros: Option<u64>,
    /// Attempts that went elsewhere.
    pub moved: u64,
    /// Of those, the ones that waited for an answer when the verdict came.
    pub rescued: u64,
    /// Of those, the ones held up longer than the contract.
    pub slow: u64,
    /// Requests that could have been repeated and failed all the same.
    pub lost: u64,
    /// Requests that must not be sent twice, or whose answer had begun: their clients were told.
    pub told: u64,
}

/// One drill of one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillRecord {
    /// Counts up, one per drill.
    pub number: u64,
    /// Which site.
    pub site: Arc<str>,
    /// How it behaved.
    pub shape: Shape,
    /// The operator wanted it although a service had no other site.
    pub forced: bool,
    /// When it was cut.
    pub began: Instant,
    /// When it was to end.
    pub until: Instant,
    /// When the cut ended; `None`: it goes on.
    pub ended: Option<Instant>,
    /// Why it ended; `None`: it goes on.
    pub end: Option<DrillEnd>,
    /// Whether every backend that had been up was up again, and how long after the end, in microseconds.
    pub returned_micros: Option<u64>,
    /// It is over: nothing here changes any more.
    pub done: bool,
    /// Every service that has backends there, in config order.
    pub services: Vec<DrillService>,
    /// What went wrong, in sentences; empty: the site can be lost.
    pub problems: Vec<String>,
}

impl DrillRecord {
    /// It is over and nothing went wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.done && self.problems.is_empty()
    }
}
