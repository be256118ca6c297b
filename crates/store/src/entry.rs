//! The bytes of one entry: a version, a checksum, the payload. Touches nothing.
//!
//! The checksum is ours, and covers the key: whatever the database hands out by mistake is seen here.

use relais_core::{Record, RecordKey, hash};

use crate::kept::{KeptAccount, KeptCertificate, Revised};

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Record(RecordKey),
    /// A secret by its name.
    Secret(String),
    /// A certificate by its name.
    Certificate(String),
    /// An account by its authority.
    Account(String),
    /// About the store itself.
    Meta,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Record(Record),
    Secret(Vec<u8>),
    Certificate(Revised<KeptCertificate>),
    Account(Revised<KeptAccount>),
    Meta(Meta),
}

/// Written with every batch, so that a loss the database does not notice is noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Meta {
    /// Entries there are, this one aside.
    pub(crate) entries: usize,
    /// How often the operator's words have changed; the larger of two copies is the newer one.
    pub(crate) admin_revision: u64,
}

const VERSION: u8 = 1;
/// Version and checksum.
const HEAD: usize = 1 + 8;

/// The key's bytes. `Err`: never with the types of today; the caller counts it as a failed write.
pub(crate) fn key_bytes(key: &Key) -> Result<Vec<u8>, String> {
    Ok(match key {
        Key::Record(key) => [b"r", serde_json::to_vec(key).map_err(|fault| fault.to_string())?.as_slice()].concat(),
        Key::Secret(name) => [b"s", name.as_bytes()].concat(),
        Key::Certificate(name) => [b"c", name.as_bytes()].concat(),
        Key::Account(authority) => [b"a", authority.as_bytes()].concat(),
        Key::Meta => b"m".to_vec(),
    })
}

/// The bytes of a value under its key's bytes.
pub(crate) fn encode(key: &[u8], value: &Value) -> Result<Vec<u8>, String> {
    let payload = match value {
        Value::Record(record) => serde_json::to_vec(record),
        Value::Secret(bytes) => Ok(bytes.clone()),
        Value::Certificate(kept) => serde_json::to_vec(kept),
        Value::Account(kept) => serde_json::to_vec(kept),
        Value::Meta(meta) => serde_json::to_vec(meta),
    };
    let payload = payload.map_err(|fault| fault.to_string())?;
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.push(VERSION);
    bytes.extend(checksum(key, &payload));
    bytes.extend(payload);
    Ok(bytes)
}

/// Reads an entry. `None`: damaged, or written by another version.
pub(crate) fn decode(key: &[u8], bytes: &[u8]) -> Option<(Key, Value)> {
    let (head, payload) = bytes.split_at_checked(HEAD)?;
    if head.first() != Some(&VERSION) || head.get(1..) != Some(&checksum(key, payload)[..]) {
        return None;
    }
    let (kind, name) = key.split_first()?;
    match kind {
        b'r' => {
            let record: Record = serde_json::from_slice(payload).ok()?;
            let key: RecordKey = serde_json::from_slice(name).ok()?;
            (record.key() == key).then_some((Key::Record(key), Value::Record(record)))
        }
        b's' => Some((Key::Secret(String::from_utf8(name.to_vec()).ok()?), Value::Secret(payload.to_vec()))),
        b'c' => {
            let kept: Revised<KeptCertificate> = serde_json::from_slice(payload).ok()?;
            (kept.what.name.as_bytes() == name)
                .then(|| (Key::Certificate(kept.what.name.clone()), Value::Certificate(kept)))
        }
        b'a' => {
            let kept: Revised<KeptAccount> = serde_json::from_slice(payload).ok()?;
            let is_its = kept.what.authority.as_bytes() == name;
            is_its.then(|| (Key::Account(kept.what.authority.clone()), Value::Account(kept)))
        }
        b'm' => Some((Key::Meta, Value::Meta(serde_json::from_slice(payload).ok()?))),
        _ => None,
    }
}

fn checksum(key: &[u8], payload: &[u8]) -> [u8; 8] {
    hash::stable(&[key, payload]).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use relais_core::config::Secret;
    use relais_core::{Admin, AdminRecord, Instant, Target};

    fn admin() -> Value {
        let target = Target::Site("dijon".into());
        Value::Record(Record::Admin(AdminRecord {
            target,
            word: Admin::Draining,
            since: Instant(7),
            reason: Some("fibre \"works\"".into()),
        }))
    }

    fn certificate() -> Revised<KeptCertificate> {
        let what = KeptCertificate {
            name: "a.fr".into(),
            authority: "ca".into(),
            about: serde_json::json!({ "until": 7 }),
            chain_pem: "chain".into(),
            key_pem: Secret::new("key"),
        };
        Revised { revision: 3, what }
    }

    fn account() -> Revised<KeptAccount> {
        Revised { revision: 4, what: KeptAccount { authority: "ca".into(), account: Secret::new("{}") } }
    }

    fn all() -> Vec<(Key, Value)> {
        let Value::Record(record) = admin() else { unreachable!() };
        vec![
            (Key::Record(record.key()), admin()),
            (Key::Secret("sticky".into()), Value::Secret(vec![0, 255, 1])),
            (Key::Certificate("a.fr".into()), Value::Certificate(certificate())),
            (Key::Account("ca".into()), Value::Account(account())),
            (Key::Meta, Value::Meta(Meta { entries: 3, admin_revision: 9 })),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for (key, value) in all() {
            let name = key_bytes(&key).unwrap();
            assert_eq!(decode(&name, &encode(&name, &value).unwrap()), Some((key, value)));
        }
    }

    #[test]
    fn any_flipped_bit_cut_or_foreign_version_is_seen() {
        for (key, value) in all() {
            let name = key_bytes(&key).unwrap();
            let good = encode(&name, &value).unwrap();
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&name, &bad), None, "bit {bit} of {key:?}");
            }
            for len in 0..good.len() {
                assert_eq!(decode(&name, &good[..len]), None, "{len} bytes of {key:?}");
            }
            assert_eq!(decode(b"sother", &good), None, "under another key");
            assert_eq!(decode(b"", &good), None);
        }
    }

    /// The format on disk: a change here loses every store in the field, or is a new version.
    #[test]
    fn the_format_is_pinned() {
        let Value::Record(record) = admin() else { unreachable!() };
        let name = key_bytes(&Key::Record(record.key())).unwrap();
        assert_eq!(String::from_utf8(name.clone()).unwrap(), r#"r{"admin":{"site":"dijon"}}"#);
        let bytes = encode(&name, &admin()).unwrap();
        assert_eq!(
            String::from_utf8(bytes[HEAD..].to_vec()).unwrap(),
            r#"{"admin":{"target":{"site":"dijon"},"word":"draining","since":7,"reason":"fibre \"works\""}}"#
        );
        let kept = |value: &Value| String::from_utf8(encode(b"x", value).unwrap()[HEAD..].to_vec()).unwrap();
        assert_eq!(
            kept(&Value::Certificate(certificate())),
            r#"{"revision":3,"what":{"name":"a.fr","authority":"ca","about":{"until":7},"chain_pem":"chain","key_pem":"key"}}"#
        );
        assert_eq!(kept(&Value::Account(account())), r#"{"revision":4,"what":{"authority":"ca","account":"{}"}}"#);
        let secret = encode(b"sx", &Value::Secret(vec![1, 2, 3])).unwrap();
        assert_eq!(secret, [1, 49, 200, 127, 20, 54, 140, 25, 158, 1, 2, 3]);
    }
}
