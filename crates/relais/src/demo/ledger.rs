//! What the backends did: how often each POST was carried out, and how many requests each site answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by all backends of the demo.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    posts: HashMap<u64, u32>,
    answered: HashMap<&'static str, u64>,
}

impl Ledger {
    /// A backend at `site` answers a request; `post`: the number it carried.
    pub(crate) fn write(&self, site: &'static str, post: Option<u64>) {
        let mut inner = self.lock();
        *inner.answered.entry(site).or_default() += 1;
        if let Some(id) = post {
            *inner.posts.entry(id).or_default() += 1;
        }
    }

    /// How often this POST was carried out.
    #[cfg(test)]
    pub(crate) fn times(&self, post: u64) -> u32 {
        self.lock().posts.get(&post).copied().unwrap_or(0)
    }

    /// POSTs carried out, and those carried out more than once.
    pub(crate) fn posts(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.posts.len(), inner.posts.values().filter(|times| **times > 1).count())
    }

    /// Requests a site answered.
    pub(crate) fn answered(&self, site: &str) -> u64 {
        self.lock().answered.get(site).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_that_ran_twice_is_found() {
        let ledger = Ledger::default();
        ledger.write("dijon", Some(1));
        ledger.write("thory", Some(2));
        ledger.write("ovh", Some(1));
        ledger.write("ovh", None);
        assert_eq!(ledger.posts(), (2, 1));
        assert_eq!((ledger.times(1), ledger.answered("ovh")), (2, 2));
    }
}
