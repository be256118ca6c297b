//! What the tests of the running executable share: the edge itself, clients that send exact bytes, and backends that
//! are as good or as bad as a test wants them. Everything is real: processes, sockets, certificates.
#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(clippy::print_stderr, reason = "a failing or skipped test speaks to whoever runs it")]
#![allow(clippy::type_complexity, reason = "a body with its trailers is said once")]

pub(crate) mod certs;
pub(crate) mod edge;
pub(crate) mod h2;
pub(crate) mod process;
pub(crate) mod raw;
mod setup;
pub(crate) mod tools;
pub(crate) mod websocket;
pub(crate) mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a condition may take to come true. Generous: the machine may be busy, and a test that holds never waits
/// this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until there is something to see, and gives it back.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Looks until a condition holds.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || holds().then_some(()));
}

/// Runs a test that must keep up with the edge, as where that does something by itself after a second. When it fails and
/// stood still for `most` or longer meanwhile, that shows nothing, and it is made again. What the edge does wrong it does
/// again.
pub(crate) fn keeping_up(most: Duration, test: impl Fn()) {
    for _ in 0..9 {
        let pulse = Pulse::start();
        let Err(failure) = catch_unwind(AssertUnwindSafe(&test)) else { return };
        let longest = pulse.longest();
        if longest < most {
            resume_unwind(failure);
        }
        eprintln!("it stood still for {longest:?}: again");
    }
    test();
}

/// A thread that wants to run all the time, and notes when it could not.
struct Pulse {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Duration>>,
}

impl Pulse {
    fn start() -> Pulse {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Relaxed) {
                let from = Instant::now();
                std::thread::sleep(Duration::from_millis(5));
                longest = longest.max(from.elapsed());
            }
            longest
        });
        Pulse { stop, thread: Some(thread) }
    }

    /// For how long it could not run, at most.
    fn longest(mut self) -> Duration {
        self.stop.store(true, Relaxed);
        self.thread.take().map_or(Duration::ZERO, |thread| thread.join().unwrap())
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// A loopback address no other test uses.
pub(crate) fn own_ip() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Relaxed);
    let pid = std::process::id();
    let byte = |value: u32| u8::try_from(value % 250).unwrap() + 1;
    IpAddr::V4(Ipv4Addr::new(127, byte(pid) + 1, byte(pid / 250 + n / 250), byte(n)))
}

/// An address where nothing listens.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((own_ip(), 0)).unwrap().local_addr().unwrap()
}

/// Bytes that are different everywhere, so that a swapped or repeated piece shows.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Equality of large bodies, without printing them.
#[track_caller]
pub(crate) fn assert_same(got: &[u8], expected: &[u8]) {
    assert_eq!(got.len(), expected.len(), "length differs");
    let first = got.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(first, None, "first different byte");
}
