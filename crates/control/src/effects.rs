//! Does what the fleet says. Publishing comes first: whoever reads a log line or an answer about a change must find the
//! change in force.

use std::collections::HashSet;
use std::sync::Arc;

use relais_core::{Effect, Snapshot};

use crate::control::Control;
use crate::note;

/// The snapshot that counts: the last one published.
pub(crate) fn newest(effects: &[Effect]) -> Option<Arc<Snapshot>> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Publish(snapshot) => Some(Arc::clone(snapshot)),
        _ => None,
    })
}

impl Control {
    /// Carries out everything the fleet wants done. To be called after every `handle_*`.
    pub(crate) fn flush(&mut self) {
        let effects = std::iter::from_fn(|| self.fleet.poll_effect()).collect();
        self.carry_out(effects);
    }

    pub(crate) fn carry_out(&mut self, effects: Vec<Effect>) {
        if let Some(snapshot) = newest(&effects) {
            self.publish(snapshot);
        }
        for effect in effects {
            match effect {
                Effect::Publish(_) => {}
                Effect::Probe(order) => self.probes.start(order),
                Effect::Resolve(order) => self.errands.resolve(order),
                Effect::Agent(order) => self.errands.ask(order),
                Effect::Measure(order) => self.errands.measure(order),
                Effect::Order(order) => {
                    let config = Arc::clone(&self.snapshot.load().config);
                    self.acme.order(*order, &config);
                }
                Effect::AskRenewalInfo(question) => self.acme.ask_renewal(question),
                Effect::Save(record) => self.store.save(record),
                Effect::Forget(key) => self.store.forget(key),
                Effect::Note(transition) => note::write(&transition),
            }
        }
    }

    fn publish(&self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        self.snapshot.store(snapshot);
        self.changed.send_replace(generation);
    }

    /// Stops probing and counting backends that left with a reload.
    pub(crate) fn forget_gone_backends(&mut self) {
        let snapshot = self.snapshot.load();
        let members = snapshot.pools.iter().flat_map(|pool| &pool.members);
        let slots: HashSet<u32> = members.map(|member| member.backend.slot).collect();
        self.probes.keep(|slot| slots.contains(&slot));
    }
}
