//! `relais certs import`: reads the folder of a Caddy or certbot here, as whoever runs the command, and gives what is in it
//! to the running relais, or to the state directory when none runs.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use relais::control::{FoundPair, Import};
use relais::takeover::{self, Found};
use serde::Deserialize;

use super::order::shaped;
use super::{Client, ClientError, EXIT_FAILED, Failure, Whom, say};

/// Certificates sent at once.
const AT_ONCE: usize = 200;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Caddy's data folder (`/var/lib/caddy/.local/share/caddy`) or certbot's (`/etc/letsencrypt`)
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// State directory to write to when no relais runs [default: that of `relais run` here]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// The answer to `POST /certs/import`.
#[derive(Debug, Default, Deserialize)]
struct Imported {
    names: Vec<String>,
    accounts: Vec<String>,
    left: Vec<String>,
}

pub(crate) fn import(options: &Options, whom: &Whom) -> Result<ExitCode, Failure> {
    let found =
        takeover::read(&options.dir).map_err(|why| Failure::new(EXIT_FAILED, why).help(way_out(&options.dir)))?;
    for (path, why) in &found.left {
        say(format_args!("left: {}: {why}", path.display()));
    }
    let mut client = Client::new(whom)?;
    let mut all = Imported::default();
    for part in parts(found) {
        let answer = match client.post("/certs/import", &serde_json::json!(part)) {
            Err(ClientError::Unreachable(_)) => without_daemon(options, whom, part)?,
            answer => shaped(answer?)?,
        };
        all.names.extend(answer.names);
        all.accounts.extend(answer.accounts);
        all.left.extend(answer.left);
    }
    for why in &all.left {
        say(format_args!("left: {why}"));
    }
    for name in &all.names {
        say(format_args!("taken over: {name}"));
    }
    for authority in &all.accounts {
        say(format_args!("taken over: the account at {authority}"));
    }
    say(format_args!("{} certificates and {} accounts taken over", all.names.len(), all.accounts.len()));
    Ok(ExitCode::SUCCESS)
}

/// What to do about a folder that gives nothing.
fn way_out(dir: &Path) -> &'static str {
    match std::fs::read_dir(dir).map_err(|fault| fault.kind()) {
        Err(std::io::ErrorKind::PermissionDenied) => "keys are readable by their owner alone: run this with sudo",
        _ => {
            "a Caddy has them in `/var/lib/caddy/.local/share/caddy`, started by hand in `~/.local/share/caddy`; certbot in `/etc/letsencrypt`"
        }
    }
}

/// What was found, in portions.
fn parts(found: Found) -> Vec<Import> {
    let certificates: Vec<FoundPair> = found
        .certificates
        .into_iter()
        .map(|one| FoundPair { origin: one.origin, public: one.chain_pem, key: one.key_pem.expose().to_owned() })
        .collect();
    let accounts = found
        .accounts
        .into_iter()
        .map(|one| FoundPair { origin: one.origin, public: one.url, key: one.key_pem.expose().to_owned() })
        .collect();
    let mut parts: Vec<Import> = certificates
        .chunks(AT_ONCE)
        .map(|chunk| Import { certificates: chunk.to_vec(), accounts: Vec::new() })
        .collect();
    parts.push(Import { certificates: Vec::new(), accounts });
    parts
}

/// No relais runs: what it will find at its start.
fn without_daemon(options: &Options, whom: &Whom, part: Import) -> Result<Imported, Failure> {
    let path = whom.file()?;
    let config = relais::control::load(&path).map_err(|why| Failure::new(EXIT_FAILED, why))?.parsed.config;
    let declared = options.state_dir.clone().or_else(|| config.edge.state_dir.clone());
    let dir = declared.unwrap_or_else(relais::paths::default_state_dir);
    let imported = relais::control::import_into(&dir, &config, part).map_err(|why| Failure::new(EXIT_FAILED, why))?;
    belong_to_owner(&dir);
    Ok(Imported { names: imported.names, accounts: imported.accounts, left: imported.left })
}

/// What root wrote must be readable for whoever runs relais: the owner of the directory. Best effort: where that fails, the
/// one who ran the command is that user.
fn belong_to_owner(dir: &Path) {
    let Ok(owner) = std::fs::metadata(dir) else { return };
    let mut left = vec![dir.to_path_buf()];
    while let Some(path) = left.pop() {
        let _ = chown(&path, Some(owner.uid()), Some(owner.gid()));
        if path.is_dir() && !path.is_symlink() {
            left.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
}
