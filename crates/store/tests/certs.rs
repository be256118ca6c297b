//! Certificates and accounts: on the disk twice before keeping them returns, each copy heals the other, a kill at any moment
//! loses nothing that was told.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use relais_core::config::Secret;
use relais_store::{KeptCertificate, Mode, Store};
use support::{Dice, backend, child, child_dir, named, wait_for};

/// A certificate whose every part says which one it is.
fn certificate(name: &str, turn: u64) -> KeptCertificate {
    KeptCertificate {
        name: name.into(),
        authority: "ca".into(),
        about: serde_json::json!({ "turn": turn, "hosts": [name] }),
        chain_pem: format!("chain {name} {turn}\n").repeat(100),
        key_pem: Secret::new(&format!("key {name} {turn}\n").repeat(10)),
    }
}

fn account(turn: u64) -> Secret {
    Secret::new(&format!("{{\"turn\":{turn}}}"))
}

fn turn(kept: &KeptCertificate) -> u64 {
    kept.about["turn"].as_u64().unwrap()
}

fn lose_database(dir: &Path) {
    for path in named(dir, "store-") {
        fs::remove_dir_all(path).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Every file below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn what_is_kept_comes_back_and_lies_there_as_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    store.keep_certificate(certificate("a.fr", 1)).unwrap();
    let folder = dir.path().join("certs/ca/a.fr");
    assert_eq!(fs::read_to_string(folder.join("cert.pem")).unwrap(), certificate("a.fr", 1).chain_pem);
    assert_eq!(fs::read_to_string(folder.join("key.pem")).unwrap(), certificate("a.fr", 1).key_pem.expose());
    assert_eq!(store.state().unsaved, 0, "on the disk when it returns");
    store.keep_certificates(vec![certificate("*.b.fr", 1), certificate("a.fr", 2)]).unwrap();
    store.keep_account("ca", account(1)).unwrap();
    store.keep_account("ca", account(2)).unwrap();
    store.keep_note("records", "one").unwrap();
    store.keep_note("records", "two").unwrap();
    let all = [certificate("*.b.fr", 1), certificate("a.fr", 2)];
    assert_eq!(store.certificates(), all);
    drop(store);
    for path in files(&dir.path().join("certs")) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        let above = path.parent().unwrap();
        assert_eq!(fs::metadata(above).unwrap().permissions().mode() & 0o777, 0o700, "{}", above.display());
    }
    assert_eq!(files(&dir.path().join("certs")).len(), 7, "{:?}", files(&dir.path().join("certs")));
    let store = Store::open(dir.path());
    assert_eq!((store.state().mode, store.state().detail.as_str()), (Mode::Ok, ""));
    assert_eq!((store.certificates(), store.account("ca")), (all.to_vec(), Some(account(2))));
    assert_eq!((store.note("records").as_deref(), store.note("other")), (Some("two"), None));
    assert_eq!((store.certificate("a.fr"), store.certificate("b.fr")), (Some(certificate("a.fr", 2)), None));
    store.drop_certificate("a.fr").unwrap();
    store.drop_certificate("a.fr").unwrap();
    assert!(!folder.exists());
    drop(store);
    assert_eq!(Store::open(dir.path()).certificates(), [certificate("*.b.fr", 1)]);
}

#[test]
fn another_authority_takes_the_place_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    store.keep_certificate(certificate("a.fr", 1)).unwrap();
    let old = tempfile::tempdir().unwrap();
    copy(&dir.path().join("certs/ca/a.fr"), old.path());
    let other = KeptCertificate { authority: "cb".into(), ..certificate("a.fr", 2) };
    store.keep_certificate(other.clone()).unwrap();
    assert!(!dir.path().join("certs/ca/a.fr").exists());
    drop(store);
    // Killed before the old one was removed: the newer one holds, with and without the database.
    for lost in [false, true] {
        copy(old.path(), &dir.path().join("certs/ca/a.fr"));
        if lost {
            lose_database(dir.path());
        }
        let store = Store::open(dir.path());
        assert_eq!(store.certificates(), std::slice::from_ref(&other));
        wait_for("the old one is removed", || !dir.path().join("certs/ca/a.fr").exists());
    }
}

#[test]
fn without_a_directory_they_are_remembered_until_the_end() {
    let store = Store::memory();
    store.keep_certificate(certificate("a.fr", 1)).unwrap();
    store.keep_account("ca", account(1)).unwrap();
    assert_eq!((store.certificates().len(), store.account("ca")), (1, Some(account(1))));
    assert_eq!(store.account("cb"), None);
}

