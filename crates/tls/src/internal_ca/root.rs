//! The root certificate and its key: read, made, or made anew when they cannot be used.

use std::fs;
use std::io;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SerialNumber,
};
use relais_core::Instant;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::disk::{Folder, named};
use super::leaf::{LIFE as LEAF_LIFE, set_validity};
use crate::clock;
use crate::x509;

const DAY: Duration = Duration::from_secs(86_400);
/// Ten years: trusting it is work done by hand on every machine.
const LIFE: Duration = Duration::from_secs(3_652 * 86_400);

/// The root certificate.
#[derive(Debug, Clone)]
pub(crate) struct RootCertificate {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) not_after: Instant,
}

/// The root with its key: able to sign.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) certificate: RootCertificate,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

/// Files that were renamed because they could not be used.
#[derive(Debug)]
pub(crate) struct SetAside {
    pub(crate) why: String,
    /// What was put behind their names.
    pub(crate) suffix: String,
}

/// What lies in the folder.
enum Found {
    Nothing,
    Usable(Authority),
    /// A key whose certificate was lost: the same key signs a new certificate, and trust given to the old one holds.
    KeyAlone(KeyPair),
    Useless(String),
}

/// The certificate on the disk, without asking for its key. `None`: there is none that can be used.
pub(super) fn look(folder: &Folder, now: Instant) -> io::Result<Option<RootCertificate>> {
    let path = folder.certificate();
    let text = fs::read(&path).map_err(named(&path))?;
    Ok(usable(&text, now).ok().map(|(certificate, _)| certificate))
}

impl Authority {
    /// From the disk, made there when there is none. `Err`: the folder cannot be read or written.
    pub(super) fn open(folder: &Folder, now: Instant) -> io::Result<(Authority, Option<SetAside>)> {
        let _lock = folder.lock();
        match find(folder, now)? {
            Found::Usable(authority) => Ok((authority, None)),
            Found::Nothing => Ok((make_in(folder, key()?, now)?, None)),
            Found::KeyAlone(key) => Ok((make_in(folder, key, now)?, None)),
            Found::Useless(why) => {
                let suffix = format!(".broken-{}", clock::file_date(now));
                folder.set_aside(&suffix)?;
                Ok((make_in(folder, key()?, now)?, Some(SetAside { why, suffix })))
            }
        }
    }

    /// A new one that lives in memory.
    pub(super) fn make(now: Instant) -> io::Result<Authority> {
        make(key()?, now).map(|(authority, _)| authority)
    }
}

fn find(folder: &Folder, now: Instant) -> io::Result<Found> {
    let key = match read(&folder.key())? {
        None => None,
        Some(text) => match std::str::from_utf8(&text).ok().and_then(|text| KeyPair::from_pem(text).ok()) {
            Some(key) => Some(key),
            None => return Ok(Found::Useless(format!("{} is damaged", folder.key().display()))),
        },
    };
    Ok(match (read(&folder.certificate())?, key) {
        (None, None) => Found::Nothing,
        (None, Some(key)) => Found::KeyAlone(key),
        (Some(_), None) => Found::Useless(format!("{} is gone", folder.key().display())),
        (Some(text), Some(key)) => match usable(&text, now) {
            Err(why) => Found::Useless(format!("{} {why}", folder.certificate().display())),
            Ok((_, public_key)) if public_key != key.subject_public_key_info() => Found::Useless(format!(
                "{} does not belong to {}",
                folder.key().display(),
                folder.certificate().display()
            )),
            Ok((certificate, _)) => match Issuer::from_ca_cert_der(&certificate.der, key) {
                Ok(issuer) => Found::Usable(Authority { certificate, issuer }),
                Err(fault) => Found::Useless(format!("{} cannot sign: {fault}", folder.certificate().display())),
            },
        },
    })
}

fn read(path: &std::path::Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(named(path)(fault)),
    }
}

/// The certificate and its public key. `Err`: why it cannot be used.
fn usable(text: &[u8], now: Instant) -> Result<(RootCertificate, Vec<u8>), String> {
    let der = CertificateDer::from_pem_slice(text).map_err(|_| "is damaged".to_string())?;
    let facts = x509::facts(&der).map_err(|_| "is damaged".to_string())?;
    if !facts.is_ca {
        return Err("is no CA certificate".to_string());
    }
    // What it signs today must not outlive it. One that has ended is none that was forgotten, as it is looked at all the
    // time: the clock is ahead, and the trust people gave must not be lost for that.
    if now + LEAF_LIFE > facts.not_after && now < facts.not_after {
        return Err(format!("is at the end of its life ({})", clock::date(facts.not_after)));
    }
    Ok((RootCertificate { der, not_after: facts.not_after }, facts.public_key))
}

fn key() -> io::Result<KeyPair> {
    KeyPair::generate().map_err(io::Error::other)
}

fn make_in(folder: &Folder, key: KeyPair, now: Instant) -> io::Result<Authority> {
    let key_pem = key.serialize_pem();
    let (authority, certificate_pem) = make(key, now)?;
    // The key first: a crash between the two leaves a key alone, from which the certificate is made at the next start.
    folder.write_key(&key_pem)?;
    folder.write_certificate(&certificate_pem)?;
    Ok(authority)
}

fn make(key: KeyPair, now: Instant) -> io::Result<(Authority, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "relais local CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial()?);
    let not_after = now + LIFE;
    set_validity(&mut params, now - DAY, not_after);
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    let pem = certificate.pem();
    let certificate = RootCertificate { der: certificate.der().clone(), not_after };
    Ok((Authority { certificate, issuer: Issuer::new(params, key) }, pem))
}

/// Random and positive (RFC 5280, section 4.1.2.2): a root made again from the same key is another certificate.
fn serial() -> io::Result<SerialNumber> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the random source failed"))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
