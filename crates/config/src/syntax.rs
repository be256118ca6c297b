//! Mistakes of TOML itself, told so that one slip does not hide the rest of the file.
//!
//! The TOML parser goes on after most mistakes, but some end its reading (a key without value) or swallow what
//! follows (an unclosed list). Such places are blanked, byte for byte, and the text is read again: the places of
//! everything else stay true. This room may not know the keys of the language.

use toml::de::{DeTable, DeValue, Error};

use crate::context::Span;
use crate::fault::Fault;

/// How often a text is read again after blanking. Each reading blanks at least one more line.
const READINGS: usize = 64;

/// A text whose syntax is whole, or was made whole by blanking.
pub(crate) struct Mended {
    /// The text to read; as long as the one given.
    pub(crate) text: String,
    /// The mistakes.
    pub(crate) faults: Vec<(Span, Fault)>,
    /// Places where what is read says nothing about what was meant.
    pub(crate) torn: Vec<Span>,
}

/// Finds the mistakes of TOML in a text.
pub(crate) fn mend(given: &str) -> Mended {
    let mut mended = Mended { text: given.to_owned(), faults: Vec::new(), torn: Vec::new() };
    for _ in 0..READINGS {
        let (tree, mut errors) = DeTable::parse_recoverable(&mended.text);
        errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        let Some(hole) = hole(given, &mended.text, tree.get_ref(), &errors) else {
            for error in &errors {
                mended.tell(given, error);
            }
            return mended;
        };
        drop(tree);
        mended.blank(hole);
    }
    mended
}

impl Mended {
    fn tell(&mut self, given: &str, error: &Error) {
        let (span, fault) = friendly(given, error);
        let line = line_around(given, span.start);
        // One line gives one mistake: the parser's further ones are mostly echoes of the first.
        if !self.torn.iter().any(|torn| torn.contains(&span.start) || *torn == line) {
            self.torn.push(line);
            self.faults.push((span, fault));
        }
    }

    fn blank(&mut self, hole: Hole) {
        let Hole { range, span, fault } = hole;
        let blanked: String = self.text[range.clone()]
            .bytes()
            .map(|byte| if byte == b'\n' || byte == b'\r' { char::from(byte) } else { ' ' })
            .collect();
        self.text.replace_range(range.clone(), &blanked);
        self.torn.push(range);
        self.faults.push((span, fault));
    }
}

/// A place that hides what follows it.
struct Hole {
    /// Whole lines, to be blanked.
    range: Span,
    /// What is underlined.
    span: Span,
    fault: Fault,
}

fn hole(given: &str, text: &str, tree: &DeTable<'_>, errors: &[Error]) -> Option<Hole> {
    let starting = |words: &str| errors.iter().find(|error| error.message().starts_with(words));
    let place = |error: &Error| error.span().map(|span| span.start);
    if let Some(at) = starting("key with no value").and_then(place) {
        return Some(bare_key(given, at));
    }
    if let Some(at) = starting("unclosed table").or_else(|| starting("unclosed array table")).and_then(place) {
        let span = trimmed(given, line_around(given, at));
        let end = next_line(given, span.end, |line| line.starts_with('['));
        let fault = Fault::new("this table header does not end").label("expected `]`");
        let fault = fault.help(format!("write `{}]`", short(given[span.clone()].trim_end_matches(']'))));
        return Some(Hole { range: line_around(given, span.start).start..end, span, fault });
    }
    let swallows =
        |error: &&Error| ["unclosed", "missing comma", "multi-line"].iter().any(|word| error.message().contains(word));
    errors.iter().find(swallows)?;
    let open = unclosed(text, tree)?;
    let range = line_around(given, open.start).start..next_line(given, open.start, starts_statement);
    // A text that does not end hides the bracket behind it: then it is the text that is told.
    let line = line_around(given, open.start);
    let cut = errors.iter().find(|error| {
        error.message().starts_with("invalid basic string")
            && place(error).is_some_and(|at| line.contains(&at) || at == line.end)
    });
    let (span, fault) = match cut {
        Some(error) => friendly(given, error),
        None => never_closed(given, &open),
    };
    Some(Hole { range, span, fault })
}

fn bare_key(given: &str, at: usize) -> Hole {
    let range = line_around(given, at);
    let span = trimmed(given, range.clone());
    let typed = &given[span.clone()];
    let fault = Fault::new(format!("`{}` has no value", short(typed))).label("expected `key = value`");
    let help = match typed.split_once(':') {
        Some((key, value)) => format!("write `{} = {}`", key.trim(), short(value.trim_matches(['=', ' ']))),
        None => "write `key = value`, `[table]`, or start the line with `#` to make it a comment".to_owned(),
    };
    Hole { range, span, fault: fault.help(help) }
}

fn never_closed(given: &str, open: &Span) -> (Span, Fault) {
    let (what, opening, close) = match &given[open.clone()] {
        text if text.starts_with('[') => ("list", 1, "]"),
        text if text.starts_with('{') => ("table", 1, "}"),
        text if text.starts_with("\"\"\"") => ("text", 3, "\"\"\""),
        _ => ("text", 3, "'''"),
    };
    let fault = Fault::new(format!("this {what} does not end")).label("begins here");
    (open.start..open.start + opening, fault.help(format!("close it with `{close}`")))
}

