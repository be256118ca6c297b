//! Certificates and accounts as the other rooms keep them. Keeping one waits until both copies are on the disk: what is
//! served must not be ordered again after a crash, and an account that is used must not be lost.

use std::time::{SystemTime, UNIX_EPOCH};

use relais_core::config::Secret;

use crate::contents::Contents;
use crate::entry::Key;
use crate::kept::{KeptAccount, KeptCertificate, Revised};
use crate::store::{FLUSH_PATIENCE, Store};

/// Before the names of notes: they lie among the secrets.
const NOTE: &str = "note:";

impl Store {
    /// Keeps a certificate in the place of the one of that name. Waits until it is on the disk twice, in the database and
    /// below `certs/`, or until that was tried, 10 s at most.
    ///
    /// # Errors
    /// What of it did not come true, in words: it is remembered all the same, and tried again.
    pub fn keep_certificate(&self, certificate: KeptCertificate) -> Result<(), String> {
        self.keep_certificates(vec![certificate])
    }

    /// As [`Store::keep_certificate`], for many at once.
    ///
    /// # Errors
    /// As there; all of them were tried.
    pub fn keep_certificates(&self, certificates: Vec<KeptCertificate>) -> Result<(), String> {
        let mut keys = Vec::with_capacity(certificates.len());
        for certificate in certificates {
            let key = Key::Certificate(certificate.name.clone());
            keys.push(key.clone());
            self.change(Some(key), true, |contents| put(&mut contents.certificates, certificate));
        }
        self.until_on_disk(&keys)
    }

    /// The certificates kept, by name. A damaged or lost database takes them from `certs/`, and the other way round.
    #[must_use]
    pub fn certificates(&self) -> Vec<KeptCertificate> {
        self.inner().contents.certificates.values().map(|kept| kept.what.clone()).collect()
    }

    /// The certificate of this name.
    #[must_use]
    pub fn certificate(&self, name: &str) -> Option<KeptCertificate> {
        self.inner().contents.certificates.get(name).map(|kept| kept.what.clone())
    }

    /// Forgets a certificate, and removes its files; one that is not there is no error. Waits as keeping does.
    ///
    /// # Errors
    /// What of it did not come true, in words.
    pub fn drop_certificate(&self, name: &str) -> Result<(), String> {
        let key = Key::Certificate(name.to_owned());
        self.change(Some(key.clone()), true, |contents| contents.certificates.remove(name).is_some());
        self.until_on_disk(&[key])
    }

    /// Keeps an account in the place of the one at that authority. Waits as [`Store::keep_certificate`] does.
    ///
    /// # Errors
    /// As there.
    pub fn keep_account(&self, authority: &str, account: Secret) -> Result<(), String> {
        let key = Key::Account(authority.to_owned());
        let account = KeptAccount { authority: authority.to_owned(), account };
        self.change(Some(key.clone()), true, |contents: &mut Contents| put(&mut contents.accounts, account));
        self.until_on_disk(&[key])
    }

    /// The account at an authority.
    #[must_use]
    pub fn account(&self, authority: &str) -> Option<Secret> {
        self.inner().contents.accounts.get(authority).map(|kept| kept.what.account.clone())
    }

    /// Keeps a text of the caller, such as what must be cleared away after a crash, in the place of the one of that name.
    /// Waits as keeping an account does; it is in the database alone.
    ///
    /// # Errors
    /// As there.
    pub fn keep_note(&self, name: &str, text: &str) -> Result<(), String> {
        let key = Key::Secret(format!("{NOTE}{name}"));
        let known = format!("{NOTE}{name}");
        self.change(Some(key.clone()), true, |contents| {
            contents.secrets.insert(known, text.as_bytes().to_vec());
            true
        });
        self.until_on_disk(&[key])
    }

    /// The text kept under this name.
    #[must_use]
    pub fn note(&self, name: &str) -> Option<String> {
        let bytes = self.inner().contents.secrets.get(&format!("{NOTE}{name}")).cloned()?;
        String::from_utf8(bytes).ok()
    }

    /// Waits for the disk; a store made without one has nothing to wait for.
    fn until_on_disk(&self, keys: &[Key]) -> Result<(), String> {
        if self.path.is_none() {
            return Ok(());
        }
        let asked = self.inner().asked;
        let answered = self.wait(FLUSH_PATIENCE, |inner| inner.tried >= asked);
        let inner = self.inner();
        if !answered {
            return Err(format!("the disk did not answer for {} s", FLUSH_PATIENCE.as_secs()));
        }
        let among = |set: &std::collections::BTreeSet<Key>| keys.iter().any(|key| set.contains(key));
        // Not what is dirty: a newer value, from another thread, may wait for its own turn.
        match (inner.closed || among(&inner.failing), inner.closed || among(&inner.shelf_failed)) {
            (false, false) => Ok(()),
            (true, false) => Err(format!("it is in certs/ alone, not in the database: {}", inner.told().1)),
            (false, true) => Err("it is in the database alone: certs/ cannot be written".to_owned()),
            (true, true) => Err(format!("it is in memory alone: {}", inner.told().1)),
        }
    }
}

/// What can be kept under its own name.
trait Named {
    fn name(&self) -> &str;
}

impl Named for KeptCertificate {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for KeptAccount {
    fn name(&self) -> &str {
        &self.authority
    }
}

/// The same again is a change too: its copies may be damaged.
fn put<T: Named>(known: &mut std::collections::BTreeMap<String, Revised<T>>, what: T) -> bool {
    let name = what.name().to_owned();
    // By the clock, so that one dropped and kept again is newer than what a crash may have left of the first.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let clock = u64::try_from(clock).unwrap_or(u64::MAX);
    let revision = known.get(&name).map_or(0, |old| old.revision + 1).max(clock);
    known.insert(name, Revised { revision, what });
    true
}
