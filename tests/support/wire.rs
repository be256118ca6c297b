//! One end of a connection, byte by byte: what a test writes is what the other end gets. Used for clients of the edge
//! and, by `raw`, for what a backend sees.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A connection, and what was read from it but not looked at yet.
pub(crate) struct Conn<S = TcpStream> {
    pub(super) stream: S,
    buffer: Vec<u8>,
}

/// The head of a message.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Request line or status line.
    pub(crate) start: String,
    /// Fields in order, names as they came.
    pub(crate) fields: Vec<(String, String)>,
    /// As it came, with the empty line.
    pub(crate) raw: String,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

/// Why a body could not be read to its end: what a client must notice.
#[derive(Debug)]
pub(crate) struct Incomplete(pub(crate) Vec<u8>);

impl Head {
    fn parse(raw: &str) -> Head {
        let mut lines = raw.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(field).collect();
        Head { start, fields, raw: raw.to_owned() }
    }

    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{}", self.start))
    }

    pub(crate) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The one value of a field; two of them are a mistake.
    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "more than one {name}: {all:?}");
        all.first().copied()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    fn is_chunked(&self) -> bool {
        self.all("transfer-encoding").iter().any(|value| value.eq_ignore_ascii_case("chunked"))
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a field: {line:?}"));
    (name.to_owned(), value.trim().to_owned())
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }
}

impl Conn<TcpStream> {
    #[track_caller]
    pub(crate) fn to(address: SocketAddr) -> Conn {
        Conn::over(TcpStream::connect_timeout(&address, PATIENCE).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Conn {
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Conn::with(stream)
    }

    /// Reads wait without end from now on.
    pub(crate) fn wait_for_ever(&self) {
        self.stream.set_read_timeout(None).unwrap();
    }

    /// Whether bytes wait to be read; `None`: the other end has closed.
    pub(crate) fn speaks(&self) -> Option<bool> {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        match seen {
            Ok(0) => None,
            Ok(_) => Some(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(false),
            Err(_) => None,
        }
    }

    /// No more bytes will be sent; the other direction stays open.
    pub(crate) fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes so that the other end sees a reset, not an end.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Waits for the end and says whether it was a reset.
    #[track_caller]
    pub(crate) fn is_reset(&mut self) -> bool {
        let mut block = [0; 4096];
        loop {
            match self.stream.read(&mut block) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.stream.peer_addr().unwrap()
    }

    /// Sends what fits until the other end takes no more, or `most` bytes; says how many.
    pub(crate) fn stuff(&mut self, byte: u8, most: usize) -> usize {
        let block = [byte; 16 << 10];
        self.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut sent = 0;
        while sent < most {
            match self.stream.write(&block[..block.len().min(most - sent)]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        sent
    }
}

impl<S: Read + Write> Conn<S> {
    pub(crate) fn with(stream: S) -> Conn<S> {
        Conn { stream, buffer: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).unwrap();
        self
    }

    /// Sends; the other end may be gone.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Reads once. `false`: the end, clean or not.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut block = [0; 64 << 10];
        let read = loop {
            match self.stream.read(&mut block) {
                // Also where the test was stopped and goes on: a wait with an end is not taken up again.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&block[..n]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("waited in vain for bytes; so far: {:?}", String::from_utf8_lossy(&self.buffer));
            }
            // Reset, or TLS cut without its farewell.
            Err(_) => false,
        }
    }

    /// The next message's head, or `None` when the connection ended before its first byte.
    #[track_caller]
    pub(crate) fn try_head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let raw: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Some(Head::parse(&String::from_utf8_lossy(&raw)));
            }
            if !self.fill() {
                assert!(self.buffer.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.buffer));
                return None;
            }
        }
    }

    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        self.try_head().expect("a message, not the end of the connection")
    }

    /// Exactly `n` bytes, or fewer at the end of the connection.
    #[track_caller]
    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.buffer.len() < n && self.fill() {}
        let n = n.min(self.buffer.len());
        self.buffer.drain(..n).collect()
    }

    /// Everything up to the end of the connection.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// Everything up to the end of the connection, if that is one in order and no reset.
    #[track_caller]
    pub(crate) fn ending(&mut self) -> std::io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.buffer);
        self.stream.read_to_end(&mut rest).map(|_| rest)
    }

    /// Reads until `text` was seen and returns everything up to its end.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = find(&self.buffer, text.as_bytes()) {
                let read: Vec<u8> = self.buffer.drain(..at + text.len()).collect();
                return String::from_utf8_lossy(&read).into_owned();
            }
            assert!(self.fill(), "ended without {text:?}: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Waits for the end of the connection; nothing may come before it.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "bytes before the end: {:?}", String::from_utf8_lossy(&rest));
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let raw: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&raw[..end]).into_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// A chunk's data; empty for the last chunk, whose trailers follow.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
        if size == 0 {
            return Some(Vec::new());
        }
        let data = self.bytes(size);
        (data.len() == size && self.bytes(2) == b"\r\n").then_some(data)
    }

    fn chunked(&mut self) -> Result<(Vec<u8>, Vec<(String, String)>), Incomplete> {
        let mut body = Vec::new();
        loop {
            match self.chunk() {
                None => return Err(Incomplete(body)),
                Some(data) if data.is_empty() => break,
                Some(data) => body.extend_from_slice(&data),
            }
        }
        let mut trailers = Vec::new();
        loop {
            match self.line() {
                None => return Err(Incomplete(body)),
                Some(line) if line.is_empty() => return Ok((body, trailers)),
                Some(line) => trailers.push(field(&line)),
            }
        }
    }

    /// The body that belongs to a head, with its trailers. Without a length it goes to the end of the connection.
    #[track_caller]
    pub(crate) fn try_body(&mut self, head: &Head) -> Result<(Vec<u8>, Vec<(String, String)>), Incomplete> {
        if head.is_chunked() {
            assert!(!head.has("content-length"), "both framings: {}", head.raw);
            return self.chunked();
        }
        let is_request = !head.start.starts_with("HTTP/");
        match head.get("content-length") {
            Some(length) => {
                let length = length.parse().unwrap();
                let body = self.bytes(length);
                if body.len() == length { Ok((body, Vec::new())) } else { Err(Incomplete(body)) }
            }
            None if is_request => Ok((Vec::new(), Vec::new())),
            None => Ok((self.rest(), Vec::new())),
        }
    }

    #[track_caller]
    pub(crate) fn body(&mut self, head: &Head) -> Vec<u8> {
        match self.try_body(head) {
            Ok((body, _)) => body,
            Err(Incomplete(so_far)) => panic!("cut after {} bytes of body; {}", so_far.len(), head.raw),
        }
    }

    /// The next answer, interim ones aside.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let head = loop {
            let head = self.head();
            if head.status() >= 200 || head.status() == 101 {
                break head;
            }
        };
        if matches!(head.status(), 101 | 204 | 304) {
            return Answer { head, body: Vec::new(), trailers: Vec::new() };
        }
        match self.try_body(&head) {
            Ok((body, trailers)) => Answer { head, body, trailers },
            Err(Incomplete(so_far)) => panic!("cut after {} bytes of body; {}", so_far.len(), head.raw),
        }
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Runs `work` and says how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let result = work();
    (result, started.elapsed())
}

/// A GET for a path of the service that takes any host.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

/// A POST with a length.
pub(crate) fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A 200 with a length.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
