//! What a scenario did to the users, counted, and the line that shows it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;

use crate::load::{Asked, Class, Seen, Stream};

/// A file that rows are added to.
pub(crate) const ROWS: &str = "RELAIS_NETNS_ROWS";

/// So many of the slowest requests of a scenario are shown, and what relais logged of those over a second.
pub(crate) const SLOWEST: &str = "RELAIS_NETNS_SLOWEST";

/// An answer that took longer was a bad one, microseconds.
const BAD: u64 = 1_000_000;

/// The times of a run, microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) fault: u64,
    pub(crate) repair: u64,
    pub(crate) end: u64,
}

/// How many of the slowest are to be shown.
pub(crate) fn slowest_wanted() -> usize {
    std::env::var(SLOWEST).map_or(0, |n| n.parse().unwrap())
}

/// The slowest of those that were planned between fault and repair: when, what, how long, whose answer.
pub(crate) fn slowest(seen: &Seen, times: Times) -> String {
    let during = |asked: &&Asked| asked.class != Class::Download && (times.fault..times.repair).contains(&asked.at);
    let mut those: Vec<&Asked> = seen.requests.iter().filter(during).collect();
    those.sort_by_key(|asked| std::cmp::Reverse(asked.took));
    let mut text = String::new();
    for asked in those.into_iter().take(slowest_wanted()) {
        let (after, took) = (asked.at.saturating_sub(times.fault) / 1000, asked.took / 1000);
        let Asked { class, end, backend, .. } = asked;
        writeln!(text, "after {after} ms {class:?} took {took} ms: {end}, {backend}").unwrap();
    }
    text
}

/// The users' side of a run.
pub(crate) struct Row {
    pub(crate) requests: usize,
    /// Of what may be repeated: GET, PUT, downloads, openings of streams.
    pub(crate) failed: BTreeMap<String, usize>,
    pub(crate) failed_posts: BTreeMap<String, usize>,
    /// POSTs executed more than once.
    pub(crate) twice: usize,
    /// Milliseconds, of those under way between fault and repair.
    p50: u64,
    p99: u64,
    worst: u64,
    /// Seconds after the fault at which the last failed or slow request began.
    last_bad: Option<f64>,
    /// Streams to what failed, open when it failed.
    pub(crate) hit: usize,
    /// Of those: told before the repair; seconds it took, how.
    pub(crate) told: Vec<(f64, String)>,
    /// Streams to what did not fail that were broken.
    pub(crate) broken: usize,
    /// Share of the answers that came from what failed: before, during, after; percent.
    share: [Option<u64>; 3],
}

impl Row {
    pub(crate) fn of(seen: &Seen, executed: &[u64], bad: &[String], times: Times) -> Row {
        let kinds = |of_posts: bool| {
            let mut kinds = BTreeMap::new();
            let those = seen.requests.iter().filter(|asked| (asked.class == Class::Post) == of_posts);
            for asked in those.filter(|asked| asked.end != "ok") {
                *kinds.entry(asked.end.clone()).or_insert(0) += 1;
            }
            kinds
        };
        let mut counted: HashMap<u64, usize> = HashMap::new();
        for id in executed {
            *counted.entry(*id).or_insert(0) += 1;
        }
        let (hit, others): (Vec<&Stream>, Vec<&Stream>) =
            seen.streams.iter().partition(|stream| bad.contains(&stream.backend));
        let hit: Vec<&Stream> = hit.into_iter().filter(|stream| open_at(stream, times.fault)).collect();
        let told = hit.iter().filter_map(|stream| {
            let closed = stream.closed.filter(|closed| *closed <= times.repair)?;
            Some((seconds(closed, times.fault), stream.how.clone()))
        });
        let waits = waits(&seen.requests, times);
        let centile = |part: usize| waits.get(waits.len().saturating_sub(1) * part / 100).copied().unwrap_or(0);
        Row {
            requests: seen.requests.len(),
            failed: kinds(false),
            failed_posts: kinds(true),
            twice: counted.values().filter(|times| **times > 1).count(),
            p50: centile(50),
            p99: centile(99),
            worst: centile(100),
            last_bad: last_bad(&seen.requests, times),
            told: told.collect(),
            hit: hit.len(),
            broken: others.iter().filter(|stream| stream.closed.is_some_and(|at| at <= times.end)).count(),
            share: shares(&seen.requests, bad, times),
        }
    }

    /// One line of a Markdown table, with what the edge says of itself.
    pub(crate) fn line(&self, proxy: &str, scenario: &str, left_after: Option<f64>) -> String {
        let Row { requests, twice, p50, p99, worst, broken, .. } = self;
        let mut line = format!("| {proxy} | {scenario} | {requests} | {} | ", told_kinds(&self.failed));
        write!(line, "{} | {twice} | {p50} / {p99} / {worst} | ", told_kinds(&self.failed_posts)).unwrap();
        write!(line, "{} | ", self.last_bad.map_or("never".to_owned(), |at| format!("{at:.1}"))).unwrap();
        write!(line, "{} | ", left_after.map_or("-".to_owned(), |at| format!("{at:.2}"))).unwrap();
        write!(line, "{} | {broken} | ", self.told_in_words()).unwrap();
        let share = self.share.map(|share| share.map_or("-".to_owned(), |share| format!("{share}")));
        write!(line, "{} |", share.join(" → ")).unwrap();
        line
    }

