//! The contract with the real executable: what it refuses, how it explains itself, how real failovers are timed and
//! remembered, and drills under load.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../program/load.rs"]
mod load;

mod drill;
mod explain;
mod history;
mod place;
mod tunnels;