/// The first list, table or long text that is not closed.
fn unclosed(text: &str, tree: &DeTable<'_>) -> Option<Span> {
    let mut values: Vec<_> = tree.values().collect();
    values.sort_by_key(|value| value.span().start);
    values.into_iter().find_map(|value| {
        let open = text.get(value.span())?;
        match value.get_ref() {
            DeValue::Table(table) if !open.starts_with('{') => return unclosed(text, table),
            DeValue::Table(_) | DeValue::Array(_) if open.starts_with(['{', '[']) && !open.starts_with("[[") => {}
            DeValue::Array(list) if list.iter().all(|entry| entry.get_ref().is_array()) => {}
            DeValue::String(_) if open.starts_with("\"\"\"") || open.starts_with("'''") => {}
            _ => return None,
        }
        let (_, errors) = DeValue::parse_recoverable(open);
        let is_open = |error: &Error| error.message().contains("unclosed") || error.message().contains("multi-line");
        errors.iter().any(is_open).then(|| value.span())
    })
}

/// Words for people instead of the parser's own.
fn friendly(given: &str, error: &Error) -> (Span, Fault) {
    let at = error.span().unwrap_or(given.len()..given.len());
    let message = error.message();
    let typed = given.get(at.clone()).unwrap_or_default();
    let about = |words: &[&str]| words.iter().any(|word| message.starts_with(word));
    let quotes = |at: Span| {
        let fault = Fault::new("a text needs quotes").label("not a number, `true` or `false`");
        let help = format!("write `\"{}\"`", short(given[at.clone()].trim_matches(['"', '\''])));
        (at, fault.help(help))
    };
    if message == "duplicate key" {
        let fault = Fault::new(format!("`{}` is there twice", short(typed))).label("the second one");
        return (at, fault.help("a key or table may stand only once: keep one, or join the two"));
    }
    if about(&["string values must be quoted"]) && typed.is_empty() {
        let line = trimmed(given, line_around(given, at.start));
        let fault = Fault::new("a value is missing after `=`").label("no value");
        return (line, fault.help("write the value, or take the line out"));
    }
    if about(&["string values must be quoted"]) {
        return quotes(at);
    }
    if about(&["invalid basic string", "invalid literal string"]) {
        let quote = if message.contains("literal") { '\'' } else { '"' };
        let line = line_around(given, at.start.saturating_sub(1));
        let start = given[line.start..at.start].rfind(quote).map_or(at.start, |quote| line.start + quote);
        let fault = Fault::new("this text does not end").label("the closing quote is missing");
        return (start..at.end, fault.help(format!("close it with `{quote}` on the same line")));
    }
    if about(&["invalid boolean", "invalid float", "invalid integer", "invalid value"]) {
        return quotes(word_around(given, &at));
    }
    let (message, help) = if about(&["missing comma"]) {
        ("a `,` is missing".to_owned(), "write `,` between the entries")
    } else if about(&["missing escaped value", "too few unicode"]) {
        (
            "`\\` begins an escape that does not exist".to_owned(),
            "write `\\\\` for a backslash, or the text in single quotes",
        )
    } else if about(&["unexpected key or value"]) {
        ("more than one value on a line".to_owned(), "write one `key = value` on a line; texts stand in quotes")
    } else if about(&["invalid unquoted key", "unquoted keys cannot be empty"]) {
        ("not a key".to_owned(), "keys have letters, digits, `-` and `_`; others stand in quotes")
    } else if about(&["extra `=`"]) {
        ("one `=` too many".to_owned(), "write `key = value`")
    } else {
        (
            format!("not TOML: {}", message.replace(", expected nothing", "")),
            "a line is `key = value` or `[table]`; texts stand in quotes",
        )
    };
    (at, Fault::new(message).label("here").help(help))
}

/// A place widened to the word it is in.
fn word_around(text: &str, at: &Span) -> Span {
    let edge = |letter: char| letter.is_whitespace() || "=,[]{}#".contains(letter);
    let start = text[..at.start]
        .rfind(edge)
        .map_or(0, |before| before + text[before..].chars().next().map_or(1, char::len_utf8));
    let end = text[at.end..].find(edge).map_or(text.len(), |after| at.end + after);
    start..end
}

/// The line that holds a place, with its end.
fn line_around(text: &str, at: usize) -> Span {
    let at = text.floor_char_boundary(at.min(text.len()));
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1);
    start..end
}

/// A range without the spaces around and the comment behind.
fn trimmed(text: &str, range: Span) -> Span {
    let line = &text[range.clone()];
    let line = line.split_once(" #").map_or(line, |(before, _)| before);
    let start = range.start + (line.len() - line.trim_start().len());
    start..start + line.trim().len()
}

/// Start of the first line after `from` that is as wanted, or the end of the text.
fn next_line(text: &str, from: usize, wanted: impl Fn(&str) -> bool) -> usize {
    let mut at = line_around(text, from).end;
    while at < text.len() {
        let line = line_around(text, at);
        if wanted(text[line.clone()].trim()) {
            return at;
        }
        at = line.end;
    }
    text.len()
}

/// Whether a line looks like `key = value` or `[table]`, and not like an entry of a list.
fn starts_statement(line: &str) -> bool {
    let bare = |word: &str| {
        !word.is_empty() && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.\"'".contains(letter))
    };
    let header = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match (header, line.split_once('=')) {
        (Some((name, _)), _) => bare(name) && !name.starts_with(['"', '\'']),
        (None, Some((key, _))) => bare(key.trim()),
        (None, None) => false,
    }
}

/// A piece of the file, short enough for a message.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 60 { line.chars().take(57).chain("...".chars()).collect() } else { line.to_owned() }
}
