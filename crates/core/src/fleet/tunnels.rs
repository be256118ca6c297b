//! WireGuard tunnels of this machine: whose handshake is old has passed nothing for long. A sign beside others against a
//! site that is silent, and what people are told about one that is down: whether it is the tunnel, or what is behind it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Fleet;
use super::site_state::SiteState;
use crate::effect::{Transition, TunnelStep};
use crate::event::Tunnel;
use crate::health::Health;
use crate::time::Instant;
use crate::words::short;

/// A tunnel in use makes a new handshake every 2 minutes and takes nothing under an older one than this
/// (`Reject-After-Time`, WireGuard whitepaper 6.1).
const OLD: Duration = Duration::from_secs(180);
/// A reading says nothing any more after so long.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// The tunnel to one site.
#[derive(Debug)]
pub(super) struct TunnelState {
    pub(super) interface: Arc<str>,
    /// The latest handshake; `None`: never.
    pub(super) handshake: Option<Instant>,
    read: Instant,
    /// What people were told last.
    told: TunnelStep,
}

impl TunnelState {
    /// `None`: it was not read lately.
    fn age(&self, now: Instant) -> Option<Duration> {
        let age = self.handshake.map_or(Duration::MAX, |at| now.since(at));
        (now.since(self.read) <= READ_WITHIN).then_some(age)
    }

    /// Nothing can have passed for long.
    fn is_old(&self, now: Instant) -> bool {
        self.age(now).is_some_and(|age| age > OLD)
    }

    /// `WireGuard wg0: last handshake 4 min ago`.
    fn words(&self, now: Instant) -> Option<String> {
        let age = self.age(now)?;
        let last = match self.handshake {
            Some(_) => format!("last handshake {} ago", short(age)),
            None => "no handshake yet".to_owned(),
        };
        Some(format!("WireGuard {}: {last}", self.interface))
    }
}

impl SiteState {
    /// Its tunnel passes nothing: a witness of its own against a site that is silent. Not where something at the site has
    /// answered since it became so old: then this is not the way to it.
    pub(super) fn tunnel_is_old(&self, now: Instant) -> bool {
        let old = self.tunnel.as_ref().filter(|tunnel| tunnel.is_old(now));
        old.is_some_and(|tunnel| self.lived.is_none_or(|lived| tunnel.handshake.is_some_and(|at| lived <= at + OLD)))
    }

    /// Why, and what is known of the tunnel, where the site is not well.
    pub(super) fn with_tunnel(&self, why: String, now: Instant) -> String {
        let Some(tunnel) = self.tunnel.as_ref().filter(|_| self.health != Health::Up) else { return why };
        let Some(words) = tunnel.words(now) else { return why };
        let meaning = match (self.tunnel_is_old(now), tunnel.handshake) {
            (true, _) => ", the tunnel itself is down",
            (false, Some(at)) if at > self.since => ", the tunnel is up",
            (false, _) => "",
        };
        format!("{why}; {words}{meaning}")
    }
}

impl Fleet {
    /// The tunnels as just read. Each site goes by those its backends are reached through.
    pub(super) fn tunnels(&mut self, tunnels: &[Tunnel], now: Instant) {
        for index in 0..self.sites.len() {
            let members = self.sites[index].members.iter().filter_map(|slot| self.entries.get(slot));
            let addresses = members.flat_map(|entry| entry.addresses.iter()).map(|address| address.ip());
            // One that lives is enough to reach the site.
            let youngest = addresses.filter_map(|ip| way(tunnels, ip)).min_by_key(|tunnel| age(tunnel));
            self.tunnel_read(index, youngest, now);
        }
    }

    fn tunnel_read(&mut self, index: usize, tunnel: Option<&Tunnel>, now: Instant) {
        let site = &mut self.sites[index];
        let Some(tunnel) = tunnel else {
            site.tunnel = None;
            return;
        };
        let told = site.tunnel.take().filter(|known| known.interface == tunnel.interface).map(|known| known.told);
        let handshake = tunnel.handshake_age.map(|age| now - age);
        let made_since = handshake.is_some_and(|at| at > site.since);
        let interface = Arc::clone(&tunnel.interface);
        site.tunnel = Some(TunnelState { interface, handshake, read: now, told: TunnelStep::Found });
        let step = match told {
            Some(_) if site.health == Health::Down && site.tunnel_is_old(now) => TunnelStep::Down,
            Some(_) if site.health == Health::Down && made_since => TunnelStep::Up,
            Some(told) if site.health == Health::Down => told,
            _ => TunnelStep::Found,
        };
        if let Some(state) = &mut site.tunnel {
            state.told = step;
        }
        // The end of an outage is told as the site's return.
        if told.is_none() || (told != Some(step) && step != TunnelStep::Found) {
            self.changes.notes.push(Transition::Tunnel {
                site: Arc::clone(&site.name),
                interface: Arc::clone(&tunnel.interface),
                step,
                handshake_age: tunnel.handshake_age,
            });
        }
    }
}

fn age(tunnel: &Tunnel) -> Duration {
    tunnel.handshake_age.unwrap_or(Duration::MAX)
}

/// The tunnel an address is reached through: that of the longest network with it. One that takes everything (/0) says
/// nothing: whether it is the way to this address only the routing table knows.
fn way(tunnels: &[Tunnel], ip: IpAddr) -> Option<&Tunnel> {
    let networks = tunnels.iter().flat_map(|tunnel| tunnel.networks.iter().map(move |network| (network, tunnel)));
    let fitting = networks.filter(|(network, _)| network.prefix_len() > 0 && network.contains(&ip));
    fitting.max_by_key(|(network, _)| network.prefix_len()).map(|(_, tunnel)| tunnel)
}
