//! The embedded database, sled 0.34: the only file that names it. Touches its folder.
//!
//! It may panic or report damage on any call: both come out as a [`Fault`], and the caller then drops the engine. After one
//! failed write it refuses all others, so a failed engine is never used again.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::contents::Contents;
use crate::entry::{self, Key, Meta, Value};

/// An open database.
#[derive(Debug)]
pub(crate) struct Engine {
    db: sled::Db,
    /// Its data file. The database's own flush only starts the write-back; a power cut needs more.
    data: File,
    /// Where it puts what is larger than a quarter of a segment, a file each, and never flushes.
    blobs: PathBuf,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The system refused: full, read-only, forbidden, held by another process.
    System(String),
    /// The files are damaged, or the database tripped over them.
    Damaged(String),
}

impl Fault {
    pub(crate) fn words(&self) -> &str {
        match self {
            Fault::System(words) | Fault::Damaged(words) => words,
        }
    }
}

/// What was found in a database.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) contents: Contents,
    pub(crate) meta: Option<Meta>,
    /// Entries that failed their checksum or have an unknown version.
    pub(crate) skipped: u64,
    /// Where reading stopped, if it did: `contents` is what came before.
    pub(crate) stopped: Option<Fault>,
}

impl Engine {
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        // Keys are in it: nobody else may look, whatever the rights of the folder around it. The database makes its files
        // readable for all.
        let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
        guarded(|| {
            let db = sled::Config::new()
                .path(path)
                .mode(sled::Mode::LowSpace)
                .segment_size(64 * 1024)
                .cache_capacity(16 * 1024 * 1024)
                // We flush by ourselves; this is for its housekeeping.
                .flush_every_ms(Some(500))
                .open()?;
            let data = File::options().write(true).open(path.join("db"))?;
            Ok(Self { db, data, blobs: path.join("blobs") })
        })
    }

    /// Reads everything there is.
    pub(crate) fn read(&self) -> Found {
        let mut found = Found::default();
        let read = guarded(|| {
            for pair in self.db.iter() {
                let (key, bytes) = pair?;
                match entry::decode(&key, &bytes) {
                    Some((_, Value::Meta(meta))) => {
                        found.contents.admin_revision = meta.admin_revision;
                        found.meta = Some(meta);
                    }
                    Some((key, value)) => found.contents.insert(key, value),
                    None => found.skipped += 1,
                }
            }
            Ok(())
        });
        found.stopped = read.err();
        found
    }

    /// Writes all of it or nothing, and returns when it is on the disk. `None` removes.
    pub(crate) fn write(&self, changes: &[(Key, Option<Value>)]) -> Result<(), Fault> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            let name = entry::key_bytes(key).map_err(Fault::System)?;
            match value {
                Some(value) => batch.insert(name.as_slice(), entry::encode(&name, value).map_err(Fault::System)?),
                None => batch.remove(name),
            }
        }
        guarded(|| {
            self.db.apply_batch(batch)?;
            self.db.flush()?;
            self.data.sync_data()?;
            Ok(self.sync_blobs()?)
        })
    }

    /// Ordinarily there are none: records are small.
    fn sync_blobs(&self) -> io::Result<()> {
        let mut any = false;
        for entry in fs::read_dir(&self.blobs)? {
            match File::open(entry?.path()).and_then(|blob| blob.sync_all()) {
                // It may be removed meanwhile.
                Err(fault) if fault.kind() != ErrorKind::NotFound => return Err(fault),
                _ => any = true,
            }
        }
        if any { File::open(&self.blobs)?.sync_all() } else { Ok(()) }
    }

    /// Closes it. It may trip here as well.
    pub(crate) fn close(self) {
        if let Err(fault) = guarded(move || {
            drop(self);
            Ok(())
        }) {
            tracing::debug!("closing the store: {}", fault.words());
        }
    }
}

fn guarded<T>(call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(fault)) => Err(fault_of(fault)),
        Err(panic) => Err(Fault::Damaged(format!("the database tripped: {}", words_of(panic.as_ref())))),
    }
}

fn fault_of(fault: sled::Error) -> Fault {
    match fault {
        sled::Error::Io(fault) => fault_of_system(&fault),
        fault => Fault::Damaged(fault.to_string()),
    }
}

/// What an operation on a file of the database met with.
pub(crate) fn fault_of_system(fault: &io::Error) -> Fault {
    let words = fault.to_string();
    if is_refusal(fault) { Fault::System(words) } else { Fault::Damaged(words) }
}

/// Whether another file in the same place would be refused as well. All else (cut short, senseless, gone, a bad sector) is
/// about this file.
fn is_refusal(fault: &io::Error) -> bool {
    use ErrorKind::{
        NotADirectory, OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, ResourceBusy, StorageFull,
    };
    const TOO_MANY_FILES: [i32; 2] = [23, 24];
    let refusals =
        [NotADirectory, OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, ResourceBusy, StorageFull];
    refusals.contains(&fault.kind())
        || fault.raw_os_error().is_some_and(|code| TOO_MANY_FILES.contains(&code))
        // The database's own words when another program has it open.
        || fault.to_string().starts_with("could not acquire lock")
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it gave no reason".to_string())
}
