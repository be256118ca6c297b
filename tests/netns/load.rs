//! The users: a process of its own beside the edge (this test binary, started again) that asks at a fixed rate whatever
//! the edge does, downloads, keeps WebSockets, checks every byte, and writes down what came of each.
//!
//! A request counts from the moment it was planned. Nothing is repeated: what a user sees at the first try is the result.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;

use crate::backend::{DOWNLOAD, DOWNLOAD_PATH, SMALL};
use crate::http::{Conn, Frame, Head, WEBSOCKET_KEY};
use crate::support::{PATIENCE, noise};
use crate::world::{EDGE, World};

const OUT: &str = "RELAIS_NETNS_LOAD";
const BEGUN: &str = "the load has begun";

/// Requests per second.
pub(crate) const RATE: u64 = 200;

/// WebSockets kept open.
pub(crate) const STREAMS: usize = 50;

/// Downloads under way.
const DOWNLOADS: u64 = 4;

/// Bytes per second a downloading user takes.
const TAKES: u64 = 2_000_000;

/// A user gives up then: on an answer, or on the next byte of a download.
const GIVES_UP: Duration = Duration::from_secs(10);

/// What a request takes at the backend, milliseconds.
const WORK: u64 = 20;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Get,
    Put,
    Post,
    Download,
    /// The opening of a WebSocket.
    Open,
}

const CLASSES: [(Class, &str); 5] = [
    (Class::Get, "get"),
    (Class::Put, "put"),
    (Class::Post, "post"),
    (Class::Download, "download"),
    (Class::Open, "open"),
];

/// What came of one request. Times are microseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) class: Class,
    pub(crate) at: u64,
    pub(crate) took: u64,
    /// `ok`, or the kind of failure.
    pub(crate) end: String,
    /// Who answered.
    pub(crate) backend: String,
}

/// One WebSocket.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) backend: String,
    pub(crate) opened: u64,
    /// `None`: open to the end.
    pub(crate) closed: Option<u64>,
    /// Close code, `end` or `reset`.
    pub(crate) how: String,
}

/// Everything the users saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: Vec<Asked>,
    pub(crate) streams: Vec<Stream>,
}

/// The running users.
pub(crate) struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Kept open to the end: the last words of the process go there.
    lines: Lines<BufReader<ChildStdout>>,
    out: PathBuf,
}

impl Load {
    /// Comes back when every stream is open and the first requests are on their way.
    pub(crate) fn start(world: &World, dir: &Path) -> Load {
        let out = dir.join("load");
        let mut command = crate::world::inside(&world.edge(), &std::env::current_exe().unwrap());
        command.args(["--exact", "load::users", "--ignored", "--nocapture"]).env(OUT, &out);
        let mut child = spawn(&mut command);
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut load = Load { child, stdin, lines, out };
        assert!(load.lines.any(|line| line.is_ok_and(|line| line.contains(BEGUN))), "the load begins");
        load
    }

