//! One process follows another in the same directory: who lets go serves on from memory and disturbs nobody, and takes the
//! directory again with all that is remembered.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::thread;
use std::time::Duration;

use relais_core::config::Secret;
use relais_core::{Admin, Record};
use relais_store::{KeptCertificate, Mode, Store};
use support::{all, backend, named, wait_for, word, words};

fn certificate(name: &str) -> KeptCertificate {
    KeptCertificate {
        name: name.into(),
        authority: "ca".into(),
        about: serde_json::json!({}),
        chain_pem: format!("chain {name}"),
        key_pem: Secret::new(name),
    }
}

/// One of each kind, told apart by the number.
fn learn(store: &Store, number: usize) {
    store.save(word(&format!("site-{number}"), Admin::Draining, 1));
    store.keep_secret(&format!("secret-{number}"), format!("{number}").as_bytes());
    store.save_config(&format!("config {number}"));
    // Without the directory both say that they are in memory alone.
    drop(store.keep_certificate(certificate(&format!("{number}.fr"))));
    drop(store.keep_account(&format!("ca-{number}"), Secret::new("account")));
    // The last, because it alone is in no hurry: it waits for others to be written with it.
    store.save(backend(number, 1));
}

/// What was learnt under these numbers, the last of them last, is all there is.
#[track_caller]
fn assert_knows(store: &Store, numbers: &[usize]) {
    let of = |number: &usize| [backend(*number, 1), word(&format!("site-{number}"), Admin::Draining, 1)];
    let mut records: Vec<Record> = numbers.iter().flat_map(of).collect();
    records.sort_by_key(Record::key);
    assert_eq!(all(store), records);
    for number in numbers {
        let secret = store.known_secret(&format!("secret-{number}"));
        assert_eq!(secret.as_deref(), Some(format!("{number}").as_bytes()), "the secret of {number}");
        assert!(store.account(&format!("ca-{number}")).is_some(), "the account of {number}");
    }
    let certificates: Vec<String> = numbers.iter().map(|number| format!("{number}.fr")).collect();
    assert_eq!(store.certificates().into_iter().map(|kept| kept.name).collect::<Vec<_>>(), certificates);
    assert_eq!(store.last_good_config(), numbers.last().map(|number| format!("config {number}")));
}

#[track_caller]
fn assert_ok(store: &Store) {
    let state = store.state();
    assert_eq!((state.mode, state.detail.as_str(), state.failed_writes), (Mode::Ok, "", 0));
}

fn is_on_shelf(dir: &Path, number: usize) -> bool {
    dir.join(format!("certs/ca/{number}.fr/cert.pem")).exists()
}

#[test]
fn a_successor_has_everything_and_is_not_disturbed() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::begin(dir.path());
    learn(&first, 1);
    assert!(first.let_go());
    assert!(first.let_go(), "once more is no change");
    let second = Store::begin(dir.path());
    assert_ok(&second);
    assert_knows(&second, &[1]);
    // The first goes on in memory, and says so.
    learn(&first, 2);
    first.flush();
    assert_knows(&first, &[1, 2]);
    assert_eq!(first.state().mode, Mode::Memory);
    assert!(first.state().detail.starts_with("the directory was handed over; "), "{:?}", first.state());
    assert!(!first.keep(Duration::from_secs(60)), "a word given now is not on the disk");
    let fault = first.keep_certificate(certificate("1.fr")).unwrap_err();
    assert!(fault.contains("handed over"), "waits for no disk: {fault}");
    learn(&second, 3);
    drop(first);
    learn(&second, 4);
    second.flush();
    assert_ok(&second);
    assert!(!is_on_shelf(dir.path(), 2));
    drop(second);
    let third = Store::open(dir.path());
    assert_ok(&third);
    assert_knows(&third, &[1, 3, 4]);
}

/// As the process that was followed ends, its successor may be between two lives.
#[test]
fn the_drop_of_who_let_go_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path());
    learn(&first, 1);
    assert!(first.let_go());
    learn(&first, 2);
    drop(first);
    let second = Store::open(dir.path());
    assert_ok(&second);
    assert_knows(&second, &[1]);
}

