//! Names that clients ask for and no certificate covers: from the workers to whoever orders certificates. Touches nothing.

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

/// Handshakes that may wait for a certificate at once; others are refused at once.
const WAITING: usize = 256;

/// A name a client asks for, and is waiting for.
#[derive(Debug)]
pub struct Demand {
    /// As the client sent it, in lower case.
    pub name: String,
    /// Answered when it is known: `true` once a certificate is served. Dropping it refuses.
    pub served: oneshot::Sender<bool>,
}

/// Both ends.
#[derive(Debug)]
pub(crate) struct Demands {
    ask: mpsc::Sender<Demand>,
    asked: Mutex<Option<mpsc::Receiver<Demand>>>,
}

impl Default for Demands {
    fn default() -> Self {
        let (ask, asked) = mpsc::channel(WAITING);
        Self { ask, asked: Mutex::new(Some(asked)) }
    }
}

impl Demands {
    /// `None`: too many wait.
    pub(crate) fn ask(&self, name: &str) -> Option<oneshot::Receiver<bool>> {
        let (served, answer) = oneshot::channel();
        self.ask.try_send(Demand { name: name.trim_end_matches('.').to_ascii_lowercase(), served }).ok()?;
        Some(answer)
    }

    /// The other end; `None`: somebody has it.
    pub(crate) fn take(&self) -> Option<mpsc::Receiver<Demand>> {
        self.asked.lock().take()
    }
}
