//! Waits with a deadline that counts only time in which this process ran: see [`relais_core::Patience`], which decides. May read
//! the clock and sleep; knows nothing of what is waited for.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use relais_core::{Fault, Patience, Waited};

/// What `work` came to.
///
/// # Errors
///
/// It did not end within `deadline`, or nobody can say.
pub async fn within<T>(deadline: Duration, work: impl Future<Output = T>) -> Result<T, Waited> {
    let mut work = pin!(work);
    let (mut patience, mut from) = (Patience::new(deadline), Instant::now());
    loop {
        let slice = patience.slice()?;
        // The work is looked at first, however late this is.
        if let Ok(done) = tokio::time::timeout(slice, work.as_mut()).await {
            return Ok(done);
        }
        let woken = Instant::now();
        patience.woke(woken - from);
        from = woken;
    }
}

/// What a wait that ended without the work says of the backend, where `late` would be its fault.
#[must_use]
pub fn fault(waited: Waited, late: Fault) -> Fault {
    match waited {
        Waited::Whole => late,
        Waited::Unwatched => Fault::Unwatched,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn what_ends_in_time_is_given_and_what_does_not_is_late() {
        assert_eq!(within(MS * 20_000, async { 7 }).await, Ok(7));
        let end = within(MS * 20, std::future::pending::<()>()).await;
        // On a busy machine the wake-ups may all have been late.
        assert!(matches!(end, Err(Waited::Whole | Waited::Unwatched)), "{end:?}");
    }

    /// Two steps, each of which is only seen when this thread runs: it stands still for longer than the whole deadline
    /// before the second.
    #[tokio::test]
    async fn a_thread_that_stood_still_takes_the_next_step_before_it_judges() {
        for _ in 0..3 {
            let (first, second) = (MS * 30, MS * 5);
            let work = async {
                tokio::time::sleep(first).await;
                tokio::time::sleep(second).await;
            };
            let stall = async {
                tokio::time::sleep(MS * 10).await;
                std::thread::sleep(MS * 500);
            };
            let (end, ()) = tokio::join!(within(MS * 200, work), stall);
            assert_eq!(end, Ok(()));
        }
    }
}
