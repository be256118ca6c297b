//! Files of the store besides the database: where they lie, and how they are replaced without ever being half there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use crate::shelf::Shelf;

/// Set-aside databases kept; older ones are removed so that a failing disk is not filled by its own rescue.
const KEPT_BROKEN: usize = 5;

/// How long another process that ends may hold the directory.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// How the folder of a database is called, before its number.
const GENERATION: &str = "store-";

/// The directory of the store.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

/// Why the directory is not ours.
#[derive(Debug)]
pub(crate) enum LockFault {
    /// Another process has it.
    Held,
    /// It cannot be written.
    Unwritable(io::Error),
}

impl LockFault {
    pub(crate) fn words(&self) -> String {
        match self {
            LockFault::Held => "another process uses this directory".to_string(),
            LockFault::Unwritable(fault) => fault.to_string(),
        }
    }
}

impl Folder {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// The databases there are, newest first. Each start makes one: see `ladder`.
    pub(crate) fn generations(&self) -> Vec<PathBuf> {
        let mut numbers = self.generation_numbers();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.into_iter().map(|number| self.generation(number)).collect()
    }

    /// Where a database is copied to for reading.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.path.join("reading")
    }

    pub(crate) fn next_generation(&self) -> PathBuf {
        self.generation(self.generation_numbers().into_iter().max().map_or(1, |newest| newest.saturating_add(1)))
    }

    fn generation(&self, number: u64) -> PathBuf {
        self.path.join(format!("{GENERATION}{number:06}"))
    }

    fn generation_numbers(&self) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix(GENERATION)?.parse().ok();
        entries.flatten().filter_map(number).collect()
    }

    /// Returns when the names of a database's files and its own are on the disk.
    pub(crate) fn sync_names(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()?;
        File::open(&self.path)?.sync_all()
    }

    /// Removes all others. Best effort: what is left is passed over, and tried again at the next start.
    pub(crate) fn keep_only(&self, path: &Path) {
        for old in self.generations() {
            if old != path
                && let Err(fault) = fs::remove_dir_all(&old)
            {
                tracing::warn!(path = %old.display(), "an old store cannot be removed: {fault}");
            }
        }
    }

    pub(crate) fn mirror(&self) -> PathBuf {
        self.path.join("admin.json")
    }

    pub(crate) fn shelf(&self) -> Shelf {
        Shelf::new(&self.path)
    }

    pub(crate) fn last_good(&self) -> PathBuf {
        self.path.join("last-good.toml")
    }

    /// Makes the directory, and takes it for this process until the file is dropped. Waits a little for another process to
    /// end: after a kill the kernel needs a moment to release what it held.
    pub(crate) fn lock(&self, patience: Duration) -> Result<File, LockFault> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.path);
        let path = self.path.join("store.lock");
        let opened = made.and_then(|()| OpenOptions::new().create(true).truncate(false).write(true).open(path));
        let file = opened.map_err(LockFault::Unwritable)?;
        let until = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(Duration::from_millis(20)),
                Err(TryLockError::WouldBlock) => return Err(LockFault::Held),
                Err(TryLockError::Error(fault)) => return Err(LockFault::Unwritable(fault)),
            }
        }
    }

    /// Renames a database to `store.broken-DATE` and gives the new path.
    pub(crate) fn set_aside(&self, database: &Path) -> io::Result<PathBuf> {
        // To the microsecond: several may break in one second, and names must sort by age.
        let date = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default().strftime("%Y-%m-%dT%H-%M-%S%.6fZ");
        let aside = self.path.join(format!("store.broken-{date}"));
        fs::rename(database, &aside)?;
        self.remove_oldest_broken();
        Ok(aside)
    }

    /// Best effort: a folder that cannot be removed harms nobody.
    fn remove_oldest_broken(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        let is_broken =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"store.broken-"));
        let mut broken: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_broken).collect();
        broken.sort();
        for old in broken.iter().rev().skip(KEPT_BROKEN) {
            if let Err(fault) = fs::remove_dir_all(old) {
                tracing::warn!(path = %old.display(), "an old broken store cannot be removed: {fault}");
            }
        }
    }

    /// Replaces a file of the directory: a crash leaves the old or the new one. Only the owner may read it.
    pub(crate) fn replace(&self, to: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = to.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, to)?;
        File::open(&self.path)?.sync_all()
    }
}
