//! What every part of the parse shares: the text, what lies outside it (through `Lookup`), and what was found wrong.
//!
//! Nothing here stops at the first mistake: mistakes are noted and the reading goes on. This room may not know
//! the language (keys, sections), only how mistakes are kept.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::{FileFault, Lookup, Problem};

/// A place in the text, in bytes.
pub(crate) type Span = Range<usize>;

/// The surroundings of one parse.
pub(crate) struct Context<'a> {
    /// The text as given.
    text: &'a str,
    lines: Lines,
    /// The folder of the config file: relative paths start there.
    folder: PathBuf,
    lookup: &'a Lookup<'a>,
    /// Where the syntax is broken: what is read there says nothing about what was meant.
    torn: Vec<Span>,
    found: RefCell<Found>,
}

/// What one parse found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What makes the file unusable.
    pub(crate) errors: Vec<Problem>,
    /// What works but is probably not meant.
    pub(crate) warnings: Vec<Problem>,
    /// Files named by `*_file` keys.
    pub(crate) files: Vec<PathBuf>,
}

impl<'a> Context<'a> {
    /// The surroundings of a parse of `text`, read from `file`.
    pub(crate) fn new(file: &str, text: &'a str, lookup: &'a Lookup<'a>) -> Context<'a> {
        let folder = Path::new(file).parent().map(Path::to_path_buf).unwrap_or_default();
        Context { text, lines: Lines::of(text), folder, lookup, torn: Vec::new(), found: RefCell::default() }
    }

    /// Notes mistakes of syntax. Later mistakes in the `torn` ranges are consequences, and dropped.
    pub(crate) fn syntax(&mut self, faults: Vec<(Span, Fault)>, torn: Vec<Span>) {
        for (span, fault) in faults {
            self.error(span, fault);
        }
        self.torn = torn;
    }

    /// The text between two places.
    pub(crate) fn text(&self, span: &Span) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// Line of a place, from 1.
    pub(crate) fn line(&self, span: &Span) -> usize {
        self.lines.place(self.text, span.start).0
    }

    /// Notes an error.
    pub(crate) fn error(&self, span: Span, fault: Fault) {
        if !self.torn.iter().any(|torn| torn.contains(&span.start)) {
            let problem = self.problem(span, fault);
            self.found.borrow_mut().errors.push(problem);
        }
    }

    /// Notes that something is not there. Not when the syntax is broken: it may only be hidden.
    pub(crate) fn missing(&self, span: Span, fault: Fault) {
        if self.torn.is_empty() {
            self.error(span, fault);
        }
    }

    /// Whether broken syntax may hide a part of the table `name`: it is in that table, or holds its header.
    pub(crate) fn may_hide(&self, name: &str) -> bool {
        let header = |torn: &Span| self.text[..torn.start].lines().rfind(|line| line.trim_start().starts_with('['));
        self.torn.iter().any(|torn| header(torn).unwrap_or(name).contains(name) || self.text(torn).contains(name))
    }

    /// Notes a warning.
    pub(crate) fn warning(&self, span: Span, fault: Fault) {
        let problem = self.problem(span, fault);
        self.found.borrow_mut().warnings.push(problem);
    }

    fn problem(&self, span: Span, fault: Fault) -> Problem {
        let (line, column) = self.lines.place(self.text, span.start);
        let Fault { message, label, help } = fault;
        Problem { message, span, line, column, label, help }
    }

    /// A path of the file: relative ones start at the folder of the config file.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }

    /// Replaces `${NAME}` by the environment's value and `$${` by `${`. `None` when a mistake was noted.
    pub(crate) fn expand(&self, raw: &str, span: &Span) -> Option<String> {
        let mut expanded = String::with_capacity(raw.len());
        let mut rest = raw;
        let mut whole = true;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                expanded.push_str(before);
                expanded.push_str("${");
                rest = &from[2..];
                continue;
            }
            expanded.push_str(before);
            let Some((name, after)) = from[2..].split_once('}') else {
                let fault = Fault::new("`${` without its `}`").label("starts a variable that does not end");
                self.error(self.inside(span, "${"), fault.help("write `${NAME}`, or `$${` for a literal `${`"));
                return None;
            };
            match self.variable(name) {
                Ok(value) => expanded.push_str(&value),
                Err(fault) => {
                    self.error(self.inside(span, &format!("${{{name}}}")), fault);
                    whole = false;
                }
            }
            rest = after;
        }
        expanded.push_str(rest);
        whole.then_some(expanded)
    }

    fn variable(&self, name: &str) -> Result<String, Fault> {
        let plain = !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if !plain {
            return Err(Fault::new(format!("`{name}` is not the name of an environment variable"))
                .label("letters, digits and `_` only")
                .help("write `${NAME}`, or `$${` for a literal `${`"));
        }
        (self.lookup.env)(name).ok_or_else(|| {
            Fault::new(format!("environment variable `{name}` is not set"))
                .label("not set")
                .help(format!("set `{name}` where relais is started, or write `$${{` for a literal `${{`"))
        })
    }

    /// The bytes of a file named by a `*_file` key. `None` when a mistake was noted.
    pub(crate) fn file(&self, text: &str, span: &Span) -> Option<Vec<u8>> {
        let path = self.path(text);
        let read = (self.lookup.file)(&path);
        let shown = path.display().to_string();
        self.found.borrow_mut().files.push(path);
        match read {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let fault = Fault::new(format!("cannot read `{shown}`: {error}")).label("cannot be read");
                self.error(
                    span.clone(),
                    fault.help("the file must exist and the user that runs relais must be allowed to read it"),
                );
                None
            }
        }
    }

    /// Notes what is wrong with a file that is named at `span`. `what` is like "certificate `site`".
    pub(crate) fn file_fault(&self, span: Span, what: &str, fault: FileFault) {
        let FileFault { file, message, help } = fault;
        let fault = Fault::new(format!("{what} ({}): {message}", file.display()));
        self.error(span, fault.label("this file").help(help));
    }

    /// What lies outside the text.
    pub(crate) fn lookup(&self) -> &Lookup<'a> {
        self.lookup
    }

    /// The place of `part` inside `span`, or the whole span when escapes hide it.
    fn inside(&self, span: &Span, part: &str) -> Span {
        match self.text(span).find(part) {
            Some(at) => span.start + at..span.start + at + part.len(),
            None => span.clone(),
        }
    }

    /// All that was found, each list in the order of the file.
    pub(crate) fn into_found(self) -> Found {
        let mut found = self.found.into_inner();
        found.errors.sort_by_key(|problem| problem.span.start);
        found.errors.dedup();
        found.warnings.sort_by_key(|problem| problem.span.start);
        found.files.sort();
        found.files.dedup();
        found
    }
}

/// Where the lines of a text begin: found once, as a long file is asked for many places.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        Lines(std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect())
    }

    /// Line and column (in characters) of a byte of the text, both from 1.
    fn place(&self, text: &str, at: usize) -> (usize, usize) {
        let at = text.floor_char_boundary(at);
        let line = self.0.partition_point(|start| *start <= at);
        let start = line.checked_sub(1).and_then(|index| self.0.get(index)).copied().unwrap_or(0);
        (line, text[start..at].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn places_count_characters_from_one() {
        let text = "a\nété = 1\n";
        let place = |text: &str, at| Lines::of(text).place(text, at);
        assert_eq!(place(text, 0), (1, 1));
        assert_eq!(place(text, 2), (2, 1));
        assert_eq!(place(text, text.find('=').unwrap()), (2, 5));
        assert_eq!(place(text, 3), (2, 1), "inside a character: its start");
        assert_eq!(place(text, 999), (3, 1), "past the end: the end");
    }
}
