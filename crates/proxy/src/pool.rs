//! One worker's connections to one backend: idle ones, shared ones, and the signal that moves waiting attempts away.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hyper::client::conn::http1;
use parking_lot::Mutex;
use relais_core::hash::Table;
use relais_core::{Admin, Backend, Health, Member, Pool, Snapshot};
use tokio::sync::Notify;

use crate::body::SendBody;
use crate::cut::{Cut, Drilled};
use crate::h2_client::H2Sender;
use crate::sender::Sender;

/// All of one worker's connections, by the slot of the backend.
#[derive(Default)]
pub(crate) struct Connections {
    slots: Mutex<Table<u32, Arc<Slot>>>,
    /// Backends in a drill: slots made meanwhile begin in it.
    drills: Mutex<HashMap<u32, Drilled>>,
    /// The latest end of any rest asked for: most of the time it is past, and nobody has to look further.
    resting_until: AtomicU64,
}

/// One worker's connections to one backend. What every request looks at comes first.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Slot {
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Vec<H2Sender>>,
    /// Grows each time the backend is declared down for not answering.
    downs: AtomicU64,
    /// Grows each time the backend's transport is declared dead.
    deaths: AtomicU64,
    /// Grows each time streams here shall move elsewhere in their own time.
    drains: AtomicU64,
    /// Grows each time the backend's name no longer leads to an address it led to.
    moves: AtomicU64,
    /// When a connection was last found dead, as core counts time.
    distrusted: AtomicU64,
    /// The backend hangs: streams there that stay silent end.
    hung: AtomicBool,
    /// The backend answers its checks and no requests.
    stalled: AtomicBool,
    /// Nothing has been heard from the backend, or from anyone at its site, for a moment.
    doubted: AtomicBool,
    /// Wakes what waits here whenever one of these changed.
    pub(crate) verdict: Arc<Notify>,
    /// The backend asked to be left alone until then (`Retry-After`), as core counts time.
    resting_until: AtomicU64,
    /// When a worker last told the fleet that it waits here, as core counts time.
    pressed: AtomicU64,
    /// What a drill makes of its connections.
    pub(crate) cut: Arc<Cut>,
    /// One connect at a time where the connection will be shared.
    pub(crate) connecting: tokio::sync::Mutex<()>,
    /// What ALPN gave last: connects to a backend that speaks HTTP/2 are worth waiting for.
    pub(crate) speaks_h2: AtomicBool,
}

struct Idle {
    send: http1::SendRequest<SendBody>,
    since: Instant,
    /// A spare ends then: nothing was ever asked on it.
    spare_until: Option<Instant>,
}

impl Idle {
    /// Whether it may not be used any more.
    fn is_over(&self, keep_for: Duration, now: Instant) -> bool {
        self.send.is_closed()
            || now.saturating_duration_since(self.since) > keep_for
            || self.spare_until.is_some_and(|until| now >= until)
    }
}

/// How often a backend had been declared down and dead when an attempt began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdicts {
    pub(crate) downs: u64,
    pub(crate) deaths: u64,
    pub(crate) drains: u64,
    /// Connections made before a move are not kept.
    pub(crate) moves: u64,
}

impl Slot {
    pub(crate) fn verdicts(&self) -> Verdicts {
        Verdicts {
            downs: self.downs.load(Relaxed),
            deaths: self.deaths.load(Relaxed),
            drains: self.drains.load(Relaxed),
            moves: self.moves.load(Relaxed),
        }
    }

    /// Whether the backend hangs, and another could take its streams.
    pub(crate) fn is_hung(&self) -> bool {
        self.hung.load(Relaxed)
    }

