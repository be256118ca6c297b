//! Certificates from a CA, with the real executable and Debian's `pebble`: from nothing to HTTPS, through kills, damage, a
//! CA that is away, names that come and go, and from another program's folder.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod clock;
mod crash;
mod demand;
mod first;
mod names;
mod operator;
mod pebble;
mod trouble;
