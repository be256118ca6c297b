//! `relais certs`: the certificates that CAs sign for this edge: how they are, what comes next and why; orders about them.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Cell, Color};
use relais::core::certs::FaultKind;
use serde::Deserialize;
use serde_json::json;

use super::order::shaped;
use super::table::{ago, render, span, table};
use super::{Client, EXIT_DEGRADED, EXIT_FAILED, Failure, Whom, import, say};

/// An order at a CA may take so long.
const ORDER: Duration = Duration::from_secs(400);
/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The daemon's whole answer, as JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Have a certificate renewed now, whatever its dates
    Renew {
        /// Its name, as `relais certs` shows it
        name: String,
        /// Wait until it is there, or until it is known why not
        #[arg(long)]
        wait: bool,
    },
    /// Order a certificate at the CA's rehearsal (staging) and throw it away: does it work?
    Test {
        /// A host
        name: String,
    },
    /// Take the certificate in use back at its CA; another one is ordered
    Revoke {
        /// Its name, as `relais certs` shows it
        name: String,
        /// Why; told to the CA
        #[arg(long, value_enum, default_value_t = Why::Unspecified)]
        reason: Why,
    },
    /// Give the account at each CA, or at one, a new key
    Rollover {
        /// Name of the authority
        authority: Option<String>,
    },
    /// Take over the certificates and accounts of a Caddy or certbot, so that switching costs no new order
    Import(import::Options),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Why {
    Unspecified,
    KeyCompromise,
    Superseded,
    CessationOfOperation,
}

/// `GET /certs`.
#[derive(Debug, Deserialize)]
pub(crate) struct Certs {
    #[serde(default)]
    certificates: Vec<Certificate>,
    #[serde(default)]
    authorities: Vec<Authority>,
    #[serde(default)]
    staples: Vec<Staple>,
}

impl Certs {
    /// As the alarms of `relais status` count it.
    fn is_bad(&self) -> bool {
        self.certificates.iter().any(Certificate::is_bad) || self.staples.iter().any(|one| one.is_bad)
    }
}

/// A certificate that clients refuse without an OCSP answer.
#[derive(Debug, Deserialize)]
struct Staple {
    name: String,
    #[serde(default)]
    until: Option<u64>,
    #[serde(default)]
    fault: Option<String>,
    #[serde(default)]
    failed_at: Option<u64>,
    #[serde(default)]
    is_bad: bool,
}

#[derive(Debug, Deserialize)]
struct Certificate {
    name: String,
    state: String,
    #[serde(default)]
    authority: Option<String>,
    #[serde(default)]
    not_after: Option<u64>,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    renew_at: Option<u64>,
    #[serde(default)]
    window: Option<Window>,
    #[serde(default)]
    next: String,
    #[serde(default)]
    last_fault: Option<LastFault>,
}

impl Certificate {
    /// As the alarm `acme` of `relais status` counts it: an order failed, or too little time is left.
    fn is_bad(&self) -> bool {
        match self.state.as_str() {
            "urgent" | "expired" => true,
            "gone" => false,
            _ => self.last_fault.is_some(),
        }
    }
}

/// When the CA wants a renewal, and where it says why.
#[derive(Debug, Deserialize)]
struct Window {
    start: u64,
    end: u64,
    #[serde(default)]
    explanation: Option<String>,
}

#[derive(Debug, Deserialize)]
struct LastFault {
    at: u64,
    authority: String,
    fault: Fault,
}

#[derive(Debug, Deserialize)]
struct Fault {
    #[serde(default = "unknown")]
    kind: FaultKind,
    said: String,
    #[serde(default)]
    likely: Option<String>,
}

/// Of a daemon that does not tell it.
const fn unknown() -> FaultKind {
    FaultKind::Internal
}

#[derive(Debug, Deserialize)]
struct Authority {
    name: String,
    #[serde(default)]
    paused_until: Option<u64>,
    #[serde(default)]
    why: String,
}

