//! Floor 0: what the operator declared, proven usable.
//!
//! `Config::parse` turns the text of `proxy.toml` into a [`Config`], or into *all* its errors at once, each with
//! line, column, the offending text and the way out. This crate may not touch files, sockets, the environment or
//! the clock: what lies outside the text (environment variables, `*_file` secrets) comes through [`Lookup`].

mod check;
mod context;
mod fault;
mod model;
mod node;
mod pace;
mod parse;
mod reader;
mod render;
mod section;
mod shape;
mod source;
mod summary;
mod syntax;
mod value;
pub mod words;

pub use model::*;
pub use pace::Pace;
pub use render::{Severity, render_problems};
pub use source::{CertificateSource, address_of};

use std::path::Path;

/// What the text refers to but does not hold, supplied by the caller.
pub struct Lookup<'a> {
    /// The value of an environment variable, for `${NAME}`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The bytes of a file, for `*_file` keys.
    pub file: &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
    /// What is wrong with the files of a `[certificate.NAME]`.
    pub certificate: &'a dyn Fn(&CertificateFiles) -> Vec<FileFault>,
    /// What is wrong with a file of CAs that certificates of clients are held against.
    pub client_ca: &'a dyn Fn(&Path) -> Option<FileFault>,
    /// What is wrong with a file of CAs that a backend is believed by.
    pub backend_ca: &'a dyn Fn(&Path) -> Option<FileFault>,
    /// Why a program of the operator's cannot be run.
    pub program: &'a dyn Fn(&Path) -> Option<FileFault>,
}

impl Lookup<'static> {
    /// Sees nothing: no variable is set, no file can be read, and nobody looks at certificates and programs.
    #[must_use]
    pub fn blind() -> Self {
        Lookup {
            env: &|_| None,
            file: &|_| Err(std::io::ErrorKind::NotFound.into()),
            certificate: &|_| Vec::new(),
            client_ca: &|_| None,
            backend_ca: &|_| None,
            program: &|_| None,
        }
    }
}

/// What is wrong with a file that the text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    /// Which file.
    pub file: std::path::PathBuf,
    /// What is wrong with it.
    pub message: String,
    /// The way out.
    pub help: String,
}

/// A config and what `check` should say about it although it is usable.
#[derive(Debug)]
pub struct Parsed {
    /// The usable config.
    pub config: Config,
    /// Things that work but are probably not meant.
    pub warnings: Vec<Problem>,
    /// Files named by `*_file` keys: they are watched too.
    pub files: Vec<std::path::PathBuf>,
}

/// Where an edge keeps things, as far as its file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// `[edge] state_dir`.
    pub state_dir: Option<std::path::PathBuf>,
    /// `[admin] socket`.
    pub socket: Option<std::path::PathBuf>,
}

/// One thing wrong (or doubtful) in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one sentence.
    pub message: String,
    /// Byte range of the offending text; empty for "something is missing" (then it points at the table's header).
    pub span: std::ops::Range<usize>,
    /// Line of the span's start, from 1.
    pub line: usize,
    /// Column of the span's start in characters, from 1.
    pub column: usize,
    /// Short words under the underline.
    pub label: String,
    /// The way out: what to write instead.
    pub help: Option<String>,
}

/// All errors of one file. `Display` renders them for people, with the offending text underlined.
#[derive(Debug, Clone)]
pub struct ConfigErrors {
    /// Path as the user named it.
    pub file: String,
    /// The text, for rendering.
    pub text: String,
    /// In the order of the file. Never empty.
    pub problems: Vec<Problem>,
}

/// Every key of the language, with the table it stands in: `("service.NAME.health", "interval")`. The name of the
/// top table is empty.
pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    shape::ALL.iter().flat_map(|shape| shape.keys.iter().map(|key| (shape.place, *key)))
}