/// A thousand, kept in one go, lost and found again.
#[test]
fn a_lost_database_takes_all_of_them_from_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> = (0..1_000).map(|number| certificate(&format!("host-{number:04}.fr"), number)).collect();
    let store = Store::open(dir.path());
    store.save(backend(1, 1));
    store.keep_certificates(all.clone()).unwrap();
    store.keep_account("ca", account(7)).unwrap();
    drop(store);
    lose_database(dir.path());
    let store = Store::open(dir.path());
    let state = store.state();
    assert!(state.detail.contains("1001 certificates and accounts were taken from certs/"), "{state:?}");
    assert_ne!(state.mode, Mode::Ok);
    assert!(store.certificates() == all && store.account("ca") == Some(account(7)));
    drop(store);
    // The other way round: the database has them all, and writes the files anew.
    fs::remove_dir_all(dir.path().join("certs")).unwrap();
    let store = Store::open(dir.path());
    assert_eq!((store.state().mode, store.state().detail.as_str()), (Mode::Ok, ""));
    assert!(store.certificates() == all);
    drop(store);
    assert_eq!(files(&dir.path().join("certs")).len(), 3_001);
    lose_database(dir.path());
    assert!(Store::open(dir.path()).certificates() == all);
}

/// Any course of changes, restarts and damage to one of the two copies: what comes back is what was given last.
#[test]
fn either_copy_repairs_the_other() {
    for seed in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let dice = &mut Dice(seed);
        let mut expected: Vec<KeptCertificate> = Vec::new();
        let mut expected_account = None;
        for step in 0..12 {
            let store = Store::open(dir.path());
            assert_ne!(store.state().mode, Mode::Memory);
            // One that was dropped may come back when the database lost its last words: harmless, and told.
            let all = store.certificates();
            let back: Vec<_> = all.iter().filter(|kept| !expected.contains(kept)).map(|kept| &kept.name).collect();
            let state = store.state();
            assert!(back.is_empty() || state.mode != Mode::Ok, "seed {seed}, step {step}: {back:?} {state:?}");
            assert!(back.iter().all(|name| expected.iter().all(|kept| kept.name != **name)), "an older {back:?}");
            assert_eq!(all.len() - back.len(), expected.len(), "seed {seed}, step {step}: {state:?}");
            expected = all;
            assert_eq!(store.account("ca"), expected_account, "seed {seed}, step {step}");
            for _ in 0..dice.roll(4) {
                let name = format!("host-{}.fr", dice.roll(6));
                let turn = 1_000 * step + dice.roll(1_000) as u64;
                expected.retain(|kept| kept.name != name);
                if dice.roll(4) == 0 {
                    store.drop_certificate(&name).unwrap();
                    continue;
                }
                let mut new = certificate(&name, turn);
                new.authority = ["ca", "cb"][dice.roll(2)].into();
                expected.push(new.clone());
                expected.sort_by(|a, b| a.name.cmp(&b.name));
                store.keep_certificate(new).unwrap();
            }
            if dice.roll(3) == 0 {
                expected_account = Some(account(step));
                store.keep_account("ca", account(step)).unwrap();
            }
            drop(store);
            damage_one_copy(dir.path(), dice);
        }
    }
}

fn damage_one_copy(dir: &Path, dice: &mut Dice) {
    let shelf = files(&dir.join("certs"));
    match dice.roll(8) {
        0 => lose_database(dir),
        1 => {
            let data = named(dir, "store-").remove(0).join("db");
            let mut bytes = fs::read(&data).unwrap();
            let start = dice.roll(bytes.len());
            bytes[start..].iter_mut().for_each(|byte| *byte = dice.roll(256) as u8);
            fs::write(data, bytes).unwrap();
        }
        2 => drop(fs::remove_dir_all(dir.join("certs"))),
        _ if shelf.is_empty() => {}
        3..=5 => {
            for _ in 0..1 + dice.roll(3) {
                let path = &shelf[dice.roll(shelf.len())];
                let mut bytes = fs::read(path).unwrap();
                let bit = dice.roll(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                fs::write(path, bytes).unwrap();
            }
        }
        6 => fs::write(&shelf[dice.roll(shelf.len())], "").unwrap(),
        _ => drop(fs::remove_file(&shelf[dice.roll(shelf.len())])),
    }
}

#[test]
fn both_copies_damaged_is_told_and_nothing_wrong_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    store.keep_certificates(vec![certificate("a.fr", 1), certificate("b.fr", 1)]).unwrap();
    drop(store);
    lose_database(dir.path());
    let key = dir.path().join("certs/ca/a.fr/key.pem");
    fs::write(&key, "key a.fr 2\n").unwrap();
    let store = Store::open(dir.path());
    assert_eq!(store.certificates(), [certificate("b.fr", 1)]);
    assert!(store.state().detail.contains("certs/ca/a.fr: the files do not belong together"), "{:?}", store.state());
    assert!(key.exists(), "what cannot be used is not removed: it may be the only one");
    // A new one takes its place.
    store.keep_certificate(certificate("a.fr", 3)).unwrap();
    drop(store);
    lose_database(dir.path());
    assert_eq!(Store::open(dir.path()).certificates(), [certificate("a.fr", 3), certificate("b.fr", 1)]);
}

