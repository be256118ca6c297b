//! Floor 2: who we are on the wire: the acceptor's settings, the choice of a certificate by name, the built-in local
//! CA, and TLS towards backends.
//!
//! It may touch certificate files and the `internal-ca` folder of the state directory. It may not route, decide about
//! health, or import the store: the local CA keeps its two files by itself, so that a lost store loses no trust.

pub mod internal_ca;
mod problem;
mod store;
pub mod upstream;

pub use problem::CertProblem;
pub use store::{CertInfo, CertSource, CertStore, Loaded};
