//! The live table of the demo and its verdict, in words.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::Cell;
use relais::core::Report;

use super::ledger::Ledger;
use super::tally::Totals;
use crate::cli::{render, table, word};

/// What one second looked like.
pub(crate) struct Second<'a> {
    /// Of the whole story so far.
    pub(crate) at: Duration,
    pub(crate) report: &'a Report,
    pub(crate) last: &'a Totals,
    pub(crate) sum: &'a Totals,
}

/// The live table.
pub(crate) fn draw(second: &Second<'_>) -> String {
    let mut text = format!("\n{:>3} s\n\n", second.at.as_secs());
    let mut sites = table(&["SITE", "TIER", "HEALTH", "ANSWERS/S", "ANSWERS", "WHY"]);
    for site in &second.report.sites {
        let count = |totals: &Totals| totals.sites.get(&*site.name).copied().unwrap_or(0);
        sites.add_row(vec![
            Cell::new(&site.name),
            Cell::new(site.tier),
            word(site.health.as_str()),
            Cell::new(count(second.last)),
            Cell::new(count(second.sum)),
            Cell::new(clip(&site.why)),
        ]);
    }
    text.push_str(&render(sites));
    let mut services = table(&["SERVICE", "OK/S", "OK", "FAILED", "WITHHELD", "WORST NOW", "WORST"]);
    let mut names: Vec<&&str> = second.sum.services.keys().collect();
    names.sort();
    for name in names {
        let (last, sum) = (second.last.services.get(*name), second.sum.services[*name]);
        services.add_row(vec![
            Cell::new(name),
            Cell::new(last.map_or(0, |seen| seen.ok)),
            Cell::new(sum.ok),
            Cell::new(sum.failed),
            Cell::new(sum.withheld),
            Cell::new(millis(last.map_or(Duration::ZERO, |seen| seen.worst))),
            Cell::new(millis(sum.worst)),
        ]);
    }
    text.push_str(&render(services));
    text
}

/// The live table in one line, for when nobody looks at a terminal.
pub(crate) fn line(second: &Second<'_>) -> String {
    let mut text = format!("{:>3} s ", second.at.as_secs());
    for site in &second.report.sites {
        let answers = second.last.sites.get(&*site.name).copied().unwrap_or(0);
        let _ = write!(text, " {} {} {answers}/s,", site.name, site.health);
    }
    let seen = second.last.all();
    let _ = write!(text, " failed {}, withheld {}, worst {}", seen.failed, seen.withheld, millis(seen.worst));
    text
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// Long reasons would break the table of a narrow terminal.
fn clip(text: &str) -> String {
    const WIDTH: usize = 48;
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    text.chars().take(WIDTH - 1).chain(['…']).collect()
}

/// What came of the whole story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// All good.
    pub(crate) good: bool,
    /// For people.
    pub(crate) text: String,
}

/// Judges: no replayable request failed, no POST ran twice, and the story went as told (`missing` names what did not).
pub(crate) fn judge(sum: &Totals, ledger: &Ledger, retries: u64, missing: &[String]) -> Verdict {
    let seen = sum.all();
    let (posts, twice) = ledger.posts();
    let requests = seen.ok + seen.failed + seen.withheld;
    let mut text = String::new();
    let _ = writeln!(text, "requests             {requests}");
    let _ = writeln!(text, "answered             {}", seen.ok);
    let _ = writeln!(text, "failed               {} (must be 0)", seen.failed);
    let _ = writeln!(text, "POSTs carried out    {posts}, twice {twice} (must be 0)");
    let _ = writeln!(
        text,
        "POSTs withheld       {} (sent when their site died: answered 502 at once, never repeated)",
        seen.withheld
    );
    let _ = writeln!(text, "tried elsewhere      {retries}");
    let _ = writeln!(text, "longest answer       {}", millis(seen.worst));
    let mut sites: Vec<_> = sum.sites.iter().collect();
    sites.sort();
    for (site, answers) in sites {
        let _ = writeln!(text, "answered by {site:<8} {answers} (its backends say {})", ledger.answered(site));
    }
    for failure in &sum.failures {
        let _ = writeln!(text, "failure: {failure}");
    }
    for fault in missing {
        let _ = writeln!(text, "not as told: {fault}");
    }
    let good = seen.failed == 0 && twice == 0 && seen.ok > 0 && missing.is_empty();
    let _ = write!(text, "verdict: {}", if good { "good, visitors noticed nothing" } else { "FAILED" });
    Verdict { good, text }
}

#[cfg(test)]
mod tests {
    use super::super::tally::{Outcome, Tally};
    use super::*;

    fn verdict(outcomes: &[Outcome], posts: &[u64], missing: &[String]) -> Verdict {
        let (tally, ledger) = (Tally::default(), Ledger::default());
        for outcome in outcomes {
            tally.count("api", outcome.clone(), Duration::from_millis(5));
        }
        for post in posts {
            ledger.write("dijon", Some(*post));
        }
        judge(&tally.take(), &ledger, 3, missing)
    }

    #[test]
    fn only_a_story_without_failures_repeats_and_gaps_is_good() {
        let answered = Outcome::Answered("dijon".to_owned());
        let withheld = Outcome::Withheld("502".to_owned());
        assert!(verdict(&[answered.clone(), withheld], &[1, 2], &[]).good);
        let failed = verdict(&[answered.clone(), Outcome::Failed("503".to_owned())], &[1], &[]);
        assert!(!failed.good && failed.text.contains("failure: api: 503"), "{}", failed.text);
        let twice = verdict(std::slice::from_ref(&answered), &[1, 1], &[]);
        assert!(!twice.good && twice.text.contains("twice 1"), "{}", twice.text);
        assert!(!verdict(&[answered], &[], &["thory never came back".to_owned()]).good);
        assert!(!verdict(&[], &[], &[]).good, "nothing asked, nothing proven");
    }
}
