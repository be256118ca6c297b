//! Waiting for a future on the calling thread, without a runtime.
//!
//! tokio's own `block_on` panics inside another runtime; an embedding program may well call from inside its own. Good
//! for futures that wait for other threads only: no timers, no sockets.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `future` to its end, parking the thread between polls.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_another_thread_even_inside_a_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = runtime.block_on(async {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let other = std::thread::spawn(move || reply.send(7).unwrap());
            let answer = block_on(answer).unwrap();
            other.join().unwrap();
            answer
        });
        assert_eq!(answer, 7);
    }
}
