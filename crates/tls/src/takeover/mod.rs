//! Certificates and accounts of another program, read from its folder: switching to relais must not cost an order.
//!
//! May read that folder; writes nothing, asks nobody, decides nothing: what is good for anything is the caller's business.

mod caddy;
mod certbot;

use std::path::{Path, PathBuf};

use relais_core::config::Secret;

/// What a folder holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Certificates with their keys.
    pub certificates: Vec<FoundCertificate>,
    /// Accounts whose keys could be read.
    pub accounts: Vec<FoundAccount>,
    /// What is there and was left, and why.
    pub left: Vec<(PathBuf, String)>,
}

/// A certificate with its key, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCertificate {
    /// Where its certificate lies.
    pub file: PathBuf,
    /// Who signed it; see [`is_of`]. Empty: nobody knows.
    pub origin: String,
    /// The certificate and its chain, PEM.
    pub chain_pem: String,
    /// Its key, PEM.
    pub key_pem: Secret,
}

/// An account at a CA, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundAccount {
    /// Where its key lies.
    pub file: PathBuf,
    /// At which CA; see [`is_of`].
    pub origin: String,
    /// Its URL there.
    pub url: String,
    /// Its key, PEM.
    pub key_pem: Secret,
}

/// Reads the folder of a Caddy (its data folder, or `certificates` in it) or of a certbot (`/etc/letsencrypt`).
///
/// # Errors
/// It is neither, or cannot be read, in words.
pub fn read(folder: &Path) -> Result<Found, String> {
    if let Err(fault) = std::fs::read_dir(folder) {
        return Err(format!("{} cannot be read: {fault}", folder.display()));
    }
    let root = match folder.file_name().and_then(|name| name.to_str()) {
        Some("certificates" | "live" | "archive") => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    // A home of Caddy has its data two folders below.
    let caddy = [root.to_path_buf(), root.join("caddy"), root.join(".local/share/caddy")];
    if let Some(data) = caddy.iter().find(|data| data.join("certificates").is_dir()) {
        return Ok(caddy::read(data));
    }
    if root.join("live").is_dir() {
        return Ok(certbot::read(root));
    }
    Err(format!(
        "{} is neither the data folder of a Caddy (with `certificates` in it) nor that of a certbot (with `live` in it)",
        folder.display()
    ))
}

/// Whether what was found comes from the CA with this directory. Certbot keeps the directory's URL; Caddy names a folder
/// after it: host and path, with `-` for `/`.
#[must_use]
pub fn is_of(origin: &str, directory: &str) -> bool {
    origin == directory || origin == directory.trim_start_matches("https://").replace(['/', ':'], "-")
}

/// Files and folders in a folder, sorted; none where it cannot be read.
fn inside(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The text of a file, or why it cannot be had.
fn text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|fault| format!("{} cannot be read: {fault}", name(path)))
}
