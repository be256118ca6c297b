//! The whole program: real executable, backends that are killed and stopped, clients that everybody has. What it does
//! when its file changes, when it is killed itself, when the machine is in trouble, and what it tells of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod alone;
mod certificates;
mod grpc;
mod load;
mod metrics;
mod ocsp;
mod operator;
mod outages;
mod outliers;
mod reload;
mod restart;
mod stalls;
mod stopping;
mod telling;
mod testssl;
mod together;
mod trouble;
mod upgrade;
