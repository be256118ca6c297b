//! The greeting of a MySQL server, read without logging in: the initial packet of protocol 10, or an error packet.
//! The server counts a connection that ends here as an aborted one (see its `max_connect_errors`).

use relais_core::Fault;
use tokio::io::AsyncReadExt;

use super::connect::Stream;
use super::fault::{self, Progress};

/// Longest greeting.
const LONGEST: usize = 4096;

/// Reads one packet and judges it.
pub(super) async fn greeting(mut stream: Stream, progress: &Progress) -> Result<(), Fault> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(|error| fault::of_stream(&error))?;
    let [low, middle, high, number] = head;
    let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
    if number != 0 || length == 0 || length > LONGEST {
        return Err(Fault::Malformed);
    }
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await.map_err(|error| fault::of_stream(&error))?;
    judge(&packet, progress)
}

fn judge(packet: &[u8], progress: &Progress) -> Result<(), Fault> {
    match packet {
        // The version of the server, up to a zero, and more that only a login needs.
        [10, version @ ..] if version.iter().position(|byte| *byte == 0).is_some_and(|end| end > 0) => Ok(()),
        [0xff, low, high, words @ ..] => {
            // A state of six bytes may stand before the words.
            let words = if words.first() == Some(&b'#') { words.get(6..).unwrap_or_default() } else { words };
            let code = u16::from_le_bytes([*low, *high]);
            progress.say(format!("{code} {}", String::from_utf8_lossy(words)).as_bytes());
            Err(Fault::Unwell)
        }
        _ => Err(Fault::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_their_meaning() {
        let progress = Progress::default();
        assert_eq!(judge(b"\x0a8.0.36\0\x08\0\0\0abcdefgh\0", &progress), Ok(()));
        assert_eq!(judge(b"\x0a\0rest", &progress), Err(Fault::Malformed), "no version");
        assert_eq!(judge(b"\x0a8.0.36", &progress), Err(Fault::Malformed), "no end");
        assert_eq!(judge(b"\x09old\0", &progress), Err(Fault::Malformed), "another protocol");
        assert_eq!(progress.said(), None);
        assert_eq!(judge(b"\xff\x10\x04Too many connections", &progress), Err(Fault::Unwell));
        assert_eq!(progress.said().as_deref(), Some("1040 Too many connections"));
        assert_eq!(judge(b"\xff\x69\x04#HY000Host is blocked", &progress), Err(Fault::Unwell));
        assert_eq!(progress.said().as_deref(), Some("1129 Host is blocked"));
        assert_eq!(judge(b"\xff\x69", &progress), Err(Fault::Malformed));
    }
}
