//! How the store opens: rung by rung, from "as it was left" down to "in memory", never failing.
//!
//! 1. Open and read everything. 2. The files are damaged: take the snapshots away, which the database can do without, and
//!    open again. 3. Set the whole database aside under a dated name and start a new one with what could be read.
//! 4. The directory cannot be used at all: memory. The operator's words come from `admin.json` where it knows better.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use crate::contents::Contents;
use crate::disk::{self, Folder, LockFault};
use crate::engine::{Engine, Fault, Found};
use crate::last_good;
use crate::mirror::Mirror;
use crate::state::Mode;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) contents: Contents,
    pub(crate) mode: Mode,
    /// What happened, in words; empty when nothing did.
    pub(crate) detail: String,
    pub(crate) skipped: u64,
    /// The database; `None` in memory mode.
    pub(crate) engine: Option<Engine>,
    /// Held as long as the directory is ours.
    pub(crate) lock: Option<File>,
    /// Whether the database knew what it should hold: one that was ever written does.
    pub(crate) has_meta: bool,
    /// Whether the disk lacks what `contents` has.
    pub(crate) incomplete: bool,
}

/// Climbs down until something holds.
pub(crate) fn open(folder: &Folder) -> Opened {
    let lock = folder.lock(Duration::from_secs(1));
    let mirror = Mirror::read(folder);
    let mut opened = match lock {
        Ok(lock) => match open_database(folder) {
            Ok(opened) => Opened { lock: Some(lock), ..opened },
            Err(fault) => Opened { lock: Some(lock), ..in_memory(folder, fault.words()) },
        },
        Err(LockFault::Held) => in_memory(folder, "another process uses this directory"),
        Err(LockFault::Unwritable(fault)) => in_memory(folder, &fault.to_string()),
    };
    consult(&mut opened, mirror);
    match last_good::read(folder) {
        Ok(text) => opened.contents.config = text,
        Err(fault) => note(&mut opened, &format!("last-good.toml could not be read ({fault})")),
    }
    opened
}

/// The first three rungs. `Err`: the directory cannot be used.
pub(crate) fn open_database(folder: &Folder) -> Result<Opened, Fault> {
    let mut salvaged = Found::default();
    let why = match attempt(folder, &mut salvaged) {
        Ok(engine) => return Ok(complete(engine, salvaged, Mode::Ok, String::new())),
        Err(Fault::System(words)) => return Err(Fault::System(words)),
        Err(Fault::Damaged(words)) => words,
    };
    if take_snapshots_away(&folder.database()).is_ok_and(|taken| taken > 0) {
        let mut second = Found::default();
        match attempt(folder, &mut second) {
            Ok(engine) => {
                let detail = format!("damaged ({why}); opened again without its snapshot");
                return Ok(complete(engine, second, Mode::Healed, detail));
            }
            Err(_) if second.contents.entries() > salvaged.contents.entries() => salvaged = second,
            Err(_) => {}
        }
    }
    let aside = folder.set_database_aside().map_err(|fault| Fault::System(fault.to_string()))?;
    let engine = Engine::open(&folder.database())?;
    let kept = salvaged.contents.entries();
    let of = salvaged.meta.take().map(|meta| format!(" of {}", meta.entries)).unwrap_or_default();
    let detail =
        format!("damaged ({why}); set aside as {}; {kept}{of} entries could be read and were kept", aside.display());
    Ok(Opened { incomplete: true, ..complete(engine, salvaged, Mode::Fresh, detail) })
}

/// Opens and reads all. What was read before a failure is left in `found`.
fn attempt(folder: &Folder, found: &mut Found) -> Result<Engine, Fault> {
    let engine = Engine::open(&folder.database())?;
    *found = engine.read();
    match found.stopped.take() {
        None => Ok(engine),
        Some(fault) => {
            engine.close();
            Err(fault)
        }
    }
}

