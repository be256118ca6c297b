//! Writing to people: stdout, stderr, colour, and a block of lines that is redrawn in place.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// Prints a line on stdout.
pub(crate) fn say(text: impl Display) {
    write_out(&format!("{text}\n"));
}

/// Prints a warning on stderr.
pub(crate) fn warn(text: impl Display) {
    let (yellow, plain) = if colour_on_stderr() { ("\x1b[1;33m", "\x1b[0m") } else { ("", "") };
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{yellow}warning{plain}: {text}");
}

/// Prints on stdout. A reader that went away (`relais status | head`) ends the program quietly, as it ends `cat`.
fn write_out(text: &str) {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        std::process::exit(0);
    }
}

/// Whether people look at stdout and want colour.
pub(crate) fn colour() -> bool {
    io::stdout().is_terminal() && no_color_unset()
}

/// As [`colour`], for stderr.
pub(crate) fn colour_on_stderr() -> bool {
    io::stderr().is_terminal() && no_color_unset()
}

/// <https://no-color.org>: set and not empty means no.
fn no_color_unset() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    help: Vec<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Display) -> Self {
        Self { code, message: message.to_string(), help: Vec::new() }
    }

    /// Adds a line that says the way out.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Tells people, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (red, bold, plain) = if colour_on_stderr() { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let mut text = String::new();
        // What the config crate renders brings its own "error:" on every problem.
        if !self.message.contains("error: ") && !self.message.contains("error\x1b") {
            text = format!("{red}error{plain}{bold}:{plain} ");
        }
        text.push_str(&self.message);
        text.push('\n');
        for help in &self.help {
            text.push_str(&format!("{bold}help:{plain} {help}\n"));
        }
        // Nobody is left to tell when stderr is closed.
        let _ = io::stderr().lock().write_all(text.as_bytes());
        ExitCode::from(self.code)
    }
}

/// A block of lines that replaces itself on a terminal. Elsewhere each block is printed after the last.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    lines: usize,
}

impl Screen {
    /// Whether blocks are redrawn in place.
    pub(crate) fn is_live() -> bool {
        io::stdout().is_terminal()
    }

    /// Shows `block` in the place of the last one.
    pub(crate) fn show(&mut self, block: &str) {
        let block = block.trim_end_matches('\n');
        if !io::stdout().is_terminal() {
            say(block);
            return;
        }
        let up = if self.lines > 0 { format!("\x1b[{}A\x1b[J", self.lines) } else { String::new() };
        self.lines = block.lines().count();
        write_out(&format!("{up}{block}\n"));
    }

    /// Lets the last block stand; the next goes below it.
    pub(crate) fn keep(&mut self) {
        self.lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_code_and_its_way_out() {
        let failure = Failure::new(3, "nobody answers").help("start it").help("or name its socket");
        assert_eq!(failure.help.len(), 2);
        assert_eq!(format!("{:?}", failure.report()), format!("{:?}", ExitCode::from(3)));
    }
}
