//! `admin.json`: the operator's words once more, beside the database. A drain must not be forgotten because a database
//! was damaged. Touches that file alone.

use std::io;

use relais_core::AdminRecord;
use serde::{Deserialize, Serialize};

use crate::disk::Folder;

const VERSION: u32 = 1;

/// The file as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mirror {
    version: u32,
    /// See [`crate::entry::Meta::admin_revision`].
    pub(crate) revision: u64,
    pub(crate) words: Vec<AdminRecord>,
}

impl Mirror {
    pub(crate) fn new(revision: u64, words: Vec<AdminRecord>) -> Self {
        Self { version: VERSION, revision, words }
    }

    /// What the file holds. `None`: there is none.
    ///
    /// # Errors
    /// It is there and cannot be read: damaged, or of another version.
    pub(crate) fn read(folder: &Folder) -> io::Result<Option<Self>> {
        let bytes = match std::fs::read(folder.mirror()) {
            Ok(bytes) => bytes,
            Err(fault) if matches!(fault.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(fault) => return Err(fault),
        };
        let mirror: Self = serde_json::from_slice(&bytes)?;
        if mirror.version == VERSION { Ok(Some(mirror)) } else { Err(io::Error::other("written by another version")) }
    }

    pub(crate) fn write(&self, folder: &Folder) -> io::Result<()> {
        folder.replace(&folder.mirror(), &serde_json::to_vec_pretty(self)?)
    }
}
