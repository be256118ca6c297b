//! A new file, up to the point where it may be applied: read, parse, guard, certificates. All of it blocks on the disk
//! and runs off the loop; `apply` then takes it into force, or everything stays as it is.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relais_config::{Action, Config, Problem, Service};
use relais_core::Instant;
use relais_tls::{CertProblem, CertStore};
use serde::Serialize;

use crate::load::{self, Loaded};
use crate::watch::{Change, Target};

/// What came of the last look at the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// When.
    pub at: Instant,
    /// Who asked.
    pub trigger: Trigger,
    /// What came of it.
    pub outcome: Outcome,
    /// In words; for a refusal every error, rendered for people.
    pub message: String,
    /// The way out of a refusal.
    pub help: Option<String>,
    /// What works but is probably not meant, and what waits for the next start.
    pub warnings: Vec<String>,
    /// Generation of the snapshot workers read when this was said.
    pub generation: u64,
}

/// Who asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The start of the process.
    Start,
    /// The file changed.
    Watch,
    /// SIGHUP, `relais reload` or `POST /reload`.
    Request,
}

impl Trigger {
    /// The word of logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Start => "start",
            Trigger::Watch => "watch",
            Trigger::Request => "request",
        }
    }
}

/// What came of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The file is in force.
    Applied,
    /// The file says what is in force already; certificates were read again.
    Unchanged,
    /// The file was refused; nothing changed.
    Refused,
}

/// A file that may be applied.
pub(crate) struct Prepared {
    pub(crate) text: String,
    pub(crate) config: Arc<Config>,
    pub(crate) warnings: Vec<String>,
    /// Every file besides `proxy.toml` that went into it.
    pub(crate) files: Vec<Target>,
    pub(crate) certs: relais_tls::Loaded,
}

/// A file that may not.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) message: String,
    pub(crate) help: String,
    /// Files that could make the difference: watched, so that the arrival of a missing one is enough.
    pub(crate) wanted: Vec<Target>,
}

const KEPT: &str = "the running config stays; correct the file and save it again";

/// Everything about a reload that reads the disk. Blocks.
pub(crate) fn prepare(path: &Path, running: &Config, state_dir: &Path, force: bool) -> Result<Prepared, Refused> {
    let refused = |message, help: &str, wanted| Refused { message, help: help.to_string(), wanted };
    let (loaded, mut files) = load::load_with_parts(path);
    let Loaded { text, parsed } = match loaded {
        Ok(loaded) => loaded,
        Err(message) => return Err(refused(message, KEPT, files)),
    };
    if !force && let Err(message) = guard(running, &parsed.config) {
        let help = "the running config stays; if this is meant: `relais reload --force`";
        return Err(refused(message, help, Vec::new()));
    }
    files.extend(certificate_files(&parsed.config));
    let certs = match CertStore::load(&parsed.config, state_dir) {
        Ok(certs) => certs,
        Err(problems) => return Err(refused(lines(&problems), KEPT, files)),
    };
    let doubts = certs.warnings().iter().map(ToString::to_string);
    let warnings = warnings(&parsed.warnings).into_iter().chain(doubts).collect();
    Ok(Prepared { text, config: Arc::new(parsed.config), warnings, files, certs })
}

/// Warnings as one line each.
pub(crate) fn warnings(problems: &[Problem]) -> Vec<String> {
    let line = |p: &Problem| match &p.help {
        Some(help) => format!("line {}: {} ({help})", p.line, p.message),
        None => format!("line {}: {}", p.line, p.message),
    };
    problems.iter().map(line).collect()
}

