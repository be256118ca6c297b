//! Backends inside the test: one that is scripted byte by byte, and one that answers every request the same way.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::{SockFilter, SockRef};

use super::wire::{Conn, Head};
use super::{PATIENCE, own_ip};

/// A listening socket whose connections the test plays by hand.
pub(crate) struct Raw {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
    /// Accepted while a request was looked for, and silent so far.
    silent: Mutex<Vec<Conn>>,
}

impl Raw {
    pub(crate) fn new() -> Raw {
        Raw::over(TcpListener::bind((own_ip(), 0)).unwrap())
    }

    /// With a queue so short that it is full at once: while the connection returned waits in it, nobody else gets in.
    /// The kernel asks again a second later.
    pub(crate) fn full() -> (Raw, TcpStream) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((own_ip(), 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let raw = Raw::over(socket.into());
        let first = TcpStream::connect(raw.address).unwrap();
        (raw, first)
    }

    fn over(listener: TcpListener) -> Raw {
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        Raw { listener, address, silent: Mutex::default() }
    }

    /// The next connection, if one waits already.
    pub(crate) fn try_accept(&self) -> Option<Conn> {
        let mut silent = self.silent.lock().unwrap();
        if silent.is_empty() { self.arrived() } else { Some(silent.remove(0)) }
    }

    fn arrived(&self) -> Option<Conn> {
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

    /// The next request, if one is here already. On a busy machine it may come on a connection that was opened for
    /// another one and left unused, and such a connection is not a request: so all of them are listened to.
    #[track_caller]
    pub(crate) fn try_request(&self) -> Option<(Conn, Head)> {
        let mut silent = self.silent.lock().unwrap();
        silent.extend(std::iter::from_fn(|| self.arrived()));
        silent.retain(|conn| conn.speaks().is_some());
        let at = silent.iter().position(|conn| conn.speaks() == Some(true))?;
        let mut conn = silent.remove(at);
        conn.try_head().map(|head| (conn, head))
    }

    /// The next request's head and the connection it came on.
    #[track_caller]
    pub(crate) fn request(&self) -> (Conn, Head) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(request) = self.try_request() {
                return request;
            }
            assert!(Instant::now() < deadline, "no request came to {}", self.address);
            std::thread::sleep(Duration::from_millis(1));
        }
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

impl Conn {
    /// Nothing that is sent to it reaches it any more, or is acknowledged: as if a firewall on the way had forgotten it.
    pub(crate) fn deafen(&self) {
        const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);
        SockRef::from(&self.stream).attach_filter(&[DROP]).unwrap();
    }

    /// What is sent to it reaches it again.
    pub(crate) fn hear_again(&self) {
        SockRef::from(&self.stream).detach_filter().unwrap();
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
            // Idle for as long as the edge likes: it is the edge that closes.
            conn.wait_for_ever();
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
