//! What the databases in the directory hold. They are read from copies: opening one changes its files, and one that is
//! damaged may lose by it what could still be read.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::disk::Folder;
use crate::engine::{self, Engine, Fault, Found};

/// What the generations hold.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) found: Found,
    /// Whether it comes from one with nothing missing.
    pub(crate) is_whole: bool,
    /// Damaged ones, and why.
    pub(crate) sick: Vec<(PathBuf, String)>,
    /// What it was read from, gone with this: who waits for what was read need not wait for that.
    pub(crate) copy: Option<Copy>,
}

/// Reads the newest generation that is whole, else the best there is. `is_ours`: whether the directory may be written.
/// `Err`: the system refuses.
pub(crate) fn read(folder: &Folder, is_ours: bool) -> Result<Reading, Fault> {
    let mut reading = Reading::default();
    for path in folder.generations() {
        // Its place is needed for the next one.
        reading.copy = None;
        let (found, copy) = read_one(folder, is_ours, &path)?;
        reading.copy = copy;
        match shortfall(&found) {
            // Made, and killed before its first batch: the one before it holds everything.
            None if found.meta.is_none() => {}
            None => {
                reading.found = found;
                reading.is_whole = true;
                break;
            }
            Some(why) => {
                reading.sick.push((path, why));
                if found.contents.entries() >= reading.found.contents.entries() {
                    reading.found = found;
                }
            }
        }
    }
    Ok(reading)
}

fn read_one(folder: &Folder, is_ours: bool, path: &Path) -> Result<(Found, Option<Copy>), Fault> {
    let opened = take(path).map_err(|fault| engine::fault_of_system(&fault)).and_then(|files| {
        let scratch = Scratch::make(folder, is_ours, &files).map_err(|fault| engine::fault_of_system(&fault))?;
        let engine = Engine::open(&scratch.path)?;
        Ok((engine.read(), Some(Copy { engine: Some(engine), _scratch: scratch })))
    });
    match opened {
        Err(Fault::System(why)) => Err(Fault::System(why)),
        Err(fault) => Ok((Found { stopped: Some(fault), ..Found::default() }, None)),
        Ok(found) => Ok(found),
    }
}

/// Compares what was read with what the database says it has. `None`: nothing is missing.
fn shortfall(found: &Found) -> Option<String> {
    let (read, skipped) = (found.contents.entries(), found.skipped);
    match (&found.stopped, found.meta) {
        (Some(fault), _) => Some(fault.words().to_string()),
        (None, None) if read == 0 && skipped == 0 => None,
        (None, None) => Some("it lacks its own description".to_string()),
        (None, Some(meta)) if read < meta.entries || skipped > 0 => {
            let gone = meta.entries.saturating_sub(read);
            Some(format!("{gone} of {} entries are gone, {skipped} cannot be read", meta.entries))
        }
        (None, Some(_)) => None,
    }
}

/// The files of a database, in memory: some hundred kilobytes.
struct Files {
    here: Vec<(OsString, Vec<u8>)>,
    folders: Vec<(OsString, Files)>,
}

fn take(path: &Path) -> io::Result<Files> {
    let mut files = Files { here: Vec::new(), folders: Vec::new() };
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.folders.push((entry.file_name(), take(&entry.path())?));
        } else {
            files.here.push((entry.file_name(), fs::read(entry.path())?));
        }
    }
    Ok(files)
}

/// An open copy.
#[derive(Debug)]
pub(crate) struct Copy {
    engine: Option<Engine>,
    _scratch: Scratch,
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
    }
}

/// A copy to read from, gone when dropped.
#[derive(Debug)]
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// In the directory when it is ours, else in memory or among temporary files.
    fn make(folder: &Folder, is_ours: bool, files: &Files) -> io::Result<Self> {
        let mut last = io::Error::other("there is no place for a copy");
        if is_ours {
            let path = folder.scratch();
            // What a killed start left there.
            let cleared = if path.exists() { fs::remove_dir_all(&path) } else { Ok(()) };
            match cleared.and_then(|()| put(files, &path)) {
                Ok(()) => return Ok(Self { path }),
                Err(fault) => last = fault,
            }
        }
        for place in [Path::new("/dev/shm").to_path_buf(), std::env::temp_dir()] {
            // Several stores may live in one process.
            let name = |turn: u32| place.join(format!("relais-reading-{}-{turn}", std::process::id()));
            let Some(path) = (0..100).map(name).find(|path| !path.exists()) else { continue };
            match put(files, &path) {
                Ok(()) => return Ok(Self { path }),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }
}

/// Makes the folder with its files; leaves nothing behind when that fails.
fn put(files: &Files, path: &Path) -> io::Result<()> {
    // It may hold secrets: nobody else may look.
    fs::DirBuilder::new().mode(0o700).create(path)?;
    let files_put = files.here.iter().try_for_each(|(name, bytes)| fs::write(path.join(name), bytes));
    let all_put =
        files_put.and_then(|()| files.folders.iter().try_for_each(|(name, inner)| put(inner, &path.join(name))));
    all_put.inspect_err(|_| drop(Scratch { path: path.to_path_buf() }))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(fault) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), "a copy of the store cannot be removed: {fault}");
        }
    }
}
