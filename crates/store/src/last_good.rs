//! `last-good.toml`: the text of the config that was applied last. Touches that file alone.
//!
//! A file of its own and not an entry of the database: a config is larger than what the database keeps in its data file, and
//! people may want to read it. Its last line is a checksum, so that a text with a flipped bit is never taken for a config.

use std::io;

use relais_core::hash;

use crate::disk::Folder;

const LAST_LINE: &str = "\n# relais wrote this file; checksum of all above: ";

/// The text. `None`: there is none.
///
/// # Errors
/// It is there and cannot be read, or its checksum is wrong.
pub(crate) fn read(folder: &Folder) -> io::Result<Option<String>> {
    let text = match std::fs::read_to_string(folder.last_good()) {
        Ok(text) => text,
        Err(fault) if matches!(fault.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(fault) => return Err(fault),
    };
    match text.rsplit_once(LAST_LINE) {
        Some((text, sum)) if sum == checksum(text) => Ok(Some(text.to_string())),
        _ => Err(io::Error::other("its checksum is wrong")),
    }
}

pub(crate) fn write(folder: &Folder, text: &str) -> io::Result<()> {
    folder.replace(&folder.last_good(), format!("{text}{LAST_LINE}{}", checksum(text)).as_bytes())
}

fn checksum(text: &str) -> String {
    format!("{:016x}\n", hash::stable(&[text.as_bytes()]))
}
