//! Timers that cost nothing while deadlines keep moving.
//!
//! A deadline that is pushed back at every byte would reset a tokio timer each time. A lazy timer is armed once; when
//! it fires early it is armed again for what is left.
//!
//! A wait that nearly always ends before its deadline would put a timer into the runtime's wheel and take it out again, for
//! each request. It borrows one instead, and gives it back as it is: armed for a deadline that is nearer than the next
//! borrower's.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::coop::unconstrained;
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
        // Unconstrained: a task that has used up what the runtime lets it do at once would be told to come again, and the
        // timer not be armed.
        while pin!(unconstrained(sleep.as_mut())).poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }

    /// As [`LazyTimer::poll_expired`], for a timer that one task alone ever waits for: it is not told of it again.
    pub(crate) fn poll_own(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        match &self.sleep {
            Some(sleep) if !sleep.is_elapsed() && sleep.deadline().into_std() <= deadline => Poll::Pending,
            _ => self.poll_expired(cx, deadline),
        }
    }

    /// Sees to it that the one task that waits for it is woken once more, not later than after `time`.
    pub(crate) fn ring_within(&mut self, cx: &mut Context<'_>, time: Duration) {
        if self.sleep.as_ref().is_none_or(|sleep| sleep.is_elapsed()) {
            // Just armed, it cannot have expired.
            let _ = self.poll_expired(cx, Instant::now() + time);
        }
    }

    /// Forgets the deadline and frees the timer.
    pub(crate) fn clear(&mut self) {
        self.sleep = None;
    }
}

/// Timers kept for borrowers, at most.
const KEPT: usize = 1024;

/// The timers of one worker that its short waits borrow.
#[derive(Debug, Default)]
pub(crate) struct Timers(Mutex<Vec<LazyTimer>>);

impl Timers {
    /// A timer, armed or not.
    pub(crate) fn borrow(&self) -> Borrowed<'_> {
        Borrowed { timers: self, timer: self.0.lock().pop().unwrap_or_default(), far: false }
    }
}

/// A borrowed timer; given back on drop.
#[derive(Debug)]
pub(crate) struct Borrowed<'a> {
    timers: &'a Timers,
    timer: LazyTimer,
    /// It is armed for what few would wait for.
    far: bool,
}

impl Borrowed<'_> {
    /// Waits for `other`, until `deadline`. `true`: the deadline came first.
    pub(crate) async fn rings_first(
        &mut self,
        deadline: Instant,
        mut other: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        poll_fn(|cx| match other.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(false),
            Poll::Pending => self.timer.poll_expired(cx, deadline).map(|()| true),
        })
        .await
    }

    /// From here on it waits longer than others do: it is of no use to them, and would hold on to its task for as long.
    pub(crate) fn waits_long(&mut self) {
        self.far = true;
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if self.far {
            return;
        }
        let timer = std::mem::take(&mut self.timer);
        let mut timers = self.timers.0.lock();
        if timers.len() < KEPT {
            timers.push(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(600);

    async fn wait(timers: &Timers, time: Duration) -> Instant {
        let (mut timer, until) = (timers.borrow(), Instant::now() + time);
        assert!(timer.rings_first(until, pin!(pending())).await);
        until
    }

    async fn give_up(timers: &Timers, time: Duration) {
        // On a busy machine a short one may have passed meanwhile: that is as good.
        let _ = tokio::time::timeout(Duration::ZERO, wait(timers, time)).await;
    }

    #[tokio::test]
    async fn a_borrowed_timer_rings_for_its_own_deadline_whatever_it_was_armed_for() {
        let timers = Timers::default();
        for before in [SHORT / 3, SHORT, SHORT * 2, LONG] {
            give_up(&timers, before).await;
            assert_eq!(timers.0.lock().len(), 1, "it was given back");
            let until = tokio::time::timeout(LONG / 10, wait(&timers, SHORT)).await.expect("it rings");
            assert!(Instant::now() >= until, "not before its time");
        }
    }

    /// A task that has done much at once is stopped by the runtime at the next thing it waits for, and asked again.
    #[tokio::test]
    async fn a_timer_that_is_armed_by_a_task_out_of_breath_rings() {
        let (mut timer, mut asked) = (LazyTimer::default(), 0);
        let until = Instant::now() + SHORT;
        let rings = poll_fn(|cx| {
            asked += 1;
            if asked == 1 {
                while pin!(tokio::task::coop::consume_budget()).poll(cx).is_ready() {}
            }
            timer.poll_own(cx, until)
        });
        tokio::time::timeout(LONG / 10, rings).await.expect("it rings");
    }

    #[tokio::test]
    async fn what_comes_before_the_deadline_is_not_taken_for_it() {
        let timers = Timers::default();
        assert!(!timers.borrow().rings_first(Instant::now() + LONG, pin!(std::future::ready(()))).await);
    }

    #[tokio::test]
    async fn what_waits_long_keeps_its_timer_from_others() {
        let timers = Timers::default();
        timers.borrow().waits_long();
        assert!(timers.0.lock().is_empty());
    }
}