    fn told_in_words(&self) -> String {
        if self.hit == 0 {
            return "-".to_owned();
        }
        let mut words = format!("{} of {}", self.told.len(), self.hit);
        if let Some(last) = self.told.iter().map(|(at, _)| *at).reduce(f64::max) {
            let mut how = BTreeMap::new();
            for (_, word) in &self.told {
                *how.entry(word.clone()).or_insert(0) += 1;
            }
            write!(words, " in {last:.2} s ({})", kinds_in_words(&how)).unwrap();
        }
        words
    }
}

/// The head of the table.
pub(crate) const HEAD: &str = "| proxy | scenario | requests | failed GET/PUT/download/open | failed POST | twice | \
    p50 / p99 / worst ms | last bad s | left s | streams told | others broken | share % |\n\
    |---|---|---|---|---|---|---|---|---|---|---|---|";

/// Shows a line whatever the test harness captures, and adds it to the file of rows.
pub(crate) fn show(line: &str) {
    // Written outright, and not by a macro, it is not captured; by the same open file as all else, it overwrites nothing.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "{line}").unwrap();
    if let Ok(path) = std::env::var(ROWS) {
        let mut rows = File::options().create(true).append(true).open(path).unwrap();
        writeln!(rows, "{line}").unwrap();
    }
}

fn told_kinds(kinds: &BTreeMap<String, usize>) -> String {
    let sum: usize = kinds.values().sum();
    if sum == 0 { "0".to_owned() } else { format!("{sum} ({})", kinds_in_words(kinds)) }
}

fn kinds_in_words(kinds: &BTreeMap<String, usize>) -> String {
    let words: Vec<String> = kinds.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    words.join(", ")
}

fn open_at(stream: &Stream, at: u64) -> bool {
    stream.opened <= at && stream.closed.is_none_or(|closed| closed > at)
}

fn seconds(at: u64, since: u64) -> f64 {
    at.saturating_sub(since) as f64 / 1e6
}

/// Milliseconds, sorted; downloads take as long as they take.
fn waits(requests: &[Asked], times: Times) -> Vec<u64> {
    let under_way = |asked: &&Asked| asked.at + asked.took >= times.fault && asked.at <= times.repair;
    let small = requests.iter().filter(|asked| asked.class != Class::Download);
    let mut waits: Vec<u64> = small.filter(under_way).map(|asked| asked.took / 1000).collect();
    waits.sort_unstable();
    waits
}

fn last_bad(requests: &[Asked], times: Times) -> Option<f64> {
    let bad = |asked: &&Asked| asked.end != "ok" || (asked.class != Class::Download && asked.took > BAD);
    // Not what came after: the downloads that are left are then taken as fast as they come.
    let last = requests.iter().filter(bad).map(|asked| asked.at).filter(|at| *at <= times.end).max()?;
    Some((last as f64 - times.fault as f64) / 1e6)
}

fn shares(requests: &[Asked], bad: &[String], times: Times) -> [Option<u64>; 3] {
    let share = |from: u64, to: u64| {
        let small = requests.iter().filter(|asked| matches!(asked.class, Class::Get | Class::Put | Class::Post));
        let there = small.filter(|asked| asked.at >= from && asked.at < to && !asked.backend.is_empty());
        let (theirs, rest): (Vec<&Asked>, Vec<&Asked>) = there.partition(|asked| bad.contains(&asked.backend));
        let all = (theirs.len() + rest.len()) as u64;
        (all > 0 && !bad.is_empty()).then(|| theirs.len() as u64 * 100 / all)
    };
    [share(0, times.fault), share(times.fault + BAD, times.repair), share(times.repair, times.end)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(class: Class, at: u64, end: &str) -> Asked {
        Asked { class, at, took: 5000, end: end.to_owned(), backend: "dijon-1".to_owned() }
    }

    fn stream(backend: &str, closed: Option<u64>) -> Stream {
        Stream { backend: backend.to_owned(), opened: 1, closed, how: "1012".to_owned() }
    }

    const TIMES: Times = Times { fault: 10_000_000, repair: 20_000_000, end: 30_000_000 };

    #[test]
    fn what_goes_wrong_is_counted() {
        let seen = Seen {
            requests: vec![
                asked(Class::Get, 11_000_000, "ok"),
                asked(Class::Put, 12_000_000, "http_502"),
                asked(Class::Post, 13_000_000, "http_504"),
            ],
            streams: vec![
                stream("dijon-1", Some(10_500_000)),
                stream("dijon-1", None),
                stream("dijon-1", Some(21_000_000)),
                stream("thory-1", Some(25_000_000)),
                stream("thory-1", None),
            ],
        };
        let row = Row::of(&seen, &[7, 8, 7, 9], &["dijon-1".to_owned()], TIMES);
        assert_eq!((row.requests, row.twice), (3, 1));
        assert_eq!(row.failed, BTreeMap::from([("http_502".to_owned(), 1)]));
        assert_eq!(row.failed_posts, BTreeMap::from([("http_504".to_owned(), 1)]));
        assert_eq!((row.hit, row.told), (3, vec![(0.5, "1012".to_owned())]));
        assert_eq!((row.broken, row.last_bad), (1, Some(3.0)));
    }
}
