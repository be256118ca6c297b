//! `[certificate.NAME]`: certificates from files. May read the files named there, writes nothing.

use arc_swap::ArcSwapOption;
use std::path::Path;
use std::sync::Arc;

use relais_core::Instant;
use relais_core::config::{CertificateFiles, ClientCertificate, FileFault};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use crate::acceptor;
use crate::certificate::{CertSource, Certificate};
use crate::copies::Copies;
use crate::pem::{self, Trouble};
use crate::problem::CertProblem;
use crate::provider::provider;
use crate::x509;

/// What the files hold.
#[derive(Debug, Default)]
pub(crate) struct FromFiles {
    /// Usable, in config order.
    pub(crate) certificates: Vec<Arc<Certificate>>,
    /// Why others are not usable.
    pub(crate) problems: Vec<CertProblem>,
    /// What is doubtful about the usable ones.
    pub(crate) warnings: Vec<CertProblem>,
    /// What the usable ones held.
    pub(crate) copies: Copies,
}

/// Reads all of them; one that fails does not hide the others' problems.
pub(crate) fn read_all(declared: &[CertificateFiles], now: Instant) -> FromFiles {
    let mut all = FromFiles::default();
    for files in declared {
        match read_pair(files) {
            Ok((chain, key)) => match certified(files, &chain, &key) {
                Ok(certificate) => {
                    all.warnings.extend(doubts(files, &certificate, now));
                    all.certificates.push(Arc::new(certificate));
                    all.copies.put(&files.name, &chain, &key);
                }
                Err(problem) => all.problems.push(problem),
            },
            Err(problems) => all.problems.extend(problems),
        }
    }
    all
}

/// As [`read_all`]; one that cannot be used is served as `before` has it. Its problem is a problem all the same.
pub(crate) fn read_all_or_copies(declared: &[CertificateFiles], before: &Copies, now: Instant) -> FromFiles {
    let mut all = read_all(declared, now);
    for files in declared {
        if all.certificates.iter().any(|one| one.name == files.name) {
            continue;
        }
        let Some((chain, key)) = all.copies.take_over(&files.name, before) else { continue };
        let usable = certified(files, &chain, &key).map(Arc::new);
        all.certificates.extend(usable.inspect_err(|problem| tracing::warn!("a copy is of no use: {problem}")));
    }
    all
}

/// What is wrong with the files of one `[certificate.NAME]`, for the text that names them. Reads them.
#[must_use]
pub fn faults_of_pair(files: &CertificateFiles) -> Vec<FileFault> {
    let read =
        read_pair(files).and_then(|(chain, key)| certified(files, &chain, &key).map_err(|problem| vec![problem]));
    let fault = |problem: CertProblem| FileFault {
        file: problem.file.unwrap_or_default(),
        message: problem.message,
        help: problem.help,
    };
    read.err().into_iter().flatten().map(fault).collect()
}

/// What is wrong with a file of CAs that certificates of clients are held against. Reads it.
#[must_use]
pub fn fault_of_client_ca(ca: &Path) -> Option<FileFault> {
    let rule = ClientCertificate { ca: ca.to_path_buf(), required: true };
    let Trouble { message, help } = acceptor::verifier(&rule).err()?;
    Some(FileFault { file: rule.ca, message, help })
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_pair(files: &CertificateFiles) -> Result<Pair, Vec<CertProblem>> {
    match (pem::certificates(&files.cert), pem::private_key(&files.key)) {
        (Ok(chain), Ok(key)) => Ok((chain, key)),
        (chain, key) => {
            let chain = chain.err().map(|trouble| problem(files, &files.cert, trouble));
            let key = key.err().map(|trouble| problem(files, &files.key, trouble));
            Err(chain.into_iter().chain(key).collect())
        }
    }
}

fn problem(files: &CertificateFiles, file: &Path, trouble: Trouble) -> CertProblem {
    let Trouble { message, help } = trouble;
    CertProblem { certificate: files.name.clone(), file: Some(file.to_path_buf()), message, help }
}

fn certified(
    files: &CertificateFiles,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Certificate, CertProblem> {
    let facts =
        chain.first().map_or_else(|| Err("it is empty".to_string()), |leaf| x509::facts(leaf)).map_err(|why| {
            let help = "copy the file again from where the certificate was issued";
            problem(files, &files.cert, Trouble::new(format!("its first certificate cannot be parsed: {why}"), help))
        })?;
    let signing = provider().key_provider.load_private_key(key.clone_key()).map_err(|_| {
        let help =
            "use ECDSA P-256 (`openssl ecparam -genkey -name prime256v1 -noout`), Ed25519, or RSA of 2048 to 8192 bits";
        problem(files, &files.key, Trouble::new("holds a kind of key that TLS cannot use", help))
    })?;
    let key = CertifiedKey::new(chain.to_vec(), signing);
    match key.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => return Err(mismatch(files, &key)),
        Err(fault) => {
            let help = "have it issued again as an X.509 version 3 certificate";
            return Err(problem(files, &files.cert, Trouble::new(format!("cannot be used: {fault}"), help)));
        }
    }
    Ok(Certificate {
        name: files.name.clone(),
        source: CertSource::Files,
        hosts: facts.hosts,
        issuer: facts.issuer,
        file: Some(files.cert.clone()),
        not_before: facts.not_before,
        not_after: facts.not_after,
        key: Arc::new(key),
        shown: false.into(),
        must_staple: facts.must_staple,
        stapled: ArcSwapOption::empty(),
    })
}

/// The key does not belong to the first certificate. Says so when it belongs to another one of the file.
fn mismatch(files: &CertificateFiles, key: &CertifiedKey) -> CertProblem {
    let belongs = |der: &CertificateDer<'static>| {
        let spki = key.key.public_key();
        x509::facts(der).is_ok_and(|facts| spki.is_some_and(|spki| spki.as_ref() == facts.public_key))
    };
    if let Some(place) = key.cert.iter().position(belongs) {
        let message =
            format!("the key {} belongs to certificate number {} of the file", files.key.display(), place + 1);
        let help = "put the server's own certificate first, then the one that signed it, and so on";
        return problem(files, &files.cert, Trouble::new(message, help));
    }
    let message = format!("the key {} does not belong to this certificate", files.key.display());
    let help = format!(
        "name the pair that was issued together; `openssl x509 -noout -pubkey -in {}` and `openssl pkey -pubout -in {}` must print the same",
        files.cert.display(),
        files.key.display()
    );
    problem(files, &files.cert, Trouble::new(message, help))
}

fn doubts(files: &CertificateFiles, certificate: &Certificate, now: Instant) -> Vec<CertProblem> {
    let mut doubts = Vec::new();
    if let Some(dates) = certificate.problem(now) {
        let help = "it is served nonetheless, and clients will refuse it; put a renewed one in its place, it is read again by itself";
        doubts.push(problem(files, &files.cert, Trouble::new(dates, help)));
    }
    let leaf = certificate.key.cert.first();
    if leaf.and_then(|leaf| x509::facts(leaf).ok()).is_some_and(|facts| !facts.has_alt_names) {
        let help = "have it issued again with a subjectAltName for each host";
        doubts.push(problem(
            files,
            &files.cert,
            Trouble::new("has no subjectAltName, so clients will refuse it", help),
        ));
    }
    if is_world_readable(&files.key) {
        let help = format!("`chmod o-r {}`", files.key.display());
        doubts.push(problem(files, &files.key, Trouble::new("can be read by every user of this machine", help)));
    }
    doubts
}

fn is_world_readable(key: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(key).is_ok_and(|data| data.permissions().mode() & 0o004 != 0)
}
