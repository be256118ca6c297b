//! The built-in local CA.

use std::io;
use std::path::{Path, PathBuf};

/// Where the root certificate is kept.
#[must_use]
pub fn root_path(state_dir: &Path) -> PathBuf {
    state_dir.join("internal-ca").join("root.crt")
}

/// The local CA as it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The root certificate, PEM: the file people trust.
    pub certificate: PathBuf,
    /// Its key, PEM, readable by the owner alone.
    pub key: PathBuf,
    /// SHA-256 of the certificate, as `AB:CD:...`.
    pub fingerprint: String,
}

/// Makes the local CA at first use, and says where it is.
pub fn ensure(state_dir: &Path) -> io::Result<Root> {
    Err(io::Error::other(format!("{} holds no CA", state_dir.display())))
}

/// How to trust the root certificate, in words for a terminal.
#[must_use]
pub fn how_to_trust(root: &Path) -> String {
    root.display().to_string()
}
