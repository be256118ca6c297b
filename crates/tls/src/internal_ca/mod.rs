//! The built-in local CA, for names no public CA signs: a root certificate kept in `STATE_DIR/internal-ca`, and the
//! certificates it signs, held in memory.
//!
//! May touch that folder alone. A state directory that cannot be written costs the trust people gave, not the service:
//! the CA then lives in memory until the process ends.

mod disk;
mod leaf;
mod root;
mod trust;

use std::io;
use std::path::{Path, PathBuf};

use relais_core::Instant;

use crate::clock;
use crate::problem::CertProblem;

pub(crate) use leaf::{RENEW_BEFORE, issue};
pub(crate) use root::Authority;
pub use trust::how_to_trust;

/// Where the root certificate is kept: the file people trust.
#[must_use]
pub fn root_path(state_dir: &Path) -> PathBuf {
    disk::Folder::of(state_dir).certificate()
}

/// The local CA as it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The root certificate, PEM: the file people trust.
    pub certificate: PathBuf,
    /// Its key, PKCS#8 PEM, readable by its owner alone.
    pub key: PathBuf,
    /// SHA-256 of the certificate as browsers show it: `AB:CD:...`.
    pub fingerprint: String,
    /// End of its validity.
    pub not_after: Instant,
}

/// Says where the root certificate is, and makes the CA when there is none yet (or when it is damaged or near its end; the old
/// files are set aside). One that has ended is kept: it is the clock that is wrong. Needs the key only for making: another
/// user may ask where the certificate is.
///
/// # Errors
/// When there is no CA and the state directory cannot be written.
pub fn ensure(state_dir: &Path) -> io::Result<Root> {
    let folder = disk::Folder::of(state_dir);
    let now = clock::now();
    let root = match root::look(&folder, now) {
        Ok(Some(root)) => root,
        _ => Authority::open(&folder, now)?.0.certificate,
    };
    Ok(in_folder(&folder, &root))
}

/// Says where the root certificate is, when there is one that can be used. Makes nothing.
///
/// # Errors
/// When the state directory cannot be read.
pub fn find(state_dir: &Path) -> io::Result<Option<Root>> {
    let folder = disk::Folder::of(state_dir);
    match root::look(&folder, clock::now()) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        found => Ok(found?.map(|root| in_folder(&folder, &root))),
    }
}

fn in_folder(folder: &disk::Folder, root: &root::RootCertificate) -> Root {
    let fingerprint = crate::x509::fingerprint(&root.der);
    Root { certificate: folder.certificate(), key: folder.key(), fingerprint, not_after: root.not_after }
}

/// The CA, from the disk where possible, else in memory. With what the operator should know.
pub(crate) fn open(state_dir: &Path, now: Instant) -> Result<(Authority, Option<CertProblem>), CertProblem> {
    let folder = disk::Folder::of(state_dir);
    let (message, help) = match Authority::open(&folder, now) {
        Ok((authority, None)) => {
            let ended = ended(&folder, authority.certificate.not_after, now);
            return Ok((authority, ended));
        }
        Ok((authority, Some(set_aside))) => {
            let message = format!("a new local CA was made: {}", set_aside.why);
            let help =
                format!("trust it again (`relais trust`); the old files were set aside as *{}", set_aside.suffix);
            tracing::error!(folder = %folder.path().display(), "{message}; {help}");
            return Ok((authority, Some(problem(folder.certificate(), message, help))));
        }
        Err(fault) => (
            format!("the local CA cannot be kept: {fault}"),
            "it lives in memory, and browsers that trusted it will warn; let relais read and write this folder (`state_dir` in `[edge]`)",
        ),
    };
    match Authority::make(now) {
        Ok(authority) => Ok((authority, Some(problem(folder.path().to_path_buf(), message, help.to_string())))),
        Err(fault) => Err(problem(
            folder.path().to_path_buf(),
            format!("{message}; and none can be made: {fault}"),
            "name certificate files in `[certificate.NAME]` and set `tls = \"files\"`".to_string(),
        )),
    }
}

/// What to say of one that has ended by this clock.
fn ended(folder: &disk::Folder, end: Instant, now: Instant) -> Option<CertProblem> {
    let (end, now) = ((now >= end).then(|| clock::date(end))?, clock::date(now));
    let message = format!("the local CA ended on {end}, and the clock says {now}: nothing it signs is believed");
    let help = format!(
        "if the clock is wrong set it, that is all; if it is right move {} away, and another CA is made at the next start",
        folder.path().display()
    );
    Some(problem(folder.certificate(), message, help))
}

fn problem(file: PathBuf, message: String, help: String) -> CertProblem {
    CertProblem { certificate: "internal".to_string(), file: Some(file), message, help }
}
