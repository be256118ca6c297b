//! A drill as probes meet it: while a backend's site is in one, they behave as if it were cut.

use std::time::Duration;

use relais_core::{Fault, ProbeOrder, Shape};

use super::fault::{Phase, Progress};

/// What a probe meets before its connect.
pub(super) async fn connect(order: &ProbeOrder, progress: &Progress) -> Result<(), Fault> {
    match order.drill {
        Some(Shape::Silent) => {
            progress.reach(Phase::Connecting);
            tokio::time::sleep(order.connect).await;
            Err(Fault::ConnectTimeout)
        }
        Some(Shape::Refused) => Err(Fault::Refused),
        Some(Shape::Slow) | None => Ok(()),
    }
}

/// What it meets before its answer: a slow site's comes late by half a contract.
pub(super) async fn answer(order: &ProbeOrder) {
    let late: Duration = order.check.failover_within / 2;
    if order.drill == Some(Shape::Slow) {
        tokio::time::sleep(late).await;
    }
}
