//! All backends by slot. Each in a place of its own: slots grow, so that the leaves of the map stay half empty, and a
//! backend's state is large.

use std::collections::BTreeMap;

use super::state::Entry;

/// Backends by slot, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Entries(BTreeMap<u32, Box<Entry>>);

impl Entries {
    pub(super) fn get(&self, slot: &u32) -> Option<&Entry> {
        self.0.get(slot).map(|entry| &**entry)
    }

    pub(super) fn get_mut(&mut self, slot: &u32) -> Option<&mut Entry> {
        self.0.get_mut(slot).map(|entry| &mut **entry)
    }

    pub(super) fn insert(&mut self, slot: u32, entry: Entry) {
        self.0.insert(slot, Box::new(entry));
    }

    pub(super) fn remove(&mut self, slot: &u32) -> Option<Entry> {
        self.0.remove(slot).map(|entry| *entry)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &u32> {
        self.0.keys()
    }
}
