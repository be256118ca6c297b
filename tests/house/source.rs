//! Rust sources as the house rules see them: the text, the code without words, the code without tests.
//!
//! Knows just enough of the language to tell code from comments and strings and to find where a block ends. All views
//! of a file have the same lines.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// One file.
pub(crate) struct Source {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// As it stands.
    pub(crate) text: String,
    /// With comments and the insides of strings and characters blanked.
    pub(crate) code: String,
    /// `code` with what only tests compile blanked too; all blank for a file of tests.
    pub(crate) product: String,
    /// How many lines are not of tests.
    pub(crate) product_lines: usize,
}

/// One function that is no test.
pub(crate) struct Function {
    /// File and line.
    pub(crate) place: String,
    /// Its name.
    pub(crate) name: String,
    /// From `fn` to its last brace.
    pub(crate) lines: usize,
}

/// Every Rust file below `dir`.
pub(crate) fn under(dir: &Path) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(dir, &mut paths);
    paths.sort();
    let mut sources: Vec<Source> = paths.into_iter().map(Source::read).collect();
    let of_tests: HashSet<PathBuf> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        let inside = source.path.strip_prefix(dir).unwrap().components().any(|part| part.as_os_str() == "tests");
        let declared = source.path.ancestors().any(|at| of_tests.contains(at));
        if inside || declared || of_tests.contains(&source.path.with_extension("")) {
            source.product = blank(&source.code);
            source.product_lines = 0;
        }
    }
    sources
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

impl Source {
    fn read(path: PathBuf) -> Source {
        let text = std::fs::read_to_string(&path).unwrap();
        Source::new(path, text)
    }

    fn new(path: PathBuf, text: String) -> Source {
        let code = without_words(&text);
        let (product, of_tests) = without_tests(&code);
        let product_lines = text.lines().count() - of_tests;
        Source { path, text, code, product, product_lines }
    }

    /// The modules in other files that only tests compile: paths without `.rs`.
    fn test_modules(&self) -> Vec<PathBuf> {
        let folder = self.path.parent().unwrap();
        let owns_folder = ["mod", "lib", "main"].iter().any(|name| self.path.file_stem().unwrap() == *name);
        let inside = if owns_folder { folder.to_owned() } else { self.path.with_extension("") };
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("#[cfg(test)]") {
            let end = at + self.code[at..].find([';', '{']).unwrap_or(0);
            if self.code.as_bytes()[end] != b';' {
                continue;
            }
            // The path of `#[path = "..."]` is a string: it stands in the text alone.
            let named = self.text[at..end].split_once("#[path = \"").and_then(|(_, rest)| rest.split_once('"'));
            let word = self.code[at..end].split_whitespace().last().unwrap();
            found.push(match named {
                Some((file, _)) => folder.join(file).with_extension(""),
                None => inside.join(word),
            });
        }
        found
    }

    /// The places in `view` where `needle` stands.
    pub(crate) fn lines_with(&self, view: &str, needle: &str) -> Vec<String> {
        view.lines()
            .enumerate()
            .filter(|(_, line)| line.contains(needle))
            .map(|(index, _)| format!("{}:{}: {needle}", self.path.display(), index + 1))
            .collect()
    }

    /// The places in `view` where `needle` stands as a word of its own.
    pub(crate) fn lines_with_word(&self, view: &str, needle: &str) -> Vec<String> {
        let is_word = |line: &&str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == needle);
        view.lines()
            .enumerate()
            .filter(|(_, line)| is_word(line))
            .map(|(index, _)| format!("{}:{}: {needle}", self.path.display(), index + 1))
            .collect()
    }

    /// The functions of the product that have a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let code = &self.product;
        let mut found = Vec::new();
        for (at, _) in code.match_indices("fn ") {
            let before = code[..at].chars().next_back();
            let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') || name.is_empty() {
                continue;
            }
            let Some(open) = body(code, at).filter(|open| code.as_bytes()[*open] == b'{') else { continue };
            let lines = code[at..closing(code, open)].lines().count();
            let line = code[..at].lines().count().max(1);
            found.push(Function { place: format!("{}:{line}", self.path.display()), name, lines });
        }
        found
    }
}

