//! How far the life of an edge has come. It only goes forward; every thread watches it.

use tokio::sync::watch;

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serving.
    Running,
    /// Nothing new is accepted; what is in flight finishes.
    Draining,
    /// What is still in flight is cut.
    Cutting,
    /// All threads are done.
    Ended,
}

/// The phase of one edge, shared by its threads and its owner.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    phase: watch::Sender<Phase>,
}

impl Life {
    pub(crate) fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Running) }
    }

    /// Goes to `phase` unless it is further already.
    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let further = *now < phase;
            if further {
                *now = phase;
            }
            further
        });
    }

    /// Waits until `phase` or a later one.
    pub(crate) fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + 'static {
        let mut watched = self.phase.subscribe();
        async move {
            // The sender can only be gone when every thread is: later than any phase.
            let _ = watched.wait_for(|now| *now >= phase).await;
        }
    }

    /// Whether `phase` or a later one is reached.
    pub(crate) fn is_at(&self, phase: Phase) -> bool {
        *self.phase.borrow() >= phase
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_only_goes_forward() {
        let life = Life::new();
        life.advance(Phase::Cutting);
        life.advance(Phase::Draining);
        assert!(life.is_at(Phase::Cutting) && !life.is_at(Phase::Ended));
    }

    #[test]
    fn waiting_for_a_phase_that_is_past_ends_at_once() {
        let life = Life::new();
        life.advance(Phase::Ended);
        crate::wait::block_on(life.reached(Phase::Draining));
    }
}
