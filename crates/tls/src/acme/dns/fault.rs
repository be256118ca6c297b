//! What can go wrong with a record, said to the operator. Touches nothing.

/// Why a record could not be written, seen or removed. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsFault {
    /// What is wrong, in one sentence; what a provider said of it is quoted.
    pub message: String,
    /// The way out.
    pub help: String,
}

impl DnsFault {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl std::fmt::Display for DnsFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for DnsFault {}

/// What somebody else said, short enough for one line, and without what we must not repeat.
pub(super) fn quoted(said: &str, secrets: &[&str]) -> String {
    /// Enough for a reason, too little for a page of HTML.
    const LONGEST: usize = 300;
    let mut said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    // A short one could be part of any word, and is no secret that was worth the name.
    for secret in secrets.iter().filter(|secret| secret.len() >= 4) {
        said = said.replace(*secret, "***");
    }
    match said.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("\"{}...\"", &said[..end]),
        None => format!("\"{said}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_short_and_keeps_no_secret() {
        assert_eq!(quoted("bad\n  token t0ken\u{7}!", &["t0ken", "a"]), "\"bad token ***\u{7}!\"");
        let long = quoted(&"é".repeat(1000), &[]);
        assert_eq!(long.chars().count(), 305);
        assert!(long.ends_with("...\""));
    }
}
