//! Names of backends to addresses, with the last good answer kept when the resolver fails.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use relais_core::Fault;

/// How long an answer is used before it is asked for again.
const FRESH_FOR: Duration = Duration::from_secs(30);

/// Answers of one worker.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    known: Mutex<HashMap<(String, u16), Known>>,
}

/// An answer and when it came.
type Known = (Vec<SocketAddr>, Instant);

impl Resolver {
    /// Addresses of a name, newest answer first. The last good answer stands in for a failing resolver.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Fault> {
        let key = (host.to_owned(), port);
        let old = self.known.lock().get(&key).cloned();
        if let Some((addresses, at)) = &old
            && at.elapsed() < FRESH_FOR
        {
            return Ok(addresses.clone());
        }
        let fresh: Vec<SocketAddr> = match tokio::net::lookup_host((host, port)).await {
            Ok(found) => found.collect(),
            Err(error) => {
                tracing::debug!(host, %error, "name of a backend does not resolve");
                Vec::new()
            }
        };
        if fresh.is_empty() {
            return old.map(|(addresses, _)| addresses).ok_or(Fault::Unresolved);
        }
        self.known.lock().insert(key, (fresh.clone(), Instant::now()));
        Ok(fresh)
    }
}