    /// Whether it answers no requests: what may be repeated is better off elsewhere.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    /// Whether it may be cut off: what waits here may ask another one beside it.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted.load(Relaxed)
    }

    /// Whether it is time to tell the fleet again that something waits here: at most once in `every`.
    pub(crate) fn press(&self, now: relais_core::Instant, every: Duration) -> bool {
        let before = self.pressed.load(Relaxed);
        if now.since(relais_core::Instant(before)) < every {
            return false;
        }
        self.pressed.store(now.0, Relaxed);
        true
    }

    /// A connection that is open, ready and not older than `keep_for`; the youngest first.
    pub(crate) fn take_idle(&self, keep_for: Duration, now: Instant) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let mut i = idle.len();
        while i > 0 {
            i -= 1;
            let one = &idle[i];
            if one.is_over(keep_for, now) {
                idle.swap_remove(i);
            } else if one.send.is_ready() {
                return Some(Sender::H1(idle.remove(i).send));
            }
        }
        None
    }

    /// A shared connection with room for another stream.
    pub(crate) fn take_shared(&self) -> Option<Sender> {
        let mut shared = self.shared.lock();
        shared.retain_mut(|one| !one.is_closed());
        shared.iter().find(|one| one.has_room()).map(|one| Sender::H2(one.clone()))
    }

    /// Keeps an HTTP/1.1 connection for the next request, unless the backend has moved since it was asked for; the
    /// oldest goes when there are `keep` already.
    pub(crate) fn give_back(&self, send: http1::SendRequest<SendBody>, keep: usize, moves: u64) {
        if send.is_closed() || keep == 0 || moves != self.moves.load(Relaxed) {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() >= keep {
            idle.remove(0);
        }
        idle.push(Idle { send, since: Instant::now(), spare_until: None });
    }

    /// Keeps a connection that came too late for its request, for a short time and only where there is room. A backend
    /// that serves one connection at a time would otherwise wait on it for a request while those that come on others
    /// wait for the backend.
    pub(crate) async fn keep_spare(&self, send: http1::SendRequest<SendBody>, keep: usize, moves: u64, time: Duration) {
        if send.is_closed() || self.idle.lock().len() >= keep || moves != self.moves.load(Relaxed) {
            return;
        }
        let since = Instant::now();
        self.idle.lock().push(Idle { send, since, spare_until: Some(since + time) });
        tokio::time::sleep(time).await;
        self.expire(Duration::MAX);
    }

    /// Closes idle connections: one like them was found dead, though the backend may live.
    pub(crate) fn distrust(&self, now: relais_core::Instant) {
        self.distrusted.store(now.0, Relaxed);
        self.idle.lock().clear();
        self.verdict.notify_waiters();
    }

    /// When a connection to the backend was last found dead.
    pub(crate) fn distrusted(&self) -> relais_core::Instant {
        relais_core::Instant(self.distrusted.load(Relaxed))
    }

    /// Whether that was after a moment, which is only asked for where there was any: there hardly ever is.
    pub(crate) fn distrusted_after(&self, moment: impl FnOnce() -> relais_core::Instant) -> bool {
        let at = self.distrusted();
        at.0 > 0 && at > moment()
    }

    /// Shares an HTTP/2 connection, unless the backend has moved since it was asked for.
    pub(crate) fn share(&self, one: H2Sender, moves: u64) {
        if moves == self.moves.load(Relaxed) {
            self.shared.lock().push(one);
        }
    }

    /// Closes idle connections that are too old. Connections in use are not here.
    fn expire(&self, keep_for: Duration) {
        let now = Instant::now();
        self.idle.lock().retain(|one| !one.is_over(keep_for, now));
        self.shared.lock().retain_mut(|one| !one.is_closed());
    }

    /// Applies what changed about the backend.
    fn follow(&self, before: Option<&Member>, now: &Member) {
        let fell = now.mute && !before.is_some_and(|before| before.mute);
        let died = now.dead && !before.is_some_and(|before| before.dead);
        let hangs = !self.hung.swap(now.hung, Relaxed) && now.hung;
        let stalls = !self.stalled.swap(now.stalled, Relaxed) && now.stalled;
        let doubted = now.health == Health::Suspect;
        let doubts = !self.doubted.swap(doubted, Relaxed) && doubted;
        if fell || died {
            self.declare(died);
        } else if hangs || stalls || doubts {
            self.verdict.notify_waiters();
        }
        if before.is_some_and(|before| before.addresses.iter().any(|address| !now.addresses.contains(address))) {
            self.moves.fetch_add(1, Relaxed);
            self.idle.lock().clear();
            self.shared.lock().clear();
        }
        if now.admin != Admin::Enabled && before.is_some_and(|before| before.admin == Admin::Enabled) {
            self.drain();
        }
    }

    /// The backend's site is in a drill, or no longer.
    fn drill(&self, drill: Option<Drilled>) {
        self.cut.set(drill);
        if self.cut.is_refused() {
            self.verdict.notify_waiters();
        }
    }

    /// Streams here shall move elsewhere: the operator drains the backend, or the edge stops.
    fn drain(&self) {
        self.drains.fetch_add(1, Relaxed);
        self.verdict.notify_waiters();
    }

    fn declare(&self, dead: bool) {
        self.downs.fetch_add(1, Relaxed);
        if dead {
            self.deaths.fetch_add(1, Relaxed);
            self.idle.lock().clear();
            self.shared.lock().clear();
        }
        self.verdict.notify_waiters();
    }
}

