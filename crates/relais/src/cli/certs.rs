//! `relais certs`: the certificates that CAs sign for this edge: how they are, what comes next and why; orders about them.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Cell, Color};
use serde::Deserialize;
use serde_json::json;

use super::order::shaped;
use super::table::{ago, render, span, table};
use super::{Client, EXIT_DEGRADED, Failure, Whom, import, say};

/// An order at a CA may take so long.
const ORDER: Duration = Duration::from_secs(400);

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
    renew_at: Option<u64>,
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

#[derive(Debug, Deserialize)]
struct LastFault {
    at: u64,
    authority: String,
    fault: Fault,
}

#[derive(Debug, Deserialize)]
struct Fault {
    said: String,
    #[serde(default)]
    likely: Option<String>,
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
                false => say(draw(&certs).trim_end()),
            }
            return Ok(ExitCode::from(if certs.is_bad() { EXIT_DEGRADED } else { 0 }));
        }
        Some(What::Renew { name }) => {
            let answer = client.post("/certs/renew", &json!({ "name": name }))?;
            say(format_args!("{name}: {}", word(&answer, "next")));
        }
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

fn word<'a>(answer: &'a serde_json::Value, key: &str) -> &'a str {
    answer[key].as_str().unwrap_or_default()
}

fn draw(certs: &Certs) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    draw_at(certs, u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
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
            Cell::new(&one.next),
        ]);
    }
    let mut text = render(table);
    for one in &certs.certificates {
        if let Some(LastFault { at, authority, fault }) = &one.last_fault {
            text.push_str(&format!("{}: {} ago {authority} said: {}\n", one.name, ago(now, *at), fault.said));
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
            "b.fr: 0 s ago le said: Connection refused",
            "likely: port 80",
            "le is left alone for 2 min: busy",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }
}
