//! Floor 3: one event at a time. The control loop owns [`relais_core::Fleet`]; everything else here is an edge that
//! tells the loop what happened or does what the loop says: probe, watch, admin socket, metrics.
//!
//! The edges form a star: they talk to the loop only, never to one another. This room may touch `proxy.toml`, probes,
//! the admin socket and timers. It may not touch client traffic, and it does not know the `proxy` room.
//!
//! ```text
//! let (mut control, snapshot) = Control::new(setup, now);   // the first snapshot is already published
//! let handle = control.handle();                            // SIGHUP -> handle.reload(false)
//! control.run(signal).await;                                // until `signal` or POST /stop
//! control.run(workers_are_drained).await;                   // checks and failover go on during the drain
//! control.close().await;                                    // last answers out, store flushed, socket removed
//! ```

mod admin;
mod agent;
mod alarm;
mod apply;
mod certs;
mod contract;
mod control;
mod edges;
mod effects;
mod errands;
mod handle;
mod load;
mod loading;
mod metrics;
mod names;
mod note;
mod probe;
mod reload;
mod requests;
mod setup;
mod status;
mod succession;
mod watch;
mod wireguard;

pub use alarm::Alarm;
pub use certs::{FoundPair, Import, Imported, StapleReport, Tried, import_into};
pub use contract::{Explained, History};
pub use control::{Control, Ended};
pub use handle::{Handle, Refusal, RefusalKind};
pub use load::{Loaded, load, load_past_certificates, parse, parse_past_certificates, places, read};
pub use relais_tls::acme::Reason;
pub use reload::{Outcome, Trigger, Verdict};
pub use setup::{Bind, ListenerHooks, SetLogLevel, Setup, UpgradeOrders};
pub use status::{AdminReply, AffectedBackend, Certificates, ListenerStatus, ProcessStatus, Status};
