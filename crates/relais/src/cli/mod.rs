//! The command line: what is typed, and the exit code it ends with.
//!
//! Each command lives in a file of its own. Nothing here decides about traffic: `run` starts the library's `Edge`,
//! everything else asks a running one through its admin socket.

mod certs;
mod check;
mod client;
mod drill;
mod explain;
mod foreign;
mod history;
mod import;
mod order;
mod picture;
mod run;
mod signals;
mod status;
mod table;
mod term;
mod trust;
mod upgrade;
mod view;
mod whom;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub(crate) use client::{Client, ClientError};
pub(crate) use signals::Signals;
pub(crate) use table::{render, table, word};
pub(crate) use term::{Failure, Screen, say, warn};
pub(crate) use whom::Whom;

use crate::demo;

/// Bad config, or it cannot start, or relais refused an order. 2 is clap's own, for usage.
pub(crate) const EXIT_FAILED: u8 = 1;
/// No daemon answers.
pub(crate) const EXIT_UNREACHABLE: u8 = 3;
/// `status`, `certs`: something is degraded.
pub(crate) const EXIT_DEGRADED: u8 = 4;
/// `status`: a service has no backend.
pub(crate) const EXIT_NO_BACKEND: u8 = 5;

const EXIT_CODES: &str = "Exit codes: 0 good, 1 bad config, cannot start or order refused, 2 usage, 3 no relais \
                          answers, 4 status, certs: something is degraded, 5 status: a service has no backend.";

/// A reverse proxy that keeps a site's visitors served when a whole site dies.
#[derive(Debug, Parser)]
#[command(name = "relais", bin_name = "relais", version, after_help = EXIT_CODES, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    whom: Whom,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the edge until it is told to stop
    Run(run::Options),
    /// Check a config file: every error, or a summary of what it declares
    Check(check::Options),
    /// Show what a running edge believes of its sites, services and backends, and why
    Status(status::Options),
    /// Show what failovers took and drills showed
    History(history::Options),
    /// Show the certificates that CAs sign for a running edge; renew, test, revoke, import
    Certs(certs::Options),
    /// Say how the times of a service come about
    Explain(explain::Options),
    /// Prove on the running edge that a site can be lost
    Drill(drill::Options),
    /// Let a site or a backend finish what it has and give it nothing new
    Drain(OrderArgs),
    /// Take a site or a backend out at once: it is not probed either
    Disable(OrderArgs),
    /// Give a site or a backend traffic again
    Enable(OrderArgs),
    /// Have the config file read again, and hear the verdict
    Reload(order::ReloadOptions),
    /// Drain and stop a running edge
    Stop,
    /// Have the executable that is installed now take the place of the one that runs, without a gap
    Upgrade,
    /// Show or change the log level of a running edge
    LogLevel {
        /// error, warn, info, debug, trace, or a filter such as `info,relais_proxy=debug`
        level: Option<String>,
    },
    /// Say how to trust the built-in local CA: that of the running edge, else of the one that would run here
    Trust(trust::Options),
    /// Show the whole thing at work: an edge, three sites, a cut
    Demo(demo::Options),
}

/// About what an order is.
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// `SITE` or `SERVICE/ADDRESS`, as `relais status` names them; `SERVICE/SITE` where that is one backend;
    /// `SERVICE/SITE/ADDRESS` where two sites have the same address
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Wait until nothing is in flight there
    #[arg(long)]
    pub(crate) wait: bool,
    /// Why; shown by `relais status` until the next order
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// Runs the command line to its end.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| foreign::explained(error).exit());
    let whom = &cli.whom;
    let done = match cli.command {
        Command::Run(options) => run::run(options, whom),
        Command::Check(options) => check::check(options, whom),
        Command::Status(options) => status::status(&options, whom),
        Command::History(options) => history::history(&options, whom),
        Command::Certs(options) => certs::certs(options, whom),
        Command::Explain(options) => explain::explain(&options, whom),
        Command::Drill(options) => drill::drill(&options, whom),
        Command::Drain(args) => order::admin(&args, order::Word::Draining, whom),
        Command::Disable(args) => order::admin(&args, order::Word::Disabled, whom),
        Command::Enable(args) => order::admin(&args, order::Word::Enabled, whom),
        Command::Reload(options) => order::reload(&options, whom),
        Command::Stop => order::stop(whom),
        Command::Upgrade => order::upgrade(whom),
        Command::LogLevel { level } => order::log_level(level.as_deref(), whom),
        Command::Trust(options) => trust::trust(&options, whom),
        Command::Demo(options) => demo::demo(&options),
    };
    match done {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
