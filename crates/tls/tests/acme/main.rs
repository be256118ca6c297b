//! Orders against a real CA program (Debian's `pebble`) and against a CA of our own that misbehaves on purpose.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod clerk;
mod edge;
#[allow(dead_code, reason = "the tests of the executable use the rest")]
mod fake;
mod pebble;

mod failures;
mod names;
mod orders;
mod scripted;
mod upkeep;
