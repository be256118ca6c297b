//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): what lets a client resume its session after a restart. Touches
//! nothing but the clock; who keeps the keys is told what to keep.
//!
//! A ticket is sealed with the key of its time. A key seals for 6 hours, opens for 6 more, and is then forgotten: a key
//! that leaks opens half a day of recorded sessions of TLS 1.2, and none of TLS 1.3, which always mixes in a fresh secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use parking_lot::Mutex;
use relais_core::Instant;
use rustls::server::ProducesTickets;

use crate::clock;

/// How long a key seals. As long again it opens what it sealed.
const TURN: Duration = Duration::from_secs(6 * 3600);
/// Names the key in a ticket.
const NAME: usize = 16;
const SECRET: usize = 32;
/// A key as kept: when its turn began (microseconds, little endian), its name, its secret.
const KEPT: usize = 8 + NAME + SECRET;

/// Is told the keys whenever they change.
pub type KeepTickets = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The keys that seal the tickets of clients.
pub struct Tickets {
    keys: ArcSwap<Keys>,
    turning: Mutex<()>,
    keep: KeepTickets,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

struct Keys {
    /// Seals.
    now: Option<Key>,
    /// Opens what was sealed in the turn before.
    before: Option<Key>,
}

#[derive(Clone)]
struct Key {
    began: Instant,
    name: [u8; NAME],
    secret: [u8; SECRET],
    sealing: Arc<RandomizedNonceKey>,
}

impl Tickets {
    /// Goes on with the keys given to `keep` last (empty: there are none); those whose time is over are forgotten.
    #[must_use]
    pub fn new(kept: &[u8], keep: KeepTickets) -> Arc<Tickets> {
        let now = clock::now();
        let mut keys =
            kept.chunks_exact(KEPT).filter_map(Key::read).filter(|key| key.age(now).is_some_and(|age| age < 2 * TURN));
        let keys = Keys { now: keys.next(), before: keys.next() };
        let tickets = Self { keys: ArcSwap::from_pointee(keys), turning: Mutex::default(), keep };
        tickets.turn(now);
        Arc::new(tickets)
    }

    /// Begins a new turn when the last one is over.
    fn turn(&self, now: Instant) {
        let due = |keys: &Keys| keys.now.as_ref().and_then(|key| key.age(now)).is_none_or(|age| age >= TURN);
        if !due(&self.keys.load()) {
            return;
        }
        let _turning = self.turning.lock();
        let keys = self.keys.load_full();
        // Another thread may have been faster. Without randomness the old key goes on.
        if !due(&keys) {
            return;
        }
        let Some(fresh) = Key::fresh(now) else { return };
        let before = keys.now.clone().filter(|key| key.age(now).is_some_and(|age| age < 2 * TURN));
        let kept: Vec<u8> = [Some(&fresh), before.as_ref()].into_iter().flatten().flat_map(Key::written).collect();
        self.keys.store(Arc::new(Keys { now: Some(fresh), before }));
        (self.keep)(&kept);
    }
}

impl Key {
    fn fresh(began: Instant) -> Option<Key> {
        let (mut name, mut secret) = ([0; NAME], [0; SECRET]);
        rand::fill(&mut name).ok()?;
        rand::fill(&mut secret).ok()?;
        Key::of(began, name, secret)
    }

    fn of(began: Instant, name: [u8; NAME], secret: [u8; SECRET]) -> Option<Key> {
        let sealing = RandomizedNonceKey::new(&AES_256_GCM, &secret).ok()?;
        Some(Key { began, name, secret, sealing: Arc::new(sealing) })
    }

    fn read(kept: &[u8]) -> Option<Key> {
        let (began, rest) = kept.split_at_checked(8)?;
        let (name, secret) = rest.split_at_checked(NAME)?;
        Key::of(Instant(u64::from_le_bytes(began.try_into().ok()?)), name.try_into().ok()?, secret.try_into().ok()?)
    }

    fn written(&self) -> Vec<u8> {
        [&self.began.0.to_le_bytes()[..], &self.name, &self.secret].concat()
    }