/// Compares what was read with what the database said it had.
fn complete(engine: Engine, found: Found, mut mode: Mode, mut detail: String) -> Opened {
    let Found { mut contents, meta, skipped, .. } = found;
    let has_meta = meta.is_some();
    let (read, meta) = (contents.entries(), meta.unwrap_or_default());
    contents.admin_revision = contents.admin_revision.max(meta.admin_revision);
    let lost = meta.entries.saturating_sub(read);
    if lost > 0 || skipped > 0 {
        mode = if mode == Mode::Ok { Mode::Healed } else { mode };
        let words =
            format!("{lost} of {} entries were lost to damage, {skipped} could not be read", meta.entries.max(read));
        detail = if detail.is_empty() { words } else { format!("{detail}; {words}") };
    }
    Opened { contents, mode, detail, skipped, engine: Some(engine), lock: None, has_meta, incomplete: false }
}

fn in_memory(folder: &Folder, why: &str) -> Opened {
    let detail =
        format!("the store in {} cannot be used: {why}; changes are lost when relais stops", folder.path.display());
    let (contents, skipped) = read_copy(folder).map(|found| (found.contents, found.skipped)).unwrap_or_default();
    Opened {
        contents,
        mode: Mode::Memory,
        detail,
        skipped,
        engine: None,
        lock: None,
        has_meta: false,
        incomplete: true,
    }
}

/// A database that cannot be written may still be read: from a copy in memory. `None`: not even that.
fn read_copy(folder: &Folder) -> Option<Found> {
    let name = format!("relais-store-{}", std::process::id());
    let places = [Path::new("/dev/shm").join(&name), std::env::temp_dir().join(&name)];
    // It may hold secrets: nobody else may look.
    let copy = places.into_iter().find(|copy| fs::DirBuilder::new().mode(0o700).create(copy).is_ok())?;
    let database = copy.join("store");
    let found = disk::copy_folder(&folder.database(), &database).ok().and_then(|()| {
        let engine = Engine::open(&database).ok()?;
        let found = engine.read();
        engine.close();
        Some(found)
    });
    if let Err(fault) = fs::remove_dir_all(&copy) {
        tracing::warn!(path = %copy.display(), "a copy of the store cannot be removed: {fault}");
    }
    found
}

/// Moves `snap.*` out of the database's sight; one damaged one is kept for whoever wants to know.
fn take_snapshots_away(database: &Path) -> io::Result<usize> {
    let mut taken = 0;
    for entry in fs::read_dir(database)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b"snap.") {
            fs::rename(entry.path(), database.join("damaged-snapshot"))?;
            taken += 1;
        }
    }
    Ok(taken)
}

/// Takes the operator's words from the mirror where the database does not know better. The database is written first, so
/// a mirror that is newer, or of the same revision with other words, means that the database lost some.
fn consult(opened: &mut Opened, mirror: io::Result<Option<Mirror>>) {
    let mirror = match mirror {
        Ok(Some(mirror)) => mirror,
        Ok(None) => return opened.incomplete = true,
        Err(fault) => {
            opened.incomplete = true;
            return note(opened, &format!("admin.json could not be read ({fault}) and is written anew"));
        }
    };
    if opened.engine.is_some() && !opened.has_meta && opened.mode != Mode::Fresh {
        opened.mode = Mode::Fresh;
        note(opened, "the database was gone or empty; what it remembered is lost");
    }
    let contents = &mut opened.contents;
    opened.incomplete |= mirror.revision != contents.admin_revision;
    if mirror.revision < contents.admin_revision {
        return;
    }
    contents.admin_revision = mirror.revision;
    if mirror.words != contents.admin() {
        let count = mirror.words.len();
        contents.replace_admin(mirror.words, mirror.revision);
        opened.incomplete = true;
        if opened.mode == Mode::Ok {
            opened.mode = Mode::Healed;
        }
        note(opened, &format!("the operator's words ({count}) were taken from admin.json"));
    }
}

fn note(opened: &mut Opened, words: &str) {
    let separator = if opened.detail.is_empty() { "" } else { "; " };
    opened.detail = format!("{}{separator}{words}", opened.detail);
}