#[test]
fn taken_again_the_directory_has_what_was_learnt_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path());
    learn(&first, 1);
    first.save(backend(100, 1));
    assert!(first.let_go());
    learn(&first, 2);
    first.forget(backend(100, 1).key());
    // The successor writes something of its own, and fails.
    let second = Store::open(dir.path());
    second.save(word("site-1", Admin::Disabled, 9));
    second.save(backend(101, 1));
    second.save_config("of the successor");
    second.drop_certificate("1.fr").unwrap();
    drop(second);
    assert!(first.take_again());
    assert!(first.take_again(), "once more is no change");
    assert_ok(&first);
    assert_eq!(first.state().unsaved, 0);
    assert!([1, 2].iter().all(|number| is_on_shelf(dir.path(), *number)), "what is served lies there as files");
    assert_knows(&first, &[1, 2]);
    first.keep_certificate(certificate("1.fr")).unwrap();
    learn(&first, 3);
    assert_eq!(named(dir.path(), "store-").len(), 1, "no other generation is left");
    // A second upgrade is as the first.
    assert!(first.let_go());
    let third = Store::open(dir.path());
    assert_ok(&third);
    assert_knows(&third, &[1, 2, 3]);
    drop(third);
    assert!(first.take_again());
    learn(&first, 4);
    drop(first);
    let fourth = Store::open(dir.path());
    assert_ok(&fourth);
    assert_knows(&fourth, &[1, 2, 3, 4]);
}

#[test]
fn a_directory_that_is_still_held_is_taken_when_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path());
    learn(&first, 1);
    assert!(first.let_go());
    let second = Store::open(dir.path());
    second.save(backend(101, 1));
    assert!(!first.take_again());
    let state = first.state();
    assert_eq!(state.mode, Mode::Memory);
    assert!(state.detail.contains("another process uses this directory"), "{state:?}");
    learn(&first, 2);
    second.flush();
    assert_ok(&second);
    drop(second);
    wait_for("the first is on disk", || first.state().mode == Mode::Healed && first.state().unsaved == 0);
    drop(first);
    let third = Store::open(dir.path());
    assert_ok(&third);
    assert_knows(&third, &[1, 2]);
}

/// Who never had the directory does not know what lies there.
#[test]
fn who_never_had_the_directory_loses_nothing_that_lies_there() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path());
    let second = Store::open(dir.path());
    assert!(second.let_go());
    learn(&first, 1);
    drop(first);
    assert!(second.take_again() || second.state().mode == Mode::Healed, "{:?}", second.state());
    drop(second);
    let third = Store::open(dir.path());
    assert!(all(&third).contains(&backend(1, 1)), "{:?}", third.state());
}

#[test]
fn without_a_directory_or_a_handover_both_are_no_change() {
    let memory = Store::memory();
    assert!(memory.let_go() && memory.take_again());
    assert_eq!(memory.state().detail, "");
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    assert!(store.take_again());
    learn(&store, 1);
    store.flush();
    assert_ok(&store);
    assert_eq!(store.state().unsaved, 0);
}

/// A word that comes while the store lets go is on the disk for the successor, or said not to be.
#[test]
fn a_word_said_to_be_kept_is_there_for_the_successor() {
    for round in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path());
        let give = |site: usize| {
            let give = |value| first.save(word(&format!("site-{site}"), Admin::Draining, value));
            let kept = |value: &u64| {
                give(*value);
                first.keep(Duration::from_secs(60))
            };
            (1..10_000).take_while(kept).last().unwrap_or(0)
        };
        let kept: Vec<u64> = thread::scope(|scope| {
            let givers: Vec<_> = (0..4).map(|site| scope.spawn(move || give(site))).collect();
            wait_for("words come in", || words(&first).len() == 4 && first.state().unsaved > 0);
            assert!(first.let_go());
            givers.into_iter().map(|giver| giver.join().unwrap()).collect()
        });
        let second = Store::open(dir.path());
        assert_ok(&second);
        for (site, kept) in kept.into_iter().enumerate() {
            let key = word(&format!("site-{site}"), Admin::Draining, 0).key();
            let there = words(&second).iter().find(|record| record.key() == key).map_or(0, support::value);
            assert!(there >= kept, "round {round}: {kept} was said to be kept of site-{site}, {there} is there");
        }
    }
}
