//! What operators ask about the contract: how timers come about, what failovers took, and drills.

use relais_core::{DrillEnd, DrillOrder, DrillRecord, FailoverRecord};
use serde::Serialize;

use crate::control::Control;
use crate::handle::{Refusal, RefusalKind};

/// The answer to `GET /explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Name of the service.
    pub service: String,
    /// How its timers come about, in sentences; measured round trips last.
    pub said: Vec<String>,
}

/// The answer to `GET /history`. Latest first, at most 100 of each.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct History {
    /// When it was asked for, microseconds since the Unix epoch.
    pub now: relais_core::Instant,
    /// What failovers took.
    pub failovers: Vec<FailoverRecord>,
    /// What drills showed.
    pub drills: Vec<DrillRecord>,
}

impl Control {
    pub(crate) fn explain(&self, service: &str) -> Result<Explained, Refusal> {
        match self.fleet.explain(service) {
            Some(said) => Ok(Explained { service: service.to_string(), said }),
            None => {
                let config = &self.snapshot.load().config;
                let names: Vec<&str> = config.services.iter().map(|service| &*service.name).collect();
                Err(Refusal {
                    error: format!("no service `{service}` forwards requests"),
                    help: format!("services: {}", names.join(", ")),
                    kind: RefusalKind::NotFound,
                })
            }
        }
    }

    pub(crate) fn history(&self) -> History {
        History {
            now: self.now(),
            failovers: self.fleet.failovers().rev().cloned().collect(),
            drills: self.fleet.drills().rev().cloned().collect(),
        }
    }

    pub(crate) fn begin_drill(&mut self, order: &DrillOrder) -> Result<DrillRecord, Refusal> {
        if self.stopping {
            return Err(conflict("the edge is stopping", "start it again with `relais run`"));
        }
        if self.succession.is_under_way() {
            return Err(crate::requests::under_way());
        }
        let now = self.now();
        let begun = self.fleet.begin_drill(order, now);
        self.flush();
        begun.map_err(|refused| Refusal {
            error: refused.error,
            help: refused.help,
            kind: if refused.unknown { RefusalKind::NotFound } else { RefusalKind::Conflict },
        })?;
        self.drill_record()
    }

    /// The drill under way, else the last one. Asking keeps it alive.
    pub(crate) fn ask_drill(&mut self) -> Option<DrillRecord> {
        let now = self.now();
        self.fleet.ask_drill(now).cloned()
    }

    pub(crate) fn end_drill(&mut self, end: DrillEnd) -> Result<DrillRecord, Refusal> {
        if self.fleet.drill_record().is_none_or(|record| record.ended.is_some()) {
            return Err(conflict("no site is cut", "`relais history` shows the drills there were"));
        }
        let now = self.now();
        self.fleet.end_drill(end, now);
        self.flush();
        self.drill_record()
    }

    fn drill_record(&self) -> Result<DrillRecord, Refusal> {
        self.fleet.drill_record().cloned().ok_or_else(|| conflict("there is no drill", "`relais drill site NAME`"))
    }
}

fn conflict(error: &str, help: &str) -> Refusal {
    Refusal { error: error.to_string(), help: help.to_string(), kind: RefusalKind::Conflict }
}
