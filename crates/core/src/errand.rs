//! What the edge is asked to find out: each order is answered by an event.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::history::Shape;

/// One probe to execute.
#[derive(Debug, Clone)]
pub struct ProbeOrder {
    /// Given back in `Event::Probed`.
    pub id: u64,
    /// Whom.
    pub backend: Arc<Backend>,
    /// Where it is, with the backend's port; empty for a unix socket.
    pub addresses: Arc<[SocketAddr]>,
    /// The service's rule (what to ask). `relais_config::Action::Forward(..).health` of this service.
    pub check: Arc<relais_config::Forward>,
    /// Host to send when the rule names none.
    pub host: Arc<str>,
    /// Its site is in a drill: the probe must behave as if it were cut like this.
    pub drill: Option<Shape>,
    /// Deadline of the connect alone (without TLS): what runs out is `ConnectTimeout`, the sign of silence.
    pub connect: Duration,
    /// Deadline of the whole probe, at least `connect`: what runs out after the connect is `ResponseTimeout`.
    pub timeout: Duration,
}

/// One name to look up.
#[derive(Debug, Clone)]
pub struct ResolveOrder {
    /// Given back in `Event::Resolved`.
    pub id: u64,
    /// Whose.
    pub slot: u32,
    /// The name.
    pub host: Arc<str>,
    /// The port of the addresses.
    pub port: u16,
}

/// One question to an agent.
#[derive(Debug, Clone)]
pub struct AgentOrder {
    /// Given back in `Event::Agent`.
    pub id: u64,
    /// Beside whom.
    pub backend: Arc<Backend>,
    /// Where the agent is. Never empty.
    pub addresses: Arc<[SocketAddr]>,
    /// The service's rule (what to send): its `agent`.
    pub check: Arc<relais_config::Forward>,
    /// Deadline of the whole question.
    pub timeout: Duration,
}

/// One round trip to measure.
#[derive(Debug, Clone, Copy)]
pub struct MeasureOrder {
    /// To whom.
    pub slot: u32,
    /// Where it is, with the port that its probes connect to.
    pub address: SocketAddr,
    /// Deadline of the connect.
    pub within: Duration,
}
