//! `relais drill site NAME`: orders a drill, watches it, tells its verdict. Ctrl-C ends the drill at once; and the edge ends
//! it when nobody asks any more, so that a command that is killed leaves no cut behind.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Cell;
use serde::Deserialize;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::order::shaped;
use super::table::{millis, render, table};
use super::{Client, ClientError, EXIT_FAILED, EXIT_UNREACHABLE, Failure, Screen, Whom, say};

/// Longest wait for an answer of the edge: nothing that is asked of it here takes time.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the edge is asked.
const LOOK: Duration = Duration::from_millis(200);

/// What fewer requests met says little about what visitors would feel.
const FEW: u64 = 10;

const EXIT_CODES: &str = "Exit codes: 0 the site can be lost, 1 it cannot or the drill was refused, 2 usage, 3 no relais \
                          answers.";

const COLUMNS: &str = "KEPT: the service can lose the site. LEFT AFTER: from the cut until the last of its backends there was \
                       declared down. LAST MOVED AFTER: until the last request that had been sent there was moved off. \
                       MOVED: requests sent elsewhere instead; RESCUED: those of them that waited there when the verdict \
                       came. SLOW: moved only after longer than the contract. LOST: could have been repeated and failed all the \
                       same. TOLD: answered 502 or 504 as they may have been received, or cut.\n\nExit codes: 0 the site \
                       can be lost, 1 it cannot or the drill was refused, 2 usage, 3 no relais answers.";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Treat a site as cut for a while, at relais' own edge, and say whether its loss is survived
    #[command(after_help = COLUMNS)]
    Site {
        /// A site of the file
        site: String,
        /// How it behaves
        #[arg(long, value_enum, default_value = "silent")]
        shape: Shape,
        /// How long, as 20s or 1m
        #[arg(long = "for", value_name = "TIME", default_value = "20s", value_parser = seconds)]
        lasts: f64,
        /// Also when a service has no other site: its visitors then get errors
        #[arg(long)]
        force: bool,
        /// The whole record, as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shape {
    /// As if the cable were cut: nothing arrives, nothing is refused
    Silent,
    /// As if its processes were dead: connections break and are refused
    Refused,
    /// As if its application were overloaded: every answer is late
    Slow,
}

impl Shape {
    fn as_str(self) -> &'static str {
        match self {
            Shape::Silent => "silent",
            Shape::Refused => "refused",
            Shape::Slow => "slow",
        }
    }
}

/// `20s`, `1m`, `1500ms`, or plain seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| "write a time, as `20s` or `1m`".to_owned())?;
    match unit {
        "ms" => Ok(number / 1000.0),
        "" | "s" => Ok(number),
        "m" => Ok(number * 60.0),
        _ => Err("units: ms, s, m".to_owned()),
    }
}

/// `GET /drill`.
#[derive(Debug, Deserialize)]
struct Answer {
    drill: Option<Record>,
}

/// One drill, as the edge keeps it.
#[derive(Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) number: u64,
    pub(crate) site: String,
    pub(crate) shape: String,
    pub(crate) began: u64,
    pub(crate) until: u64,
    #[serde(default)]
    pub(crate) ended: Option<u64>,
    #[serde(default)]
    pub(crate) returned_micros: Option<u64>,
    pub(crate) done: bool,
    #[serde(default)]
    pub(crate) services: Vec<Service>,
    #[serde(default)]
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Service {
    name: String,
    kept: bool,
    #[serde(default)]
    declared_micros: Option<u64>,
    #[serde(default)]
    last_moved_micros: Option<u64>,
    moved: u64,
    rescued: u64,
    slow: u64,
    lost: u64,
    told: u64,
}

impl Record {
    /// Whether a service that `wanted` names had backends there.
    pub(crate) fn meets(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.services.iter().any(|service| wanted(&service.name))
    }
}

