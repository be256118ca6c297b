//! One table of the file: refuses keys it does not know and hands out the others, typed.
//!
//! A table that is not there reads as an empty one, so that defaults stand in one place: where the key is read.
//! This room may not know what the keys mean.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use crate::context::{Context, Span};
use crate::fault::{Fault, akin, nearest};
use crate::node::{Node, children};
use crate::shape::{ALL, Shape};

/// A table with a fixed set of keys.
pub(crate) struct Reader<'a> {
    pub(crate) cx: &'a Context<'a>,
    /// Where "something is missing" points: the table's header.
    pub(crate) span: Span,
    /// The table's name in messages, as `service.api`.
    pub(crate) path: String,
    shape: &'static Shape,
    nodes: Vec<Node<'a>>,
}

impl<'a> Reader<'a> {
    /// Reads a table; notes every key that its shape does not have.
    pub(crate) fn new(
        cx: &'a Context<'a>,
        shape: &'static Shape,
        path: String,
        table: Option<&'a DeTable<'a>>,
        span: Span,
    ) -> Reader<'a> {
        let nodes = table.map_or_else(Vec::new, |table| children(cx, &path, table));
        let reader = Reader { cx, span, path, shape, nodes };
        for node in reader.nodes.iter().filter(|node| !shape.keys.contains(&node.key.as_str())) {
            reader.unknown(node);
        }
        reader
    }

    fn unknown(&self, node: &Node<'a>) {
        let key = &node.key;
        let place = if self.path.is_empty() { "the file".to_owned() } else { format!("`{}`", self.path) };
        let fault = Fault::new(format!("unknown key `{key}` in {place}")).label("not a key of this table");
        let list = self.shape.keys.join(", ");
        let elsewhere = ALL.iter().find(|shape| shape.keys.contains(&key.as_str()) && !shape.place.is_empty());
        let help = match (nearest(key, self.shape.keys), elsewhere) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(shape)) => format!("`{key}` is a key of `{}`; keys here: {list}", shape.place),
            (None, None) => match akin(key, self.shape.keys) {
                Some(near) => format!("did you mean `{near}`? keys here: {list}"),
                None => format!("keys here: {list}"),
            },
        };
        self.cx.error(node.key_span.clone(), fault.help(help));
    }

    /// The value at a key, when it is there.
    pub(crate) fn get(&self, key: &'static str) -> Option<Node<'a>> {
        debug_assert!(self.shape.keys.contains(&key), "`{key}` is read but not listed in shape.rs");
        self.nodes.iter().find(|node| node.key == key).cloned()
    }

    /// Whether a key is there.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Notes that a key must be there. `example` is its value.
    pub(crate) fn missing(&self, key: &'static str, example: &str) {
        debug_assert!(self.shape.keys.contains(&key), "`{key}` is wanted but not listed in shape.rs");
        // The slip in its name was told; the key is there in meaning.
        let slip = |node: &Node<'_>| {
            !self.shape.keys.contains(&node.key.as_str()) && nearest(&node.key, self.shape.keys) == Some(key)
        };
        if self.nodes.iter().any(slip) {
            return;
        }
        let fault = Fault::new(format!("`{}` has no `{key}`", self.path)).label(format!("`{key}` is missing"));
        self.cx.missing(self.span.clone(), fault.help(format!("add `{key} = {example}`")));
    }

    /// The table at a key; an empty one when it is not there or is no table.
    pub(crate) fn section(&self, key: &'static str, shape: &'static Shape) -> Reader<'a> {
        let help = format!("write `{key} = {{ {} = ... }}`", shape.keys.first().copied().unwrap_or_default());
        let table = self.get(key).and_then(|node| node.table(shape, &help));
        table.unwrap_or_else(|| self.empty(key, shape))
    }

    /// A table that holds nothing.
    pub(crate) fn empty(&self, key: &'static str, shape: &'static Shape) -> Reader<'a> {
        Reader::new(self.cx, shape, format!("{}.{key}", self.path), None, self.span.clone())
    }

    /// A text.
    pub(crate) fn string(&self, key: &'static str) -> Option<String> {
        self.get(key)?.string()
    }

    /// A text that `parse` understands.
    pub(crate) fn parsed<T>(&self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Option<T> {
        self.get(key)?.parsed(parse)
    }

    /// A path.
    pub(crate) fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.get(key)?.file_path()
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self, key: &'static str) -> Option<bool> {
        self.get(key)?.boolean()
    }

    /// A whole number in a range.
    pub(crate) fn integer<T>(&self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        self.get(key)?.integer(range)
    }

    /// A duration, maybe zero.
    pub(crate) fn duration(&self, key: &'static str) -> Option<Duration> {
        self.get(key)?.duration()
    }

    /// A duration that is not zero.
    pub(crate) fn some_time(&self, key: &'static str) -> Option<Duration> {
        self.get(key)?.some_time()
    }

    /// A size in bytes.
    pub(crate) fn size(&self, key: &'static str) -> Option<u64> {
        self.get(key)?.size()
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&self, key: &'static str, options: &[(&'static str, T)]) -> Option<T> {
        self.get(key)?.choice(options)
    }
}
