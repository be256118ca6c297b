//! Floor 1: what to do about what happened: route, balance, health, site verdict, failover, failback, timers,
//! certificates.
//!
//! Pure: time, events and random numbers come in as arguments, effects go out as values. No I/O, no clock, no threads,
//! no locks, no global randomness (see `clippy.toml`). Readers' atomics in `backend` and `stats` are the only shared state.

mod agent;
mod backend;
pub mod balancer;
mod budget;
pub mod certs;
mod effect;
mod errand;
mod event;
mod fault;
mod fleet;
pub mod hash;
mod health;
pub mod hedge;
mod history;
mod outlier;
mod patience;
mod random;
mod report;
mod retry;
mod round_trip;
mod router;
mod snapshot;
pub mod stats;
#[cfg(test)]
mod testing;
mod time;
mod timers;
mod verdict;

use relais_config::words;

pub use agent::AgentSaid;
pub use backend::{Backend, BackendId, InFlight, Overdue};
pub use budget::Budget;
pub use effect::{
    AdminRecord, BackendRecord, CertificateStep, Effect, Record, RecordKey, Saved, Transition, TunnelStep,
};
pub use errand::{AgentOrder, MeasureOrder, ProbeOrder, ResolveOrder};
pub use event::{Command, Event, Resolved, Target, Tunnel};
pub use fault::Fault;
pub use fleet::{DrillOrder, DrillRefused, Fleet};
pub use health::{Admin, Health};
pub use history::{DrillEnd, DrillRecord, DrillService, FailoverRecord, Left, Shape};
pub use patience::{Patience, Waited};
pub use relais_config as config;
pub use report::{
    AgentReport, BackendReport, ChecksReport, ProbeReport, Report, ServiceReport, SiteReport, TunnelReport,
};
pub use retry::is_free;
pub use round_trip::Reach;
pub use router::Router;
pub use snapshot::{Ask, Choice, Member, Pool, Shared, Snapshot, Trial};
pub use time::{Anchor, Instant};
pub use timers::Timers;
