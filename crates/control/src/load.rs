//! Reads `proxy.toml` and what it refers to. Start, reload and `relais check` all come through here, so that they agree.

use std::path::Path;

use relais_config::{Config, ConfigErrors, Lookup, Parsed};

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
    let text = read(path)?;
    let parsed = parse(&path.display().to_string(), &text).map_err(|errors| errors.to_string())?;
    Ok(Loaded { text, parsed })
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
    let env = |name: &str| std::env::var(name).ok();
    let file = |wanted: &Path| std::fs::read(wanted);
    Config::parse(name, text, &Lookup { env: &env, file: &file })
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    let way_out = match error.kind() {
        std::io::ErrorKind::NotFound => "write one, or name another with `--config FILE`",
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
        assert!(error.contains("--config FILE"), "{error}");
    }
}
