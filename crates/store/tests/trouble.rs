//! Directories that cannot be used: held by another process, read-only, full. Never a refusal, always a word.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use relais_core::Admin;
use relais_store::{Mode, Store};
use support::{all, backend, child, child_dir, wait_for, word, words};

#[test]
fn a_directory_held_by_another_process_means_memory() {
    if let Some(dir) = child_dir() {
        let store = Store::open(&dir);
        store.save(backend(1, 1));
        store.save(word("dijon", Admin::Draining, 1));
        store.flush();
        fs::write(dir.join("ready"), "").unwrap();
        loop {
            std::thread::park();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut holder = child("a_directory_held_by_another_process_means_memory", dir.path());
    wait_for("the child holds the directory", || dir.path().join("ready").exists());
    let store = Store::open(dir.path());
    let state = store.state();
    assert_eq!((state.mode, state.path.as_deref()), (Mode::Memory, Some(dir.path())));
    assert!(state.detail.contains("another process uses this directory"), "{state:?}");
    assert!(state.detail.contains(dir.path().to_str().unwrap()), "{state:?}");
    assert_eq!(words(&store), [word("dijon", Admin::Draining, 1)], "the operator's words can be read all the same");
    let mirror = fs::read(dir.path().join("admin.json")).unwrap();
    store.save(word("thory", Admin::Disabled, 2));
    store.save(backend(2, 2));
    store.flush();
    assert_eq!(fs::read(dir.path().join("admin.json")).unwrap(), mirror, "not ours to write");
    // The other one ends: the store finds its way to the disk by itself.
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_for("the store is on disk", || store.state().mode == Mode::Healed && store.state().unsaved == 0);
    drop(store);
    let store = Store::open(dir.path());
    assert_eq!(store.state().mode, Mode::Ok);
    assert_eq!(words(&store), [word("dijon", Admin::Draining, 1), word("thory", Admin::Disabled, 2)]);
    assert!(all(&store).contains(&backend(2, 2)));
}

#[test]
fn a_path_that_cannot_be_a_directory_means_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    fs::write(&file, "").unwrap();
    for path in [file.join("below"), file, PathBuf::from("/proc/relais"), PathBuf::from("/dev/null/x")] {
        let store = Store::open(&path);
        assert_eq!(store.state().mode, Mode::Memory, "{}", path.display());
        assert!(store.state().detail.contains(path.to_str().unwrap()), "{:?}", store.state());
        store.save(backend(1, 1));
        store.flush();
        assert_eq!(store.load().records, [backend(1, 1)]);
        assert_eq!(store.secret("a", 8), store.secret("a", 8));
    }
}

/// Root may write everywhere: the test runs itself again as an ordinary user.
#[test]
fn a_read_only_directory_can_still_be_read() {
    if let Some(dir) = child_dir() {
        let store = Store::open(&dir);
        let state = store.state();
        assert_eq!(state.mode, Mode::Memory, "{state:?}");
        assert_eq!(all(&store), [backend(1, 1), word("dijon", Admin::Draining, 1)], "{state:?}");
        assert_eq!(store.last_good_config().as_deref(), Some("text"));
        store.save(backend(1, 2));
        store.flush();
        assert_eq!(all(&store)[0], backend(1, 2));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let store = Store::open(&state);
    store.save(backend(1, 1));
    store.save(word("dijon", Admin::Draining, 1));
    store.save_config("text");
    drop(store);
    open_up(dir.path());
    // The test program itself may lie in a folder that user cannot enter.
    let program = dir.path().join("test-program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut again = Command::new(&program);
    again.args(["--exact", "a_read_only_directory_can_still_be_read"]).env("CHILD_OF_TEST", &state).current_dir("/");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        again.uid(65_534).gid(65_534);
    }
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    assert_eq!(all(&Store::open(&state))[0], backend(1, 1), "nothing was written");
}

/// Everyone may read, nobody may write.
fn open_up(path: &Path) {
    let is_dir = path.is_dir();
    if is_dir {
        fs::read_dir(path).unwrap().for_each(|entry| open_up(&entry.unwrap().path()));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(if is_dir { 0o555 } else { 0o444 })).unwrap();
}

/// A small disk of its own; `None` where this user may not mount.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        let size = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_path_buf()));
        }
        #[allow(clippy::print_stdout, reason = "a test that did not run must say so")]
        let () = println!("SKIPPED: no right to mount a small disk; a full disk was not tried");
        None
    }

    fn fill(&self) {
        let filler = fs::write(self.0.join("filler"), vec![1_u8; 64 * 1024 * 1024]);
        assert!(filler.is_err(), "the disk is larger than the filler");
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_disk_that_fills_up_is_told_once_and_left_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), "4m") else { return };
    let state_dir = dir.path().join("state");
    let store = Store::open(&state_dir);
    for number in 0..200 {
        store.save(backend(number, 1));
    }
    store.flush();
    assert_eq!((store.state().mode, store.state().failed_writes), (Mode::Ok, 0));
    disk.fill();
    let mut round = 2;
    wait_for("a write failed", || {
        round += 1;
        (0..200).for_each(|number| store.save(backend(number, round)));
        store.flush();
        store.state().failed_writes > 0
    });
    let state = store.state();
    assert_eq!(state.mode, Mode::Memory, "{state:?}");
    assert!(state.detail.contains("failed: ") && state.detail.contains("No space left"), "{state:?}");
    // It goes on remembering.
    store.save(word("dijon", Admin::Disabled, round));
    store.flush();
    assert_eq!(words(&store), [word("dijon", Admin::Disabled, round)]);
    disk.make_room();
    wait_for("the store is on disk", || store.state().mode != Mode::Memory && store.state().unsaved == 0);
    let state = store.state();
    assert!(state.detail.contains("before that") && state.detail.contains("No space left"), "{state:?}");
    let expected = all(&store);
    drop(store);
    let store = Store::open(&state_dir);
    assert_eq!(store.state().mode, Mode::Ok, "{:?}", store.state());
    assert_eq!(all(&store), expected);
}

#[test]
fn a_disk_that_is_full_at_start_means_memory_with_what_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), "4m") else { return };
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let store = Store::open(&old);
    store.save(backend(1, 1));
    store.save(word("dijon", Admin::Draining, 1));
    drop(store);
    disk.fill();
    let fresh = Store::open(&new);
    assert_eq!(fresh.state().mode, Mode::Memory, "{:?}", fresh.state());
    // An existing one may open where nothing needs to be written; either way it remembers and serves.
    let store = Store::open(&old);
    assert_eq!(all(&store), [backend(1, 1), word("dijon", Admin::Draining, 1)], "{:?}", store.state());
    for (store, number) in [(&fresh, 2), (&store, 3)] {
        (0..2_000).for_each(|value| store.save(backend(number, value)));
        store.flush();
        assert!(all(store).contains(&backend(number, 1_999)));
    }
    disk.make_room();
    for store in [&fresh, &store] {
        wait_for("both are on disk", || store.state().mode != Mode::Memory && store.state().unsaved == 0);
    }
    drop((fresh, store));
    assert!(all(&Store::open(&new)).contains(&backend(2, 1_999)));
    assert!(all(&Store::open(&old)).contains(&backend(3, 1_999)));
}
