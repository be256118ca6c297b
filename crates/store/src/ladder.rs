//! How the store opens: from "as it was left" down to "in memory", never failing.
//!
//! Every start reads what the last one left (see `reading`), writes all of it to a new database, a generation, and goes on in
//! that one: a database that was damaged may open without a word and lose what is written to it later, so none is ever written
//! by two processes. The rungs:
//! 1. All is there. 2. Some is damaged: what could be read is kept, the damaged database is set aside under a dated name.
//! 3. Nothing could be read: likewise, and the store starts empty. 4. The directory cannot be used: memory, with what can be
//!    read. The operator's words come from `admin.json` where it knows better, certificates and accounts from `certs/`.

use std::fs::{self, File};
use std::path::PathBuf;

use crate::contents::Contents;
use crate::disk::{Folder, LOCK_PATIENCE};
use crate::engine::{self, Engine, Fault};
use crate::entry::{Key, Value};
use crate::last_good;
use crate::mirror::Mirror;
use crate::reading::{self, Reading};
use crate::shelf::Shelf;
use crate::state::Mode;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) contents: Contents,
    pub(crate) mode: Mode,
    /// What happened, in words; empty when nothing did.
    pub(crate) detail: String,
    pub(crate) skipped: u64,
    /// Whether `admin.json` lacks what `contents` has.
    pub(crate) is_mirror_stale: bool,
    /// What `certs/` has not, or not so.
    pub(crate) stale_on_shelf: Vec<Key>,
    /// The database, holding all of `contents`; `None` in memory mode.
    pub(crate) engine: Option<Engine>,
    /// Held as long as the directory is ours.
    pub(crate) lock: Option<File>,
    /// What was read, until a new database is started; `None`: none can be.
    rest: Option<Reading>,
}

/// Reads what is there, and climbs down until something holds. Writes nothing yet: see [`settle`].
pub(crate) fn read(folder: &Folder) -> Opened {
    let locked = folder.lock(LOCK_PATIENCE);
    let (lock, mut refusal) = locked.map_or_else(|why| (None, Some(why.words())), |lock| (Some(lock), None));
    let mut reading = reading::read(folder, lock.is_some()).unwrap_or_else(|fault| {
        refusal.get_or_insert(fault.words().to_string());
        Reading::default()
    });
    let mut opened = remember(folder, &mut reading);
    if let Some(why) = &refusal {
        give_up(&mut opened, folder, why);
    }
    Opened { lock, rest: refusal.is_none().then_some(reading), ..opened }
}

/// Starts the database of this process with `contents`, and clears away what was read.
pub(crate) fn settle(opened: &mut Opened, folder: &Folder, contents: &Contents) {
    let Some(mut reading) = opened.rest.take() else { return };
    // Two databases at once would take twice the memory.
    reading.copy = None;
    match start(folder, contents, &reading.sick) {
        Ok((engine, aside)) => {
            opened.engine = Some(engine);
            aside.iter().for_each(|words| note(opened, words));
        }
        Err(fault) => give_up(opened, folder, fault.words()),
    }
}

fn give_up(opened: &mut Opened, folder: &Folder, why: &str) {
    opened.mode = Mode::Memory;
    let path = folder.path.display();
    note(opened, &format!("the store in {path} cannot be used: {why}; changes are lost when relais stops"));
}

/// Puts together what the database, `admin.json` and `last-good.toml` hold.
fn remember(folder: &Folder, reading: &mut Reading) -> Opened {
    let mut opened = Opened {
        contents: std::mem::take(&mut reading.found.contents),
        mode: Mode::Ok,
        detail: String::new(),
        skipped: reading.found.skipped,
        is_mirror_stale: true,
        stale_on_shelf: Vec::new(),
        engine: None,
        lock: None,
        rest: None,
    };
    if !reading.sick.is_empty() {
        opened.mode = if reading.is_whole || reading.found.meta.is_some() { Mode::Healed } else { Mode::Fresh };
        let of = reading.found.meta.map(|meta| format!(" of {}", meta.entries)).unwrap_or_default();
        let kept = opened.contents.entries();
        note(&mut opened, &format!("{kept}{of} entries could be read and were kept"));
    }
    match Mirror::read(folder) {
        Ok(Some(mirror)) => consult(&mut opened, mirror, reading),
        Ok(None) => {}
        Err(fault) => note(&mut opened, &format!("admin.json could not be read ({fault}) and is written anew")),
    }
    consult_shelf(&mut opened, &folder.shelf());
    match last_good::read(folder) {
        Ok(text) => opened.contents.config = text,
        Err(fault) => note(&mut opened, &format!("last-good.toml could not be read ({fault})")),
    }
    opened
}

