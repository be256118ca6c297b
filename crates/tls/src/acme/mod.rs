//! Certificates from public CAs by ACME (RFC 8555): carries out one order at a time, decides nothing about when.
//!
//! May talk to the CA and to DNS providers. Keeps nothing: what must survive is handed to the caller.

pub mod client;
pub mod dns;
