//! `--name value` pairs of the command line. Knows no names.

use std::collections::HashMap;
use std::str::FromStr;

/// What everything here ends with; whoever started it reads the text.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The pairs.
pub(crate) struct Args(HashMap<String, String>);

impl Args {
    pub(crate) fn new(words: &[String]) -> Self {
        let pair = |pair: &[String]| Some((pair[0].strip_prefix("--")?.to_owned(), pair[1].clone()));
        Self(words.windows(2).filter_map(pair).collect())
    }

    pub(crate) fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).map_or_else(|| default.to_owned(), Clone::clone)
    }

    /// The value, or the default when it was not given.
    pub(crate) fn get<T: FromStr>(&self, name: &str, default: T) -> Outcome<T> {
        match self.0.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("--{name} {text}: not understood").into()),
        }
    }

    /// The numbers of a list with commas; empty when it was not given.
    pub(crate) fn list<T: FromStr>(&self, name: &str) -> Vec<T> {
        self.text(name, "").split(',').filter_map(|word| word.parse().ok()).collect()
    }
}
