//! The language as users meet it: what files mean, and what relais says about mistakes in them.
//!
//! Everything here goes through `Config::parse`; nothing is private. What lies outside the text is made up below.

/// A snapshot without the expression that made it: the texts are long enough.
macro_rules! snapshot {
    ($text:expr) => {
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!($text) })
    };
}

mod acme;
mod contract;
mod keys;
mod mistakes;
mod mutation;
mod reference;
mod summary;
mod values;
mod warnings;

use std::io::{Error, ErrorKind};
use std::path::Path;

use relais_config::{Action, Config, ConfigErrors, Forward, Lookup, Parsed, Service, Severity, render_problems};

/// The environment and the files of the tests.
fn outside<T>(read: impl FnOnce(&Lookup<'_>) -> T) -> T {
    let env = |name: &str| match name {
        "PORT" => Some("8080".to_owned()),
        "SECRET" => Some("from-the-environment".to_owned()),
        "EMPTY" => Some(String::new()),
        "RELAIS_COOKIE_KEY" => Some("a key from the environment".to_owned()),
        "DOLLAR" => Some("${PORT}".to_owned()),
        _ => None,
    };
    let file = |path: &Path| match path.to_str() {
        Some("/run/secrets/token" | "/etc/relais/secrets/api-token" | "/etc/relais/secrets/canary") => {
            Ok(b"Bearer abc\n".to_vec())
        }
        Some(
            "/etc/relais/secrets/tsig"
            | "/etc/relais/secrets/eab"
            | "/etc/relais/secrets/ovh-application"
            | "/etc/relais/secrets/ovh-consumer"
            | "/etc/relais/secrets/webhook",
        ) => Ok(b" c2VjcmV0\n\n".to_vec()),
        Some("/run/secrets/crlf") => Ok(b"Bearer abc\r\n".to_vec()),
        Some("/run/secrets/two-lines") => Ok(b"Bearer\nabc\n".to_vec()),
        Some("/run/secrets/bytes") => Ok(vec![0xff, 0xfe, b'\n']),
        Some("/run/secrets/short") => Ok(b"short\n".to_vec()),
        Some("/run/secrets/cookie" | "/etc/relais/secrets/cookie") => Ok(b"0123456789abcdef\n".to_vec()),
        Some("/etc/relais/pages/closed.html") => Ok(b"<p>closed\n".to_vec()),
        Some("/root/secret") => Err(Error::from(ErrorKind::PermissionDenied)),
        _ => Err(Error::from(ErrorKind::NotFound)),
    };
    read(&Lookup { env: &env, file: &file, ..Lookup::blind() })
}

/// Parses a text as `/etc/relais/proxy.toml`.
fn parse(text: &str) -> Result<Parsed, ConfigErrors> {
    outside(|lookup| Config::parse("/etc/relais/proxy.toml", text, lookup))
}

/// The config of a text without mistakes.
fn config(text: &str) -> Config {
    match parse(text) {
        Ok(parsed) => parsed.config,
        Err(errors) => panic!("{errors}"),
    }
}

/// What is said about a text with mistakes.
fn errors(text: &str) -> String {
    match parse(text) {
        Ok(_) => panic!("no mistake was found in:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

/// The first lines of each error: `LINE:COLUMN message`.
fn messages(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => panic!("no mistake was found in:\n{text}"),
        Err(errors) => errors.problems.iter().map(|at| format!("{}:{} {}", at.line, at.column, at.message)).collect(),
    }
}

/// What is said about a usable text.
fn warnings(text: &str) -> String {
    match parse(text) {
        Ok(parsed) => render_problems("proxy.toml", text, &parsed.warnings, Severity::Warning, false),
        Err(errors) => panic!("{errors}"),
    }
}

/// A file with one service, and further lines in it.
fn with(lines: &str) -> String {
    format!("[service.api]\nhosts = [\"api.test\"]\nbackends = [\"10.0.0.1:8080\"]\n{lines}\n")
}

/// The service of [`with`].
fn service(lines: &str) -> Service {
    (*config(&with(lines)).services[0]).clone()
}

/// What the service of [`with`] does.
fn forward(lines: &str) -> Forward {
    match service(lines).action {
        Action::Forward(forward) => *forward,
        other => panic!("{other:?}"),
    }
}
