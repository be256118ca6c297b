//! Why no more of an answer comes, in one word, and what follows from it. Decides nothing.

use relais_core::Fault;

/// The answer was cut; the client must see that (no final chunk, or RST_STREAM).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut(&'static str);

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Cut {}

impl Cut {
    pub(crate) fn new(reason: &'static str) -> Self {
        Self(reason)
    }

    /// Nothing has come for a contract on a connection that may be dead, as another one like it was; or for longer, where
    /// what is on the way may be lost again and again.
    pub(crate) const DOUBT: &str = "backend_doubted";

    /// Nothing has come for longer than usual. Nothing is lost.
    pub(crate) const OVERDUE: &str = "overdue";

    /// Nothing has come for a moment, and the backend is suspect, or nothing else comes from it either.
    pub(crate) const SUSPECT: &str = "backend_suspect";

    /// A small answer was not whole when it could be held back no longer. Nothing is lost.
    pub(crate) const LATE: &str = "late";

    /// The connection may live: what nobody else has goes on waiting for it.
    pub(crate) fn is_doubt(self) -> bool {
        self.0 == Cut::DOUBT || self.is_suspicion()
    }

    /// It is a moment's, and may soon be over.
    pub(crate) fn is_suspicion(self) -> bool {
        self.0 == Cut::SUSPECT
    }

    pub(crate) fn is_late(self) -> bool {
        self.0 == Cut::LATE
    }

    /// What it says of the backend, and whether that was known before.
    pub(crate) fn fault(self) -> (Fault, bool) {
        match self.0 {
            "backend_broke_off" => (Fault::Reset, false),
            "backend_dead" => (Fault::Unacknowledged, true),
            "backend_down" => (Fault::ResponseTimeout, true),
            _ => (Fault::ResponseTimeout, false),
        }
    }

    /// The word for the log.
    pub(crate) fn reason(self) -> &'static str {
        self.0
    }
}
