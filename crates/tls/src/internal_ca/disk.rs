//! The folder of the local CA: two files, written so that a crash leaves the old or the new one, never half of one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `STATE_DIR/internal-ca`.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("internal-ca") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.path.join("root.crt")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.path.join("root.key")
    }

    /// Makes the folder and keeps other processes of this program out until the file is dropped: two that start
    /// together must not make two CAs. On a read-only disk nothing can be made, so nothing needs to be locked.
    pub(super) fn lock(&self) -> Option<File> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.path).ok()?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path.join("lock")).ok()?;
        // Another holder needs milliseconds. One that is stopped must not stop us: after 3 s we go on without.
        for _ in 0..150 {
            match file.try_lock() {
                Ok(()) => return Some(file),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
                Err(TryLockError::Error(_)) => return None,
            }
        }
        None
    }

    /// Replaces the certificate; everyone may read it.
    pub(super) fn write_certificate(&self, pem: &str) -> io::Result<()> {
        self.write(&self.certificate(), pem, 0o644)
    }

    /// Replaces the key; only its owner may read it.
    pub(super) fn write_key(&self, pem: &str) -> io::Result<()> {
        self.write(&self.key(), pem, 0o600)
    }

    fn write(&self, to: &Path, text: &str, mode: u32) -> io::Result<()> {
        let new = to.with_extension("new");
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&new).map_err(named(&new))?;
        // The mode above holds only for a file that was not left there by a crash.
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(named(&new))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(named(&new))?;
        fs::rename(&new, to).map_err(named(to))?;
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(named(&self.path))
    }

    /// Renames what is there to `NAME.SUFFIX`.
    pub(super) fn set_aside(&self, suffix: &str) -> io::Result<()> {
        for file in [self.certificate(), self.key()] {
            let mut aside = file.clone().into_os_string();
            aside.push(suffix);
            match fs::rename(&file, &aside) {
                Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(named(&file)(fault)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Puts the path in front of what the system says: it never does.
pub(super) fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |fault| io::Error::new(fault.kind(), format!("{}: {fault}", path.display()))
}
