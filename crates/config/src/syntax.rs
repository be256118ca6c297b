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
        let Some(hole) = errors.iter().find_map(|error| hole(given, &mended.text, tree.get_ref(), error)) else {
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
        let at = error.span().unwrap_or(given.len()..given.len());
        let (span, fault) = friendly(given, error.message(), at);
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

fn hole(given: &str, text: &str, tree: &DeTable<'_>, error: &Error) -> Option<Hole> {
    let at = error.span()?.start;
    let message = error.message();
    if message.starts_with("key with no value") {
        let range = line_around(given, at);
        let span = trimmed(given, range.clone());
        let typed = &given[span.clone()];
        let fault = Fault::new(format!("`{}` has no value", short(typed))).label("expected `key = value`");
        let fault = match typed.split_once(':') {
            Some((key, value)) => fault.help(format!("write `{} = {}`", key.trim(), value.trim_matches(['=', ' ']))),
            None => fault.help("write `key = value`, `[table]`, or start the line with `#` to make it a comment"),
        };
        return Some(Hole { range, span, fault });
    }
    if message.starts_with("unclosed table") || message.starts_with("unclosed array of tables") {
        let span = trimmed(given, line_around(given, at));
        let end = next_line(given, span.end, |line| line.starts_with('['));
        let fault = Fault::new("this table header does not end").label("expected `]`");
        let fault = fault.help(format!("write `{}]`", short(given[span.clone()].trim_end_matches(']'))));
        return Some(Hole { range: line_around(given, span.start).start..end, span, fault });
    }
    let open = unclosed(text, tree, at).filter(|_| {
        message.starts_with("unclosed") || message.starts_with("missing comma") || message.contains("multi-line")
    })?;
    let quote = given[open.clone()].chars().next()?;
    let (what, close) = match quote {
        '[' => ("list", "]"),
        '{' => ("table", "}"),
        _ => ("text", if given[open.clone()].starts_with("\"\"\"") { "\"\"\"" } else { "'''" }),
    };
    let end = next_line(given, open.start, starts_statement);
    let fault = Fault::new(format!("this {what} does not end")).label("begins here");
    let span = open.start..open.start + if what == "text" { 3 } else { 1 };
    let fault = fault.help(format!("close it with `{close}`"));
    Some(Hole { range: line_around(given, open.start).start..end, span, fault })
}

/// The outermost list, table or long text that runs over the mistake at `at` to a place that does not close it.
fn unclosed(text: &str, tree: &DeTable<'_>, at: usize) -> Option<Span> {
    tree.values().find_map(|value| {
        let span = value.span();
        let open = text.get(span.clone())?;
        let closed = match value.get_ref() {
            DeValue::Table(table) if !open.starts_with('{') => return unclosed(text, table, at),
            DeValue::Array(list) if !open.starts_with('[') || open.starts_with("[[") && list.is_empty() => return None,
            DeValue::Array(_) => open.ends_with(']') && balanced(open, '[', ']'),
            DeValue::Table(_) => open.ends_with('}') && balanced(open, '{', '}'),
            DeValue::String(_) if open.starts_with("\"\"\"") => open.len() > 5 && open.ends_with("\"\"\""),
            DeValue::String(_) if open.starts_with("'''") => open.len() > 5 && open.ends_with("'''"),
            _ => return None,
        };
        // Recovery may end a table before the mistake that it caused; the mistake is then on a following line.
        (!closed && span.start < at).then_some(span)
    })
}

fn balanced(text: &str, open: char, close: char) -> bool {
    text.matches(open).count() == text.matches(close).count()
}

/// Words for people instead of the parser's own.
fn friendly(given: &str, message: &str, at: Span) -> (Span, Fault) {
    let typed = given.get(at.clone()).unwrap_or_default();
    let line = trimmed(given, line_around(given, at.start));
    match message {
        "duplicate key" => {
            let fault = Fault::new(format!("`{typed}` is there twice")).label("the second one");
            (at, fault.help("a key or table may stand only once: keep one, or join the two"))
        }
        "string values must be quoted, expected literal string" if typed.is_empty() => {
            let fault = Fault::new("a value is missing after `=`").label("no value");
            (line, fault.help("write the value, or take the line out"))
        }
        "string values must be quoted, expected literal string" => {
            let fault = Fault::new("a text needs quotes").label("not a number, `true` or `false`");
            (at, fault.help(format!("write `\"{}\"`", short(typed.trim_matches(['"', '\''])))))
        }
        _ if message.starts_with("invalid boolean") => {
            let fault = Fault::new("a text needs quotes").label("not `true` or `false`");
            (at, fault.help(format!("write `\"{}\"`", short(typed))))
        }
        _ if message.starts_with("invalid basic string") || message.starts_with("invalid literal string") => {
            let fault = Fault::new("this text does not end").label("the closing quote is missing");
            let quote = if message.contains("literal") { '\'' } else { '"' };
            let start = given[line.start..at.start.max(line.start)].find(quote).map_or(at.start, |q| line.start + q);
            (start..at.end, fault.help(format!("close it with `{quote}` on the same line")))
        }
        _ => {
            let fault = Fault::new(format!("not TOML: {}", message.replace(", expected nothing", "")));
            (at, fault.label("here").help("a line is `key = value` or `[table]`; texts stand in quotes"))
        }
    }
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
