//! Everything remembered, as values. The truth while the process lives; the disk is its copy. Touches nothing.

use std::collections::{BTreeMap, BTreeSet};

use relais_core::{AdminRecord, Record, RecordKey};

use crate::entry::{Key, Meta, Value};
use crate::kept::{KeptAccount, KeptCertificate, Revised};

/// Everything remembered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Contents {
    pub(crate) records: BTreeMap<RecordKey, Record>,
    /// The text of the config applied last: a file of its own on disk, see `last_good`.
    pub(crate) config: Option<String>,
    pub(crate) secrets: BTreeMap<String, Vec<u8>>,
    /// By name; once more as files, see `shelf`.
    pub(crate) certificates: BTreeMap<String, Revised<KeptCertificate>>,
    /// By authority; likewise.
    pub(crate) accounts: BTreeMap<String, Revised<KeptAccount>>,
    /// See [`Meta::admin_revision`].
    pub(crate) admin_revision: u64,
}

impl Contents {
    /// Takes what was read. A meta entry is not part of the contents.
    pub(crate) fn insert(&mut self, key: Key, value: Value) {
        match (key, value) {
            (Key::Record(key), Value::Record(record)) => drop(self.records.insert(key, record)),
            (Key::Secret(name), Value::Secret(bytes)) => drop(self.secrets.insert(name, bytes)),
            (Key::Certificate(name), Value::Certificate(kept)) => drop(self.certificates.insert(name, kept)),
            (Key::Account(authority), Value::Account(kept)) => drop(self.accounts.insert(authority, kept)),
            _ => {}
        }
    }

    /// What is remembered under a key now; `None`: nothing, it is to be removed.
    pub(crate) fn get(&self, key: &Key) -> Option<Value> {
        match key {
            Key::Record(key) => self.records.get(key).cloned().map(Value::Record),
            Key::Secret(name) => self.secrets.get(name).cloned().map(Value::Secret),
            Key::Certificate(name) => self.certificates.get(name).cloned().map(Value::Certificate),
            Key::Account(authority) => self.accounts.get(authority).cloned().map(Value::Account),
            Key::Meta => Some(Value::Meta(self.meta())),
        }
    }

    pub(crate) fn meta(&self) -> Meta {
        Meta { entries: self.entries(), admin_revision: self.admin_revision }
    }

    /// Entries in the database.
    pub(crate) fn entries(&self) -> usize {
        self.records.len() + self.secrets.len() + self.certificates.len() + self.accounts.len()
    }

    pub(crate) fn keys(&self) -> BTreeSet<Key> {
        let records = self.records.keys().cloned().map(Key::Record);
        let secrets = self.secrets.keys().cloned().map(Key::Secret);
        records.chain(secrets).chain(self.shelved()).collect()
    }

    /// Keys of what lies on the shelf too.
    pub(crate) fn shelved(&self) -> impl Iterator<Item = Key> {
        let certificates = self.certificates.keys().cloned().map(Key::Certificate);
        certificates.chain(self.accounts.keys().cloned().map(Key::Account))
    }

    /// Takes what is not known yet, and was not forgotten on purpose.
    pub(crate) fn absorb<'a>(&mut self, mut other: Contents, forgotten: impl Iterator<Item = &'a Key>) {
        for key in forgotten {
            match key {
                Key::Record(key) => drop(other.records.remove(key)),
                Key::Certificate(name) => drop(other.certificates.remove(name)),
                Key::Account(authority) => drop(other.accounts.remove(authority)),
                Key::Secret(_) | Key::Meta => {}
            }
        }
        for (key, record) in other.records {
            self.records.entry(key).or_insert(record);
        }
        for (name, secret) in other.secrets {
            self.secrets.entry(name).or_insert(secret);
        }
        for (name, kept) in other.certificates {
            self.certificates.entry(name).or_insert(kept);
        }
        for (authority, kept) in other.accounts {
            self.accounts.entry(authority).or_insert(kept);
        }
        self.admin_revision = self.admin_revision.max(other.admin_revision) + 1;
    }

    /// The operator's words.
    pub(crate) fn admin(&self) -> Vec<AdminRecord> {
        let words = self.records.values().filter_map(|record| match record {
            Record::Admin(word) => Some(word.clone()),
            Record::Backend(_)
            | Record::Failover(_)
            | Record::Drill(_)
            | Record::Certificate(_)
            | Record::Authority(_) => None,
        });
        words.collect()
    }

    /// Puts these words of the operator in the place of those known.
    pub(crate) fn replace_admin(&mut self, words: Vec<AdminRecord>, revision: u64) {
        self.records.retain(|_, record| !matches!(record, Record::Admin(_)));
        let words = words.into_iter().map(Record::Admin);
        self.records.extend(words.map(|record| (record.key(), record)));
        self.admin_revision = revision;
    }
}
