//! Whether another process is about to take the place of this one: from the order on, until it does or will not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use relais_store::Store;

/// Asked by all who begin what only one process can end.
#[derive(Clone)]
pub(crate) struct Succession {
    store: Arc<Store>,
    orders: Arc<AtomicUsize>,
}

/// Held as long as an order to upgrade is not answered.
pub(crate) struct Ordered(Arc<AtomicUsize>);

impl Succession {
    pub(crate) fn new(store: &Arc<Store>) -> Succession {
        Succession { store: Arc::clone(store), orders: Arc::default() }
    }

    /// An order to upgrade was given.
    pub(crate) fn ordered(&self) -> Ordered {
        self.orders.fetch_add(1, Relaxed);
        Ordered(Arc::clone(&self.orders))
    }

    /// What begins now might be cut off by a successor.
    pub(crate) fn is_under_way(&self) -> bool {
        self.orders.load(Relaxed) > 0 || self.is_handed_over()
    }

    /// What is remembered from now on is lost: a successor has read what there was.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.store.state().is_handed_over
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