/// The child: keeps one certificate after the other, and tells each when that has returned.
fn keep_for_ever(dir: &Path) -> ! {
    let store = Store::open(dir);
    let mut log = OpenOptions::new().append(true).create(true).open(dir.join("told")).unwrap();
    let start = store.certificates().iter().map(turn).max().unwrap_or(0);
    for next in start + 1.. {
        let mut new = certificate("a.fr", next);
        // Now and then another authority: an old folder must go.
        new.authority = ["ca", "cb"][usize::from(next % 10 == 0)].into();
        store.keep_certificate(new).unwrap();
        store.keep_account("ca", account(next)).unwrap();
        log.write_all(format!("{next:015}\n").as_bytes()).unwrap();
    }
    unreachable!("a counter of 64 bits does not end");
}

fn told(dir: &Path) -> u64 {
    let text = fs::read_to_string(dir.join("told")).unwrap_or_default();
    // A line cut by the kill is not told.
    let last = text.split_inclusive('\n').rfind(|line| line.len() == 16);
    last.map_or(0, |line| line.trim().parse().unwrap())
}

#[test]
fn a_kill_loses_nothing_that_was_told_from_either_copy() {
    if let Some(dir) = child_dir() {
        keep_for_ever(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let dice = &mut Dice(7);
    for kill in 0..24 {
        let before = told(dir.path());
        let mut keeper = child("a_kill_loses_nothing_that_was_told_from_either_copy", dir.path());
        wait_for("the child keeps", || told(dir.path()) > before);
        std::thread::sleep(Duration::from_micros(dice.roll(40_000) as u64));
        keeper.kill().unwrap();
        keeper.wait().unwrap();
        let least = told(dir.path());
        for lost in ["nothing", "database", "files"] {
            let scene = tempfile::tempdir().unwrap();
            copy(dir.path(), scene.path());
            match lost {
                "database" => lose_database(scene.path()),
                "files" => fs::remove_dir_all(scene.path().join("certs")).unwrap(),
                _ => {}
            }
            let store = Store::open(scene.path());
            let [kept] = &store.certificates()[..] else { panic!("kill {kill}, lost {lost}: {:?}", store.state()) };
            let got = turn(kept);
            assert!(got == least || got == least + 1, "kill {kill}, lost {lost}: {got}, told {least}");
            assert_eq!(kept.chain_pem, certificate("a.fr", got).chain_pem, "kill {kill}, lost {lost}");
            assert_eq!(kept.key_pem, certificate("a.fr", got).key_pem, "kill {kill}, lost {lost}: the pair fits");
            let accounts = [least, least + 1].map(|turn| Some(account(turn)));
            assert!(accounts.contains(&store.account("ca")), "kill {kill}, lost {lost}: {:?}", store.state());
        }
    }
    assert!(told(dir.path()) > 24, "nothing was kept: nothing was proven");
}

/// Root may write everywhere: a file where a folder should be stops everyone.
#[test]
fn a_copy_that_cannot_be_written_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    fs::write(dir.path().join("certs"), "in the way").unwrap();
    let words = store.keep_certificate(certificate("a.fr", 1)).unwrap_err();
    assert!(words.contains("in the database alone"), "{words}");
    assert_eq!(store.certificates(), [certificate("a.fr", 1)], "remembered all the same");
    assert_eq!((store.state().unsaved, store.state().failed_writes), (1, 1));
    fs::remove_file(dir.path().join("certs")).unwrap();
    // The next change does not wait for the pause.
    store.keep_certificate(certificate("a.fr", 2)).unwrap();
    drop(store);
    lose_database(dir.path());
    assert_eq!(Store::open(dir.path()).certificates(), [certificate("a.fr", 2)]);
}

/// One name kept by several threads at once, as a renewal and an import do: what is on the disk is not told as lost because
/// a newer value waits for its turn.
#[test]
fn keeping_is_no_failure_because_somebody_else_keeps_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    let told: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let keep = |thread: u64| {
            let store = &store;
            move || {
                (0..25).map(|turn| store.keep_certificate(certificate("a.fr", thread * 100 + turn))).collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(keep(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let failed: Vec<_> = told.iter().filter_map(|one| one.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {} told as failed: {:?}", failed.len(), told.len(), failed[0]);
}

/// Who begins has what there was before the new database is written; what changes meanwhile is not lost.
#[test]
fn what_changes_while_the_store_settles_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<KeptCertificate> = (0..30).map(|n| certificate(&format!("{n}.fr"), 0)).collect();
    Store::open(dir.path()).keep_certificates(all).unwrap();
    for turn in 1..15 {
        let store = Store::begin(dir.path());
        assert_eq!(store.certificates().len(), 30, "{:?}", store.state());
        store.save(backend(1, turn));
        if turn % 3 == 0 {
            store.keep_certificate(certificate("7.fr", turn)).unwrap();
        }
        drop(store);
        let store = Store::open(dir.path());
        assert_eq!(store.state().mode, Mode::Ok, "{:?}", store.state());
        assert_eq!(store.load().records, [backend(1, turn)]);
        assert_eq!(self::turn(&store.certificate("7.fr").unwrap()), turn - turn % 3);
    }
}
