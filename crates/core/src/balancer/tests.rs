//! Who is picked, how often. Seeded: every run draws the same numbers.

mod agent;
mod placement;
mod policies;
mod property;
mod tiers;
mod who;

use std::collections::BTreeMap;

use relais_config::{Balance, HashKey};

use super::fixture::ask;
use crate::hash::mix;
use crate::snapshot::{Ask, Pool};

const EVERY: [Balance; 5] = [
    Balance::LeastInflight,
    Balance::RoundRobin,
    Balance::LeastLatency,
    Balance::Random,
    Balance::Hash(HashKey::ClientAddress),
];

/// The `i`th roll of a run.
fn roll(i: u64) -> u64 {
    mix(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed)
}

/// The ask of the `i`th of many different clients.
fn client(i: u64) -> Ask<'static> {
    Ask { key: Some(mix(roll(i))), ..ask(roll(i)) }
}

/// How often each word came out of `times` picks, as a part of 1.0.
struct Shares(BTreeMap<String, f64>);

impl Shares {
    fn of<'k>(pool: &Pool, times: u64, ask: impl Fn(u64) -> Ask<'k>) -> Self {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for i in 0..times {
            *counts.entry(pool.says(&ask(i))).or_default() += 1;
        }
        Self(counts.into_iter().map(|(word, count)| (word.to_owned(), count as f64 / times as f64)).collect())
    }

    fn at(&self, word: &str) -> f64 {
        self.0.get(word).copied().unwrap_or(0.0)
    }

    /// Fails unless exactly these words came out, each with this share give or take one part in a hundred.
    fn must_be(&self, what: &str, due: &[(&str, f64)]) {
        let near = due.iter().all(|(word, share)| (self.at(word) - share).abs() < 0.01);
        let known = self.0.keys().all(|word| due.iter().any(|(due, _)| due == word));
        assert!(near && known, "{what}: {:?}, due {due:?}", self.0);
    }
}

/// Two equal members with these latencies; zero: never measured.
fn pool_of_two(a: std::time::Duration, b: std::time::Duration) -> Pool {
    let pool = super::fixture::pool(Balance::LeastLatency, "1 dijon a, 1 dijon b");
    for (member, took) in pool.members.iter().zip([a, b]).filter(|(_, took)| !took.is_zero()) {
        super::observe_latency(&member.backend, took, super::fixture::NOW);
    }
    pool
}
