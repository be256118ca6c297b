//! Problems for people: the file, the line, the text underlined, the way out. In cargo's manner.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};

use crate::{ConfigErrors, Problem};

/// Whether a problem stops the file from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but says something that is probably not meant.
    Warning,
}

/// Renders problems of one file, each with its line and the offending text underlined; with `color`, for a terminal.
pub fn render_problems(file: &str, text: &str, problems: &[Problem], severity: Severity, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut rendered = String::new();
    for problem in problems {
        if !rendered.is_empty() {
            rendered.push('\n');
        }
        rendered.push_str(&renderer.render(&report(file, text, problem, severity)));
        rendered.push('\n');
    }
    rendered
}

fn report<'a>(file: &'a str, text: &'a str, problem: &'a Problem, severity: Severity) -> Vec<Group<'a>> {
    let level = match severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(printable(&problem.message));
    let (line, span) = shown(text, &problem.span);
    // A problem of the whole file has no line to show.
    let group = if line.is_empty() || problem.span.end == 0 {
        title.element(Origin::path(file).line(problem.line).char_column(problem.column))
    } else {
        let label = Some(printable(&problem.label)).filter(|label| !label.is_empty());
        let annotation = AnnotationKind::Primary.span(span).label(label);
        title.element(Snippet::source(printable(line)).line_start(problem.line).path(file).annotation(annotation))
    };
    let help = problem.help.as_ref().map(|help| {
        let lines: Vec<String> = help.lines().map(|line| normalize_untrusted_str(&printable(line))).collect();
        Group::with_title(Level::HELP.secondary_title(lines.join("\n")))
    });
    std::iter::once(group).chain(help).collect()
}

/// A text whose C1 controls cannot steer a terminal (the renderer minds the others). Each is replaced by a dot of as
/// many bytes, so that places stay true.
fn printable(text: &str) -> Cow<'_, str> {
    let steers = |letter: char| ('\u{80}'..='\u{9f}').contains(&letter);
    if text.contains(steers) { Cow::Owned(text.replace(steers, "\u{b7}")) } else { Cow::Borrowed(text) }
}

/// The line where a problem begins and the part of it to underline: only the line, so that the cost and the length
/// of a message do not grow with the file.
fn shown<'a>(text: &'a str, span: &Range<usize>) -> (&'a str, Range<usize>) {
    let start = text.floor_char_boundary(span.start);
    let end = text.floor_char_boundary(span.end).max(start);
    let begin = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[begin..].lines().next().unwrap_or_default();
    let limit = |at: usize| (at - begin).min(line.len());
    (line, limit(start)..limit(end))
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render_problems(&self.file, &self.text, &self.problems, Severity::Error, false))?;
        let count = self.problems.len();
        write!(f, "\n{}: {count} {}", self.file, if count == 1 { "error" } else { "errors" })
    }
}

impl std::error::Error for ConfigErrors {}