pub(crate) fn drill(options: &Options, whom: &Whom) -> Result<ExitCode, Failure> {
    let What::Site { site, shape, lasts, force, json } = &options.what;
    let mut client = Client::new(whom)?;
    client.patient(PATIENCE);
    // From before the cut on: a signal must not end the command alone.
    let mut interrupted = Interrupted::new()?;
    let order = json!({ "site": site, "shape": shape.as_str(), "seconds": lasts, "force": force });
    let begun: Record = shaped(client.post("/drill", &order)?)?;
    let mut screen = Screen::default();
    let (mut shown, mut ending) = (String::new(), false);
    loop {
        if interrupted.within(LOOK) {
            if ending {
                let failure = Failure::new(EXIT_FAILED, "the return of the site is not waited for");
                return Err(failure.help("the drill has ended; its verdict will be in `relais history`"));
            }
            match client.delete("/drill") {
                // It has ended by itself: only the return is waited for.
                Ok(_) | Err(ClientError::Refused { .. }) => ending = true,
                // The edge ends it once nobody asks any more.
                Err(error) => return Err(error.into()),
            }
        }
        let answer = client.get("/drill")?;
        let Answer { drill } = shaped(answer.clone())?;
        let Some(record) = drill.filter(|record| record.number == begun.number) else {
            let failure = Failure::new(EXIT_UNREACHABLE, "the daemon does not know this drill any more");
            return Err(failure.help("it was restarted meanwhile: a drill ends with it; see its log"));
        };
        if record.done {
            if *json {
                say(answer.get("drill").unwrap_or(&answer));
            } else {
                screen.show(&verdict(&record));
            }
            return Ok(if record.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) });
        }
        let line = progress(&record);
        if !json && line != shown {
            screen.show(&line);
            shown = line;
        }
    }
}

