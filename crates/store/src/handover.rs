//! The directory in other hands: a process that is about to be followed by another lets go of it, serves from memory, and
//! takes it again when the other one fails to start.

use crate::state::Mode;
use crate::store::{FLUSH_PATIENCE, Store};

impl Store {
    /// Writes what is left, closes the database and leaves the directory to another process; `true`: it is free, as it also is
    /// where it never was ours. Waits for 10 s at most; after `false` it is let go of as soon as the disk answers.
    ///
    /// From then on nothing is written, not even by the drop, and nothing waits for the disk: all goes on in memory, as
    /// [`Store::state`] tells, until [`Store::take_again`].
    #[must_use]
    pub fn let_go(&self) -> bool {
        let _turn = self.handover.lock();
        let mut inner = self.inner();
        // There is no disk, or it is let go of already.
        if inner.closed {
            return true;
        }
        inner.closing = true;
        drop(inner);
        self.shared.work.notify_one();
        self.wait(FLUSH_PATIENCE, |inner| inner.closed);
        let is_free = self.inner().closed;
        if !is_free {
            tracing::error!("the disk of the store did not answer for {} s: not handed over", FLUSH_PATIENCE.as_secs());
        }
        is_free
    }

    /// After [`Store::let_go`]: takes the directory again and writes all that is remembered. What the other process left there
    /// is not read: this one went on, that one failed. `true`: the store works as before, as one does that did not let go.
    ///
    /// `false`: the directory cannot be had, 1 s long, or the disk did not answer for 10 s. The store stays in memory, says why in
    /// its state and the log, and goes on trying.
    #[must_use]
    pub fn take_again(&self) -> bool {
        let _turn = self.handover.lock();
        let mut inner = self.inner();
        if !inner.closing {
            return true;
        }
        (inner.closing, inner.closed) = (false, false);
        inner.soil_files();
        drop(inner);
        let answered = self.write_now(FLUSH_PATIENCE);
        if !answered {
            tracing::error!("the disk of the store did not answer for {} s: not taken again", FLUSH_PATIENCE.as_secs());
        }
        answered && self.inner().told().0 != Mode::Memory
    }
}
