//! A backend that costs next to nothing: `/s` 100 bytes, `/1m` a MiB, `/who` its own address, `/hang` never answers; a
//! body is read to its end; WebSockets are echoed. Takes every address of loopback on one port.

use std::io;
use std::net::Ipv4Addr;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::args::{Args, Outcome};
use crate::client::Head;

const MIB: usize = 1 << 20;

/// What RFC 6455 1.3 puts behind a key before it is hashed.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub(crate) async fn run(args: Args) -> Outcome<()> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, args.get("port", 9000)?).into())?;
    let listener: TcpListener = socket.listen(4096)?;
    let answers: &'static Answers = Box::leak(Box::new(Answers::new()));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // Whoever goes away is no trouble of a backend's.
        tokio::spawn(async move { drop(serve(stream, answers).await) });
    }
}

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
    done: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let head = |kind: &str, len: usize| {
            format!("HTTP/1.1 200 OK\r\nServer: backend\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\r\n")
        };
        Self {
            small: [head("text/plain", 100).into_bytes(), vec![b'x'; 100]].concat(),
            large: [head("application/octet-stream", MIB).into_bytes(), vec![b'z'; MIB]].concat(),
            done: [head("text/plain", 2).into_bytes(), b"ok".to_vec()].concat(),
        }
    }
}

async fn serve(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let head = loop {
            if let Some(head) = Head::in_(&buffer) {
                break head;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let text = &buffer[..head.len];
        let closes = head.closes;
        if head.upgrade {
            stream.write_all(upgraded(text).as_bytes()).await?;
            buffer.drain(..head.len);
            return echo(stream, buffer).await;
        }
        if text.starts_with(b"GET /1m") {
            stream.write_all(&answers.large).await?;
        } else if text.starts_with(b"GET /who") {
            let who = stream.local_addr()?.ip().to_string();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{who}", who.len());
            stream.write_all(answer.as_bytes()).await?;
        } else if text.starts_with(b"GET /hang") {
            std::future::pending::<()>().await;
        } else if text.starts_with(b"GET ") {
            stream.write_all(&answers.small).await?;
        } else {
            let there = buffer.len() - head.len;
            drain(&mut stream, head.body, there, head.chunked.then(|| buffer[head.len..].to_vec())).await?;
            stream.write_all(&answers.done).await?;
            buffer.truncate(head.len);
        }
        if closes {
            return Ok(());
        }
        buffer.drain(..head.len);
    }
}

/// Reads a body of which `there` bytes came with the head, or, of a chunked one, `chunked`.
async fn drain(stream: &mut TcpStream, body: usize, there: usize, chunked: Option<Vec<u8>>) -> io::Result<()> {
    let mut sink = vec![0; 256 * 1024];
    let Some(mut end) = chunked else {
        let mut left = body.saturating_sub(there);
        while left > 0 {
            let want = left.min(sink.len());
            left -= some(stream.read(&mut sink[..want]).await?)?;
        }
        return Ok(());
    };
    while !end.ends_with(b"0\r\n\r\n") {
        let n = some(stream.read(&mut sink).await?)?;
        end.extend_from_slice(&sink[n.saturating_sub(5)..n]);
        end.drain(..end.len().saturating_sub(5));
    }
    Ok(())
}

fn some(read: usize) -> io::Result<usize> {
    if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
}

/// The answer to a request for a WebSocket: whoever sent its key checks what is made of it.
fn upgraded(head: &[u8]) -> String {
    const NAME: &[u8] = b"sec-websocket-key:";
    let named = |line: &&[u8]| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
    let key = head.split(|byte| *byte == b'\n').find(named).map_or(&[][..], |line| line[NAME.len()..].trim_ascii());
    let accept = BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// Sends every frame back, unmasked.
async fn echo(mut stream: TcpStream, mut buffer: Vec<u8>) -> io::Result<()> {
    loop {
        while let [first, second, rest @ ..] = &buffer[..] {
            let len = usize::from(second & 127);
            // Short frames only: that is what the load sends.
            let (Some(mask), Some(payload)) = (rest.get(..4), rest.get(4..4 + len)) else { break };
            let mut frame = vec![*first, second & 127];
            frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            stream.write_all(&frame).await?;
            buffer.drain(..6 + len);
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}
