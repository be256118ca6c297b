//! `certs/`: certificates, keys and accounts once more as plain files, beside the database. A database that is lost must not
//! cost an order, and people want to see and take along what is theirs. Touches that folder alone.
//!
//! `certs/AUTHORITY/NAME/{cert.pem,key.pem,meta.json}` and `certs/AUTHORITY/account.json`. The three files of a certificate
//! are replaced so that at every moment a whole set is there, the old one or the new one: all are written as `*.new` first,
//! then renamed one by one. `meta.json` has a checksum over all three; a reader takes each file from `*.new` where that gives
//! a set with the right checksum, else all as they are.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use relais_core::config::Secret;
use serde::{Deserialize, Serialize};

use crate::contents::Contents;
use crate::entry::{Key, Value};
use crate::kept::{KeptAccount, KeptCertificate, Revised};

const VERSION: u32 = 1;
const CHAIN: &str = "cert.pem";
const KEY: &str = "key.pem";
const META: &str = "meta.json";
const ACCOUNT: &str = "account.json";

/// Keys that are written each by itself.
const FEW: usize = 16;

/// How files get to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syncs {
    Each,
    Together,
}

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    path: PathBuf,
}

/// What it holds.
#[derive(Debug, Default)]
pub(crate) struct OnShelf {
    certificates: BTreeMap<String, Revised<KeptCertificate>>,
    accounts: BTreeMap<String, Revised<KeptAccount>>,
    /// Names that lie there more than once: an authority was changed, and the old one not yet removed.
    doubled: Vec<String>,
    /// What is there and cannot be used, in words.
    pub(crate) damaged: Vec<String>,
}

/// `meta.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    version: u32,
    name: String,
    authority: String,
    revision: u64,
    checksum: String,
    about: serde_json::Value,
}

/// `account.json`.
#[derive(Debug, Serialize, Deserialize)]
struct AccountFile {
    version: u32,
    authority: String,
    revision: u64,
    checksum: String,
    account: String,
}

