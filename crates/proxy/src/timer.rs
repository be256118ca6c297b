//! Timers that cost nothing while deadlines keep moving.
//!
//! A deadline that is pushed back at every byte would reset a tokio timer each time. A lazy timer is armed once; when
//! it fires early it is armed again for what is left.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

/// A timer for a deadline that moves.
#[derive(Debug, Default)]
pub(crate) struct LazyTimer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl LazyTimer {
    /// Ready when `deadline` has passed. Registers the task for a wake-up otherwise. Deadlines should only move
    /// forward: one that moves back is noticed when the old one fires or at the next poll after it.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if sleep.deadline().into_std() > deadline {
            sleep.as_mut().reset(deadline.into());
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }

    /// Forgets the deadline and frees the timer.
    pub(crate) fn clear(&mut self) {
        self.sleep = None;
    }
}
