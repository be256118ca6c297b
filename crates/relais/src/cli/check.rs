//! `relais check`: every error of a file, or what it declares, what is doubtful, and which times follow from it.
//!
//! Reads the file through the same door as `run` and reload, so that the three agree. Starts nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use relais::core::Timers;
use relais::core::config::{Action, Config, Severity, render_problems};
use relais::{Checked, control};

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
    let Checked { problems, warnings: doubts } = relais::CertStore::check(&parsed.config);
    if !problems.is_empty() {
        return Err(Failure::new(EXIT_FAILED, lines(&problems)));
    }
    say(parsed.config.summary().trim_end());
    timers(&parsed.config);
    if !parsed.warnings.is_empty() {
        say("");
        say(render_problems(&name, &text, &parsed.warnings, Severity::Warning, term::colour()).trim_end());
    }
    for doubt in &doubts {
        say(format_args!("warning: {doubt}"));
    }
    say("");
    let warnings = parsed.warnings.len() + doubts.len();
    say(format_args!("{name}: good, {}", super::order::counted(warnings, "warning")));
    Ok(ExitCode::SUCCESS)
}

fn lines(problems: &[relais::CertProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
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