pub(crate) fn certs(options: Options, whom: &Whom) -> Result<ExitCode, Failure> {
    let mut client = Client::new(whom)?;
    match options.what {
        None => {
            let answer = client.get("/certs")?;
            let certs: Certs = shaped(answer.clone())?;
            match options.json {
                true => say(serde_json::to_string_pretty(&answer).unwrap_or_else(|_| answer.to_string())),
                false => say(draw_at(&certs, now()).trim_end()),
            }
            return Ok(ExitCode::from(if certs.is_bad() { EXIT_DEGRADED } else { 0 }));
        }
        Some(What::Renew { name, wait }) => return renew(&mut client, &name, wait),
        Some(What::Test { name }) => {
            let answer = client.patient(ORDER).post("/certs/test", &json!({ "name": name }))?;
            let (authority, issuer) = (word(&answer, "authority"), word(&answer, "issuer"));
            say(format_args!(
                "{name}: works; the rehearsal of {authority} signed one (by {issuer}), which is thrown away"
            ));
        }
        Some(What::Revoke { name, reason }) => {
            let reason = reason.to_possible_value().map(|value| value.get_name().to_owned());
            let answer = client.patient(ORDER).post("/certs/revoke", &json!({ "name": name, "reason": reason }))?;
            say(format_args!("{name}: {}", word(&answer, "next")));
        }
        Some(What::Rollover { authority }) => {
            let answer = client.patient(ORDER).post("/certs/rollover", &json!({ "authority": authority }))?;
            for name in answer["authorities"].as_array().into_iter().flatten().filter_map(|name| name.as_str()) {
                say(format_args!("{name}: the account has a new key"));
            }
        }
        Some(What::Import(options)) => return import::import(&options, whom),
    }
    Ok(ExitCode::SUCCESS)
}

/// Has one renewed, and stays until that is over when told to.
fn renew(client: &mut Client, name: &str, wait: bool) -> Result<ExitCode, Failure> {
    let before = look(client, name)?;
    let answer = client.post("/certs/renew", &json!({ "name": name }))?;
    say(format_args!("{name}: {}", word(&answer, "next")));
    if wait {
        until_renewed(client, name, before.as_ref())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn look(client: &mut Client, name: &str) -> Result<Option<Certificate>, Failure> {
    let certs: Certs = shaped(client.get("/certs")?)?;
    Ok(certs.certificates.into_iter().find(|one| one.name == name))
}

/// Waits until another one is there than before, or another failure.
fn until_renewed(client: &mut Client, name: &str, before: Option<&Certificate>) -> Result<(), Failure> {
    let failed_at = |one: &Certificate| one.last_fault.as_ref().map(|fault| fault.at);
    let (held, failed) = before.map_or((None, None), |one| (one.fingerprint.clone(), failed_at(one)));
    let begun = std::time::Instant::now();
    loop {
        let Some(one) = look(client, name)? else {
            return Err(Failure::new(EXIT_FAILED, format!("{name}: it is not looked after any longer")));
        };
        if one.fingerprint != held {
            let (authority, end) = (one.authority.as_deref().unwrap_or("-"), one.not_after.unwrap_or_default());
            say(format_args!("{name}: renewed by {authority}, ends in {}", ahead(now(), end)));
            return Ok(());
        }
        if let Some(LastFault { authority, fault, .. }) = one.last_fault.as_ref().filter(|at| Some(at.at) != failed) {
            let failure = Failure::new(EXIT_FAILED, format!("{name}: {authority}: {}", fault.said));
            let next = || "it is tried again by itself: `relais certs` shows when; what there is serves on".to_owned();
            return Err(failure.help(fault.likely.clone().unwrap_or_else(next)));
        }
        if begun.elapsed() > ORDER {
            let failure = Failure::new(EXIT_FAILED, format!("{name}: no word after {} s", ORDER.as_secs()));
            return Err(failure.help(format!("it goes on without this command: {}", one.next)));
        }
        std::thread::sleep(LOOK);
    }
}

fn word<'a>(answer: &'a serde_json::Value, key: &str) -> &'a str {
    answer[key].as_str().unwrap_or_default()
}

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn draw_at(certs: &Certs, now: u64) -> String {
    if certs.certificates.is_empty() {
        let none = "no certificate is ordered from a CA: hosts have files, or the local CA (`relais status`)\n";
        return none.to_owned() + &staples(certs, now);
    }
    let mut table = table(&["NAME", "STATE", "ISSUER", "ENDS IN", "RENEWED IN", "NEXT"]);
    for one in &certs.certificates {
        table.add_row(vec![
            Cell::new(&one.name),
            state(&one.state),
            Cell::new(one.authority.as_deref().unwrap_or("-")),
            Cell::new(one.not_after.map_or("-".to_owned(), |at| ahead(now, at))),
            Cell::new(one.renew_at.map_or("-".to_owned(), |at| ahead(now, at))),
            Cell::new(next(one, now)),
        ]);
    }
    let mut text = render(table);
    for one in &certs.certificates {
        if let Some(Window { explanation: Some(url), .. }) = &one.window {
            let authority = one.authority.as_deref().unwrap_or("its CA");
            text.push_str(&format!("{}: {authority} says why: {url}\n", one.name));
        }
        if let Some(LastFault { at, authority, fault }) = &one.last_fault {
            let said = if fault.kind.is_said() { " said" } else { "" };
            text.push_str(&format!("{}: {} ago, {authority}{said}: {}\n", one.name, ago(now, *at), fault.said));
            if let Some(likely) = &fault.likely {
                text.push_str(&format!("    likely: {likely}\n"));
            }
        }
    }
    for authority in &certs.authorities {
        if let Some(until) = authority.paused_until {
            text.push_str(&format!("{} is left alone for {}: {}\n", authority.name, ahead(now, until), authority.why));
        }
    }
    text + &staples(certs, now)
}

