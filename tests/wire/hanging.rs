//! A backend that hangs: it takes connections and says nothing. Its streams end when they are silent too, so that their
//! clients come back to another backend; those of a backend whose check alone hangs do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::support::edge::{Edge, Setup};
use crate::support::raw::{Addressed, Plain, Raw, Serving};
use crate::support::wire::{Conn, get};

/// What the backend does.
#[derive(Default)]
struct Mode {
    /// The check gets no answer.
    hangs: AtomicBool,
    /// Every stream to `/talk` says something all the time.
    talks: AtomicBool,
}

const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x01\x02hi";
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                      9\r\ndata: 1\n\n\r\n";

fn backend() -> (Serving, Arc<Mode>) {
    let mode: Arc<Mode> = Arc::default();
    let heeded = Arc::clone(&mode);
    let serving = Raw::new().serve(move |conn| serve(conn, &heeded));
    (serving, mode)
}

fn serve(mut conn: Conn, mode: &Mode) {
    while let Some(head) = conn.try_head() {
        match head.target() {
            "/health" if mode.hangs.load(Relaxed) => drop(conn.rest()),
            "/health" => drop(conn.try_send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
            "/events" => {
                conn.send(EVENTS);
                conn.rest();
            }
            "/talk" => {
                conn.send(YES);
                while !mode.talks.load(Relaxed) || conn.try_send(b"\x81\x02on").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return;
            }
            _ => {
                conn.send(YES);
                conn.rest();
            }
        }
    }
}

/// The hanging one is preferred; a good one stands by.
fn edge(hanging: &Serving, other: &dyn Addressed) -> Edge {
    let edge = Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nfailover_within = \"300ms\"\n\
         [service.web.backends]\ndijon = [\"{}\"]\nthory = [\"{}\"]\n",
        hanging.address(),
        other.address()
    ))
    .start();
    edge.wait_for_health(hanging, "up");
    edge
}

fn websocket(edge: &Edge, path: &str) -> Conn {
    let mut client = edge.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.bytes(4), b"\x01\x02hi");
    client
}

#[test]
fn silent_streams_of_a_hanging_backend_end() {
    let ((backend, mode), other) = (backend(), Plain::saying("x"));
    let edge = edge(&backend, &other);
    edge.wait_for_health(&other, "up");
    let mut client = websocket(&edge, "/quiet");
    let mut events = edge.connect();
    events.send(get("/events"));
    assert_eq!(events.head().status(), 200);
    assert_eq!(events.chunk().unwrap(), b"data: 1\n\n");
    mode.hangs.store(true, Relaxed);
    assert_eq!(client.rest(), [0x88, 0x02, 0x03, 0xf4]);
    events.ends();
    assert_eq!(edge.access_to("/quiet")["cut"], "backend_down");
    assert_eq!(edge.access_to("/events")["cut"], "backend_down");
    assert_eq!(edge.connect().ask(get("/quiet")).text(), "x", "who comes back is served elsewhere");
}

#[test]
fn a_backend_that_talks_on_one_stream_does_not_hang_on_the_others() {
    let ((backend, mode), other) = (backend(), Plain::saying("x"));
    let edge = edge(&backend, &other);
    edge.wait_for_health(&other, "up");
    let (mut quiet, mut talk) = (websocket(&edge, "/quiet"), websocket(&edge, "/talk"));
    mode.talks.store(true, Relaxed);
    mode.hangs.store(true, Relaxed);
    edge.wait_for_health(&backend, "down");
    // Many contracts of talk.
    talk.bytes(4 * 100);
    quiet.send("still there?");
    assert_eq!(edge.sample("relais_tunnels_open", &[]), 2.0);
    mode.talks.store(false, Relaxed);
    assert_eq!(quiet.rest(), [0x88, 0x02, 0x03, 0xf4]);
    talk.rest();
}
