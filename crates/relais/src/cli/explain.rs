//! `relais explain timers SERVICE`: how the times of a service come about, from the running edge with its measured
//! round trips, else from the file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use relais::control;
use relais::core::Timers;
use relais::core::config::{Action, Config};
use serde::Deserialize;

use super::order::shaped;
use super::{Client, ClientError, EXIT_FAILED, Failure, Whom, say};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Which checks, timeouts and limits follow from a service's contract, and why
    Timers {
        /// A service of the file that has backends
        service: String,
        /// Read this file rather than ask the running edge
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// The answer to `GET /explain`.
#[derive(Debug, Deserialize)]
struct Explained {
    said: Vec<String>,
}

pub(crate) fn explain(options: &Options, whom: &Whom) -> Result<ExitCode, Failure> {
    let What::Timers { service, file } = &options.what;
    let (said, source) = match file {
        Some(file) => from_file(service, file)?,
        None => from_edge(service, whom)?,
    };
    say(format_args!("times of {service} ({source})"));
    for sentence in said {
        say(format_args!("  {sentence}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Without an edge the file must do; round trips are not known then.
fn from_edge(service: &str, whom: &Whom) -> Result<(Vec<String>, String), Failure> {
    let named = whom.socket.is_some();
    match Client::new(whom)?.get(&format!("/explain?service={}", encoded(service))) {
        Ok(answer) => {
            let Explained { said } = shaped(answer)?;
            Ok((said, "as the running edge measures".to_owned()))
        }
        Err(ClientError::Unreachable(_)) if !named => from_file(service, &whom.file()?),
        Err(error) => Err(error.into()),
    }
}

fn from_file(service: &str, path: &Path) -> Result<(Vec<String>, String), Failure> {
    let loaded = control::load(path).map_err(|error| Failure::new(EXIT_FAILED, error))?;
    let said = of_config(&loaded.parsed.config, service)?;
    Ok((said, format!("from {}; no edge was asked, so round trips are not known", path.display())))
}

fn of_config(config: &Config, name: &str) -> Result<Vec<String>, Failure> {
    let forwards = |service: &&std::sync::Arc<relais::core::config::Service>| {
        *service.name == *name && matches!(service.action, Action::Forward(_))
    };
    if let Some(Action::Forward(forward)) = config.services.iter().find(forwards).map(|service| &service.action) {
        return Ok(Timers::solve(forward).explain());
    }
    let names: Vec<&str> = config.services.iter().map(|service| &*service.name).collect();
    let failure = Failure::new(EXIT_FAILED, format!("no service `{name}` forwards requests"));
    Err(failure.help(format!("services: {}", names.join(", "))))
}

/// As a query has it. Names of services need it only where they are mistyped.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