impl Connections {
    /// The slot of a backend, made at first use.
    pub(crate) fn slot(&self, backend: &Backend) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&backend.slot) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot::default());
        slot.cut.set(self.drills.lock().get(&backend.slot).copied());
        slots.insert(backend.slot, Arc::clone(&slot));
        slot
    }

    /// A backend asked to be left alone for a while.
    pub(crate) fn rest(&self, slot: &Slot, until: relais_core::Instant) {
        slot.resting_until.fetch_max(until.0, Relaxed);
        self.resting_until.fetch_max(until.0, Relaxed);
    }

    /// Backends of a pool that asked to be left alone and whose time is not over. The clock is only asked where any ever did.
    pub(crate) fn resting(&self, pool: &Pool, clock: impl FnOnce() -> relais_core::Instant) -> Vec<u32> {
        let latest = self.resting_until.load(Relaxed);
        if latest == 0 {
            return Vec::new();
        }
        let now = clock();
        if latest <= now.0 {
            return Vec::new();
        }
        let slots = self.slots.lock();
        let rests = |slot: &u32| slots.get(slot).is_some_and(|slot| slot.resting_until.load(Relaxed) > now.0);
        pool.members.iter().map(|member| member.backend.slot).filter(rests).collect()
    }

    /// Applies what changed between two snapshots: wakes attempts at backends that went down, drops the connections of
    /// the dead and of those no longer in the config.
    pub(crate) fn follow(&self, old: &Snapshot, new: &Snapshot) {
        if !Arc::ptr_eq(&old.config, &new.config) {
            self.follow_reload(old, new);
            return;
        }
        // Without a reload pools and their members keep their places, and most pools are the very same.
        for (before, now) in old.pools.iter().zip(&new.pools).filter(|(before, now)| !Arc::ptr_eq(before, now)) {
            for (place, member) in now.members.iter().enumerate() {
                self.follow_member(before.members.get(place), member, now);
            }
        }
    }

    /// The same after a reload, where most pools are the very same, too: of thousands of backends nobody looks at more than
    /// those of the services that changed.
    fn follow_reload(&self, old: &Snapshot, new: &Snapshot) {
        let (before, now) = (others(old, new), others(new, old));
        let known: Table<u32, &Member> = members(&before).collect();
        for pool in &now {
            for member in &pool.members {
                self.follow_member(known.get(&member.backend.slot).copied(), member, pool);
            }
        }
        let present: Table<u32, &Member> = members(&now).collect();
        for gone in known.keys().filter(|slot| !present.contains_key(slot)) {
            // Its idle connections go; streams there end in their own time.
            self.drills.lock().remove(gone);
            let slot = self.slots.lock().remove(gone);
            if let Some(slot) = slot {
                slot.drain();
            }
        }
    }

    fn follow_member(&self, before: Option<&Member>, member: &Member, pool: &Pool) {
        let number = member.backend.slot;
        let drill = member.drill.map(|shape| (shape, pool.timers.failover_within / 2));
        let before = before.filter(|before| before.backend.slot == number);
        if drill.is_some() || before.is_none_or(|before| before.drill.is_some()) {
            self.note_drill(number, drill);
        }
        let Some(slot) = self.slots.lock().get(&number).cloned() else { return };
        slot.follow(before, member);
        slot.drill(drill);
    }

    fn note_drill(&self, slot: u32, drill: Option<Drilled>) {
        let mut drills = self.drills.lock();
        match drill {
            Some(drill) => drop(drills.insert(slot, drill)),
            None => drop(drills.remove(&slot)),
        }
    }

    /// The edge stops: streams everywhere shall end.
    pub(crate) fn drain_all(&self) {
        for slot in self.slots.lock().values() {
            slot.drain();
        }
    }

    /// Closes what has been idle too long, everywhere; slots that a late request made for a backend no longer in the
    /// config go.
    pub(crate) fn expire(&self, snapshot: &Snapshot) {
        let mut slots = self.slots.lock();
        let mut keep: Table<u32, Duration> = Table::default();
        for pool in &snapshot.pools {
            if let relais_core::config::Action::Forward(forward) = &pool.service.action {
                let used =
                    pool.members.iter().map(|member| member.backend.slot).filter(|slot| slots.contains_key(slot));
                keep.extend(used.map(|slot| (slot, forward.keep_idle_for)));
            }
        }
        slots.retain(|number, slot| {
            slot.expire(keep.get(number).copied().unwrap_or_default());
            keep.contains_key(number)
        });
    }
}

/// The pools of a snapshot that are not the very same in another.
fn others<'a>(of: &'a Snapshot, than: &Snapshot) -> Vec<&'a Pool> {
    let there: Table<*const Pool, ()> = than.pools.iter().map(|pool| (Arc::as_ptr(pool), ())).collect();
    of.pools.iter().filter(|pool| !there.contains_key(&Arc::as_ptr(pool))).map(|pool| &**pool).collect()
}

fn members<'a>(pools: &[&'a Pool]) -> impl Iterator<Item = (u32, &'a Member)> {
    pools.iter().flat_map(|pool| &pool.members).map(|member| (member.backend.slot, member))
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
