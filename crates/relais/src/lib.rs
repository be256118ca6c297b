//! Floor 4: builds the pieces and runs the threads. The embedding API of relais.
//!
//! ```no_run
//! let edge = relais::Edge::builder().config_file("proxy.toml").start()?;
//! println!("{:?}", edge.local_addresses());
//! edge.drain("dijon")?;
//! edge.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This room may touch arguments, signals, threads and listening sockets. It takes no decisions: routing, health and
//! failover are core's. The command line lives in the executable beside this library and uses nothing but it.

mod access_line;
mod bind;
mod builder;
mod edge;
mod error;
mod inherited;
pub mod limits;
pub mod log;
pub mod paths;
mod phase;
mod sockets;
mod start;
mod threads;
mod wait;

pub use builder::{EdgeBuilder, LogHooks, find_config};
pub use edge::{Crashed, Edge, LocalAddress};
pub use error::StartError;
pub use inherited::Inherited;
pub use relais_control as control;
pub use relais_core as core;
pub use relais_tls::internal_ca;
pub use relais_tls::takeover;
pub use relais_tls::{CertProblem, CertStore, Checked};
