//! `relais history`: what failovers took and drills showed, latest first.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Cell, Color};
use serde::Deserialize;

use super::order::shaped;
use super::table::{ago, millis, render, table};
use super::view::Failover;
use super::{Client, Failure, Whom, drill, say};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The daemon's whole answer, as JSON
    #[arg(long)]
    json: bool,
    /// Only failovers of this service, and drills that met it
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

/// `GET /history`.
#[derive(Debug, Deserialize)]
struct History {
    now: u64,
    failovers: Vec<Failover>,
    drills: Vec<drill::Record>,
}

pub(crate) fn history(options: &Options, whom: &Whom) -> Result<ExitCode, Failure> {
    let answer = Client::new(whom)?.get("/history")?;
    if options.json {
        say(serde_json::to_string_pretty(&answer).unwrap_or_else(|_| answer.to_string()));
        return Ok(ExitCode::SUCCESS);
    }
    let History { now, failovers, drills } = shaped(answer)?;
    let wanted = |name: &str| options.service.as_deref().is_none_or(|service| service == name);
    let failovers: Vec<Failover> = failovers.into_iter().filter(|failover| wanted(&failover.service)).collect();
    let drills: Vec<drill::Record> = drills.into_iter().filter(|drill| drill.meets(wanted)).collect();
    if failovers.is_empty() && drills.is_empty() {
        let of = options.service.as_ref().map_or_else(String::new, |service| format!(" of a service `{service}`"));
        say(format_args!("no failover and no drill{of} is remembered"));
        return Ok(ExitCode::SUCCESS);
    }
    say(draw(now, &failovers, &drills).trim_end());
    Ok(ExitCode::SUCCESS)
}

fn draw(now: u64, failovers: &[Failover], drills: &[drill::Record]) -> String {
    let mut text = String::new();
    if !failovers.is_empty() {
        let headings = [
            "FAILOVER",
            "AGO",
            "SERVICE",
            "AWAY FROM",
            "TOOK",
            "CONTRACT",
            "MOVED",
            "RESCUED",
            "TOLD",
            "SLOWEST",
            "WHY",
        ];
        let mut table = table(&headings);
        for failover in failovers {
            let took = Cell::new(millis(failover.took_micros));
            table.add_row(vec![
                Cell::new(failover.number),
                Cell::new(ago(now, failover.ended)),
                Cell::new(&failover.service),
                Cell::new(failover.away_from()),
                if failover.overran() { took.fg(Color::Red) } else { took },
                Cell::new(millis(failover.contract_micros)),
                Cell::new(failover.moved),
                Cell::new(failover.rescued),
                Cell::new(failover.told),
                Cell::new(millis(failover.slowest_micros)),
                Cell::new(failover.remark()),
            ]);
        }
        text.push_str(&render(table));
    }
    if !drills.is_empty() {
        let mut table = table(&["DRILL", "AGO", "SITE", "SHAPE", "VERDICT", "PROBLEMS"]);
        for drill in drills {
            let verdict = match (drill.done, drill.problems.is_empty()) {
                (false, _) => Cell::new("under way"),
                (true, true) => Cell::new("passed").fg(Color::Green),
                (true, false) => Cell::new("failed").fg(Color::Red),
            };
            table.add_row(vec![
                Cell::new(drill.number),
                Cell::new(ago(now, drill.began)),
                Cell::new(&drill.site),
                Cell::new(&drill.shape),
                verdict,
                Cell::new(drill.problems.join("; ")),
            ]);
        }
        text.push_str(&render(table));
    }
    text
}
