//! A backend that is a process of its own, so that it can be killed (SIGKILL) and stopped (SIGSTOP): this very test
//! binary, started again with its place in the environment. It writes down every request it executed.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::edge::send_signal;
use super::raw::Addressed;
use super::wire::{Conn, Head};
use super::{free_address, wait_for, websocket};

const PLACE: &str = "RELAIS_TEST_BACKEND";
const BOOK: &str = "RELAIS_TEST_BACKEND_BOOK";

/// A backend process.
pub(crate) struct Process {
    child: Option<Child>,
    pub(crate) address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Process {
    pub(crate) fn start() -> Process {
        let mut process = Process { child: None, address: free_address(), dir: tempfile::tempdir().unwrap() };
        process.again();
        process
    }

    /// Starts it again at the same address.
    #[track_caller]
    pub(crate) fn again(&mut self) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "support::process::serve_as_backend", "--ignored", "--nocapture"]);
        command.env(PLACE, self.address.to_string()).env(BOOK, self.book());
        // It ends when this pipe does, so that a test that is killed leaves nothing behind.
        self.child = Some(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait_for("the backend process listens", || TcpStream::connect(self.address).is_ok());
    }

    fn book(&self) -> PathBuf {
        self.dir.path().join("executed")
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running backend").id()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGKILL for all of them at once.
    pub(crate) fn kill_all(processes: &mut [Process]) {
        for child in processes.iter_mut().filter_map(|process| process.child.as_mut()) {
            child.kill().unwrap();
        }
        processes.iter_mut().for_each(Process::kill);
    }

    /// SIGSTOP: its kernel still takes connections, nobody answers.
    pub(crate) fn stop(&self) {
        send_signal("STOP", self.pid());
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        send_signal("CONT", self.pid());
    }

    /// `METHOD TARGET` of every request it executed, in all its lives.
    pub(crate) fn executed(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.book()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Addressed for Process {
    fn address(&self) -> String {
        self.address.to_string()
    }
}

/// Not a test: what runs in the backend process.
#[test]
#[ignore = "the backend process of other tests"]
fn serve_as_backend() {
    let (Ok(place), Ok(book)) = (std::env::var(PLACE), std::env::var(BOOK)) else { return };
    let listener = TcpListener::bind(place.parse::<SocketAddr>().unwrap()).unwrap();
    std::thread::spawn(|| {
        let mut nothing = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut nothing);
        std::process::exit(0);
    });
    for stream in listener.incoming().flatten() {
        let book = book.clone();
        std::thread::spawn(move || serve(Conn::over(stream), &book));
    }
}

fn serve(mut conn: Conn, book: &str) {
    while let Some(head) = conn.try_head() {
        let Ok((body, _)) = conn.try_body(&head) else { return };
        if head.target() != "/health" {
            let mut file = OpenOptions::new().create(true).append(true).open(book).unwrap();
            // One write: lines of several threads do not mix.
            file.write_all(format!("{} {}\n", head.method(), head.target()).as_bytes()).unwrap();
        }
        if head.has("upgrade") {
            return echo(conn, &head);
        }
        if let Some(wait) = millis(&head) {
            std::thread::sleep(wait);
        }
        let text = format!("{} {} {}", head.method(), head.target(), body.len());
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        if conn.try_send(answer).is_err() {
            return;
        }
    }
}

/// A WebSocket that greets and sends back what comes.
fn echo(mut conn: Conn, asked: &Head) {
    if conn.try_send([websocket::yes(asked).as_bytes(), b"\x81\x02hi"].concat()).is_err() {
        return;
    }
    loop {
        let byte = conn.bytes(1);
        if byte.is_empty() || conn.try_send(byte).is_err() {
            return;
        }
    }
}

/// `/slow/300` answers after 300 ms.
fn millis(head: &Head) -> Option<Duration> {
    let (_, rest) = head.target().split_once("/slow/")?;
    rest.split(['/', '?']).next()?.parse().ok().map(Duration::from_millis)
}
