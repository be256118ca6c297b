//! Names to addresses, with the last good answer kept: a name server in trouble must not take a living backend down.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long an answer is used without asking again.
const FRESH: Duration = Duration::from_secs(5);

/// One lookup's outcome as its waiters see it.
type Answer = Option<Result<Vec<SocketAddr>, Arc<io::Error>>>;

#[derive(Default)]
struct Entry {
    last_good: Vec<SocketAddr>,
    asked_at: Option<Instant>,
    /// The lookup under way: one per name, however many probes want it.
    under_way: Option<watch::Receiver<Answer>>,
}

/// The cache.
#[derive(Default, Clone)]
pub(super) struct Resolver {
    entries: Arc<Mutex<HashMap<(String, u16), Entry>>>,
}

impl Resolver {
    /// Addresses of a name, never empty. An old answer is given at once while a new one is asked for; without an old
    /// one the lookup is awaited. Giving up the wait does not stop the lookup: the next probe finds its answer.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut waiting = {
            let mut entries = self.entries();
            let entry = entries.entry((host.to_string(), port)).or_default();
            let fresh = entry.asked_at.is_some_and(|at| at.elapsed() < FRESH);
            if fresh && !entry.last_good.is_empty() {
                return Ok(entry.last_good.clone());
            }
            let under_way = match &entry.under_way {
                Some(under_way) => under_way.clone(),
                None => {
                    let started = self.look_up(host.to_string(), port);
                    entry.under_way = Some(started.clone());
                    started
                }
            };
            if !entry.last_good.is_empty() {
                return Ok(entry.last_good.clone());
            }
            under_way
        };
        let answer = waiting.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
        match answer {
            Some(Ok(addresses)) => Ok(addresses),
            Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
            None => Err(io::Error::other("lookup ended without an answer")),
        }
    }

    fn look_up(&self, host: String, port: u16) -> watch::Receiver<Answer> {
        let (tell, waiting) = watch::channel(None);
        let resolver = self.clone();
        tokio::spawn(async move {
            let found = match tokio::net::lookup_host((host.as_str(), port)).await {
                Ok(found) => Ok(found.collect::<Vec<_>>()),
                Err(error) => Err(error),
            };
            let answer = match found {
                Ok(addresses) if addresses.is_empty() => Err(Arc::new(io::Error::other("the name has no address"))),
                Ok(addresses) => Ok(addresses),
                Err(error) => Err(Arc::new(error)),
            };
            resolver.learn(host, port, &answer);
            tell.send_replace(Some(answer));
        });
        waiting
    }

    fn learn(&self, host: String, port: u16, answer: &Result<Vec<SocketAddr>, Arc<io::Error>>) {
        let mut entries = self.entries();
        let entry = entries.entry((host, port)).or_default();
        entry.under_way = None;
        entry.asked_at = Some(Instant::now());
        if let Ok(addresses) = answer {
            entry.last_good.clone_from(addresses);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<(String, u16), Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_resolves_and_nonsense_does_not() {
        let resolver = Resolver::default();
        let found = resolver.resolve("localhost", 80).await.unwrap();
        assert!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 80), "{found:?}");
        resolver.resolve("no-such-host.invalid", 80).await.unwrap_err();
    }

    #[tokio::test]
    async fn the_last_good_answer_outlives_a_failing_lookup() {
        let resolver = Resolver::default();
        let known: SocketAddr = "192.0.2.7:80".parse().unwrap();
        resolver.learn("gone.invalid".to_string(), 80, &Ok(vec![known]));
        resolver.learn("gone.invalid".to_string(), 80, &Err(Arc::new(io::Error::other("no server"))));
        assert_eq!(resolver.resolve("gone.invalid", 80).await.unwrap(), [known]);
    }
}
