//! `PING` to a Redis server. That it wants a password first shows that it lives; that it still loads its data, that
//! nobody should be sent there yet.

use relais_core::Fault;
use tokio::io::AsyncReadExt;

use super::connect::Stream;
use super::exchange;
use super::fault::{self, Progress};

/// Longest answer.
const LINE: usize = 1024;

/// Asks, and judges the one line that comes back.
pub(super) async fn ping(mut stream: Stream, progress: &Progress) -> Result<(), Fault> {
    exchange::send(&mut stream, b"PING\r\n").await?;
    let mut line = Vec::new();
    let mut some = [0; 256];
    while !line.contains(&b'\n') && line.len() < LINE {
        let read = stream.read(&mut some).await.map_err(|error| fault::of_stream(&error))?;
        if read == 0 {
            break;
        }
        line.extend_from_slice(&some[..read]);
    }
    judge(&line, progress)
}

fn judge(line: &[u8], progress: &Progress) -> Result<(), Fault> {
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return Err(if line.is_empty() { Fault::Reset } else { Fault::Malformed });
    };
    let line = line[..end].trim_ascii_end();
    let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    match word {
        // Who may not even ask is told so by a server that works.
        b"+PONG" | b"-NOAUTH" | b"-NOPERM" => Ok(()),
        _ if line.starts_with(b"-") => {
            progress.say(&line[1..]);
            Err(Fault::Unwell)
        }
        _ => Err(Fault::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_their_meaning() {
        let judged = |line: &str| judge(line.as_bytes(), &Progress::default());
        assert_eq!(judged("+PONG\r\n"), Ok(()));
        assert_eq!(judged("-NOAUTH Authentication required.\r\n"), Ok(()));
        assert_eq!(judged("-NOPERM this user has no permissions\r\n"), Ok(()));
        assert_eq!(judged("-LOADING Redis is loading the dataset in memory\r\n"), Err(Fault::Unwell));
        assert_eq!(judged("-MASTERDOWN Link with MASTER is down\r\n"), Err(Fault::Unwell));
        assert_eq!(judged("-DENIED Redis is running in protected mode\r\n"), Err(Fault::Unwell));
        assert_eq!(judged("+PONGO\r\n"), Err(Fault::Malformed));
        assert_eq!(judged("HTTP/1.1 400 Bad Request\r\n"), Err(Fault::Malformed));
        assert_eq!(judged("+PONG"), Err(Fault::Malformed), "cut short");
        assert_eq!(judged(""), Err(Fault::Reset));
    }
}
