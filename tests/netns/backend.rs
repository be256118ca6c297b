//! A backend that is a process of its own inside a site's namespace: this test binary, started again. It keeps a
//! journal of every POST it executed, and behaves as badly as its standard input tells it to.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use crate::http::{Conn, Head, WEBSOCKET_ACCEPT};
use crate::support::edge::send_signal;
use crate::support::{noise, wait_for};
use crate::world::World;

const PLACE: &str = "RELAIS_NETNS_BACKEND";
const NAME: &str = "RELAIS_NETNS_BACKEND_NAME";
const JOURNAL: &str = "RELAIS_NETNS_JOURNAL";

/// Bytes of a download.
pub(crate) const DOWNLOAD: usize = 20_000_000;

/// Bytes of a small answer.
pub(crate) const SMALL: usize = 2048;

/// Where downloads are.
pub(crate) const DOWNLOAD_PATH: &str = "/download";

const ETAG: &str = "\"v1\"";

/// How often a WebSocket's backend says something.
const TICK: Duration = Duration::from_millis(250);

/// A backend process.
pub(crate) struct Backend {
    /// `dijon-1`.
    pub(crate) name: String,
    pub(crate) site: usize,
    pub(crate) address: SocketAddr,
    namespace: String,
    journal: PathBuf,
    child: Option<Child>,
}

impl Backend {
    pub(crate) fn start(world: &World, site: usize, n: usize, dir: &Path) -> Backend {
        let name = format!("{}-{n}", crate::world::SITES[site]);
        let mut backend = Backend {
            journal: dir.join(format!("{name}.journal")),
            name,
            site,
            address: world.backend(site, n),
            namespace: world.site(site),
            child: None,
        };
        backend.again("");
        backend
    }

    /// Starts it again at the same address, with a first word about how to behave.
    pub(crate) fn again(&mut self, words: &str) {
        let mut command = crate::world::inside(&self.namespace, &std::env::current_exe().unwrap());
        command.args(["--exact", "backend::serve", "--ignored", "--nocapture"]);
        command.env(PLACE, self.address.to_string()).env(NAME, &self.name).env(JOURNAL, &self.journal);
        // Its end of file is its end: a test that is killed leaves no process behind.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
        self.child = Some(command.spawn().unwrap());
        self.behave(words);
    }

    /// Words as in `Mode::heed`.
    pub(crate) fn behave(&mut self, words: &str) {
        let child = self.child.as_mut().expect("a running backend");
        writeln!(child.stdin.as_mut().unwrap(), "{words}").unwrap();
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        send_signal(name, self.child.as_ref().expect("a running backend").id());
    }

    /// The ids of the POSTs it executed, in all its lives.
    pub(crate) fn executed(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(&self.journal).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How it behaves.
#[derive(Debug, Clone, Copy)]
struct Mode {
    /// Answer of everything but the health check; below 500 the effect has happened. 0: as it should be.
    status: u16,
    /// Answer of the health check. 0: as `status`.
    health: u16,
    /// Requests in ten that end in `code` after their effect.
    errors: u32,
    code: u16,
    /// Factor of the time a request takes.
    slow: u32,
    /// Nothing but the health check is answered, until it ends.
    stuck: bool,
    /// Everything is answered 503 until then.
    cold: Option<Instant>,
}

impl Mode {
    const GOOD: Mode = Mode { status: 0, health: 0, errors: 0, code: 500, slow: 1, stuck: false, cold: None };

    /// `status=503 health=200 errors=3 slow=50 stuck=1 cold=2000` (milliseconds); what is not named is good again.
    fn heed(words: &str) -> Mode {
        let mut mode = Mode::GOOD;
        for (key, value) in words.split_whitespace().filter_map(|word| word.split_once('=')) {
            let number: u32 = value.parse().unwrap();
            let status = u16::try_from(number).unwrap_or(500);
            match key {
                "status" => mode.status = status,
                "health" => mode.health = status,
                "errors" => mode.errors = number,
                "slow" => mode.slow = number,
                "stuck" => mode.stuck = number > 0,
                "cold" => mode.cold = Some(Instant::now() + Duration::from_millis(number.into())),
                other => panic!("no such word: {other}"),
            }
        }
        mode
    }

    fn is_cold(&self) -> bool {
        self.cold.is_some_and(|until| Instant::now() < until)
    }
}

struct State {
    name: String,
    journal: RefCell<std::fs::File>,
    mode: Arc<Mutex<Mode>>,
    bytes: Vec<u8>,
    served: Cell<u32>,
}

/// Not a test: what runs in the backend process.
#[test]
#[ignore = "the backend process of other tests"]
fn serve() {
    let (Ok(place), Ok(name), Ok(journal)) = (std::env::var(PLACE), std::env::var(NAME), std::env::var(JOURNAL)) else {
        return;
    };
    let mode = Arc::new(Mutex::new(Mode::GOOD));
    let heard = Arc::clone(&mode);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            *heard.lock().unwrap() = Mode::heed(&line);
        }
        std::process::exit(0);
    });
    let ready = Path::new(&journal).with_extension("ready");
    let journal = OpenOptions::new().create(true).append(true).open(journal).unwrap();
    let state = State { name, journal: RefCell::new(journal), mode, bytes: noise(DOWNLOAD), served: Cell::new(0) };
    let state = Rc::new(state);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(place).await.unwrap();
        File::create(ready).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(connection(stream, Rc::clone(&state)));
        }
    });
}