/// Signals while a drill lasts. Not SIGHUP, which `nohup` has ignored.
struct Interrupted {
    runtime: tokio::runtime::Runtime,
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupted {
    fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::new(EXIT_FAILED, format!("cannot listen to signals: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let listen = |kind| runtime.block_on(async { signal(kind) }).map_err(failed);
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Self { runtime, interrupt, terminate })
    }

    /// Whether one comes before so much time has passed.
    fn within(&mut self, time: Duration) -> bool {
        self.runtime.block_on(async {
            tokio::select! {
                _ = self.interrupt.recv() => true,
                _ = self.terminate.recv() => true,
                () = tokio::time::sleep(time) => false,
            }
        })
    }
}

/// What happens now: a line that changes only when something does.
fn progress(record: &Record) -> String {
    let Record { site, shape, .. } = record;
    let sum = |count: fn(&Service) -> u64| record.services.iter().map(count).sum::<u64>();
    let counts = format!(
        "moved {}, rescued {}, slow {}, lost {}",
        sum(|s| s.moved),
        sum(|s| s.rescued),
        sum(|s| s.slow),
        sum(|s| s.lost)
    );
    if record.ended.is_some() {
        return format!("{site} is no longer cut, waiting for its return; {counts}");
    }
    let left = record.services.iter().filter(|service| service.declared_micros.is_some()).count();
    let seconds = record.until.saturating_sub(record.began) / 1_000_000;
    format!("{site} is cut ({shape}) for {seconds} s; left by {left} of {}; {counts}", counted(record.services.len()))
}

fn counted(services: usize) -> String {
    super::order::counted(services, "service")
}

/// The verdict, a table of services and a sentence.
pub(crate) fn verdict(record: &Record) -> String {
    let headings = ["SERVICE", "KEPT", "LEFT AFTER", "LAST MOVED AFTER", "MOVED", "RESCUED", "SLOW", "LOST", "TOLD"];
    let mut services = table(&headings);
    for service in &record.services {
        let time = |micros: Option<u64>| Cell::new(micros.map_or_else(|| "-".to_owned(), millis));
        services.add_row(vec![
            Cell::new(&service.name),
            Cell::new(if service.kept { "yes" } else { "NO" }),
            time(service.declared_micros),
            time(service.last_moved_micros),
            Cell::new(service.moved),
            Cell::new(service.rescued),
            Cell::new(service.slow),
            Cell::new(service.lost),
            Cell::new(service.told),
        ]);
    }
    let mut text = render(services);
    let kept = record.services.iter().filter(|service| service.kept).count();
    let cut = record.ended.map_or(0, |ended| ended.saturating_sub(record.began));
    let _ = writeln!(
        text,
        "{} was cut ({}) for {}: {} of {} kept; {}",
        record.site,
        record.shape,
        millis(cut),
        kept,
        counted(record.services.len()),
        record.returned_micros.map_or_else(
            || "that all of it was up again was not seen".to_owned(),
            |micros| format!("all of it was up again {} after the cut ended", millis(micros))
        )
    );
    let told: u64 = record.services.iter().map(|service| service.told).sum();
    if let Some(told) = few(record) {
        let _ = writeln!(text, "{told}");
    }
    if told > 0 {
        let clients = super::order::counted(usize::try_from(told).unwrap_or(usize::MAX), "client");
        let _ = writeln!(
            text,
            "{clients} told at once: what they had sent may have been received, or their answer had begun; never repeated"
        );
    }
    for problem in &record.problems {
        let _ = writeln!(text, "  {problem}");
    }
    let _ = match record.problems.len() {
        0 if record.shape == "slow" => writeln!(text, "PASSED: nobody failed while {} was slow", record.site),
        0 => writeln!(text, "PASSED: {} can be lost", record.site),
        _ => writeln!(text, "FAILED: losing {} is not survived as agreed", record.site),
    };
    text
}

/// What is told of those that met the cut, where they are few. Where all answers were late every request met it.
fn few(record: &Record) -> Option<String> {
    let met: u64 = record.services.iter().map(|service| service.moved + service.told).sum();
    let told = match met {
        // A standby, or nobody asked for anything.
        0 => "no request met the cut: a drill shows more of a site that serves, under traffic".to_owned(),
        _ => {
            let requests = super::order::counted(usize::try_from(met).unwrap_or(usize::MAX), "request");
            format!("only {requests} met the cut: under more traffic a drill shows more")
        }
    };
    (met < FEW && record.shape != "slow").then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, expected) in [("20s", 20.0), ("1m", 60.0), ("1500ms", 1.5), ("7", 7.0)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "s", "-1s", "2h", "1.5s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    fn record(problems: &[&str]) -> Record {
        serde_json::from_value(json!({
            "number": 3, "site": "dijon", "shape": "silent", "forced": false, "began": 1_000_000, "until": 21_000_000,
            "ended": 21_000_000, "end": "time", "returned_micros": 610_000, "done": true, "problems": problems,
            "services": [{"name": "api", "contract_micros": 1_000_000, "kept": true, "alone": false, "checked": true,
                "declared_micros": 540_000, "last_moved_micros": 545_000, "moved": 12, "rescued": 5, "slow": 0,
                "lost": 0, "told": 1}]
        }))
        .unwrap()
    }

    #[test]
    fn the_verdict_tells_everything_that_was_asked_for() {
        let text = verdict(&record(&[]));
        for part in [
            "api",
            "yes",
            "540 ms",
            "545 ms",
            "12",
            "dijon was cut (silent) for 20 s: 1 of 1 service kept; all of it was up again 0.61 s after the cut ended\n",
            "PASSED",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("met the cut"), "{text}");
        let mut quiet = record(&[]);
        quiet.services[0].moved = 1;
        let text = verdict(&quiet);
        assert!(text.contains("only 2 requests met the cut: under more traffic"), "{text}");
        (quiet.services[0].moved, quiet.services[0].told) = (0, 0);
        let text = verdict(&quiet);
        assert!(text.contains("\nno request met the cut: a drill shows more of a site that serves"), "{text}");
        let text = verdict(&record(&["api: 1 request failed that could have been repeated"]));
        assert!(text.contains("api: 1 request failed") && text.contains("FAILED"), "{text}");
    }
}