/// The same lines without anything on them.
fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// Where the body of the item at `at` opens, or the `;` that ends an item without one.
fn body(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (index, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' | b';' if depth == 0 => return Some(index),
            _ => {}
        }
    }
    None
}

/// Just behind the brace that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_i32;
    for (index, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return index + 1;
        }
    }
    code.len()
}

/// Blanks every item under `#[cfg(test)]`, and says how many lines that were.
fn without_tests(code: &str) -> (String, usize) {
    let mut product = code.to_owned();
    let (mut from, mut lines) = (0, 0);
    while let Some(at) = product[from..].find("#[cfg(test)]").map(|at| at + from) {
        let Some(open) = body(&product, at) else { break };
        let end = if product.as_bytes()[open] == b'{' { closing(&product, open) } else { open + 1 };
        product.replace_range(at..end, &blank(&code[at..end]));
        lines += code[at..end].lines().count();
        from = end;
    }
    (product, lines)
}

/// Blanks comments and the insides of strings and characters. Every byte that is blanked becomes one space.
fn without_words(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = word_end(bytes, at);
        if end == at {
            code.push(bytes[at]);
            at += 1;
        } else {
            code.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    // Only whole comments and literals were replaced, so what is left is still text.
    String::from_utf8(code).unwrap()
}

/// Where the comment, string or character that begins at `at` ends; `at` itself when none begins there.
fn word_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |needle: &[u8], from: usize| {
        let found = rest[from..].windows(needle.len()).position(|window| window == needle);
        found.map_or(bytes.len(), |found| at + from + found + needle.len())
    };
    if rest.starts_with(b"//") {
        return find(b"\n", 0) - usize::from(rest.contains(&b'\n'));
    }
    if rest.starts_with(b"/*") {
        return find(b"*/", 2);
    }
    let in_name = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest[0] == b'r' && (!in_name || bytes[at - 1] == b'b') {
        let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            return find(&close, 2 + hashes);
        }
    }
    match rest[0] {
        b'"' => at + quoted(rest, b'"'),
        // 'x' or '\x', but not a lifetime.
        b'\'' if rest.get(1) == Some(&b'\\') => at + quoted(rest, b'\''),
        b'\'' => {
            let width = std::str::from_utf8(&rest[1..rest.len().min(5)])
                .map_or_else(|error| error.valid_up_to(), str::len)
                .min(4);
            let one = std::str::from_utf8(&rest[1..=width]).ok().and_then(|text| text.chars().next());
            let close = one.map_or(0, |c| 1 + c.len_utf8());
            if close > 0 && rest.get(close) == Some(&b'\'') { at + close + 1 } else { at }
        }
        _ => at,
    }
}

/// Length of a quoted text with its quotes.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

#[test]
fn words_are_no_code_and_tests_no_product() {
    let text = r##"
fn a<'x>(q: &'x str) { let s = "fn b() { \" unsafe"; let c = '"'; let d = '\''; let é = 'é'; } // unsafe {
/* unsafe } */ const R: &str = r#"unsafe " } "#;
#[cfg(test)]
mod tests { fn t() { x.unwrap() } }
fn z() {}
"##;
    let source = Source::new(PathBuf::from("a.rs"), text.to_owned());
    assert!(!source.code.contains("unsafe"), "{}", source.code);
    assert_eq!(source.code.lines().count(), text.lines().count());
    assert_eq!(source.lines_with(&source.code, ".unwrap()").len(), 1);
    assert!(source.lines_with(&source.product, ".unwrap()").is_empty());
    assert_eq!(source.product_lines, text.lines().count() - 2);
    let names: Vec<String> = source.functions().into_iter().map(|function| function.name).collect();
    assert_eq!(names, ["a", "z"]);
}