async fn connection(stream: TcpStream, state: Rc<State>) -> std::io::Result<()> {
    let mut conn = Conn::over(stream);
    while let Some(head) = conn.head().await? {
        let body = conn.body(head.length()).await?;
        if head.get("upgrade").is_some() {
            return websocket(&mut conn, &state).await;
        }
        state.answer(&mut conn, &head, &body).await?;
        if head.closes() {
            break;
        }
    }
    Ok(())
}

impl State {
    async fn answer(&self, conn: &mut Conn, head: &Head, body: &[u8]) -> std::io::Result<()> {
        let mode = *self.mode.lock().unwrap();
        let (path, query) = head.word(1).split_once('?').unwrap_or((head.word(1), ""));
        let value = |key: &str| -> u64 {
            let pair = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key);
            pair.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
        };
        if path == "/health" {
            tokio::time::sleep(Duration::from_millis((mode.slow - 1).into())).await;
            let status = if mode.health != 0 {
                mode.health
            } else if mode.is_cold() {
                503
            } else {
                mode.status.max(200)
            };
            return self.say(conn, status, 0, "", b"").await;
        }
        while self.mode.lock().unwrap().stuck {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let id = value("id");
        let refused = mode.is_cold() || mode.status == 503;
        if refused {
            return self.say(conn, 503, id, "", b"").await;
        }
        if body != &self.bytes[..body.len()] {
            return self.say(conn, 400, id, "", b"").await;
        }
        if head.word(0) == "POST" {
            // One write when the whole body is there: a SIGKILL afterwards loses nothing.
            self.journal.borrow_mut().write_all(format!("{id}\n").as_bytes())?;
        }
        let served = self.served.get();
        self.served.set(served.wrapping_add(1));
        tokio::time::sleep(Duration::from_millis(value("work") * u64::from(mode.slow))).await;
        if mode.status != 0 {
            return self.say(conn, mode.status, id, "", b"").await;
        }
        if served.wrapping_mul(7) % 10 < mode.errors {
            return self.say(conn, mode.code, id, "", b"").await;
        }
        if path == DOWNLOAD_PATH {
            self.download(conn, head, id).await
        } else {
            self.say(conn, 200, id, "", &self.bytes[..SMALL]).await
        }
    }

    async fn say(&self, conn: &mut Conn, status: u16, id: u64, more: &str, body: &[u8]) -> std::io::Result<()> {
        let head = format!(
            "HTTP/1.1 {status} X\r\nX-Backend: {}\r\nX-Id: {id}\r\nETag: {ETAG}\r\nContent-Length: {}\r\n{more}\r\n",
            self.name,
            body.len()
        );
        conn.send(&[head.as_bytes(), body].concat()).await
    }

    /// The whole or one range of it, RFC 9110 14.
    async fn download(&self, conn: &mut Conn, head: &Head, id: u64) -> std::io::Result<()> {
        let same = head.get("if-range").is_none_or(|tag| tag == ETAG);
        let range = head.get("range").filter(|_| same).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let Some((first, last)) = range else {
            return self.say(conn, 200, id, "Accept-Ranges: bytes\r\n", &self.bytes).await;
        };
        let first: usize = first.parse().unwrap_or(0);
        let last = last.parse().unwrap_or(DOWNLOAD - 1).min(DOWNLOAD - 1);
        let field = format!("Content-Range: bytes {first}-{last}/{DOWNLOAD}\r\n");
        self.say(conn, 206, id, &field, &self.bytes[first..=last]).await
    }
}

/// Says something now and then until the client goes.
async fn websocket(conn: &mut Conn, state: &State) -> std::io::Result<()> {
    let mode = *state.mode.lock().unwrap();
    if mode.is_cold() || mode.status != 0 {
        return state.say(conn, mode.status.max(503), 0, "", b"").await;
    }
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\nX-Backend: {}\r\n\r\n",
        state.name
    );
    conn.send(head.as_bytes()).await?;
    loop {
        conn.send(b"\x81\x04tick").await?;
        // What the client says is read, so that its end is seen.
        if let Ok(frame) = tokio::time::timeout(TICK, conn.frame()).await {
            frame?;
        }
    }
}

/// Starts all six, and waits until they listen.
pub(crate) fn all(world: &World, dir: &Path) -> Vec<Backend> {
    let places = (0..3).flat_map(|site| (1..3).map(move |n| (site, n)));
    let backends: Vec<Backend> = places.map(|(site, n)| Backend::start(world, site, n, dir)).collect();
    for backend in &backends {
        wait_for("a backend listens", || backend.journal.with_extension("ready").exists());
    }
    backends
}

/// Whether a command can run at all.
pub(crate) fn runs(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