impl Shelf {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("certs") }
    }

    /// Reads everything. What is damaged is told and passed over.
    pub(crate) fn read(&self) -> OnShelf {
        let mut found = OnShelf::default();
        for authority in folders(&self.path) {
            match read_account(&authority) {
                Ok(None) => {}
                Ok(Some(account)) => drop(found.accounts.insert(account.what.authority.clone(), account)),
                Err(why) => found.damaged.push(format!("{}: {why}", authority.join(ACCOUNT).display())),
            }
            for folder in folders(&authority) {
                match read_certificate(&folder) {
                    Ok(certificate) => found.take(certificate),
                    Err(why) => found.damaged.push(format!("{}: {why}", folder.display())),
                }
            }
        }
        found
    }

    /// Makes the files of these keys say what is given; returns when they are on the disk. Keys without files are passed over.
    /// Gives what failed.
    pub(crate) fn put(&self, all: Vec<(Key, Option<Value>)>) -> Vec<(Key, io::Error)> {
        // Each file by itself costs a thousand times what all together cost; but all together waits for what others write.
        let syncs = if all.len() > FEW { Syncs::Together } else { Syncs::Each };
        let mut failed = Vec::new();
        let mut written = Vec::with_capacity(all.len());
        for (key, value) in all {
            match self.write(value.as_ref(), syncs) {
                Ok(()) => written.push((key, value)),
                Err(fault) => failed.push((key, fault)),
            }
        }
        let mut done = Vec::with_capacity(written.len());
        let synced = self.sync(syncs);
        for (key, value) in written {
            let shown = synced.as_ref().map_err(again).and_then(|()| self.show(&key, value.as_ref(), syncs));
            match shown {
                Ok(()) => done.push(key),
                Err(fault) => failed.push((key, fault)),
            }
        }
        if let Err(fault) = self.sync(syncs) {
            failed.extend(done.into_iter().map(|key| (key, again(&fault))));
        }
        failed
    }

    /// Writes the new files beside the old ones.
    fn write(&self, value: Option<&Value>, syncs: Syncs) -> io::Result<()> {
        match value {
            Some(Value::Certificate(kept)) => {
                let KeptCertificate { name, authority, about, chain_pem, key_pem } = &kept.what;
                let meta = Meta {
                    version: VERSION,
                    name: name.clone(),
                    authority: authority.clone(),
                    revision: kept.revision,
                    checksum: kept.checksum(),
                    about: about.clone(),
                };
                let meta = serde_json::to_vec_pretty(&meta)?;
                let files =
                    [(CHAIN, chain_pem.as_bytes()), (KEY, key_pem.expose().as_bytes()), (META, meta.as_slice())];
                self.write_new(&self.folder(authority, name), &files, syncs)
            }
            Some(Value::Account(kept)) => {
                let file = AccountFile {
                    version: VERSION,
                    authority: kept.what.authority.clone(),
                    revision: kept.revision,
                    checksum: kept.checksum(),
                    account: kept.what.account.expose().to_owned(),
                };
                let file = serde_json::to_vec_pretty(&file)?;
                self.write_new(&self.authority(&kept.what.authority), &[(ACCOUNT, &file)], syncs)
            }
            _ => Ok(()),
        }
    }

    /// Puts the new files in the place of the old ones, and removes what is no more.
    fn show(&self, key: &Key, value: Option<&Value>, syncs: Syncs) -> io::Result<()> {
        match (key, value) {
            (_, Some(Value::Certificate(kept))) => {
                let KeptCertificate { name, authority, .. } = &kept.what;
                rename_new(&self.folder(authority, name), &[CHAIN, KEY, META], syncs)?;
                self.remove_certificate(name, Some(authority))
            }
            (_, Some(Value::Account(kept))) => rename_new(&self.authority(&kept.what.authority), &[ACCOUNT], syncs),
            (Key::Certificate(name), None) => self.remove_certificate(name, None),
            (Key::Account(authority), None) => remove(&self.authority(authority).join(ACCOUNT)),
            _ => Ok(()),
        }
    }

    /// Returns when all that was written below the folder is on the disk.
    fn sync(&self, syncs: Syncs) -> io::Result<()> {
        match syncs {
            Syncs::Each => Ok(()),
            Syncs::Together => Ok(rustix::fs::syncfs(File::open(&self.path)?)?),
        }
    }

    /// Writes files of one folder beside those they will replace. Only the owner may read them.
    fn write_new(&self, folder: &Path, files: &[(&str, &[u8])], syncs: Syncs) -> io::Result<()> {
        self.make(folder, syncs)?;
        for (name, bytes) in files {
            let path = folder.join(new_name(name));
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
            file.write_all(bytes)?;
            if syncs == Syncs::Each {
                file.sync_all()?;
            }
        }
        if syncs == Syncs::Each { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    /// Removes a name below every authority but one.
    fn remove_certificate(&self, name: &str, but: Option<&str>) -> io::Result<()> {
        let kept = but.map(|authority| self.authority(authority));
        for authority in folders(&self.path).into_iter().filter(|authority| Some(authority) != kept.as_ref()) {
            let folder = authority.join(file_name(name));
            if folder.is_dir() {
                fs::remove_dir_all(&folder)?;
                File::open(&authority)?.sync_all()?;
            }
        }
        Ok(())
    }

    fn authority(&self, name: &str) -> PathBuf {
        self.path.join(file_name(name))
    }

    fn folder(&self, authority: &str, name: &str) -> PathBuf {
        self.authority(authority).join(file_name(name))
    }

    /// Makes a folder below this one. Keys lie there: nobody else may look.
    fn make(&self, folder: &Path, syncs: Syncs) -> io::Result<()> {
        let inner = folder.ancestors().take_while(|at| at.starts_with(&self.path));
        for at in inner.collect::<Vec<_>>().into_iter().rev().filter(|at| !at.is_dir()) {
            DirBuilder::new().mode(0o700).create(at)?;
            if let Some(parent) = at.parent().filter(|_| syncs == Syncs::Each) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(())
    }
}

impl OnShelf {
    fn take(&mut self, new: Revised<KeptCertificate>) {
        let name = new.what.name.clone();
        if let Some(known) = self.certificates.get(&name) {
            self.doubled.push(name.clone());
            if known.revision >= new.revision {
                return;
            }
        }
        self.certificates.insert(name, new);
    }

    /// Brings the newer copy of everything into `contents`. Gives the keys whose files are not as `contents`, and how many
    /// values came from files.
    pub(crate) fn reconcile(self, contents: &mut Contents) -> (Vec<Key>, usize) {
        let mut stale: Vec<Key> = self.doubled.into_iter().map(Key::Certificate).collect();
        let mut taken = 0;
        let (stale_names, newer) = merge(&mut contents.certificates, self.certificates);
        stale.extend(stale_names.into_iter().map(Key::Certificate));
        taken += newer;
        let (stale_names, newer) = merge(&mut contents.accounts, self.accounts);
        stale.extend(stale_names.into_iter().map(Key::Account));
        (stale, taken + newer)
    }
}

/// Of two copies the newer one wins; of two that differ without one being newer, the one we have.
fn merge<T: PartialEq>(
    ours: &mut BTreeMap<String, Revised<T>>,
    theirs: BTreeMap<String, Revised<T>>,
) -> (Vec<String>, usize) {
    let is_stale = |(name, our): &(&String, &Revised<T>)| {
        theirs.get(*name).is_none_or(|their| their.revision <= our.revision && their != *our)
    };
    let stale = ours.iter().filter(is_stale).map(|(name, _)| name.clone()).collect();
    let newer = |ours: &BTreeMap<String, Revised<T>>, name: &str, their: &Revised<T>| {
        ours.get(name).is_none_or(|our| our.revision < their.revision)
    };
    let mut taken = 0;
    for (name, their) in theirs {
        if newer(ours, &name, &their) {
            ours.insert(name, their);
            taken += 1;
        }
    }
    (stale, taken)
}

fn read_certificate(folder: &Path) -> Result<Revised<KeptCertificate>, String> {
    let newest = |name: &str| {
        let new = folder.join(new_name(name));
        if new.exists() { new } else { folder.join(name) }
    };
    read_set(&newest).or_else(|_| read_set(&|name| folder.join(name)))
}

/// Three files that belong together, or why they do not.
fn read_set(place: &dyn Fn(&str) -> PathBuf) -> Result<Revised<KeptCertificate>, String> {
    let read = |name: &str| fs::read_to_string(place(name)).map_err(|fault| format!("{name}: {fault}"));
    let meta: Meta = serde_json::from_str(&read(META)?).map_err(|fault| format!("{META}: {fault}"))?;
    let Meta { version, name, authority, revision, checksum, about } = meta;
    let what = KeptCertificate { name, authority, about, chain_pem: read(CHAIN)?, key_pem: Secret::new(&read(KEY)?) };
    let kept = Revised { revision, what };
    match kept.checksum() == checksum {
        true if version == VERSION => Ok(kept),
        true => Err("written by another version".to_owned()),
        false => Err("the files do not belong together, or one is damaged".to_owned()),
    }
}

fn read_account(authority: &Path) -> Result<Option<Revised<KeptAccount>>, String> {
    let text = match fs::read_to_string(authority.join(ACCOUNT)) {
        Ok(text) => text,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(fault.to_string()),
    };
    let AccountFile { version, authority, revision, checksum, account } =
        serde_json::from_str(&text).map_err(|fault| fault.to_string())?;
    let kept = Revised { revision, what: KeptAccount { authority, account: Secret::new(&account) } };
    match kept.checksum() == checksum {
        true if version == VERSION => Ok(Some(kept)),
        true => Err("written by another version".to_owned()),
        false => Err("damaged".to_owned()),
    }
}

/// Puts files in the place of those they replace: see the first page.
fn rename_new(folder: &Path, names: &[&str], syncs: Syncs) -> io::Result<()> {
    for name in names {
        fs::rename(folder.join(new_name(name)), folder.join(name))?;
    }
    if syncs == Syncs::Each { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// The same fault for another key.
fn again(fault: &io::Error) -> io::Error {
    io::Error::new(fault.kind(), fault.to_string())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
        Err(_) => Ok(()),
        Ok(()) => path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()),
    }
}

fn new_name(name: &str) -> String {
    format!("{name}.new")
}

/// Folders of a folder, sorted. None where it cannot be read: it is made when something is to be put there.
fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

/// The file name of a host or an authority: different ones have different names. `*.a.fr` is `wildcard_.a.fr`.
fn file_name(name: &str) -> String {
    let (head, rest) = match name.strip_prefix('*') {
        Some(rest) => ("wildcard_", rest),
        None => ("", name),
    };
    let is_taken = head.is_empty() && (rest.starts_with('.') || rest == ACCOUNT || rest.starts_with("wildcard_"));
    let mut file = head.to_owned();
    for (place, byte) in rest.bytes().enumerate() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if is_plain && !(place == 0 && is_taken) {
            file.push(char::from(byte));
        } else {
            file.push_str(&format!("%{byte:02X}"));
        }
    }
    if file.is_empty() { "%".to_owned() } else { file }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_file_name_of_its_own() {
        let names = [
            ("a.fr", "a.fr"),
            ("*.a.fr", "wildcard_.a.fr"),
            ("wildcard_.a.fr", "%77ildcard_.a.fr"),
            ("account.json", "%61ccount.json"),
            ("2001:db8::1", "2001%3Adb8%3A%3A1"),
            ("..", "%2E."),
            (".hidden", "%2Ehidden"),
            ("../../etc", "%2E.%2F..%2Fetc"),
            ("é.fr", "%C3%A9.fr"),
            ("", "%"),
        ];
        for (name, file) in names {
            assert_eq!(file_name(name), file);
        }
    }

    #[test]
    fn files_of_two_sets_are_one_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path());
        let kept = |revision: u64| Revised {
            revision,
            what: KeptCertificate {
                name: "a.fr".into(),
                authority: "ca".into(),
                about: serde_json::json!({ "n": revision }),
                chain_pem: format!("chain {revision}"),
                key_pem: Secret::new(&format!("key {revision}")),
            },
        };
        let folder = dir.path().join("certs/ca/a.fr");
        let texts = |revision: u64| {
            let failed = shelf.put(vec![(Key::Certificate("a.fr".into()), Some(Value::Certificate(kept(revision))))]);
            assert!(failed.is_empty());
            [CHAIN, KEY, META].map(|name| fs::read(folder.join(name)).unwrap())
        };
        let (old, new) = (texts(1), texts(2));
        // Every moment of a replacement: `written` of the new files, the last of them cut, then `renamed` of them in place.
        for (written, renamed) in [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 2), (3, 3)] {
            for cut in [false, true] {
                let _ = fs::remove_dir_all(&folder);
                fs::create_dir_all(&folder).unwrap();
                for (place, name) in [CHAIN, KEY, META].into_iter().enumerate() {
                    let is_cut = cut && place + 1 == written && renamed == 0;
                    let bytes = if is_cut { &new[place][..new[place].len() / 2] } else { &new[place] };
                    fs::write(folder.join(name), if place < renamed { bytes } else { &old[place] }).unwrap();
                    if place >= renamed && place < written {
                        fs::write(folder.join(new_name(name)), bytes).unwrap();
                    }
                }
                let expected = if written == 3 && !(cut && renamed == 0) { 2 } else { 1 };
                assert_eq!(
                    read_certificate(&folder),
                    Ok(kept(expected)),
                    "{written} written, {renamed} renamed, {cut}"
                );
            }
        }
        fs::write(folder.join(KEY), "key 1").unwrap();
        assert!(read_certificate(&folder).unwrap_err().contains("do not belong together"));
    }
}
