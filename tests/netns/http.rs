//! As much of HTTP/1.1 and of WebSocket frames as the load and the backends speak with each other through an edge.
//! Knows no scenario.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The key and its answer that RFC 6455 uses as its sample.
pub(crate) const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One end of a connection.
pub(crate) struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The head of a message.
pub(crate) struct Head {
    start: String,
    fields: Vec<(String, String)>,
}

/// A frame of a WebSocket.
pub(crate) enum Frame {
    Data,
    /// With its code; 1005 when it carries none.
    Close(u16),
}

impl Head {
    fn parse(text: &str) -> Result<Head> {
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').ok_or(ErrorKind::InvalidData)?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let fields = lines.filter(|line| !line.is_empty()).map(field).collect::<Result<_>>()?;
        Ok(Head { start, fields })
    }

    /// The n-th word of the first line.
    pub(crate) fn word(&self, n: usize) -> &str {
        self.start.split(' ').nth(n).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    /// `name` in small letters.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn length(&self) -> usize {
        self.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn closes(&self) -> bool {
        self.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl Conn {
    pub(crate) fn over(stream: TcpStream) -> Conn {
        let _ = stream.set_nodelay(true);
        Conn { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await
    }

    /// More bytes into the buffer; `false` at the end of the stream.
    async fn more(&mut self) -> Result<bool> {
        self.buffer.reserve(64 << 10);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// The next head; `None` when the other end closed before its first byte.
    pub(crate) async fn head(&mut self) -> Result<Option<Head>> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 4);
                return Head::parse(&text).map(Some);
            }
            if !self.more().await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Some bytes of a body, at most `most`; an error when it ends before.
    pub(crate) async fn piece(&mut self, most: usize) -> Result<Vec<u8>> {
        if self.buffer.is_empty() && !self.more().await? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let n = most.min(self.buffer.len());
        Ok(self.buffer.drain(..n).collect())
    }

    /// A whole body.
    pub(crate) async fn body(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.more().await? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// The next frame, masked or not; its payload is dropped. Safe to give up and call again.
    pub(crate) async fn frame(&mut self) -> Result<Frame> {
        loop {
            if let Some((frame, length)) = frame_in(&self.buffer) {
                self.buffer.drain(..length);
                return Ok(frame);
            }
            if !self.more().await? {
                return Err(Error::from(ErrorKind::UnexpectedEof));
            }
        }
    }
}

/// A whole frame at the start of `bytes`, and its length. Payloads here are always shorter than 126 bytes.
fn frame_in(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let payload = usize::from(second & 0x7f);
    let header = if second & 0x80 == 0 { 2 } else { 6 };
    let body = bytes.get(header..header + payload)?;
    let frame = match first & 0x0f {
        8 => Frame::Close(body.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]))),
        _ => Frame::Data,
    };
    Some((frame, header + payload))
}
