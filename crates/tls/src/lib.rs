//! Floor 2: who we are on the wire: the acceptor's settings, the choice of a certificate by name, the built-in local
//! CA, ACME, and TLS towards backends.
//!
//! It may touch certificate files, the `internal-ca` folder of the state directory, and the network towards CAs and DNS
//! providers. It may not route, decide about health or renewal, or import the store: the local CA keeps its two files by
//! itself, so that a lost store loses no trust.
//!
//! Read `store` first: [`CertStore::load`] reads (`files`) and makes (`internal_ca`) certificates, `resolver` chooses
//! one for a handshake, `acceptor` holds everything else a handshake needs. `acme` orders from a public CA.
//! `upstream` is the other direction.

mod acceptor;
pub mod acme;
mod certificate;
mod clock;
mod copies;
mod demand;
mod files;
pub mod internal_ca;
mod issued;
mod loaded;
mod pair;
mod pem;
mod problem;
mod provider;
mod resolver;
mod secret;
mod staple;
mod store;
pub mod takeover;
mod tickets;
pub mod upstream;
mod wanted;
mod x509;

pub use certificate::{CertInfo, CertSource};
pub use clock::date;
pub use demand::Demand;
pub use files::{fault_of_client_ca, faults_of_pair};
pub use issued::Issued;
pub use loaded::{Checked, Loaded};
pub use problem::CertProblem;
pub use provider::warm_up;
pub use staple::{Proof, Question, StapleWish};
pub use store::CertStore;
pub use tickets::{KeepTickets, Tickets};
pub use x509::subject;
