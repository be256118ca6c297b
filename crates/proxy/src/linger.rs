//! The last moment of a client's connection: all is said, and what the client still sends is thrown away until it has heard.
//! Closed with bytes unread TCP resets (RFC 9112 9.6), and a client may lose with it the answer it has not read yet, or the
//! GOAWAY that says what it may ask for again. Only the socket is read here: nobody needs to understand it.

use std::io::ErrorKind;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::timer::LazyTimer;

/// What is thrown away at a time.
const HANDFUL: usize = 16 << 10;

/// The wait of one connection.
#[derive(Debug)]
pub(crate) struct Linger {
    begun: Instant,
    heard: Instant,
    timer: LazyTimer,
}

impl Linger {
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, heard: now, timer: LazyTimer::default() }
    }

    /// Ready when the client has closed too, has sent nothing for `silence`, or goes on sending for `longest`.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        silence: Duration,
        longest: Duration,
    ) -> Poll<()> {
        let mut waste = [0_u8; HANDFUL];
        // Never for longer than the runtime lets a task go on: then it says pending although more is there.
        while let Poll::Ready(Ok(())) = socket.poll_read_ready(cx) {
            match socket.try_read(&mut waste) {
                Ok(0) => return Poll::Ready(()),
                Ok(_) => self.heard = Instant::now(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        self.timer.poll_expired(cx, (self.heard + silence).min(self.begun + longest))
    }
}
