//! What is given comes back: at once, after a restart, and without a disk.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::os::unix::fs::PermissionsExt;

use relais_core::{Admin, Saved};
use relais_store::{Mode, Store};
use support::{all, backend, value, wait_for, word, words};

#[test]
fn everything_comes_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("not/made/yet");
    let big = "# a large file\n".repeat(30_000);
    let secret = {
        let store = Store::open(&dir);
        assert_eq!((store.state().mode, store.state().detail.as_str()), (Mode::Ok, ""));
        assert_eq!(store.load(), Saved::default());
        assert_eq!(store.last_good_config(), None);
        for number in 0..500 {
            store.save(backend(number, 7));
        }
        store.save(word("dijon", Admin::Draining, 1));
        store.save(word("thory", Admin::Disabled, 2));
        store.save(word("dijon", Admin::Disabled, 3));
        store.forget(backend(499, 7).key());
        store.forget(backend(499, 7).key());
        store.forget(word("thory", Admin::Enabled, 0).key());
        store.save_config("first");
        store.save_config(&big);
        assert_eq!(all(&store).len(), 500);
        store.secret("sticky", 32)
    };
    let store = Store::open(&dir);
    let state = store.state();
    assert_eq!((state.mode, state.detail.as_str(), state.records), (Mode::Ok, "", 500));
    assert_eq!((state.skipped_records, state.failed_writes, state.unsaved), (0, 0, 0));
    let mut expected: Vec<_> = (0..499).map(|number| backend(number, 7)).collect();
    expected.push(word("dijon", Admin::Disabled, 3));
    expected.sort_by_key(relais_core::Record::key);
    assert_eq!(all(&store), expected);
    assert!(store.last_good_config().as_deref() == Some(big.as_str()));
    assert_eq!(store.secret("sticky", 32), secret);
}

#[test]
fn secrets_are_random_and_kept_apart() {
    let store = Store::memory();
    let (a, b) = (store.secret("a", 32), store.secret("b", 32));
    assert_eq!((a.len(), b.len()), (32, 32));
    assert_ne!(a, b);
    assert_ne!(a, vec![0; 32]);
    assert_ne!(a, Store::memory().secret("a", 32));
    assert_eq!(a, store.secret("a", 32));
    assert_eq!(store.secret("a", 16).len(), 16);
}

#[test]
fn without_a_directory_it_remembers_until_the_end() {
    let store = Store::memory();
    store.save(backend(1, 1));
    store.save(backend(1, 2));
    store.save_config("text");
    store.flush();
    assert_eq!(store.load().records, [backend(1, 2)]);
    assert_eq!(store.last_good_config().as_deref(), Some("text"));
    let state = store.state();
    assert_eq!((state.mode, state.path, state.records, state.unsaved), (Mode::Memory, None, 1, 0));
}

#[test]
fn changes_reach_the_disk_without_being_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    for round in 0..5 {
        store.save(backend(1, round));
        store.save(backend(2, round));
        wait_for("nothing is unsaved", || store.state().unsaved == 0);
    }
    store.save(word("dijon", Admin::Draining, 1));
    wait_for("the mirror holds the word", || {
        std::fs::read_to_string(dir.path().join("admin.json")).is_ok_and(|text| text.contains("\"draining\""))
    });
    let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("admin.json"), 0o600);
}

/// Large entries go another way through the database.
#[test]
fn a_record_may_be_large() {
    let dir = tempfile::tempdir().unwrap();
    let large = |number, value| match backend(number, value) {
        relais_core::Record::Backend(mut record) => {
            record.why = format!("{value}").repeat(40_000);
            relais_core::Record::Backend(record)
        }
        other => other,
    };
    for round in 1..4 {
        let store = Store::open(dir.path());
        for number in 0..20 {
            store.save(large(number, round));
        }
        store.flush();
        assert_eq!(store.state().failed_writes, 0, "{:?}", store.state());
        drop(store);
        let store = Store::open(dir.path());
        assert_eq!(store.state().mode, Mode::Ok);
        let mut expected: Vec<_> = (0..20).map(|number| large(number, round)).collect();
        expected.sort_by_key(relais_core::Record::key);
        assert!(all(&store) == expected, "round {round}");
    }
}

#[test]
fn flush_waits_for_everything_given_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    for round in 1..=20 {
        for number in 0..50 {
            store.save(backend(number, round));
        }
        store.flush();
        assert_eq!(store.state().unsaved, 0);
    }
    assert_eq!(store.state().failed_writes, 0);
}

/// Overwriting for ever must neither grow without bounds nor slow callers down to the disk's pace.
#[test]
fn many_changes_become_few_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    for round in 0..2_000 {
        for number in 0..100 {
            store.save(backend(number, round));
        }
    }
    store.flush();
    drop(store);
    let size: u64 = support::named(dir.path(), "store-")
        .iter()
        .filter(|path| path.is_dir())
        .flat_map(|path| std::fs::read_dir(path).unwrap())
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size < 4 * 1024 * 1024, "{size} bytes for 100 records");
    let store = Store::open(dir.path());
    assert_eq!(store.load().records.len(), 100);
    assert!(store.load().records.iter().all(|record| value(record) == 1_999));
}

#[test]
fn the_word_given_last_wins_whatever_copy_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = dir.path().join("admin.json");
    drop(Store::open(dir.path()));
    let empty = std::fs::read(&mirror).expect("a mirror from the first start on");
    let store = Store::open(dir.path());
    store.save(word("dijon", Admin::Draining, 1));
    drop(store);
    let one = std::fs::read(&mirror).unwrap();
    // An old mirror beside a newer database, as a crash between the two leaves it: nothing to tell.
    std::fs::write(&mirror, &empty).unwrap();
    let store = Store::open(dir.path());
    assert_eq!((words(&store), store.state().mode), (vec![word("dijon", Admin::Draining, 1)], Mode::Ok));
    drop(store);
    assert_eq!(std::fs::read(&mirror).unwrap(), one, "brought up to date");
    // A word taken back stays taken back.
    let store = Store::open(dir.path());
    store.forget(word("dijon", Admin::Draining, 1).key());
    drop(store);
    std::fs::write(&mirror, &one).unwrap();
    assert_eq!(words(&Store::open(dir.path())), []);
}

#[test]
fn a_secret_that_changes_is_remembered_as_it_is_now() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    assert_eq!(store.known_secret("turning"), None);
    store.keep_secret("turning", b"first");
    store.keep_secret("turning", b"second");
    drop(store);
    assert_eq!(Store::open(dir.path()).known_secret("turning").as_deref(), Some(&b"second"[..]));
}