    /// `None`: made in the future, by a clock that was wrong.
    fn age(&self, now: Instant) -> Option<Duration> {
        (self.began <= now).then(|| now.since(self.began))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// Seconds a client may count on: a key opens at least as long after it sealed.
    fn lifetime(&self) -> u32 {
        TURN.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.turn(clock::now());
        let keys = self.keys.load();
        let key = keys.now.as_ref()?;
        let mut sealed = plain.to_vec();
        let nonce = key.sealing.seal_in_place_append_tag(Aad::from(&key.name), &mut sealed).ok()?;
        Some([&key.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.load();
        let now = clock::now();
        let key = [&keys.now, &keys.before].into_iter().flatten().find(|key| key.name == name)?;
        key.age(now).filter(|age| *age < 2 * TURN)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = key.sealing.open_in_place(nonce, Aad::from(&key.name), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys, and what was kept of them last.
    fn tickets(kept: &[u8]) -> (Arc<Tickets>, Arc<Mutex<Vec<u8>>>) {
        let book = Arc::new(Mutex::new(kept.to_vec()));
        let page = Arc::clone(&book);
        (Tickets::new(kept, Box::new(move |keys| *page.lock() = keys.to_vec())), book)
    }

    #[test]
    fn a_ticket_outlives_a_restart() {
        let (before, book) = tickets(&[]);
        let ticket = before.encrypt(b"session").unwrap();
        let kept = book.lock().clone();
        let (after, _) = tickets(&kept);
        assert_eq!(after.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets(&[]).0.decrypt(&ticket), None, "other keys");
    }

    #[test]
    fn a_changed_ticket_is_none() {
        let (tickets, _) = tickets(&[]);
        let ticket = tickets.encrypt(b"session").unwrap();
        for bit in 0..ticket.len() * 8 {
            let mut bad = ticket.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(tickets.decrypt(&bad), None, "bit {bit}");
        }
        for len in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..len]), None, "{len} bytes");
        }
    }

    /// Keys as kept by a process that made them this long ago.
    fn aged(kept: &[u8], by: Duration) -> Vec<u8> {
        let aged = kept
            .chunks_exact(KEPT)
            .filter_map(Key::read)
            .flat_map(|key| Key { began: key.began - by, ..key }.written());
        aged.collect()
    }

    #[test]
    fn a_key_seals_for_a_turn_and_opens_for_two() {
        let (first, book) = tickets(&[]);
        let ticket = first.encrypt(b"session").unwrap();
        let kept = book.lock().clone();
        let (same, _) = tickets(&aged(&kept, TURN - Duration::from_secs(60)));
        assert_eq!(same.encrypt(b"x").unwrap()[..NAME], ticket[..NAME], "its turn is not over");
        let (later, book) = tickets(&aged(&kept, TURN));
        assert!(later.decrypt(&ticket).is_some(), "one turn later");
        assert_ne!(later.encrypt(b"x").unwrap()[..NAME], ticket[..NAME], "a new turn has a new key");
        assert_eq!(book.lock().len(), 2 * KEPT);
        let (last, book) = tickets(&aged(&kept, 2 * TURN));
        assert_eq!(last.decrypt(&ticket), None, "two turns later");
        assert_eq!(book.lock().len(), KEPT, "a key whose time is over is not kept");
    }

    #[test]
    fn a_key_from_the_future_is_not_used() {
        let (_, book) = tickets(&[]);
        let kept = book.lock().clone();
        let mut future = Key::read(&kept).unwrap();
        future.began = future.began + Duration::from_secs(3600);
        let (tickets, book) = tickets(&future.written());
        assert_ne!(tickets.encrypt(b"x").unwrap()[..NAME], future.name);
        assert_eq!(book.lock().len(), KEPT);
    }

    #[test]
    fn nonsense_kept_is_no_keys() {
        for kept in [&b"short"[..], &[7; KEPT], &[255; 3 * KEPT + 1]] {
            let (tickets, _) = tickets(kept);
            let ticket = tickets.encrypt(b"x").unwrap();
            assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"x"[..]));
        }
    }
}
