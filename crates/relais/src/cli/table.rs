//! Tables for people, and the words and colours in them. Plain text when nobody looks at a terminal.

use comfy_table::{Attribute, Cell, Color, Table, presets};

use super::term;

/// A table with these headings, no lines between rows.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if term::colour() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(headings.iter().map(|heading| Cell::new(heading).add_attribute(Attribute::Bold)));
    table
}

/// The table as lines, flush left.
pub(crate) fn render(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    text.push('\n');
    text
}

/// A health or admin word in its colour.
pub(crate) fn word(word: &str) -> Cell {
    let colour = match word {
        "up" | "enabled" => Color::Green,
        "down" | "disabled" => Color::Red,
        "suspect" | "draining" => Color::Yellow,
        _ => Color::Cyan,
    };
    Cell::new(word).fg(colour)
}

/// Time since an instant (microseconds) in one unit: `3 s`, `5 min`, `2 h`, `4 d`.
pub(crate) fn ago(now: u64, then: u64) -> String {
    span(now.saturating_sub(then) / 1_000_000)
}

/// Microseconds as `45 ms`, `0.79 s`, `12 s`.
pub(crate) fn millis(micros: u64) -> String {
    relais::core::config::words::short(std::time::Duration::from_micros(micros))
}

/// Seconds in one unit.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_the_unit_that_fits() {
        assert_eq!(ago(10_000_000, 7_000_000), "3 s");
        assert_eq!(ago(7_000_000, 10_000_000), "0 s", "a clock that went back is no reason to panic");
        assert_eq!(span(119), "119 s");
        assert_eq!(span(120), "2 min");
        assert_eq!(span(7_200), "2 h");
        assert_eq!(span(172_800), "2 d");
    }
}
