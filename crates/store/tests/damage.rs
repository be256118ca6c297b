//! Damaged files: it always opens, says so, and never hands out a wrong value.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use relais_core::{Admin, Record};
use relais_store::{Mode, Store};
use support::{Dice, all, backend, named, value, word, words};

const RECORDS: usize = 300;

/// A store with a history: overwritten, reopened, with words and a config.
fn lived_in(dir: &Path) {
    for life in 0..3 {
        let store = Store::open(dir);
        for round in 0..30 {
            for number in 0..RECORDS {
                store.save(backend(number, life * 100 + round));
            }
            store.flush();
        }
        store.save(word("dijon", Admin::Draining, life));
        store.save_config(&format!("# life {life}\n").repeat(2_000));
        drop(store);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn database(dir: &Path) -> PathBuf {
    let mut all = named(dir, "store-");
    assert_eq!(all.len(), 1, "one generation is left: {all:?}");
    all.remove(0)
}

/// The database keeps snapshots where it was opened twice, and a damaged one makes it refuse to open: ours never is.
#[test]
fn a_generation_has_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path());
    assert_eq!(named(&database(dir.path()), "snap"), Vec::<PathBuf>::new());
    assert_eq!(named(dir.path(), "reading"), Vec::<PathBuf>::new());
}

/// Opens what was damaged: it must open, hold no value that was never given, and work from then on.
fn opens(dir: &Path, how: &str) -> (Mode, usize) {
    let store = Store::open(dir);
    let state = store.state();
    assert_ne!(state.mode, Mode::Memory, "{how}: {state:?}");
    let records = all(&store);
    let known: BTreeMap<_, _> = (0..RECORDS).map(|number| (backend(number, 0).key(), number)).collect();
    for record in &records {
        if let Some(number) = known.get(&record.key()) {
            let value = value(record);
            assert!(value % 100 < 30 && value / 100 < 3, "{how}: {record:?}");
            assert_eq!(*record, backend(*number, value), "{how}");
        }
    }
    // The operator's word survives whatever happens to the database.
    assert_eq!(words(&store), [word("dijon", Admin::Draining, 2)], "{how}: {state:?}");
    let whole = (0..RECORDS).all(|number| records.contains(&backend(number, 229)));
    assert_eq!(store.last_good_config(), Some("# life 2\n".repeat(2_000)), "{how}");
    if !whole {
        assert_ne!(state.mode, Mode::Ok, "{how}: a loss that nobody tells: {state:?}");
        assert!(!state.detail.is_empty(), "{how}");
    }
    store.save(backend(1, 1_000_000));
    store.save(word("thory", Admin::Disabled, 9));
    store.flush();
    assert_eq!((store.state().failed_writes, store.state().unsaved), (0, 0), "{how}: {:?}", store.state());
    drop(store);
    let store = Store::open(dir);
    assert_eq!(store.state().mode, Mode::Ok, "{how}: not healed for good: {:?}", store.state());
    assert!(all(&store).contains(&backend(1, 1_000_000)), "{how}");
    assert_eq!(words(&store).len(), 2, "{how}");
    (state.mode, records.len())
}

/// Takes a copy of a lived-in store for each round, damages it, and opens it.
fn rounds(count: usize, damage: impl Fn(&Path, &mut Dice) -> String) -> Vec<(Mode, usize)> {
    let origin = tempfile::tempdir().unwrap();
    lived_in(origin.path());
    let mut results = Vec::new();
    for round in 0..count {
        let dir = tempfile::tempdir().unwrap();
        copy(origin.path(), dir.path());
        let how = damage(dir.path(), &mut Dice(round as u64));
        results.push(opens(dir.path(), &how));
    }
    results
}

fn change(path: &Path, with: impl FnOnce(&mut Vec<u8>) -> String) -> String {
    let mut bytes = fs::read(path).unwrap();
    let how = with(&mut bytes);
    fs::write(path, bytes).unwrap();
    format!("{} in {}", how, path.file_name().unwrap().display())
}

fn data(dir: &Path) -> PathBuf {
    database(dir).join("db")
}

#[test]
fn a_cut_data_file() {
    rounds(12, |dir, dice| {
        change(&data(dir), |bytes| {
            let len = dice.roll(bytes.len());
            bytes.truncate(len);
            format!("cut at {len}")
        })
    });
}

#[test]
fn a_zeroed_block() {
    rounds(12, |dir, dice| {
        change(&data(dir), |bytes| {
            let start = dice.roll(bytes.len()) / 4096 * 4096;
            let end = (start + 4096).min(bytes.len());
            bytes[start..end].fill(0);
            format!("zeroes from {start}")
        })
    });
}

#[test]
fn flipped_bits() {
    rounds(12, |dir, dice| {
        change(&data(dir), |bytes| {
            let places: Vec<usize> = (0..1 + dice.roll(20)).map(|_| dice.roll(bytes.len() * 8)).collect();
            places.iter().for_each(|bit| bytes[bit / 8] ^= 1 << (bit % 8));
            format!("flipped {places:?}")
        })
    });
}

