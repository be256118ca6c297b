//! Backends inside the test: one that is scripted byte by byte, and one that answers every request the same way.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::wire::{Conn, Head};
use super::{PATIENCE, own_ip};

/// A listening socket whose connections the test plays by hand.
pub(crate) struct Raw {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Raw {
    pub(crate) fn new() -> Raw {
        let listener = TcpListener::bind((own_ip(), 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        Raw { listener, address }
    }

    /// The next connection, if one waits already.
    pub(crate) fn try_accept(&self) -> Option<Conn> {
        match self.listener.accept() {
            Ok((stream, _)) => Some(Conn::over(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next connection.
    #[track_caller]
    pub(crate) fn accept(&self) -> Conn {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(conn) = self.try_accept() {
                return conn;
            }
            assert!(Instant::now() < deadline, "no connection came to {}", self.address);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next connection and the head of the request on it.
    #[track_caller]
    pub(crate) fn request(&self) -> (Conn, Head) {
        let mut conn = self.accept();
        let head = conn.head();
        (conn, head)
    }

    /// From now on every connection is given to `serve`, in a thread of its own, until the value returned is dropped.
    pub(crate) fn serve(self, serve: impl Fn(Conn) + Send + Sync + 'static) -> Serving {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped, serve) = (self.address, Arc::clone(&stop), Arc::new(serve));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                match self.try_accept() {
                    Some(conn) => {
                        let serve = Arc::clone(&serve);
                        std::thread::spawn(move || serve(conn));
                    }
                    None => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Serving { address, stop, thread: Some(thread) }
    }
}

impl Addressed for Raw {
    fn address(&self) -> String {
        self.address.to_string()
    }
}

/// A backend that runs beside the test.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Addressed for Serving {
    fn address(&self) -> String {
        self.address.to_string()
    }
}

/// Anything a config can name as a backend.
pub(crate) trait Addressed {
    fn address(&self) -> String;
}

impl Addressed for SocketAddr {
    fn address(&self) -> String {
        self.to_string()
    }
}

impl Addressed for String {
    fn address(&self) -> String {
        self.clone()
    }
}

/// A request as a [`Plain`] backend got it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// Which of its connections it came on, from 0.
    pub(crate) connection: usize,
}

/// A well-behaved backend: keeps connections, answers each request with what the closure returns, remembers all.
pub(crate) struct Plain {
    pub(crate) serving: Serving,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Plain {
    pub(crate) fn new(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Plain {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections = Arc::new(AtomicUsize::new(0));
        let (book, count) = (Arc::clone(&seen), Arc::clone(&connections));
        let serving = Raw::new().serve(move |mut conn| {
            let mut number = None;
            while let Some(head) = conn.try_head() {
                // Health checks connect and leave: only connections with a request count.
                let connection = *number.get_or_insert_with(|| count.fetch_add(1, Relaxed));
                let Ok((body, _)) = conn.try_body(&head) else { return };
                let request = Seen { head, body, connection };
                book.lock().unwrap().push(request.clone());
                if conn.try_send(answer(&request)).is_err() {
                    return;
                }
            }
        });
        Plain { serving, seen, connections }
    }

    /// Answers every request 200 with this text.
    pub(crate) fn saying(text: &'static str) -> Plain {
        Plain::new(move |_| super::wire::ok(text).into_bytes())
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Connections that carried a request.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

impl Addressed for Plain {
    fn address(&self) -> String {
        self.serving.address.to_string()
    }
}
