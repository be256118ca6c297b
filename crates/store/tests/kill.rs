//! kill -9 at any moment: nothing that was flushed, and nothing older than a second, is lost, and nothing is corrupt.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use relais_core::Admin;
use relais_store::{Mode, Store};
use support::{Dice, all, backend, child, child_dir, value, wait_for, word, words};

const KILLS: u64 = 28;
const KEYS: usize = 40;
/// How long the test sleeps between two looks at what the child has told.
const LOOK: Duration = Duration::from_millis(5);

/// What the child tells: fixed-width lines appended to a file, which outlives it. `kind counter`.
fn tell(log: &mut File, kind: char, counter: u64) {
    log.write_all(format!("{kind}{counter:015}\n").as_bytes()).unwrap();
}

fn all_told(path: &Path, kind: char) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A line cut by the kill is not told.
    let lines = text.split_inclusive('\n').filter(|line| line.len() == 17 && line.starts_with(kind));
    lines.map(|line| line[1..16].parse().unwrap()).collect()
}

fn told(path: &Path, kind: char) -> Option<u64> {
    all_told(path, kind).last().copied()
}

/// What a child does, and when it is killed.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    FlushesAlways,
    FlushesOften,
    NeverFlushes,
    Early,
}

impl Kind {
    fn of(kill: u64) -> Self {
        [Self::FlushesAlways, Self::FlushesOften, Self::NeverFlushes, Self::Early][kill as usize % 4]
    }
}

/// The child: writes for ever. Every counter is one round over all keys.
fn write_for_ever(dir: &Path) -> ! {
    let store = Store::open(dir);
    let mut log = OpenOptions::new().append(true).create(true).open(dir.join("told")).unwrap();
    let every = match std::fs::read(dir.join("kind")).unwrap()[..] {
        [kind] if kind == Kind::FlushesAlways as u8 => 1,
        // Age alone must bring it to the disk.
        [kind] if kind == Kind::NeverFlushes as u8 => u64::MAX,
        _ => 7,
    };
    let start = all(&store).iter().map(value).max().unwrap_or(0);
    tell(&mut log, if store.state().mode == Mode::Ok { 'O' } else { 'X' }, start);
    for counter in start + 1.. {
        for number in 0..KEYS {
            store.save(backend(number, counter));
        }
        tell(&mut log, 'S', counter);
        if counter % every == 0 {
            store.save(word("dijon", Admin::Draining, counter));
            store.flush();
            tell(&mut log, 'F', counter);
        }
        if every > 1 {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    unreachable!("a counter of 64 bits does not end");
}

#[test]
fn a_kill_loses_nothing_that_was_flushed_or_is_a_second_old() {
    if let Some(dir) = child_dir() {
        write_for_ever(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("told");
    let mut dice = Dice(42);
    for kill in 0..KILLS {
        let opened = || all_told(&log, 'O').len() + all_told(&log, 'X').len();
        let (opened_before, saved_before) = (opened(), all_told(&log, 'S').len());
        let kind = Kind::of(kill);
        std::fs::write(dir.path().join("kind"), [kind as u8]).unwrap();
        let mut writer = child("a_kill_loses_nothing_that_was_flushed_or_is_a_second_old", dir.path());
        let longest = match kind {
            // Mostly before it has opened, and taken over what the last one left.
            Kind::Early => 80,
            Kind::FlushesOften => 150,
            Kind::FlushesAlways | Kind::NeverFlushes => 2_500,
        };
        if kind != Kind::Early {
            wait_for("the child has opened", || opened() > opened_before);
            // What the child before it told and lost, younger than a second, does not count.
            wait_for("the child writes", || all_told(&log, 'S').len() > saved_before);
        }
        let until = Instant::now() + Duration::from_millis(dice.roll(longest) as u64);
        let mut seen: Vec<(Duration, u64)> = vec![];
        // For how long the child has run: time in which it, or the whole machine, stood still makes nothing older.
        let (mut ran, mut looked) = (Duration::ZERO, Instant::now());
        while Instant::now() < until {
            if kind != Kind::Early {
                let now = told(&log, 'S').unwrap();
                if seen.last().is_none_or(|(_, before)| *before < now) {
                    ran += looked.elapsed().min(LOOK * 4);
                    looked = Instant::now();
                    seen.push((ran, now));
                }
            }
            std::thread::sleep(LOOK);
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        let flushed = told(&log, 'F').unwrap_or(0);
        let old = seen.iter().filter(|(at, _)| ran - *at > Duration::from_secs(1)).map(|(_, counter)| *counter).max();

        let store = Store::open(dir.path());
        let state = store.state();
        assert_eq!((state.mode, state.skipped_records), (Mode::Ok, 0), "kill {kill}: {state:?}");
        let records: Vec<_> = all(&store).into_iter().filter(|record| !words(&store).contains(record)).collect();
        assert_eq!(records.len(), KEYS, "kill {kill}");
        let least = flushed.max(old.unwrap_or(0));
        for (number, record) in records.iter().enumerate() {
            assert!(value(record) >= least, "kill {kill}: record {number} is {}, must be {least}", value(record));
        }
        // Batches are whole: rounds are written as they were given, so that no two records are far apart.
        let (low, high) = (records.iter().map(value).min().unwrap(), records.iter().map(value).max().unwrap());
        assert!(high - low <= 1, "kill {kill}: {low} to {high}");
        if flushed > 0 {
            assert!(words(&store).iter().map(value).max().unwrap_or(0) >= flushed, "kill {kill}: a word was lost");
        }
    }
    assert_eq!(told(&log, 'X'), None, "a child found a store that was not whole");
    assert!(told(&log, 'F').is_some(), "no flush was ever told: nothing was proven");
}
