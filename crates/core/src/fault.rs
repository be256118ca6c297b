//! Why an attempt or a probe failed: the evidence. Whose fault it is decides what it may accuse.

use serde::{Deserialize, Serialize};

/// Why one attempt or one probe failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Connect refused: the host lives, nothing listens.
    Refused,
    /// No route, network or host unreachable.
    Unreachable,
    /// The connect did not finish in time.
    ConnectTimeout,
    /// Connection closed or reset before or within an answer.
    Reset,
    /// Bytes sent stayed unacknowledged by the peer's kernel.
    Unacknowledged,
    /// The name of the backend did not resolve.
    Unresolved,
    /// TLS to the backend failed.
    Tls,
    /// Answered with a status that counts as failed.
    Status(u16),
    /// Connected, but no answer in time.
    ResponseTimeout,
    /// The answer was not of the protocol that was spoken.
    Malformed,
    /// The probe's expected text was not in the answer.
    BodyMismatch,
    /// The answer to the probe says that the backend is not well.
    Unwell,
    /// Nobody looked: the edge itself was stopped, starved or overloaded. Evidence of nothing.
    Unwatched,
}

impl Fault {
    /// Transport evidence can accuse a site; the rest accuses only the backend.
    #[must_use]
    pub fn is_transport(self) -> bool {
        matches!(
            self,
            Fault::Refused | Fault::Unreachable | Fault::ConnectTimeout | Fault::Reset | Fault::Unacknowledged
        )
    }

    /// Nothing answered at all: how a cut site looks. Refused and reset are answers of a living host.
    #[must_use]
    pub fn is_silence(self) -> bool {
        matches!(self, Fault::Unreachable | Fault::ConnectTimeout | Fault::Unacknowledged)
    }

    /// The backend answered, wrongly: what it still works on may end well.
    #[must_use]
    pub fn is_answer(self) -> bool {
        matches!(self, Fault::Status(_) | Fault::Malformed | Fault::BodyMismatch | Fault::Unwell)
    }

    /// A living backend that does its work badly looks like this, too. A dead one has its own rules.
    #[must_use]
    pub fn is_gray(self) -> bool {
        self.is_answer() || matches!(self, Fault::Reset | Fault::ResponseTimeout | Fault::Tls)
    }

    /// Short word for logs, metrics and `Proxy-Status` details.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Refused => "refused",
            Fault::Unreachable => "unreachable",
            Fault::ConnectTimeout => "connect_timeout",
            Fault::Reset => "reset",
            Fault::Unacknowledged => "unacknowledged",
            Fault::Unresolved => "unresolved",
            Fault::Tls => "tls",
            Fault::Status(_) => "status",
            Fault::ResponseTimeout => "response_timeout",
            Fault::Malformed => "malformed",
            Fault::BodyMismatch => "body_mismatch",
            Fault::Unwell => "unwell",
            Fault::Unwatched => "unwatched",
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Refused => f.write_str("connection refused"),
            Fault::Unreachable => f.write_str("unreachable"),
            Fault::ConnectTimeout => f.write_str("no answer to connect"),
            Fault::Reset => f.write_str("connection closed before the answer was complete"),
            Fault::Unacknowledged => f.write_str("sent bytes not acknowledged"),
            Fault::Unresolved => f.write_str("name does not resolve"),
            Fault::Tls => f.write_str("TLS to the backend failed"),
            Fault::Status(code) => write!(f, "answered {code}"),
            Fault::ResponseTimeout => f.write_str("no answer in time"),
            Fault::Malformed => f.write_str("malformed answer"),
            Fault::BodyMismatch => f.write_str("expected text missing in the answer"),
            Fault::Unwell => f.write_str("says it is not well"),
            Fault::Unwatched => f.write_str("the edge itself was too busy to look"),
        }
    }
}
