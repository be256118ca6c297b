//! Clients that keep asking until told to stop, and remember every request that was not served.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use crate::support::wait_for;
use crate::support::wire::Conn;

/// Whether clients keep their connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connections {
    Kept,
    Fresh,
}

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) good: usize,
    /// Status or error, with the path.
    pub(crate) bad: Vec<String>,
}

/// Clients under way.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// Starts clients; the path of each request is different, and `request` makes the whole request of it.
    pub(crate) fn start(address: SocketAddr, clients: usize, kind: Connections, request: fn(&str) -> String) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let clients = (0..clients)
            .map(|client| {
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                std::thread::spawn(move || one_client(address, client, kind, request, &stop, &done))
            })
            .collect();
        Load { stop, done, clients }
    }

    /// Waits until `n` more requests were answered, good or bad.
    #[track_caller]
    pub(crate) fn go_on_for(&self, n: usize) {
        let until = self.done.load(Relaxed) + n;
        wait_for("more requests are answered", || self.done.load(Relaxed) >= until);
    }

    pub(crate) fn stop(mut self) -> Tally {
        self.stop.store(true, Relaxed);
        let mut sum = Tally::default();
        for client in std::mem::take(&mut self.clients) {
            let tally = client.join().unwrap();
            sum.good += tally.good;
            sum.bad.extend(tally.bad);
        }
        sum
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn one_client(
    address: SocketAddr,
    client: usize,
    kind: Connections,
    request: fn(&str) -> String,
    stop: &AtomicBool,
    done: &AtomicUsize,
) -> Tally {
    let mut tally = Tally::default();
    let mut kept: Option<Conn> = None;
    let mut n = 0;
    while !stop.load(Relaxed) {
        n += 1;
        let path = format!("/{client}/{n}");
        match ask(address, &mut kept, &request(&path)) {
            Ok(200) => tally.good += 1,
            Ok(status) => tally.bad.push(format!("{path}: {status}")),
            Err(what) => {
                tally.bad.push(format!("{path}: {what}"));
                kept = None;
            }
        }
        if kind == Connections::Fresh {
            kept = None;
        }
        done.fetch_add(1, Relaxed);
    }
    tally
}

fn ask(address: SocketAddr, kept: &mut Option<Conn>, request: &str) -> Result<u16, String> {
    let conn = match kept {
        Some(conn) => conn,
        None => {
            let stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
            kept.insert(Conn::over(stream))
        }
    };
    conn.try_send(request).map_err(|error| format!("send: {error}"))?;
    let head = conn.try_head().ok_or("closed without an answer")?;
    conn.try_body(&head).map_err(|_| "cut".to_owned())?;
    if head.all("connection").iter().any(|value| value.eq_ignore_ascii_case("close")) {
        *kept = None;
    }
    Ok(head.status())
}
