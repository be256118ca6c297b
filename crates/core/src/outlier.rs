//! Is a backend that answers much worse than the rest of its pool? Pure arithmetic over counts.
//!
//! Wrong answers and slow ones are judged alike: as a share of the answers, against the median share of the others. Two
//! shares differ when the likelihood that one source gave both is small enough; so a hundred answers of one second and
//! twenty of two minutes are told by the same rule, and what all have in common accuses nobody.

use std::time::Duration;

use relais_config::Outlier;

use crate::stats::{BUCKETS, BackendStats};
use crate::words::short;

/// The likelihood ratio (natural logarithm) that tells two shares apart: by chance alone hardly one judgement in a
/// hundred thousand goes beyond, however the whole pool fares.
const SURE: f64 = 12.0;
/// The same where one is held against whoever does best of many, and at each of its answers.
const SURER: f64 = 16.0;
/// The same where it only keeps a share small: a mistake costs little.
const LIKELY: f64 = 4.0;
/// So small a part of the errors that a pool ejects for is enough then.
const PART: f64 = 0.25;
/// A share must be so many times the median of the others.
const TIMES: f64 = 2.0;
/// A backend is slow when more than this share of its answers is, and useless when more than this share is wrong.
const MOST: f64 = 0.5;
/// Answers of another backend from which on it counts as one of the others.
const LEAST: u64 = 3;
/// Whoever does well answers fewer wrongly than one in so many.
const FEW: u64 = 20;
/// Medians below this are not told apart, microseconds.
const FASTEST: u64 = 1_000;

/// What was counted at one backend: since its start, or in one span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Attempts that ended: with an answer, right or wrong, or without one.
    pub(crate) attempts: u64,
    /// Of those: answered 5xx, or wrongly, or too late, or broken off.
    pub(crate) errors: u64,
    /// Response heads, by bucket of their latency.
    pub(crate) heads: [u64; BUCKETS.len() + 1],
}

impl Tally {
    /// What a backend's counters show now.
    pub(crate) fn read(stats: &BackendStats) -> Tally {
        Tally {
            attempts: stats.succeeded.get().saturating_add(stats.failed.get()),
            errors: stats.errors.get(),
            heads: stats.latency.read().0,
        }
    }

    /// What came since `before`.
    pub(crate) fn since(&self, before: &Tally) -> Tally {
        Tally {
            attempts: self.attempts.saturating_sub(before.attempts),
            errors: self.errors.saturating_sub(before.errors),
            heads: std::array::from_fn(|i| self.heads[i].saturating_sub(before.heads[i])),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Tally::default()
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        self.attempts += other.attempts;
        self.errors += other.errors;
        for (sum, count) in self.heads.iter_mut().zip(other.heads) {
            *sum += count;
        }
    }

    fn errors(&self) -> Share {
        Share { of: self.attempts.max(self.errors), n: self.errors }
    }

    /// Response heads.
    pub(crate) fn answers(&self) -> u64 {
        self.heads.iter().sum()
    }

    /// Of the response heads, those that took longer than `time` for sure are no more than one in `few`.
    pub(crate) fn seldom_slower_than(&self, time: Duration, few: u64) -> bool {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let share = self.slower_than(micros);
        share.n.saturating_mul(few) <= share.of
    }

    /// How many went wrong: `12 of 40 answers were errors`, or `12 of 40 requests failed` where some were not answered at all.
    pub(crate) fn told(&self) -> String {
        let Share { n, of } = self.errors();
        let what = if self.answers() >= of { "answers were errors" } else { "requests failed" };
        format!("{n} of {of} {what}")
    }

    /// More than half of the attempts went wrong.
    pub(crate) fn mostly_wrong(&self) -> bool {
        self.errors().part() > MOST
    }

    /// Hardly any attempt went wrong.
    pub(crate) fn does_well(&self) -> bool {
        self.errors.saturating_mul(FEW) <= self.attempts
    }

    /// Heads that took longer than this for sure.
    fn slower_than(&self, micros: u64) -> Share {
        Share { of: self.answers(), n: self.heads.iter().skip(first_above(micros)).sum() }
    }

    /// The median latency in microseconds, linear inside its bucket; `None`: nothing was answered.
    fn median(&self) -> Option<u64> {
        let total = self.answers();
        let mut left = total.div_ceil(2);
        let mut lower = 0;
        for (count, upper) in self.heads.iter().zip(BUCKETS) {
            if *count > 0 && *count >= left {
                return Some(lower + (upper - lower) * left / count);
            }
            left -= (*count).min(left);
            lower = upper;
        }
        (total > 0).then_some(lower)
    }
}

/// So many of so many.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    n: u64,
    of: u64,
}

impl Share {
    fn part(self) -> f64 {
        self.n as f64 / self.of.max(1) as f64
    }

    fn millionths(self) -> u64 {
        self.n.saturating_mul(1_000_000) / self.of.max(1)
    }

    /// How sure it is that this share and `part` of `of` others do not come from one source.
    fn apart(self, part: f64, of: u64) -> f64 {
        let (own, other) = (self.of as f64, of as f64);
        let common = (self.n as f64 + part * other) / (own + other).max(1.0);
        own * divergence(self.part(), common) + other * divergence(part, common)
    }
}