/// What is wrong with certificates, a line each.
pub(crate) fn lines(problems: &[CertProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Certificates and keys that a config names, and the CAs it trusts backends and clients by, as they are on disk before they are
/// loaded. Blocks.
pub(crate) fn certificate_files(config: &Config) -> Vec<Target> {
    let own = config.certificates.iter().flat_map(|files| [files.cert.clone(), files.key.clone()]);
    let forwards = config.services.iter().filter_map(|service| match &service.action {
        Action::Forward(forward) => Some(forward),
        Action::Redirect(_) | Action::Respond(_) => None,
    });
    let tls = forwards.flat_map(|forward| &forward.backends).filter_map(|backend| backend.upstream.tls.as_ref());
    let clients =
        config.services.iter().filter_map(|service| Some(service.client_tls.certificate.as_ref()?.ca.clone()));
    let mut paths: Vec<PathBuf> = own.chain(tls.filter_map(|tls| tls.ca.clone())).chain(clients).collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().map(|path| Target::now(path, Change::Certificates)).collect()
}

/// Refuses a config that drops more than half of the running services: a truncated or wrong file looks like that. A
/// service counts as dropped when neither its name nor any of its hosts is left, so that renaming is no drop.
pub(crate) fn guard(running: &Config, next: &Config) -> Result<(), String> {
    let names: HashSet<&str> = next.services.iter().map(|s| &*s.name).collect();
    let hosts: HashSet<&str> = next.services.iter().flat_map(|s| s.hosts.iter().map(String::as_str)).collect();
    let left = |s: &Service| names.contains(&*s.name) || s.hosts.iter().any(|host| hosts.contains(host.as_str()));
    let dropped: Vec<&str> = running.services.iter().filter(|s| !left(s)).map(|s| &*s.name).collect();
    if dropped.len() * 2 <= running.services.len() {
        return Ok(());
    }
    let (gone, all, names) = (dropped.len(), running.services.len(), dropped.join(", "));
    Err(format!(
        "this file would drop {gone} of {all} running services ({names}); a truncated or wrong file looks like that"
    ))
}

/// What the new file says but cannot come into force while the process runs. `started` is the config of the start.
pub(crate) fn waits_for_restart(started: &Config, next: &Config) -> Vec<String> {
    let differs = [
        ("[edge] workers", started.edge.workers != next.edge.workers),
        ("[edge] state_dir", started.edge.state_dir != next.edge.state_dir),
        ("[admin] socket", started.admin != next.admin),
        ("[log] format", started.log.format != next.log.format),
    ];
    let line = |(key, _): &(&str, bool)| format!("`{key}` takes effect at the next start");
    differs.iter().filter(|(_, differs)| *differs).map(line).collect()
}

#[cfg(test)]
mod tests {
    use relais_config::{Lookup, Parsed};

    use super::*;

    fn config(services: &[(&str, &str)]) -> Config {
        let mut text = String::new();
        for (name, host) in services {
            text.push_str(&format!("[service.{name}]\nhosts = [\"{host}\"]\nrespond = {{ status = 200 }}\n"));
        }
        parse(&text)
    }

    fn parse(text: &str) -> Config {
        let Parsed { config, .. } =
            Config::parse("proxy.toml", text, &Lookup::blind()).unwrap_or_else(|e| panic!("{e}"));
        config
    }

    #[test]
    fn more_than_half_of_the_services_are_not_dropped_by_accident() {
        let running = config(&[("a", "a.fr"), ("b", "b.fr"), ("c", "c.fr"), ("d", "d.fr")]);
        guard(&running, &config(&[("a", "a.fr"), ("b", "b.fr")])).unwrap();
        let error = guard(&running, &config(&[("a", "a.fr")])).unwrap_err();
        assert!(error.contains("drop 3 of 4 running services (b, c, d)"), "{error}");
        guard(&running, &config(&[("x", "x.fr")])).unwrap_err();
    }

    #[test]
    fn a_renamed_service_is_not_dropped() {
        guard(&config(&[("web", "a.fr")]), &config(&[("www", "a.fr")])).unwrap();
        guard(&config(&[("web", "a.fr")]), &config(&[("web", "b.fr")])).unwrap();
        guard(&config(&[("web", "a.fr")]), &config(&[("other", "b.fr")])).unwrap_err();
    }

    #[test]
    fn what_waits_for_the_next_start_is_named() {
        let service = "[service.a]\nhosts = [\"a.fr\"]\nrespond = { status = 200 }\n";
        let before = parse(service);
        let after = parse(&format!("[edge]\nworkers = 3\n{service}"));
        assert_eq!(waits_for_restart(&before, &after), ["`[edge] workers` takes effect at the next start"]);
        assert!(waits_for_restart(&before, &before).is_empty());
    }
}
