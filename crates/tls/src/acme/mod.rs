//! Certificates from public CAs by ACME (RFC 8555): carries out one order at a time, decides nothing about when.
//!
//! May talk to the CA and to DNS providers. Keeps nothing: what must survive is handed to the caller, and where it must
//! survive before the next step, the caller is waited for ([`Step::KeepAccount`], [`Step::Placed`], [`Step::KeepRecords`]).
//!
//! Read [`order`] first: `account` opens the account, `answer` puts the answers to challenges on the [`Board`], `wire`
//! carries the calls of the ACME library over [`client`] and repeats what may be repeated, `product` reads what came.

mod account;
mod answer;
mod board;
mod ca;
pub mod client;
pub mod dns;
mod eab;
mod fault;
mod jose;
mod key;
mod order;
mod product;
mod renewal;
mod step;
mod wire;

pub use account::{import, rollover};
pub(crate) use board::ACME_TLS;
pub use board::Board;
pub use ca::{Ca, Patience};
pub use fault::{FaultKind, OrderFault};
pub use order::{Begun, Job, order};
pub use product::{Product, inspect};
pub use renewal::{Reason, RenewalInfo, renewal_info, revoke};
pub use step::{Step, Steps};
