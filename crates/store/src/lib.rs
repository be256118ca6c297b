//! Floor 2: what must survive a restart. The only room that knows the embedded database.
//!
//! It may touch its own directory. It may not touch the network, and it decides nothing: what a record means is the
//! caller's business. Nothing here ever stops traffic: a directory that cannot be used costs memory across restarts, and
//! [`Store::state`] says so.
//!
//! Read `store` first (what callers see), then `worker` (the one thread that writes) and `ladder` (how it opens).
//! In the directory lie `store-NUMBER/` (the database), `admin.json` (the operator's words once more, for people and for the day the
//! database is lost), `certs/` (certificates, keys and accounts once more, as PEM and JSON: see `shelf`), `last-good.toml` (the
//! config applied last), `store.lock`, and what was set aside: `store.broken-DATE`.

mod certs;
mod contents;
mod disk;
mod engine;
mod entry;
mod handover;
mod inner;
mod kept;
mod ladder;
mod last_good;
mod mirror;
mod reading;
mod shelf;
mod state;
mod store;
mod worker;

pub use kept::{KeptAccount, KeptCertificate};
pub use state::{Mode, StoreState};
pub use store::Store;
