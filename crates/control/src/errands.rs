//! What the fleet wants to know besides probes: addresses of names, words of agents, distances, handshakes of tunnels. One task
//! each, answered by events.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use relais_core::{AgentOrder, Event, MeasureOrder, ResolveOrder};
use tokio::task::JoinSet;

use crate::agent;
use crate::names::Names;
use crate::probe::connect::dial;
use crate::wireguard;

/// The errands under way. Dropping it stops them all.
pub(crate) struct Errands {
    names: Arc<Names>,
    running: JoinSet<Event>,
}

impl Errands {
    pub(crate) fn new(nameservers: &[SocketAddr]) -> Errands {
        Errands { names: Arc::new(Names::new(nameservers)), running: JoinSet::new() }
    }

    /// Asks other name servers from now on.
    pub(crate) fn ask_at(&mut self, nameservers: &[SocketAddr]) {
        self.names = Arc::new(Names::new(nameservers));
    }

    pub(crate) fn resolve(&mut self, order: ResolveOrder) {
        let names = Arc::clone(&self.names);
        self.running.spawn(async move {
            let result = names.look_up(&order).await;
            Event::Resolved { slot: order.slot, id: order.id, result }
        });
    }

    pub(crate) fn ask(&mut self, order: AgentOrder) {
        self.running.spawn(async move {
            let line = agent::ask(&order).await;
            Event::Agent { slot: order.backend.slot, id: order.id, line }
        });
    }

    pub(crate) fn measure(&mut self, order: MeasureOrder) {
        let MeasureOrder { slot, address, within } = order;
        self.running.spawn(async move {
            let asked = Instant::now();
            let connected = relais_attend::within(within, dial(&[address], within)).await;
            Event::Measured { slot, took: matches!(connected, Ok(Ok(_))).then(|| asked.elapsed()) }
        });
    }

    /// Tells of WireGuard tunnels from now on, again and again, where they can be read.
    pub(crate) fn follow_tunnels(&mut self) {
        self.read_tunnels(true);
    }

    fn read_tunnels(&mut self, first: bool) {
        self.running.spawn(async move { Event::Tunnels(wireguard::read(first).await) });
    }

    /// The next answer; waits for ever when nothing is under way. Nothing is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            match self.running.join_next().await {
                Some(Ok(event)) => {
                    if matches!(event, Event::Tunnels(_)) {
                        self.read_tunnels(false);
                    }
                    return event;
                }
                // The fleet asks again what nobody answered.
                Some(Err(error)) => tracing::error!(%error, "a question failed inside relais"),
                None => std::future::pending().await,
            }
        }
    }
}
