//! `relais check`: every error of a file, or what it declares, what is doubtful, and which times follow from it.
//!
//! Reads the file through the same door as `run` and reload, so that the three agree. Starts nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use relais::control;
use relais::core::Timers;
use relais::core::config::{Action, Config, Severity, TlsSource, render_problems};

use super::{EXIT_FAILED, Failure, Whom, say, term};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The file [default: that of `--config`, else ./proxy.toml, then /etc/relais/proxy.toml]
    file: Option<PathBuf>,
}

pub(crate) fn check(options: Options, whom: &Whom) -> Result<ExitCode, Failure> {
    let path = options.file.map_or_else(|| whom.file(), Ok)?;
    let name = path.display().to_string();
    let text = control::read(&path).map_err(|error| Failure::new(EXIT_FAILED, error))?;
    let parsed = control::parse(&name, &text).map_err(|errors| {
        let count = errors.problems.len();
        let rendered = render_problems(&name, &text, &errors.problems, Severity::Error, term::colour_on_stderr());
        Failure::new(
            EXIT_FAILED,
            format!("{rendered}\n{name}: {count} {}", if count == 1 { "error" } else { "errors" }),
        )
    })?;
    certificates(&parsed.config).map_err(|problems| Failure::new(EXIT_FAILED, problems))?;
    say(parsed.config.summary().trim_end());
    timers(&parsed.config);
    if !parsed.warnings.is_empty() {
        say("");
        say(render_problems(&name, &text, &parsed.warnings, Severity::Warning, term::colour()).trim_end());
    }
    say("");
    say(format_args!("{name}: good, {}", super::order::counted(parsed.warnings.len(), "warning")));
    Ok(ExitCode::SUCCESS)
}

/// Reads the certificate files, as a start would. The local CA is left alone: a check makes nothing.
fn certificates(config: &Config) -> Result<(), String> {
    let mut files_only = config.clone();
    files_only.edge.tls = TlsSource::Files;
    for service in &mut files_only.services {
        std::sync::Arc::make_mut(service).tls = TlsSource::Files;
    }
    let loaded = relais::CertStore::load(&files_only, Path::new("."));
    let words = |problem: &relais::CertProblem| problem.to_string();
    loaded.map(drop).map_err(|problems| problems.iter().map(words).collect::<Vec<_>>().join("\n"))
}

/// Which times follow from each service's contract. Services with the same times share one list.
fn timers(config: &Config) {
    let mut groups: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    for service in &config.services {
        let Action::Forward(forward) = &service.action else { continue };
        let said = Timers::solve(forward).explain();
        match groups.iter_mut().find(|(_, known)| *known == said) {
            Some((names, _)) => names.push(&service.name),
            None => groups.push((vec![&service.name], said)),
        }
    }
    for (names, said) in groups {
        say(format_args!("times of {}", names.join(", ")));
        for sentence in said {
            say(format_args!("  {sentence}"));
        }
    }
}