/// Takes the operator's words from the mirror where the database does not know better. The database is written first, so
/// a mirror that is newer, or of the same revision with other words, means that the database lost some.
fn consult(opened: &mut Opened, mirror: Mirror, reading: &Reading) {
    if !reading.is_whole && reading.sick.is_empty() {
        opened.mode = Mode::Fresh;
        note(opened, "the database was gone or empty; what it remembered is lost");
    }
    let contents = &mut opened.contents;
    opened.is_mirror_stale = mirror.revision != contents.admin_revision;
    if mirror.revision < contents.admin_revision {
        return;
    }
    contents.admin_revision = mirror.revision;
    if mirror.words != contents.admin() {
        let count = mirror.words.len();
        contents.replace_admin(mirror.words, mirror.revision);
        opened.mode = if opened.mode == Mode::Ok { Mode::Healed } else { opened.mode };
        note(opened, &format!("the operator's words ({count}) were taken from admin.json"));
    }
}

/// Takes certificates and accounts from their files where the database does not have them, or older ones.
fn consult_shelf(opened: &mut Opened, shelf: &Shelf) {
    let mut found = shelf.read();
    let damaged = std::mem::take(&mut found.damaged);
    let (stale, taken) = found.reconcile(&mut opened.contents);
    if taken > 0 {
        opened.mode = if opened.mode == Mode::Ok { Mode::Healed } else { opened.mode };
        note(opened, &format!("{taken} certificates and accounts were taken from certs/"));
    }
    for what in damaged {
        note(opened, &format!("cannot be used: {what}"));
    }
    if !stale.is_empty() {
        // Said where it is odd alone: a crash between the two copies leaves one.
        tracing::warn!("{} certificates and accounts are written to certs/ anew", stale.len());
    }
    opened.stale_on_shelf = stale;
}

/// A new generation that holds all of this, and the only one from now on; those that are sick are set aside, and the words
/// say where. `Err`: the system refuses, and everything is as before.
pub(crate) fn start(
    folder: &Folder,
    contents: &Contents,
    sick: &[(PathBuf, String)],
) -> Result<(Engine, Vec<String>), Fault> {
    let path = folder.next_generation();
    let started = Engine::open(&path).and_then(|engine| {
        let keys = contents.keys().into_iter().chain([Key::Meta]);
        let all: Vec<(Key, Option<Value>)> = keys.map(|key| (key.clone(), contents.get(&key))).collect();
        let named = || folder.sync_names(&path).map_err(|fault| engine::fault_of_system(&fault));
        // Its names must be on the disk before the old one goes.
        match engine.write(&all).and_then(|()| named()) {
            Ok(()) => Ok(engine),
            Err(fault) => {
                engine.close();
                Err(fault)
            }
        }
    });
    let engine = started.inspect_err(|_| {
        // Best effort: an empty one is passed over when reading.
        let _ = fs::remove_dir_all(&path);
    })?;
    let aside = |(old, why): &(PathBuf, String)| match folder.set_aside(old) {
        Ok(aside) => format!("damaged ({why}) and set aside as {}", aside.display()),
        Err(fault) => format!("damaged ({why}) and removed, because it cannot be set aside: {fault}"),
    };
    let words = sick.iter().map(aside).collect();
    folder.keep_only(&path);
    Ok((engine, words))
}

fn note(opened: &mut Opened, words: &str) {
    let separator = if opened.detail.is_empty() { "" } else { "; " };
    opened.detail = format!("{}{separator}{words}", opened.detail);
}