/// Kullback and Leibler's divergence of two coins, in nats.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

/// Why a backend is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Too many wrong answers.
    Errors,
    /// Too slow.
    Slow,
}

impl Reason {
    /// Its place in `BackendStats::ejections`.
    pub(crate) fn index(self) -> usize {
        match self {
            Reason::Errors => 0,
            Reason::Slow => 1,
        }
    }
}

/// An accusation with its evidence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Accused {
    pub(crate) reason: Reason,
    /// In words.
    pub(crate) why: String,
    /// How sure: the worst is left first.
    pub(crate) weight: f64,
}

/// What a pool's settings and paths add to the counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) rule: &'a Outlier,
    /// Latencies up to this are nobody's fault: the network's own time, and what users of the contract do not feel.
    pub(crate) excused: Duration,
}

/// What the backends of a pool did in one span of time, sorted once, so that each of them can be held against the others
/// without looking at all of them again.
#[derive(Debug)]
pub(crate) struct Crowd {
    tallies: Vec<Tally>,
    medians: Option<Vec<u64>>,
    wrong: Option<Shares>,
    /// By the first bucket that counts as slow.
    slow: [Option<Shares>; BUCKETS.len() + 2],
}

impl Crowd {
    /// The tallies of all that are compared, whoever is judged among them.
    pub(crate) fn new(tallies: impl Iterator<Item = Tally>) -> Self {
        Self { tallies: tallies.collect(), medians: None, wrong: None, slow: std::array::from_fn(|_| None) }
    }

    /// The median of the others' median latencies.
    fn typical(&mut self, own: &Tally) -> Option<u64> {
        let counted = |tally: &Tally| tally.median().filter(|_| tally.answers() >= LEAST);
        let tallies = &self.tallies;
        let medians = self.medians.get_or_insert_with(|| sorted(tallies.iter().filter_map(counted)));
        middle_but(medians, counted(own))
    }

    fn wrong(&mut self) -> &Shares {
        let tallies = &self.tallies;
        self.wrong.get_or_insert_with(|| Shares::new(tallies.iter().map(Tally::errors)))
    }

    fn slower_than(&mut self, limit: u64) -> &Shares {
        let tallies = &self.tallies;
        let made = &mut self.slow[first_above(limit).min(BUCKETS.len() + 1)];
        made.get_or_insert_with(|| Shares::new(tallies.iter().map(|tally| tally.slower_than(limit))))
    }
}

/// Shares of many that were asked often enough.
#[derive(Debug)]
struct Shares {
    /// In millionths, so that they can be ordered; sorted.
    parts: Vec<u64>,
    sum: Share,
}

impl Shares {
    fn new(shares: impl Iterator<Item = Share>) -> Self {
        let shares: Vec<Share> = shares.filter(|share| share.of >= LEAST).collect();
        let sum = shares.iter().fold(Share::default(), |sum, one| Share { n: sum.n + one.n, of: sum.of + one.of });
        Self { parts: sorted(shares.iter().map(|share| share.millionths())), sum }
    }

    /// The median share without `share`, one of these.
    fn median_but(&self, share: Share) -> Option<f64> {
        Some(middle_but(&self.parts, (share.of >= LEAST).then(|| share.millionths()))? as f64 / 1e6)
    }

    /// All without `share`, one of these, together.
    fn sum_but(&self, share: Share) -> Share {
        let own = if share.of >= LEAST { share } else { Share::default() };
        Share { n: self.sum.n.saturating_sub(own.n), of: self.sum.of.saturating_sub(own.of) }
    }

    /// The median share of the others and how sure it is that `share`, one of these, is another, when it is as sure as that.
    fn compared(&self, share: Share, sure: f64) -> Option<(f64, f64)> {
        let median = self.median_but(share)?;
        Some((median, self.beside(share, median, sure)?))
    }

    /// How sure it is that `share`, one of these, is another than `part` of the others, when it is as sure as that.
    fn beside(&self, share: Share, part: f64, sure: f64) -> Option<f64> {
        let weight = share.apart(part, self.sum_but(share).of);
        (share.part() >= TIMES * part && weight >= sure).then_some(weight)
    }
}

/// Whether what one backend did can be anything but well, whatever the others did.
pub(crate) fn suspicious(own: &Tally, terms: &Terms<'_>) -> bool {
    many_wrong(own, terms.rule) || (terms.rule.slow_factor > 0 && most_slow(own, least_limit(terms), terms.rule))
}

/// Judges what one backend did in a span of time against what others of its pool, of which it is one, did in the same.
pub(crate) fn judge(own: &Tally, pool: &mut Crowd, terms: &Terms<'_>) -> Option<Accused> {
    wrong(own, pool, terms.rule).or_else(|| slow(own, pool, terms))
}

/// Whether a backend whose share grows answers more wrongly than it should, whatever the others did. One error is nobody's.
pub(crate) fn errs(own: &Tally, rule: &Outlier) -> bool {
    let (share, limit) = (own.errors(), f64::from(rule.errors_percent) / 100.0);
    rule.errors_percent > 0 && share.n > 1 && share.part() >= limit * PART
}

