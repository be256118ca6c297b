//! Orders to a running edge: drain, disable, enable, reload, stop, upgrade, log-level.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::view::{AdminReply, Affected, Status, Verdict};
use super::{Client, ClientError, EXIT_FAILED, EXIT_UNREACHABLE, Failure, OrderArgs, Screen, Whom, say, warn};

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(200);
/// Longer than the edge waits for its successor.
const UPGRADE: Duration = Duration::from_secs(120);
/// Longest wait for the admin socket of the successor.
const CHANGING_HANDS: Duration = Duration::from_secs(5);

/// The operator's word.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Word {
    Enabled,
    Draining,
    Disabled,
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Word::Enabled => "enabled",
            Word::Draining => "draining",
            Word::Disabled => "disabled",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReloadOptions {
    /// Apply the file even when it drops most of the running services
    #[arg(long)]
    force: bool,
}

/// Reads an answer into the shape this version knows.
pub(crate) fn shaped<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| {
        Failure::new(EXIT_UNREACHABLE, format!("the daemon's answer is not understood: {error}"))
            .help("the daemon and this command may be of different versions: restart the daemon")
    })
}

pub(crate) fn admin(args: &OrderArgs, word: Word, whom: &Whom) -> Result<ExitCode, Failure> {
    let mut client = Client::new(whom)?;
    let order = json!({ "target": args.target, "word": word.as_str(), "reason": args.reason });
    let reply: AdminReply = shaped(client.post("/admin", &order)?)?;
    say(format_args!("{}: {}, {}", reply.target, reply.word, counted(reply.backends.len(), "backend")));
    for backend in &reply.backends {
        say(format_args!("  {}", affected(backend)));
    }
    for warning in &reply.warnings {
        warn(warning);
    }
    if args.wait {
        wait_until_idle(&mut client, &reply)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn affected(backend: &Affected) -> String {
    let Affected { service, site, address, health, admin, inflight } = backend;
    format!("{service}/{address} at {site}: {admin}, {health}, {inflight} in flight")
}

/// Shows what is in flight until nothing is.
fn wait_until_idle(client: &mut Client, reply: &AdminReply) -> Result<(), Failure> {
    let begun = std::time::Instant::now();
    let mut screen = Screen::default();
    let mut shown = String::new();
    loop {
        let status: Status = shaped(client.get("/status")?)?;
        let left: Vec<(&Affected, u64)> =
            reply.backends.iter().map(|backend| (backend, status.inflight(backend).unwrap_or(0))).collect();
        let total: u64 = left.iter().map(|(_, inflight)| inflight).sum();
        let parts: Vec<String> = left
            .iter()
            .filter(|(_, inflight)| *inflight > 0)
            .map(|(backend, inflight)| format!("{}/{} {inflight}", backend.service, backend.address))
            .collect();
        if total == 0 {
            let seconds = begun.elapsed().as_secs_f64();
            screen.show(&format!("{}: nothing in flight after {seconds:.1} s", reply.target));
            return Ok(());
        }
        let line = format!("{}: {total} in flight ({})", reply.target, parts.join(", "));
        if line != shown {
            screen.show(&line);
            shown = line;
        }
        std::thread::sleep(LOOK);
    }
}

pub(crate) fn reload(options: &ReloadOptions, whom: &Whom) -> Result<ExitCode, Failure> {
    let path = if options.force { "/reload?force=true" } else { "/reload" };
    let verdict: Verdict = shaped(Client::new(whom)?.post(path, &json!({ "force": options.force }))?)?;
    if verdict.outcome == "refused" {
        let failure = Failure::new(EXIT_FAILED, verdict.message.trim_end());
        return Err(match verdict.help {
            Some(help) => failure.help(help),
            None => failure,
        });
    }
    let message = verdict.message.trim_end();
    match message.starts_with(&verdict.outcome) {
        true => say(message),
        false => say(format_args!("{}: {message}", verdict.outcome)),
    }
    for warning in &verdict.warnings {
        say(format_args!("warning: {warning}"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn stop(whom: &Whom) -> Result<ExitCode, Failure> {
    let mut client = Client::new(whom)?;
    client.post("/stop", &Value::Null)?;
    say("stopping: nothing new is accepted, requests in flight may finish");
    // Done when the socket no longer answers: the daemon removes it last.
    loop {
        match client.get("/log-level") {
            Err(ClientError::Unreachable(_) | ClientError::Broken(..)) => break,
            Ok(_) | Err(ClientError::Refused { .. }) => std::thread::sleep(LOOK),
        }
    }
    say("stopped");
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn upgrade(whom: &Whom) -> Result<ExitCode, Failure> {
    let mut client = Client::new(whom)?;
    let old = client.get("/status")?["process"].clone();
    let pid = client.patient(UPGRADE).post("/upgrade", &Value::Null)?["pid"].clone();
    // The admin socket changes hands, too: the next command is to find it.
    let until = Instant::now() + CHANGING_HANDS;
    let mut new = json!({ "pid": pid });
    while Instant::now() < until {
        match Client::new(whom)?.get("/status") {
            Ok(mut status) if status["process"]["pid"] == pid => {
                new = status["process"].take();
                break;
            }
            _ => std::thread::sleep(LOOK),
        }
    }
    let (new, old) = (process(&new), process(&old));
    say(format_args!("{new} serves; {old} accepts nothing any more and finishes what it has in flight"));
    Ok(ExitCode::SUCCESS)
}

/// `pid 17 (relais 0.2.0)`, or without the version where it was not told.
fn process(told: &Value) -> String {
    let version = told["version"].as_str().map(|version| format!(" (relais {version})"));
    format!("pid {}{}", told["pid"], version.unwrap_or_default())
}

pub(crate) fn log_level(level: Option<&str>, whom: &Whom) -> Result<ExitCode, Failure> {
    let mut client = Client::new(whom)?;
    let answer = match level {
        Some(level) => client.put("/log-level", &json!({ "level": level }))?,
        None => client.get("/log-level")?,
    };
    let level = answer.get("level").and_then(Value::as_str).or(answer.as_str());
    say(level.map_or_else(|| answer.to_string(), str::to_owned));
    Ok(ExitCode::SUCCESS)
}

/// `1 backend`, `2 backends`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
