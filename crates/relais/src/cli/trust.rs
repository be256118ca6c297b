//! `relais trust`: where the built-in local CA is, and how to make this machine believe it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use relais::internal_ca;

use super::{EXIT_FAILED, Failure, say};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// State directory the CA is kept in [default: that of `relais run` here]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// `[edge] state_dir` of the file that `relais run` would take, when it can be read.
fn state_dir_of_config() -> Option<PathBuf> {
    let loaded = relais::control::load(&relais::find_config()?).ok()?;
    loaded.parsed.config.edge.state_dir
}

pub(crate) fn trust(options: &Options) -> Result<ExitCode, Failure> {
    let dir = options.state_dir.clone().or_else(state_dir_of_config).unwrap_or_else(relais::paths::default_state_dir);
    let root = internal_ca::ensure(&dir).map_err(|error| {
        Failure::new(EXIT_FAILED, format!("cannot make or read the local CA in {}: {error}", dir.display()))
            .help("run this as the user that runs relais, or name its state directory with `--state-dir DIR`")
    })?;
    say(format_args!("root certificate: {}", root.certificate.display()));
    say(format_args!("fingerprint (SHA-256): {}", root.fingerprint));
    say("");
    say(internal_ca::how_to_trust(&root.certificate).trim_end());
    Ok(ExitCode::SUCCESS)
}