#[test]
fn senseless_data() {
    rounds(12, |dir, dice| {
        change(&data(dir), |bytes| {
            let start = dice.roll(bytes.len());
            bytes[start..].iter_mut().for_each(|byte| *byte = dice.roll(256) as u8);
            format!("noise from {start}")
        })
    });
}

#[test]
fn files_that_are_gone_or_empty() {
    let gone = |path: PathBuf| {
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        format!("{} is gone", path.display())
    };
    let lose = |which: &str| rounds(1, |dir, _| gone(database(dir).join(which)))[0];
    assert_eq!(lose(""), (Mode::Fresh, 1));
    assert_eq!(lose("db"), (Mode::Fresh, 1));
    assert_eq!(lose("conf"), (Mode::Ok, RECORDS + 1));
    assert_eq!(lose("blobs"), (Mode::Ok, RECORDS + 1));
    assert_eq!(rounds(1, |dir, _| gone(dir.join("admin.json")))[0], (Mode::Ok, RECORDS + 1));
    for which in ["db", "conf"] {
        rounds(1, |dir, _| {
            change(&database(dir).join(which), |bytes| {
                bytes.clear();
                "nothing left".into()
            })
        });
    }
}

#[test]
fn what_cannot_be_healed_is_set_aside_under_a_date() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path());
    let aside = || named(dir.path(), "store.broken-20");
    for round in 0..8 {
        fs::remove_file(data(dir.path())).unwrap();
        fs::create_dir(data(dir.path())).unwrap();
        let store = Store::open(dir.path());
        let state = store.state();
        assert_eq!(state.mode, Mode::Fresh, "{state:?}");
        assert!(state.detail.contains("set aside as") && state.detail.contains("admin.json"), "{state:?}");
        assert_eq!(words(&store), [word("dijon", Admin::Draining, 2)]);
        let newest = aside().pop().unwrap();
        assert!(state.detail.contains(newest.to_str().unwrap()), "{newest:?} is not told: {state:?}");
        assert_eq!(aside().len(), (round + 1).min(5), "only the last ones are kept");
    }
}

#[test]
fn a_damaged_mirror_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path());
    for junk in ["", "{", "{\"version\":99,\"revision\":1,\"words\":[]}"] {
        fs::write(dir.path().join("admin.json"), junk).unwrap();
        let store = Store::open(dir.path());
        assert_eq!(words(&store), [word("dijon", Admin::Draining, 2)]);
        assert!(store.state().detail.contains("admin.json could not be read"), "{:?}", store.state());
        drop(store);
        let store = Store::open(dir.path());
        assert_eq!(store.state().detail, "");
    }
}

#[test]
fn a_damaged_config_is_none() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path());
    let path = dir.path().join("last-good.toml");
    let good = fs::read(&path).unwrap();
    let dice = &mut Dice(1);
    for round in 0..40 {
        let mut bad = good.clone();
        match round % 4 {
            0 => bad.truncate(dice.roll(good.len())),
            _ => {
                let bit = if round % 4 == 1 { dice.roll(good.len() * 8) } else { (good.len() - 1 - round) * 8 };
                bad[bit / 8] ^= 1 << (bit % 8);
            }
        }
        fs::write(&path, bad).unwrap();
        let store = Store::open(dir.path());
        assert_eq!(store.last_good_config(), None, "round {round}");
        assert!(store.state().detail.contains("last-good.toml could not be read"), "{:?}", store.state());
    }
    let store = Store::open(dir.path());
    store.save_config("whole");
    drop(store);
    assert_eq!(Store::open(dir.path()).last_good_config().as_deref(), Some("whole"));
}

/// Entries the database vouches for and we do not: another version's, or changed behind its back.
#[test]
fn an_entry_that_fails_its_checksum_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    store.save(backend(1, 1));
    store.save(backend(2, 2));
    drop(store);
    {
        let db = sled::Config::new().path(database(dir.path())).segment_size(65_536).open().unwrap();
        let (key, mut bytes) = db.iter().map(|pair| pair.unwrap()).find(|(key, _)| key.starts_with(b"r")).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        db.insert(key, bytes).unwrap();
        db.insert("rjunk", "junk").unwrap();
        db.insert("zfuture", [2, 1, 2, 3].as_slice()).unwrap();
        db.flush().unwrap();
    }
    let store = Store::open(dir.path());
    let state = store.state();
    assert_eq!(store.load().records, [backend(2, 2)]);
    assert_eq!((state.mode, state.skipped_records), (Mode::Healed, 3), "{state:?}");
    assert!(state.detail.contains("1 of 2 entries are gone, 3 cannot be read"), "{state:?}");
    let _: Vec<Record> = all(&store);
}
