//! What the connection task, the socket wrapper and the requests of one client connection share. Nothing here touches the
//! socket.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a connection without a request is still listened to when it shall end: what its client sent before it could
/// know is on its way for no longer.
pub(crate) const LAST_CALL: Duration = Duration::from_millis(300);

/// How long a client that was still sending its request when it was answered has to hear the answer.
pub(crate) const UNREAD: Duration = Duration::from_secs(2);

/// Interim answers that wait for a client which does not read, bytes at most. RFC 9110 15.2 wants all of them passed on, but
/// the final answer says the same without them, and a backend may send any number.
const MOST_INTERIM: usize = 64 << 10;

/// Deadlines of one client connection, copied from the config when it was accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) headers: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) body: Duration,
}

/// What the connection task, the socket wrapper and the requests of one connection share.
#[derive(Debug)]
pub(crate) struct ConnState {
    /// Requests whose answer is not complete.
    active: AtomicU32,
    /// Requests seen.
    pub(crate) requests: AtomicU64,
    /// Set once: finish what runs, take nothing new.
    draining: OnceLock<Instant>,
    /// When the last answer was complete, in nanoseconds after `born`.
    ended: AtomicU64,
    /// Interim answers to write before the next answer, HTTP/1 only.
    pub(crate) interim: Mutex<Vec<u8>>,
    pub(crate) has_interim: AtomicBool,
    /// The request whose answer has not begun, as counted by `requests`; 0: none. HTTP/1 has one at a time.
    unanswered: AtomicU64,
    /// hyper may hold bytes of the last answer that are not written yet: nothing may be put before them.
    pub(crate) unsent: AtomicBool,
    /// When the socket last took no more, in milliseconds after `born`; 0: never.
    write_block: AtomicU64,
    /// When an HTTP/2 client last sent anything, in milliseconds after `born`.
    heard: AtomicU64,
    /// The client was given up because it took no bytes for too long.
    pub(crate) stalled: AtomicBool,
    born: Instant,
    /// An answer with a request id was sent.
    pub(crate) sent_id: AtomicBool,
    /// The answer under way ends with the connection: only an orderly end may look like one.
    pub(crate) ends_with_connection: AtomicBool,
    /// The body of the latest request was not read to its end, HTTP/1 only. hyper may have read the rest without a word.
    pub(crate) unread: AtomicBool,
    /// Streams that are kept open for a moment although all is said, HTTP/2 only.
    pub(crate) parting: AtomicU32,
    /// The connection task, to be woken for a drain or a deadline.
    task: Mutex<Option<Waker>>,
    pub(crate) deadlines: Deadlines,
    pub(crate) h2: bool,
    /// What this edge calls itself.
    name: Box<str>,
}

impl ConnState {
    pub(crate) fn new(deadlines: Deadlines, h2: bool, name: &str) -> Arc<Self> {
        Arc::new(Self {
            active: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            draining: OnceLock::new(),
            ended: AtomicU64::new(0),
            interim: Mutex::new(Vec::new()),
            has_interim: AtomicBool::new(false),
            unanswered: AtomicU64::new(0),
            unsent: AtomicBool::new(false),
            write_block: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            born: Instant::now(),
            sent_id: AtomicBool::new(false),
            ends_with_connection: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            parting: AtomicU32::new(0),
            task: Mutex::new(None),
            deadlines,
            h2,
            name: Box::from(name),
        })
    }

    /// A request began: no deadline of this wrapper holds until its answer is complete.
    pub(crate) fn enter(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Relaxed);
        let number = self.requests.fetch_add(1, Relaxed) + 1;
        self.unanswered.store(number, Relaxed);
        Active(Arc::clone(self))
    }

    /// Asks the connection to finish what runs and close.
    pub(crate) fn drain(&self) {
        self.draining.get_or_init(Instant::now);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.task.lock().as_ref() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// When the connection was asked to finish.
    pub(crate) fn draining_since(&self) -> Option<Instant> {
        self.draining.get().copied()
    }

    /// How long a client that was answered too soon has to hear it: a connection that shall end waits no longer for it than for
    /// what may be on its way.
    pub(crate) fn moment_to_hear(&self) -> Duration {
        if self.is_draining() { LAST_CALL } else { UNREAD }
    }

    /// Remembers the task to wake; called by the connection task before it is first polled, and when its waker changes.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut task = self.task.lock();
        if !task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    /// The number of the latest request, for `send_interim`.
    pub(crate) fn latest_request(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Puts an interim answer to a request on the wire, as soon as all of the answer before it is; nothing when that
    /// request is answered already, as by a second attempt.
    pub(crate) fn send_interim(&self, request: u64, bytes: &[u8]) {
        if self.unanswered.load(Relaxed) != request {
            return;
        }
        let mut interim = self.interim.lock();
        if interim.len() + bytes.len() > MOST_INTERIM {
            return;
        }
        interim.extend_from_slice(bytes);
        drop(interim);
        self.has_interim.store(true, Relaxed);
        self.wake();
    }

    /// The final answer goes to hyper now. Interim ones that still wait behind the answer before come too late: hyper
    /// puts the two next to one another.
    pub(crate) fn answer_begins(&self) {
        self.unanswered.store(0, Relaxed);
        if self.has_interim.load(Relaxed) && self.unsent.load(Relaxed) {
            self.interim.lock().clear();
        }
    }

    /// An answer begins that has no other end than that of the connection.
    pub(crate) fn ends_with_connection(&self) {
        self.ends_with_connection.store(true, Relaxed);
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn note_heard(&self) {
        self.heard.store(self.age(), Relaxed);
    }

    /// When an HTTP/2 client last sent anything.
    pub(crate) fn heard(&self) -> Instant {
        self.born + Duration::from_millis(self.heard.load(Relaxed))
    }

    pub(crate) fn note_write_block(&self) {
        self.write_block.store(self.age().max(1), Relaxed);
    }

    /// When the socket last took no more.
    pub(crate) fn last_write_block(&self) -> Option<Instant> {
        let millis = self.write_block.load(Relaxed);
        (millis > 0).then(|| self.born + Duration::from_millis(millis))
    }

    /// Answer to a head that did not arrive in time (RFC 9110 15.5.9).
    pub(crate) fn timeout_answer(&self) -> String {
        format!(
            "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nproxy-status: {}; error=http_request_error; \
             details=\"request head incomplete\"\r\nconnection: close\r\n\r\n",
            self.name
        )
    }

    pub(crate) fn idle(&self) -> bool {
        self.active.load(Relaxed) == 0
    }

    /// When the last answer was complete.
    pub(crate) fn ended(&self) -> Instant {
        self.born + Duration::from_nanos(self.ended.load(Relaxed))
    }
}

/// One request whose answer is not complete; counted out on drop.
#[derive(Debug)]
pub(crate) struct Active(Arc<ConnState>);

impl Active {
    /// Whether the client of this request was given up because it took no bytes for too long.
    pub(crate) fn stalled(&self) -> bool {
        self.0.stalled.load(Relaxed)
    }

    /// The answer is complete: until the next request the connection is idle since `now`.
    pub(crate) fn ends(&self, now: Instant) {
        let age = now.saturating_duration_since(self.0.born).as_nanos();
        self.0.ended.store(u64::try_from(age).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // hyper may have begun to wait for the next request before it let go of this one's answer. For how long it may wait
        // is looked at in time, see `ClientIo`, but where the connection shall end it is for a moment only.
        if self.0.active.fetch_sub(1, Relaxed) == 1 && self.0.is_draining() {
            self.0.wake();
        }
    }
}