    /// Ends it, once what is under way has ended.
    pub(crate) fn stop(mut self) -> Seen {
        drop(self.stdin.take());
        assert!(self.child.wait().unwrap().success(), "the load ends well");
        parse(&std::fs::read_to_string(&self.out).unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// Microseconds since 1970: what the processes of a test compare.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

struct Users {
    /// The instant of `epoch`.
    started: Instant,
    epoch: u64,
    bytes: Vec<u8>,
    idle: RefCell<VecDeque<Conn>>,
    next: Cell<u64>,
    under_way: Cell<usize>,
    open: Cell<usize>,
    stopping: Cell<bool>,
    seen: RefCell<Seen>,
}

/// Not a test: what runs in the load's process.
#[test]
#[ignore = "the load of other tests"]
fn users() {
    let Ok(out) = std::env::var(OUT) else { return };
    let users = Rc::new(Users {
        started: Instant::now(),
        epoch: now(),
        bytes: noise(DOWNLOAD),
        idle: RefCell::default(),
        next: Cell::new(1),
        under_way: Cell::new(0),
        open: Cell::new(0),
        stopping: Cell::new(false),
        seen: RefCell::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, Rc::clone(&users).run());
    std::fs::write(out, users.seen.borrow().text()).unwrap();
}

impl Users {
    async fn run(self: Rc<Self>) {
        let (say, mut stop) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let mut nothing = Vec::new();
            let _ = std::io::stdin().read_to_end(&mut nothing);
            drop(say);
        });
        for _ in 0..STREAMS {
            tokio::task::spawn_local(Rc::clone(&self).stream());
        }
        let patience = Instant::now() + PATIENCE;
        while self.open.get() < STREAMS {
            assert!(Instant::now() < patience, "{} of {STREAMS} streams open", self.open.get());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..DOWNLOADS {
            tokio::task::spawn_local(Rc::clone(&self).downloads());
        }
        // What was refused before the edge was ready is none of its faults.
        self.seen.borrow_mut().requests.retain(|asked| asked.end == "ok");
        let mut out = std::io::stdout();
        writeln!(out, "{BEGUN}").unwrap();
        let begin = Instant::now();
        let mut asked = 0;
        while matches!(stop.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty)) {
            while begin.elapsed() >= Duration::from_micros(asked * 1_000_000 / RATE) {
                let planned = self.at(begin + Duration::from_micros(asked * 1_000_000 / RATE));
                tokio::task::spawn_local(Rc::clone(&self).request(asked, planned));
                asked += 1;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.stopping.set(true);
        while self.under_way.get() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn at(&self, instant: Instant) -> u64 {
        self.epoch + u64::try_from(instant.duration_since(self.started).as_micros()).unwrap()
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn id(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    fn write_down(&self, class: Class, at: u64, result: Result<(), String>, backend: String) {
        let end = result.err().unwrap_or_else(|| "ok".to_owned());
        self.seen.borrow_mut().requests.push(Asked { class, at, took: self.now().saturating_sub(at), end, backend });
    }

    /// One of ten: a PUT, two POSTs (one in twenty with a large body), seven GETs.
    async fn request(self: Rc<Self>, n: u64, planned: u64) {
        self.under_way.set(self.under_way.get() + 1);
        let (class, method, length) = match n % 10 {
            3 => (Class::Put, "PUT", 4096),
            6 if n % 100 == 6 => (Class::Post, "POST", 64 << 10),
            6 | 9 => (Class::Post, "POST", 2048),
            _ => (Class::Get, "GET", 0),
        };
        let mut backend = String::new();
        let asked = tokio::time::timeout(GIVES_UP, self.ask(method, length, &mut backend)).await;
        self.write_down(class, planned, asked.unwrap_or_else(|_| Err("timeout".to_owned())), backend);
        self.under_way.set(self.under_way.get() - 1);
    }

    async fn ask(&self, method: &str, length: usize, backend: &mut String) -> Result<(), String> {
        let id = self.id();
        let kept = self.idle.borrow_mut().pop_front();
        let reused = kept.is_some();
        let mut conn = match kept {
            Some(conn) => conn,
            None => connect().await?,
        };
        let lengths = if length > 0 { format!("Content-Length: {length}\r\n") } else { String::new() };
        let head = format!("{method} /w?id={id}&work={WORK} HTTP/1.1\r\nHost: a.test\r\n{lengths}\r\n");
        // An edge that answers early may have stopped reading: what it said counts.
        let sent = conn.send(&[head.as_bytes(), &self.bytes[..length]].concat()).await;
        let head = match conn.head().await {
            Ok(Some(head)) => head,
            Ok(None) => return Err(lost(reused, "closed")),
            Err(error) if error.kind() == ErrorKind::ConnectionReset || sent.is_err() => {
                return Err(lost(reused, "reset"));
            }
            Err(error) => return Err(error.kind().to_string()),
        };
        good(&head, id, backend)?;
        let body = conn.body(head.length()).await.map_err(|_| "truncated".to_owned())?;
        if body != self.bytes[..SMALL] {
            return Err("corrupt".to_owned());
        }
        if !head.closes() {
            self.idle.borrow_mut().push_back(conn);
        }
        Ok(())
    }

    async fn downloads(self: Rc<Self>) {
        while !self.stopping.get() {
            self.under_way.set(self.under_way.get() + 1);
            let (at, mut backend) = (self.now(), String::new());
            let result = self.download(&mut backend).await;
            let failed = result.is_err();
            self.write_down(Class::Download, at, result, backend);
            self.under_way.set(self.under_way.get() - 1);
            if failed {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// Takes it at the pace of a user, and checks every byte.
    async fn download(&self, backend: &mut String) -> Result<(), String> {
        let patience = |what: &str| format!("timeout_{what}");
        let id = self.id();
        let mut conn = connect().await?;
        let ask = format!("GET {DOWNLOAD_PATH}?id={id} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        conn.send(ask.as_bytes()).await.map_err(|error| error.kind().to_string())?;
        let head = tokio::time::timeout(GIVES_UP, conn.head()).await.map_err(|_| patience("head"))?;
        let head = head.map_err(|error| error.kind().to_string())?.ok_or("closed")?;
        good(&head, id, backend)?;
        if head.length() != DOWNLOAD {
            return Err("corrupt".to_owned());
        }
        let (begin, mut got) = (Instant::now(), 0_usize);
        while got < DOWNLOAD {
            let piece = tokio::time::timeout(GIVES_UP, conn.piece((64 << 10).min(DOWNLOAD - got))).await;
            let piece = piece.map_err(|_| patience("body"))?.map_err(|_| "truncated".to_owned())?;
            if piece != self.bytes[got..got + piece.len()] {
                return Err("corrupt".to_owned());
            }
            got += piece.len();
            let due = Duration::from_micros(got as u64 * 1_000_000 / TAKES);
            while !self.stopping.get() && begin.elapsed() < due {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    /// Keeps a WebSocket open: comes again 50 ms after it was closed.
    async fn stream(self: Rc<Self>) {
        loop {
            let at = self.now();
            let mut backend = String::new();
            let opened = tokio::time::timeout(GIVES_UP, open(&mut backend)).await;
            match opened.unwrap_or_else(|_| Err("timeout".to_owned())) {
                Ok(conn) => {
                    self.write_down(Class::Open, at, Ok(()), backend.clone());
                    self.open.set(self.open.get() + 1);
                    self.listen(conn, backend).await;
                    self.open.set(self.open.get() - 1);
                }
                Err(kind) => self.write_down(Class::Open, at, Err(kind), backend),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn listen(&self, mut conn: Conn, backend: String) {
        let place = {
            let mut seen = self.seen.borrow_mut();
            let opened = self.now();
            seen.streams.push(Stream { backend, opened, closed: None, how: "open".to_owned() });
            seen.streams.len() - 1
        };
        let how = loop {
            match conn.frame().await {
                Ok(Frame::Data) => {}
                Ok(Frame::Close(code)) => break code.to_string(),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break "end".to_owned(),
                Err(_) => break "reset".to_owned(),
            }
            // A word of the client's own, masked with zeros, so that both directions are in use.
            let _ = conn.send(b"\x81\x84\0\0\0\0tock").await;
        };
        let stream = &mut self.seen.borrow_mut().streams[place];
        (stream.closed, stream.how) = (Some(self.now()), how);
    }
}

async fn connect() -> Result<Conn, String> {
    let address: SocketAddr = EDGE.parse().unwrap();
    TcpStream::connect(address).await.map(Conn::over).map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        kind => format!("connect: {kind}"),
    })
}

fn lost(reused: bool, how: &str) -> String {
    if reused { format!("stale_{how}") } else { how.to_owned() }
}

fn good(head: &Head, id: u64, backend: &mut String) -> Result<(), String> {
    head.get("x-backend").unwrap_or_default().clone_into(backend);
    match head.status() {
        200 if head.get("x-id") == Some(&id.to_string()) => Ok(()),
        200 => Err("wrong_answer".to_owned()),
        status => Err(format!("http_{status}")),
    }
}

async fn open(backend: &mut String) -> Result<Conn, String> {
    let mut conn = connect().await?;
    let ask = format!(
        "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
    );
    conn.send(ask.as_bytes()).await.map_err(|error| error.kind().to_string())?;
    let head = conn.head().await.map_err(|error| error.kind().to_string())?.ok_or("closed")?;
    head.get("x-backend").unwrap_or_default().clone_into(backend);
    if head.status() == 101 { Ok(conn) } else { Err(format!("http_{}", head.status())) }
}

impl Seen {
    fn text(&self) -> String {
        let mut text = String::new();
        for asked in &self.requests {
            let class = CLASSES.iter().find(|(class, _)| *class == asked.class).unwrap().1;
            let Asked { at, took, end, backend, .. } = asked;
            writeln!(text, "R\t{class}\t{at}\t{took}\t{end}\t{backend}").unwrap();
        }
        for Stream { backend, opened, closed, how } in &self.streams {
            writeln!(text, "S\t{backend}\t{opened}\t{}\t{how}", closed.unwrap_or(0)).unwrap();
        }
        text
    }
}

fn parse(text: &str) -> Seen {
    let mut seen = Seen::default();
    for line in text.lines() {
        let word: Vec<&str> = line.split('\t').collect();
        let number = |n: usize| -> u64 { word[n].parse().unwrap() };
        if word[0] == "R" {
            let class = CLASSES.iter().find(|(_, name)| *name == word[1]).unwrap().0;
            let (end, backend) = (word[4].to_owned(), word[5].to_owned());
            seen.requests.push(Asked { class, at: number(2), took: number(3), end, backend });
        } else {
            let closed = Some(number(3)).filter(|at| *at != 0);
            seen.streams.push(Stream {
                backend: word[1].to_owned(),
                opened: number(2),
                closed,
                how: word[4].to_owned(),
            });
        }
    }
    seen
}
