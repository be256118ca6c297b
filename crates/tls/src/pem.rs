//! Reads certificates and keys from PEM files, and says what is wrong with a file in the operator's words. May read
//! files, writes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong with a file, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) message: String,
    pub(crate) help: String,
}

impl Trouble {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// A chain or a bundle of CAs is some kilobytes; more than this is another file named by mistake.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// All certificates of a PEM file, in its order. Never empty.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let text = read(path)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>().map_err(|fault| {
        Trouble::new(format!("is damaged: {fault}"), "copy the file again from where the certificate was issued")
    })?;
    if found.is_empty() { Err(no_certificate(&text, path)) } else { Ok(found) }
}

/// The first private key of a PEM file: PKCS#8, PKCS#1 or SEC1, not encrypted.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Trouble> {
    let text = read(path)?;
    if is_encrypted(&text) {
        let help = format!(
            "relais starts without asking for a password: `openssl pkey -in {} -out plain.key`, then `chmod 600 plain.key` and name that file",
            path.display()
        );
        return Err(Trouble::new("holds a key protected by a password", help));
    }
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => Err(no_key(&text, path)),
        Err(fault) => {
            Err(Trouble::new(format!("is damaged: {fault}"), "copy the file again from where the key was made"))
        }
    }
}

fn no_certificate(text: &[u8], path: &Path) -> Trouble {
    if PrivateKeyDer::from_pem_slice(text).is_ok() || is_encrypted(text) {
        return Trouble::new(
            "holds a key and no certificate",
            "give the certificate's file in `cert` and this one in `key`",
        );
    }
    not_pem(text, path, "certificate", "x509")
}

fn no_key(text: &[u8], path: &Path) -> Trouble {
    if CertificateDer::from_pem_slice(text).is_ok() {
        return Trouble::new("holds a certificate and no key", "give the key's file in `key` and this one in `cert`");
    }
    not_pem(text, path, "key", "pkey")
}

fn not_pem(text: &[u8], path: &Path, what: &str, tool: &str) -> Trouble {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Trouble::new("is empty", format!("put the PEM {what} in it, or take the `[certificate]` out"));
    }
    // DER starts with a SEQUENCE whose length takes two bytes.
    if text.starts_with(&[0x30, 0x82]) {
        let help = format!("convert it: `openssl {tool} -inform der -in {} -out {what}.pem`", path.display());
        return Trouble::new("is DER, not PEM", help);
    }
    Trouble::new(
        format!("holds no PEM {what}"),
        format!(
            "a PEM {what} starts with a line such as `-----BEGIN {}-----`",
            if what == "key" { "PRIVATE KEY" } else { "CERTIFICATE" }
        ),
    )
}

fn is_encrypted(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    let unreadable = |fault: io::Error| cannot_read(path, &fault);
    // Asked first: opening a pipe or a device could wait for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Trouble::new("is not a file", "name a PEM file"));
    }
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text)).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        return Err(Trouble::new("is larger than 8 MiB", "name a PEM file of one certificate and its chain"));
    }
    Ok(text)
}

fn cannot_read(path: &Path, fault: &io::Error) -> Trouble {
    match fault.kind() {
        io::ErrorKind::NotFound => match missing_folder(path) {
            Some(folder) => Trouble::new(
                format!("does not exist: there is no folder {}", folder.display()),
                "correct the path; a relative one starts at the folder of the config file",
            ),
            None => Trouble::new("does not exist", "correct the path, or put the file there"),
        },
        io::ErrorKind::PermissionDenied => denied(path),
        _ => Trouble::new(format!("cannot be read: {fault}"), "check the disk and the path"),
    }
}

fn missing_folder(path: &Path) -> Option<PathBuf> {
    let missing = |folder: &&Path| matches!(folder.try_exists(), Ok(false)) && !folder.as_os_str().is_empty();
    path.ancestors().skip(1).filter(missing).last().map(Path::to_path_buf)
}

/// Names the folder or the file that refuses, because a readable file in a closed folder is the usual riddle.
fn denied(path: &Path) -> Trouble {
    let closed = |inner: &&Path| matches!(inner.symlink_metadata(), Err(fault) if fault.kind() == io::ErrorKind::PermissionDenied);
    // The outermost thing that cannot even be looked at lies in the folder that is closed.
    if let Some(folder) = path.ancestors().filter(closed).last().and_then(Path::parent) {
        let folder = folder.display();
        return Trouble::new(
            format!("cannot be reached: relais may not enter the folder {folder}"),
            format!(
                "let its group in (`chgrp relais {folder} && chmod g+x {folder}`), or copy the file to a folder relais owns"
            ),
        );
    }
    let path = path.display();
    Trouble::new(
        "may not be read by relais: permission denied",
        format!("give it to the group relais runs as: `chgrp relais {path} && chmod 640 {path}`"),
    )
}
