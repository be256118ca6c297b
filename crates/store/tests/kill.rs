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

const KILLS: u64 = 24;
const KEYS: usize = 40;

/// What the child tells: fixed-width lines appended to a file, which outlives it. `kind counter`.
fn tell(log: &mut File, kind: char, counter: u64) {
    log.write_all(format!("{kind}{counter:015}\n").as_bytes()).unwrap();
}

fn told(path: &Path, kind: char) -> Option<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A line cut by the kill is not told.
    let mut lines = text.split_inclusive('\n').filter(|line| line.len() == 17 && line.starts_with(kind));
    lines.next_back().map(|line| line[1..16].parse().unwrap())
}

/// The child: writes for ever. Every counter is one round over all keys.
fn write_for_ever(dir: &Path) -> ! {
    let store = Store::open(dir);
    let mut log = OpenOptions::new().append(true).create(true).open(dir.join("told")).unwrap();
    // Flushing all the time, now and then, or never: then age alone must bring it to the disk.
    let every = [1, 7, u64::MAX][*std::fs::read(dir.join("kind")).unwrap().first().unwrap() as usize % 3];
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
        let before = told(&log, 'O');
        std::fs::write(dir.path().join("kind"), [kill as u8]).unwrap();
        let mut writer = child("a_kill_loses_nothing_that_was_flushed_or_is_a_second_old", dir.path());
        wait_for("the child has opened", || kill > 0 && told(&log, 'O') != before || told(&log, 'S').is_some());
        let opened = told(&log, 'O').unwrap_or(0);
        wait_for("the child writes", || told(&log, 'S').is_some_and(|counter| counter > opened));
        // At a random moment, of the first milliseconds or after some flushes; what was told a second before the kill is old.
        let until = Instant::now() + Duration::from_millis(dice.roll(if kill % 3 == 1 { 150 } else { 2_500 }) as u64);
        let mut seen = vec![];
        while Instant::now() < until {
            seen.push((Instant::now(), told(&log, 'S').unwrap()));
            std::thread::sleep(Duration::from_millis(5));
        }
        writer.kill().unwrap();
        let killed = Instant::now();
        writer.wait().unwrap();
        let flushed = told(&log, 'F').unwrap_or(0);
        let old =
            seen.iter().filter(|(at, _)| killed - *at > Duration::from_secs(1)).map(|(_, counter)| *counter).max();

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