/// The next step, with the CA's window where that is what is waited for.
fn next(one: &Certificate, now: u64) -> String {
    match &one.window {
        Some(Window { start, end, .. }) if one.state == "valid" => {
            format!("{}, {} to {} from now", one.next, ahead(now, *start), ahead(now, *end))
        }
        _ => one.next.clone(),
    }
}

/// A line for each certificate that needs an OCSP answer.
fn staples(certs: &Certs, now: u64) -> String {
    let mut text = String::new();
    for Staple { name, until, fault, failed_at, .. } in &certs.staples {
        let state = match until {
            None => "needs an OCSP answer and has none".to_owned(),
            Some(until) if *until <= now => "needs an OCSP answer, and the one it has is old".to_owned(),
            Some(until) => format!("its OCSP answer ends in {}", ahead(now, *until)),
        };
        text.push_str(&format!("{name}: {state}\n"));
        if let Some(fault) = fault {
            let when = failed_at.map_or_else(String::new, |at| format!("{} ago: ", ago(now, at)));
            text.push_str(&format!("    not fetched, {when}{fault}\n"));
        }
    }
    text
}

fn state(word: &str) -> Cell {
    let colour = match word {
        "valid" => Color::Green,
        "urgent" | "expired" => Color::Red,
        "missing" | "due" => Color::Yellow,
        _ => Color::Cyan,
    };
    Cell::new(word).fg(colour)
}

fn ahead(now: u64, at: u64) -> String {
    if at <= now { "now".to_owned() } else { span((at - now) / 1_000_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_ocsp_answer_is_told_and_counts() {
        let answer = |bad: bool| {
            json!({ "certificates": [], "authorities": [], "staples": [
                { "name": "a.fr", "until": 7_200_000_000_u64, "fault": null, "failed_at": null, "is_bad": false },
                { "name": "b.fr", "until": null, "fault": "connection refused", "failed_at": 0, "is_bad": bad },
            ] })
        };
        let certs: Certs = serde_json::from_value(answer(true)).unwrap();
        let text = draw_at(&certs, 1_000_000);
        for words in
            ["a.fr: its OCSP answer ends in", "b.fr: needs an OCSP answer and has none", "1 s ago: connection refused"]
        {
            assert!(text.contains(words), "{text}");
        }
        assert!(certs.is_bad());
        let certs: Certs = serde_json::from_value(answer(false)).unwrap();
        assert!(!certs.is_bad());
    }

    #[test]
    fn the_cas_words_stand_below_the_table() {
        let answer = json!({
            "certificates": [
                { "name": "a.fr", "state": "valid", "authority": "le", "not_after": 90 * 86_400_000_000_u64, "renew_at": 60 * 86_400_000_000_u64, "next": "renewed at a third" },
                { "name": "b.fr", "state": "missing", "next": "waits: later", "last_fault": { "at": 0, "authority": "le", "fault": { "kind": "challenge", "said": "Connection refused", "likely": "port 80 is closed" } } },
            ],
            "authorities": [{ "name": "le", "paused_until": 120_000_000, "why": "busy" }],
        });
        let certs: Certs = serde_json::from_value(answer).unwrap();
        let text = draw_at(&certs, 0);
        assert_eq!(certs.certificates.iter().map(Certificate::is_bad).collect::<Vec<_>>(), [false, true]);
        for words in [
            "90 d",
            "60 d",
            "b.fr: 0 s ago, le said: Connection refused",
            "likely: port 80",
            "le is left alone for 2 min: busy",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }
}
