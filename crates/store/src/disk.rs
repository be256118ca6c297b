//! Files of the store besides the database: where they lie, and how they are replaced without ever being half there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

/// Set-aside databases kept; older ones are removed so that a failing disk is not filled by its own rescue.
const KEPT_BROKEN: usize = 5;

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

impl Folder {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("store")
    }

    pub(crate) fn mirror(&self) -> PathBuf {
        self.path.join("admin.json")
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

    /// Renames the database to `store.broken-DATE` and gives the new path.
    pub(crate) fn set_database_aside(&self) -> io::Result<PathBuf> {
        let date = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default().strftime("%Y-%m-%dT%H-%M-%SZ");
        let name =
            |turn: u32| if turn == 0 { format!("store.broken-{date}") } else { format!("store.broken-{date}-{turn}") };
        let free = (0..).map(|turn| self.path.join(name(turn))).find(|path| !path.exists());
        let aside = free.unwrap_or_else(|| self.path.join(name(u32::MAX)));
        fs::rename(self.database(), &aside)?;
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

/// Copies the files of a folder (one level and the folders in it), for reading where nothing can be written.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => {
                // Not `fs::copy`: it would copy the right to read alone as well.
                fs::write(target, fs::read(entry.path())?)?;
            }
        }
    }
    Ok(())
}
