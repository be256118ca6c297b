//! One value of the file, and how it is read: as text, number, duration, size, list or table.
//!
//! Each read gives `None` after noting what is wrong and what to write instead. This room knows types, not keys.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::context::{Context, Span};
use crate::fault::{Fault, suggest};
use crate::reader::Reader;
use crate::shape::Shape;
use crate::value::measure;

/// Numbers as people write them out.
const NUMBERS: [&str; 10] = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/// A value and the key it stands at.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    pub(crate) cx: &'a Context<'a>,
    /// The key.
    pub(crate) key: String,
    /// Where the key stands. An entry of a list has no key: its own place.
    pub(crate) key_span: Span,
    /// The tables around, as `service.api`.
    pub(crate) path: String,
    value: &'a Spanned<DeValue<'a>>,
    /// Whether it is an entry of the list at `key`.
    entry: bool,
}

impl<'a> Node<'a> {
    /// The value at a key.
    pub(crate) fn new(cx: &'a Context<'a>, path: &str, key: (&str, Span), value: &'a Spanned<DeValue<'a>>) -> Node<'a> {
        Node { cx, key: key.0.to_owned(), key_span: key.1, path: path.to_owned(), value, entry: false }
    }

    /// Where the value stands. A table's is its header.
    pub(crate) fn span(&self) -> Span {
        let span = self.value.span();
        // What the TOML parser made up after a mistake has no place: then the key's is meant.
        if span.end == 0 { self.key_span.clone() } else { span }
    }

    /// The tables around and the key, as `service.api`.
    pub(crate) fn full_path(&self) -> String {
        if self.path.is_empty() { self.key.clone() } else { format!("{}.{}", self.path, self.key) }
    }

    /// Notes an error at the value.
    pub(crate) fn error(&self, fault: Fault) {
        self.cx.error(self.span(), fault);
    }

    /// Notes a warning at the value.
    pub(crate) fn warning(&self, fault: Fault) {
        self.cx.warning(self.span(), fault);
    }

    /// Notes that the value has the wrong type. `expected` is like "a list".
    pub(crate) fn wrong_type(&self, expected: &str, example: Option<String>) {
        let found = type_name(self.value.get_ref());
        let what = if self.entry { format!("an entry of `{}`", self.key) } else { format!("`{}`", self.key) };
        let fault = Fault::new(format!("{what} must be {expected}, not {found}")).label(format!("this is {found}"));
        self.error(match example {
            Some(example) if self.entry => fault.help(format!("write `{example}`")),
            Some(example) => fault.help(format!("write `{} = {example}`", self.key)),
            None => fault,
        });
    }

    /// Whether it is a text.
    pub(crate) fn is_string(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::String(_))
    }

    /// Whether it is a table.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Table(_))
    }

    /// Whether it is a list.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Array(_))
    }

    /// Whether it is a whole number.
    pub(crate) fn is_integer(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Integer(_))
    }

    /// Whether it is the whole number zero.
    pub(crate) fn is_zero(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Integer(integer) if integer.as_str().trim_matches(['+', '-', '0']).is_empty())
    }

    /// A whole number, when it is one that fits. Notes nothing.
    pub(crate) fn as_integer(&self) -> Option<i64> {
        match self.value.get_ref() {
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        }
    }

    /// The whole number that a text spells, in digits or as a word. Notes nothing.
    pub(crate) fn spelled(&self) -> Option<i64> {
        let DeValue::String(text) = self.value.get_ref() else { return None };
        let text = text.trim().to_lowercase();
        let word = || NUMBERS.iter().position(|word| *word == text).and_then(|place| i64::try_from(place + 1).ok());
        i64::from_str(&text).ok().or_else(word)
    }

    /// `true` or `false`, when it is one. Notes nothing.
    pub(crate) fn as_boolean(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    /// A text, variables replaced.
    pub(crate) fn string(&self) -> Option<String> {
        self.text("a text", None)
    }

    /// A text that `parse` understands.
    pub(crate) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Option<T> {
        self.text_parsed("a text", None, parse)
    }

    fn text(&self, expected: &str, example: Option<String>) -> Option<String> {
        match self.value.get_ref() {
            DeValue::String(raw) => self.cx.expand(raw, &self.span()),
            _ => {
                self.wrong_type(expected, example);
                None
            }
        }
    }

    /// A text that `parse` understands; `expected` and `example` are said of any other type.
    pub(crate) fn text_parsed<T>(
        &self,
        expected: &str,
        example: Option<String>,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let text = self.text(expected, example)?;
        parse(&text).map_err(|fault| self.error(fault)).ok()
    }

    /// A path; relative ones start at the folder of the config file.
    pub(crate) fn file_path(&self) -> Option<PathBuf> {
        let text = self.string()?;
        if text.is_empty() {
            self.error(Fault::new(format!("`{}` is empty", self.key)).label("expected a path"));
            return None;
        }
        Some(self.cx.path(&text))
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self) -> Option<bool> {
        let value = self.as_boolean();
        if value.is_none() {
            let example = match self.value.get_ref() {
                DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => Some(text.to_string()),
                _ => None,
            };
            self.wrong_type("`true` or `false`", example);
        }
        value
    }

    /// A whole number in a range.
    pub(crate) fn integer<T>(&self, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        let DeValue::Integer(integer) = self.value.get_ref() else {
            self.wrong_type("a whole number", self.spelled().map(|number| number.to_string()));
            return None;
        };
        let value = self.as_integer().and_then(|number| T::try_from(number).ok()).filter(|value| range.contains(value));
        if value.is_none() {
            let (low, high) = (range.start(), range.end());
            let fault = Fault::new(format!("`{}` must be {low} to {high}, not {integer}", self.key));
            self.error(fault.label(format!("{low} to {high}")));
        }
        value
    }

    /// A number in a range; whole numbers too.
    pub(crate) fn number(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let text = match self.value.get_ref() {
            DeValue::Float(float) => float.as_str().to_owned(),
            DeValue::Integer(integer) => integer.to_string(),
            _ => {
                self.wrong_type("a number", None);
                return None;
            }
        };
        let value = f64::from_str(&text).ok().filter(|value| range.contains(value));
        if value.is_none() {
            let (low, high) = (range.start(), range.end());
            let fault = Fault::new(format!("`{}` must be {low} to {high}, not {text}", self.key));
            self.error(fault.label(format!("{low} to {high}")));
        }
        value
    }

    /// A duration, maybe zero.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let example = match self.value.get_ref() {
            DeValue::Integer(number) => format!("\"{number}s\""),
            _ => "\"2s\"".to_owned(),
        };
        self.text_parsed("a duration with its unit", Some(example), measure::duration)
    }

    /// A duration that is not zero.
    pub(crate) fn some_time(&self) -> Option<Duration> {
        let duration = self.duration()?;
        if duration.is_zero() {
            let fault = Fault::new(format!("`{}` must be longer than nothing", self.key)).label("longer than 0");
            self.error(fault);
            return None;
        }
        Some(duration)
    }

    /// A size in bytes: a whole number, or a text such as `64KiB`.
    pub(crate) fn size(&self) -> Option<u64> {
        match self.value.get_ref() {
            DeValue::Integer(_) => self.integer(0..=i64::MAX.unsigned_abs()),
            _ => self.text_parsed("a size", Some("\"64KiB\"".to_owned()), measure::size),
        }
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&self, options: &[(&'static str, T)]) -> Option<T> {
        let words: Vec<&str> = options.iter().map(|(word, _)| *word).collect();
        let text = self.text(&format!("one of {}", quoted(&words)), None)?;
        let found = options.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let fault = Fault::new(format!("`{}` cannot be `{text}`", self.key)).label("not a word for this key");
            self.error(fault.help(suggest(&text, &words, "words for it")));
        }
        found
    }

    /// The entries of a list.
    pub(crate) fn list(&self) -> Option<Vec<Node<'a>>> {
        let DeValue::Array(list) = self.value.get_ref() else {
            let example = self.is_string().then(|| format!("[{}]", self.cx.text(&self.span())));
            self.wrong_type("a list", example);
            return None;
        };
        let entry =
            |value: &'a Spanned<DeValue<'a>>| Node { key_span: value.span(), value, entry: true, ..self.clone() };
        Some(list.iter().map(entry).collect())
    }

    /// The entries of a list; a single value counts as a list of one.
    pub(crate) fn one_or_many(&self) -> Vec<Node<'a>> {
        if self.is_list() { self.list().unwrap_or_default() } else { vec![self.clone()] }
    }

    /// The values of a table whose names the operator chooses, in the order of the file. `help` shows one.
    pub(crate) fn named(&self, help: &str) -> Option<Vec<Node<'a>>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            let found = type_name(self.value.get_ref());
            let fault = Fault::new(format!("`{}` must be a table, not {found}", self.full_path()));
            self.error(fault.label(format!("this is {found}")).help(help));
            return None;
        };
        Some(children(self.cx, &self.full_path(), table))
    }

    /// A table with the keys of `shape`. `help` shows one.
    pub(crate) fn table(&self, shape: &'static Shape, help: &str) -> Option<Reader<'a>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            let found = type_name(self.value.get_ref());
            let what =
                if self.entry { format!("an entry of `{}`", self.key) } else { format!("`{}`", self.full_path()) };
            let fault = Fault::new(format!("{what} must be a table, not {found}")).label(format!("this is {found}"));
            self.error(fault.help(help));
            return None;
        };
        Some(Reader::new(self.cx, shape, self.full_path(), Some(table), self.span()))
    }
}

/// The values of a table in the order of the file.
pub(crate) fn children<'a>(cx: &'a Context<'a>, path: &str, table: &'a DeTable<'a>) -> Vec<Node<'a>> {
    let mut nodes: Vec<Node<'a>> =
        table.iter().map(|(key, value)| Node::new(cx, path, (key.get_ref(), key.span()), value)).collect();
    nodes.sort_by_key(|node| node.key_span.start);
    nodes
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(true) => "`true`",
        DeValue::Boolean(false) => "`false`",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `"a"`, `"b"` or `"c"`.
fn quoted(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
