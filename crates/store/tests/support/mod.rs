//! What the tests of this crate share: records, directories, and this test program run again as a child.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part, and a test may panic")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as Clock};

use relais_core::{Admin, AdminRecord, Instant, Record, Target};
use relais_store::Store;

/// By way of its stored form, so that a field more in the record is no change here.
pub(crate) fn backend(number: usize, value: u64) -> Record {
    let address = format!("10.0.{}.{}:80", number / 256, number % 256);
    let record = serde_json::json!({ "backend": {
        "id": { "service": "api", "site": "dijon", "address": address },
        "health": "down",
        "since": value,
        "verified": value,
        "why": format!("connect timeout, the {value}th time"),
        "downs": [1, value],
    } });
    serde_json::from_value(record).unwrap()
}

/// The value given to `backend`.
pub(crate) fn value(record: &Record) -> u64 {
    match record {
        Record::Backend(record) => record.since.0,
        Record::Admin(record) => record.since.0,
        Record::Failover(record) => record.began.0,
        Record::Drill(record) => record.began.0,
        Record::Certificate(record) => record.got.unwrap_or_default().0,
        Record::Authority(record) => record.at.0,
    }
}

pub(crate) fn word(site: &str, word: Admin, value: u64) -> Record {
    let target = Target::Site(site.into());
    Record::Admin(AdminRecord { target, word, since: Instant(value), reason: Some("works".into()) })
}

/// In the order of their keys.
pub(crate) fn all(store: &Store) -> Vec<Record> {
    let mut records = store.load().records;
    records.sort_by_key(Record::key);
    records
}

pub(crate) fn words(store: &Store) -> Vec<Record> {
    all(store).into_iter().filter(|record| matches!(record, Record::Admin(_))).collect()
}

/// Waits for a condition, with a deadline.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Clock::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Clock::now() < until, "in 60 s it did not come true that {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Files of the directory whose name starts so.
pub(crate) fn named(dir: &Path, start: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(start)).collect();
    found.sort();
    found
}

/// Runs one test of this program again in a child, which sees `CHILD_OF_TEST` as the directory.
pub(crate) fn child(test: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("CHILD_OF_TEST", dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

pub(crate) fn child_dir() -> Option<PathBuf> {
    std::env::var_os("CHILD_OF_TEST").map(PathBuf::from)
}

/// Small numbers that look random, the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}
