//! Reads `proxy.toml` and what it refers to. Start, reload and `relais check` all come through here, so that they
//! agree.

use std::cell::RefCell;
use std::path::Path;

use relais_config::{CertificateFiles, Config, ConfigErrors, FileFault, Lookup, Parsed, Places};

use crate::watch::{self, Change, Target};

/// A file as read and parsed.
#[derive(Debug)]
pub struct Loaded {
    /// The text.
    pub text: String,
    /// What it says.
    pub parsed: Parsed,
}

/// Reads and parses the file at `path`; blocks on the disk. `${NAME}` is looked up in the environment, `*_file` keys
/// on disk.
///
/// # Errors
/// The text to show to people: the file cannot be read (with the way out), or every error in it, rendered.
pub fn load(path: &Path) -> Result<Loaded, String> {
    load_with_parts(path).0
}

/// As [`load`], and believes certificates, CA files and programs to be good: for a start that does without what is not.
///
/// # Errors
/// As there.
pub fn load_past_certificates(path: &Path) -> Result<Loaded, String> {
    let text = read(path)?;
    let name = path.display().to_string();
    let parsed = parse_past_certificates(&name, &text).map_err(|errors| errors.to_string())?;
    Ok(Loaded { text, parsed })
}

/// As [`parse`], and believes every certificate, CA file and program to be good: for a text that was in force before.
///
/// # Errors
/// As there.
pub fn parse_past_certificates(name: &str, text: &str) -> Result<Parsed, ConfigErrors> {
    parse_with(name, text, &Lookup { file: &file, ..Lookup::blind() })
}

/// The same, with every `*_file` and certificate it wanted, as it was read: also those whose absence is the error.
pub(crate) fn load_with_parts(path: &Path) -> (Result<Loaded, String>, Vec<Target>) {
    let text = match read(path) {
        Ok(text) => text,
        Err(error) => return (Err(error), Vec::new()),
    };
    let parts = RefCell::new(Vec::new());
    let file = |wanted: &Path| {
        let read = std::fs::read(wanted);
        let in_force = read.as_ref().ok().map(|bytes| watch::hash(bytes));
        parts.borrow_mut().push(Target { path: wanted.to_path_buf(), kind: Change::Config, in_force });
        read
    };
    // Noted before it is read: what comes while it is looked at is seen as a change.
    let certificate = |files: &CertificateFiles| {
        let noted = [&files.cert, &files.key].map(|path| Target::now(path.clone(), Change::Certificates));
        parts.borrow_mut().extend(noted);
        relais_tls::faults_of_pair(files)
    };
    let client_ca = |ca: &Path| {
        parts.borrow_mut().push(Target::now(ca.to_path_buf(), Change::Certificates));
        relais_tls::fault_of_client_ca(ca)
    };
    let backend_ca = |ca: &Path| {
        parts.borrow_mut().push(Target::now(ca.to_path_buf(), Change::Certificates));
        relais_tls::upstream::fault_of_backend_ca(ca)
    };
    // One that can be run may be changed as often as it likes, and what is no file is not for reading.
    let program = |program: &Path| {
        let fault = fault_of_program(program)?;
        if program.exists() && !program.is_file() {
            return Some(fault);
        }
        parts.borrow_mut().push(Target::now(program.to_path_buf(), Change::Config));
        Some(fault)
    };
    let lookup = Lookup {
        env: &|_| None,
        file: &file,
        certificate: &certificate,
        client_ca: &client_ca,
        backend_ca: &backend_ca,
        program: &program,
    };
    let parsed = parse_with(&path.display().to_string(), &text, &lookup);
    let loaded = parsed.map(|parsed| Loaded { text, parsed }).map_err(|errors| errors.to_string());
    (loaded, parts.into_inner())
}

/// Reads the text of the file at `path`.
///
/// # Errors
/// Why it cannot be read, with the way out.
pub fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

/// Parses `text`, called `name` in messages; relative paths in it start at the folder of `name`.
///
/// # Errors
/// Every error in it.
pub fn parse(name: &str, text: &str) -> Result<Parsed, ConfigErrors> {
    parse_with(name, text, &named())
}

fn file(wanted: &Path) -> std::io::Result<Vec<u8>> {
    std::fs::read(wanted)
}

/// Looks at every file the text names.
fn named() -> Lookup<'static> {
    Lookup {
        file: &file,
        certificate: &relais_tls::faults_of_pair,
        client_ca: &relais_tls::fault_of_client_ca,
        backend_ca: &relais_tls::upstream::fault_of_backend_ca,
        program: &fault_of_program,
        ..Lookup::blind()
    }
}

fn fault_of_program(program: &Path) -> Option<FileFault> {
    let relais_program::Unusable { message, help } = relais_program::unusable(program)?;
    Some(FileFault { file: program.to_path_buf(), message, help })
}

/// Where the edge of the file at `path` keeps things, as far as the file says, whatever mistakes are in it.
///
/// # Errors
/// Why it cannot be read, with the way out.
pub fn places(path: &Path) -> Result<Places, String> {
    let text = read(path)?;
    let env = |name: &str| std::env::var(name).ok();
    Ok(Places::read(&path.display().to_string(), &text, &Lookup { env: &env, ..Lookup::blind() }))
}

fn parse_with(name: &str, text: &str, lookup: &Lookup<'_>) -> Result<Parsed, ConfigErrors> {
    let env = |name: &str| std::env::var(name).ok();
    Config::parse(name, text, &Lookup { env: &env, ..*lookup })
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    let way_out = match error.kind() {
        std::io::ErrorKind::NotFound => "write one there, or name another",
        std::io::ErrorKind::PermissionDenied => "give the user that runs relais the right to read it",
        std::io::ErrorKind::InvalidData => "save it as UTF-8 text",
        std::io::ErrorKind::IsADirectory => "name the file in it",
        _ => "check the disk it is on",
    };
    format!("cannot read {}: {error}\n  = help: {way_out}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_the_way_out() {
        let error = load(Path::new("/nonexistent/proxy.toml")).unwrap_err();
        assert!(error.contains("/nonexistent/proxy.toml"), "{error}");
        assert!(error.contains("write one there, or name another"), "{error}");
    }
}
