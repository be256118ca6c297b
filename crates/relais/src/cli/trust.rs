//! `relais trust`: where the built-in local CA is, and how to make this machine believe it. The CA of the edge that runs,
//! else the one that `relais run` here would use.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use relais::internal_ca::{self, Root};

use super::{Client, ClientError, EXIT_FAILED, Failure, Whom, say};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// State directory the CA is kept in [default: that of the running edge, else that of `relais run` here]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Where a running edge keeps its state.
struct Running {
    pid: u64,
    state_dir: PathBuf,
}

pub(crate) fn trust(options: &Options, whom: &Whom) -> Result<ExitCode, Failure> {
    let running = running(whom)?;
    let (root, is_new) = match (&options.state_dir, &running) {
        (Some(dir), _) => made(dir)?,
        (None, Some(running)) => (of_running(running)?, false),
        (None, None) => made(&whom.places()?.state_dir.unwrap_or_else(relais::paths::default_state_dir))?,
    };
    match &running {
        Some(Running { pid, state_dir }) if root.certificate == internal_ca::root_path(state_dir) => {
            say(format_args!("local CA of the running relais (pid {pid})"));
        }
        Some(Running { pid, state_dir }) => {
            let other = state_dir.display();
            say(format_args!("NOT the local CA of the running relais (pid {pid}), which keeps its own in {other}"));
        }
        None => say("local CA of `relais run` here (no relais answers)"),
    }
    if is_new {
        say(
            "there was none in that state directory, so it was made just now: `relais run` uses it when it runs as this user",
        );
        say("and keeps its state there; if it does not, start it first, and ask again");
    }
    say(format_args!("root certificate: {}", root.certificate.display()));
    say(format_args!("fingerprint (SHA-256): {}", root.fingerprint));
    say("");
    say(internal_ca::how_to_trust(&root.certificate).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// The edge that runs. One that does not answer this user counts as none only where nobody is there.
fn running(whom: &Whom) -> Result<Option<Running>, Failure> {
    let status = match Client::new(whom)?.get("/status") {
        Ok(status) => status,
        Err(ClientError::Unreachable(nobody)) if !nobody.is_forbidden() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let process = &status["process"];
    let dir = process["state_dir"].as_str().map(PathBuf::from);
    Ok(dir.map(|state_dir| Running { pid: process["pid"].as_u64().unwrap_or_default(), state_dir }))
}

/// The CA of a running edge. Never made here: the edge makes it when a host needs it, as its own user.
fn of_running(Running { pid, state_dir }: &Running) -> Result<Root, Failure> {
    let failure = |why: String, help: &str| Err(Failure::new(EXIT_FAILED, why).help(help));
    match internal_ca::find(state_dir) {
        Ok(Some(root)) => Ok(root),
        Ok(None) => failure(
            format!(
                "the running relais (pid {pid}) has no local CA in {}: no host of its file needs one, or it cannot write there",
                state_dir.display()
            ),
            "`relais status` shows who signed each certificate, and what is wrong",
        ),
        Err(why) => failure(
            format!("cannot read the local CA of the running relais (pid {pid}): {why}"),
            "run this as the user that runs relais, or with sudo",
        ),
    }
}

/// The CA in a state directory, and whether it was made for this question because there was none.
fn made(dir: &Path) -> Result<(Root, bool), Failure> {
    let is_new = !internal_ca::find(dir).is_ok_and(|found| found.is_some());
    let root = internal_ca::ensure(dir).map_err(|error| {
        Failure::new(EXIT_FAILED, format!("cannot make or read the local CA in {}: {error}", dir.display()))
            .help("run this as the user that runs relais, or name its state directory with `--state-dir DIR`")
    })?;
    Ok((root, is_new))
}
