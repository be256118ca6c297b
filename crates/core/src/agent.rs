//! What an agent beside a backend says, in the words of HAProxy's agent-check: pure text in, values out.
//!
//! A line names only what the agent wants changed: what it does not name stays as it said before.

use serde::{Deserialize, Serialize};

use crate::health::Admin;
use crate::time::Instant;

/// Weights grow to ten times the declared one at most.
const MOST_PERCENT: u32 = 1000;
/// Letters of a reason that are kept.
const REASON: usize = 200;

/// One line of an agent, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AgentLine {
    percent: Option<u32>,
    mode: Option<Admin>,
    /// `Some(None)`: up. `Some(Some(reason))`: down.
    down: Option<Option<String>>,
    cap: Option<u32>,
}

/// Everything an agent has said and not taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgentWords {
    /// Share of the declared weight.
    pub(crate) percent: u32,
    /// `drain` and `maint` are the operator's words `Draining` and `Disabled`, said by the agent.
    mode: Admin,
    /// Why it is down; `None`: it is not.
    pub(crate) down: Option<String>,
    /// Most requests in flight.
    pub(crate) cap: Option<u32>,
}

impl Default for AgentWords {
    fn default() -> Self {
        Self { percent: 100, mode: Admin::Enabled, down: None, cap: None }
    }
}

/// What an agent has said, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSaid {
    pub(crate) words: AgentWords,
    /// The last line.
    pub(crate) line: String,
    /// When `words` began to hold.
    pub(crate) since: Instant,
    /// When it was last heard.
    pub(crate) heard: Instant,
}

impl AgentLine {
    /// Reads the first line of a text: words between blanks or commas, in any order, case aside. Words it does not know
    /// are skipped. `None`: it knows none of them.
    pub(crate) fn read(text: &str) -> Option<AgentLine> {
        let mut read = AgentLine::default();
        let mut rest = text.lines().next().unwrap_or_default();
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() || rest.starts_with('#') {
                break;
            }
            let end = rest.find([' ', '\t', ',', '#']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            match word.to_ascii_lowercase().as_str() {
                "up" => read.down = Some(None),
                "ready" => read.mode = Some(Admin::Enabled),
                "drain" => read.mode = Some(Admin::Draining),
                "maint" => read.mode = Some(Admin::Disabled),
                state @ ("down" | "fail" | "failed" | "stopped") => read.down = Some(Some(reason(state, after))),
                other => read.number(other),
            }
            rest = after;
        }
        (read != AgentLine::default()).then_some(read)
    }

    /// `75%` and `maxconn:30`.
    fn number(&mut self, word: &str) {
        let percent = word.strip_suffix('%').and_then(|number| number.parse::<u32>().ok());
        let cap = word.strip_prefix("maxconn:").and_then(|number| number.parse().ok());
        self.percent = percent.map(|percent| percent.min(MOST_PERCENT)).or(self.percent);
        self.cap = cap.or(self.cap);
    }
}

/// The words of a backend that is down: the word itself, and what follows a sharp.
fn reason(word: &str, after: &str) -> String {
    match after.split_once('#') {
        Some((_, why)) if !why.trim().is_empty() => {
            let plain = why.trim().chars().take(REASON).map(|letter| if letter.is_control() { '.' } else { letter });
            format!("{word}: {}", plain.collect::<String>())
        }
        _ => word.to_owned(),
    }
}

impl AgentWords {
    /// What holds after one more line.
    pub(crate) fn after(&self, line: AgentLine) -> AgentWords {
        AgentWords {
            percent: line.percent.unwrap_or(self.percent),
            mode: line.mode.unwrap_or(self.mode),
            down: line.down.unwrap_or_else(|| self.down.clone()),
            // As in HAProxy 0 is no limit.
            cap: line.cap.map_or(self.cap, |cap| (cap > 0).then_some(cap)),
        }
    }

    /// Its word beside the operator's: without any weight nothing new is sent.
    pub(crate) fn admin(&self) -> Admin {
        if self.percent == 0 { self.mode.max(Admin::Draining) } else { self.mode }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> AgentWords {
        lines.iter().fold(AgentWords::default(), |words, line| words.after(AgentLine::read(line).unwrap()))
    }

    #[test]
    fn words_come_in_any_order_and_case() {
        let expected = AgentWords { percent: 75, mode: Admin::Enabled, down: None, cap: Some(30) };
        for line in ["up 75% maxconn:30", "75%,UP\tmaxconn:30\r\n", "  maxconn:30,, up ready 75%\nsecond line down"] {
            assert_eq!(heard(&[line]), expected, "{line:?}");
        }
        assert_eq!(heard(&["Drain"]).admin(), Admin::Draining);
        assert_eq!(heard(&["maint"]).admin(), Admin::Disabled);
    }

    #[test]
    fn down_has_a_reason() {
        assert_eq!(heard(&["down"]).down.as_deref(), Some("down"));
        assert_eq!(heard(&["fail # lag is 40 s\r\n"]).down.as_deref(), Some("fail: lag is 40 s"));
        assert_eq!(heard(&["stopped 50%#by hand, up"]).down.as_deref(), Some("stopped: by hand, up"));
        assert_eq!(heard(&["down #"]).down.as_deref(), Some("down"));
        assert_eq!(heard(&["down #a\u{1b}[2Jb"]).down.as_deref(), Some("down: a.[2Jb"));
    }

    #[test]
    fn what_is_not_named_stays() {
        let words = heard(&["drain 50%", "up", "maxconn:5"]);
        assert_eq!((words.percent, words.admin(), words.cap), (50, Admin::Draining, Some(5)));
        assert_eq!(heard(&["drain 50%", "ready", "100%"]), AgentWords::default());
        assert_eq!(heard(&["down # x", "75%"]).down.as_deref(), Some("down: x"));
        assert_eq!(heard(&["down # x", "up"]).down, None);
        assert_eq!(heard(&["maxconn:5", "maxconn:0"]).cap, None);
    }

    #[test]
    fn no_weight_is_a_drain_and_weights_have_a_bound() {
        assert_eq!(heard(&["0%"]).admin(), Admin::Draining);
        assert_eq!(heard(&["0% maint"]).admin(), Admin::Disabled);
        assert_eq!(heard(&["0%", "10%"]).admin(), Admin::Enabled);
        assert_eq!(heard(&["4000000000%"]).percent, 1000);
    }

    #[test]
    fn words_nobody_knows_say_nothing() {
        for line in ["", "\n", "hello", "# up", "%", "-5%", "75 %", "maxconn:", "99999999999%", "HTTP/1.1 400 Bad"] {
            assert_eq!(AgentLine::read(line), None, "{line:?}");
        }
        assert_eq!(heard(&["hello up world"]), AgentWords::default());
    }
}