/// In what a backend, one of a pool, does clearly worse than the others, though that may be too little to leave it for.
pub(crate) fn worse(own: &Tally, pool: &mut Crowd) -> Option<String> {
    let (share, wrong) = (own.errors(), pool.wrong());
    let median = wrong.median_but(share)?;
    // Where each is asked little most have no error, though all have some now and then.
    let part = median.max(wrong.sum_but(share).part());
    wrong.beside(share, part, LIKELY).map(|_| told_beside(own, median))
}

/// Whether a few of its newest answers tell of a backend what an accusation says, as far as they can: `true` where there is
/// nobody to compare it with.
pub(crate) fn goes_on(reason: Reason, newest: &Tally, pool: &mut Crowd, terms: &Terms<'_>) -> bool {
    match reason {
        Reason::Errors => {
            let share = newest.errors();
            let more = |median: f64| share.part() >= TIMES * median;
            share.n > 0 && pool.wrong().median_but(share).is_none_or(more)
        }
        Reason::Slow => {
            let Some(typical) = pool.typical(newest).filter(|_| newest.answers() >= LEAST) else { return true };
            newest.slower_than(slow_limit(typical, terms)).part() > MOST
        }
    }
}

/// Whether a backend surely has another share of wrong answers than the others together.
pub(crate) fn differs(own: &Tally, others: &Tally) -> bool {
    let others = others.errors();
    own.errors().apart(others.part(), others.of) >= SURE
}

/// Whether one that does well surely does better than one of which most attempts go wrong, whatever all the others do.
pub(crate) fn outdoes(well: &Tally, own: &Tally) -> bool {
    let other = well.errors();
    own.mostly_wrong() && well.does_well() && own.errors().apart(other.part(), other.of) >= SURER
}

fn many_wrong(own: &Tally, rule: &Outlier) -> bool {
    let (share, limit) = (own.errors(), f64::from(rule.errors_percent) / 100.0);
    rule.errors_percent > 0 && share.of >= u64::from(rule.volume) && share.part() >= limit
}

fn most_slow(own: &Tally, limit: u64, rule: &Outlier) -> bool {
    let share = own.slower_than(limit);
    share.of >= u64::from(rule.volume) && share.part() > MOST
}

/// Nobody is slow below this, microseconds, however fast the others are.
fn least_limit(terms: &Terms<'_>) -> u64 {
    let excused = u64::try_from(terms.excused.as_micros()).unwrap_or(u64::MAX);
    FASTEST.saturating_mul(terms.rule.slow_factor.into()).max(excused)
}

/// From when on answers are slow where they typically take so long, microseconds.
fn slow_limit(typical: u64, terms: &Terms<'_>) -> u64 {
    typical.saturating_mul(terms.rule.slow_factor.into()).max(least_limit(terms))
}

fn wrong(own: &Tally, pool: &mut Crowd, rule: &Outlier) -> Option<Accused> {
    if !many_wrong(own, rule) {
        return None;
    }
    let (median, weight) = pool.wrong().compared(own.errors(), SURE)?;
    Some(Accused { reason: Reason::Errors, why: told_beside(own, median), weight })
}

fn told_beside(own: &Tally, median: f64) -> String {
    format!("{}, pool median {:.0} %", own.told(), median * 100.0)
}

fn slow(own: &Tally, pool: &mut Crowd, terms: &Terms<'_>) -> Option<Accused> {
    let rule = terms.rule;
    if rule.slow_factor == 0 || !most_slow(own, least_limit(terms), rule) {
        return None;
    }
    let typical = pool.typical(own)?;
    let limit = slow_limit(typical, terms);
    if !most_slow(own, limit, rule) {
        return None;
    }
    // One slow route is slow everywhere: the same share of answers is compared, not the times.
    let (_, weight) = pool.slower_than(limit).compared(own.slower_than(limit), SURE)?;
    let head = short(Duration::from_micros(own.median()?));
    let why = format!("answers take {head}, pool median {}", short(Duration::from_micros(typical)));
    Some(Accused { reason: Reason::Slow, why, weight })
}

/// The first bucket whose latencies are above this for sure, in microseconds: one that lies partly below does not count.
fn first_above(micros: u64) -> usize {
    BUCKETS.partition_point(|bound| *bound < micros) + 1
}

fn sorted(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values
}

/// The median of sorted values without one of them; of two in the middle the higher, so that a doubt is in favour of the
/// accused.
fn middle_but(sorted: &[u64], one: Option<u64>) -> Option<u64> {
    let Some(one) = one else { return sorted.get(sorted.len() / 2).copied() };
    let left_out = sorted.partition_point(|value| *value < one);
    let middle = (sorted.len().checked_sub(1)?) / 2;
    let others = sorted.len() > 1;
    others.then(|| sorted.get(middle + usize::from(middle >= left_out)).copied()).flatten()
}

#[cfg(test)]
#[path = "outlier_tests.rs"]
mod tests;
