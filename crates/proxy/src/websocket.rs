//! Where WebSocket frames end (RFC 6455 5.2), so that a close frame can be put between two of them. Reads headers only.

/// Close frame from a server, code 1012 (service restart): clients reconnect at once, to a live backend.
pub(crate) const SERVICE_RESTART: [u8; 4] = [0x88, 0x02, 0x03, 0xf4];

/// The opcode of a close frame.
const CLOSE: u8 = 0x8;

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: Vec<u8>,
    payload: u64,
    /// A close frame has passed.
    closed: bool,
}

impl Frames {
    /// Takes the next bytes of the stream.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skip = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= skip as u64;
                bytes = &bytes[skip..];
                continue;
            }
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            if let Some(payload) = payload_length(&self.header) {
                self.closed |= self.header[0] & 0x0f == CLOSE;
                self.header.clear();
                self.payload = payload;
            }
        }
    }

    /// Whether a close frame may follow: the stream stands between two frames, and none has passed.
    pub(crate) fn may_close(&self) -> bool {
        self.header.is_empty() && self.payload == 0 && !self.closed
    }

    /// Whether a close frame has passed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Length of the payload, once the header is whole.
fn payload_length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    if header.len() < 2 + extended + mask {
        return None;
    }
    if extended == 0 {
        return Some(u64::from(second & 0x7f));
    }
    Some(header[2..2 + extended].iter().fold(0, |length, byte| (length << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_form_are_followed_byte_by_byte() {
        let mut stream = vec![0x81, 0x03, b'a', b'b', b'c'];
        stream.extend([0x82, 126, 1, 0]);
        stream.extend([7; 256]);
        stream.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        stream.extend([7; 65_536]);
        stream.extend([0x81, 0x82, 1, 2, 3, 4, 5, 6]);
        stream.extend([0x89, 0x00]);
        let ends = [0, 5, 5 + 260, 265 + 65_546, 65_811 + 8, 65_819 + 2];
        let mut frames = Frames::default();
        for (i, byte) in stream.iter().enumerate() {
            assert_eq!(frames.may_close(), ends.contains(&i), "before byte {i}");
            frames.follow(&[*byte]);
        }
        assert!(frames.may_close());
        let mut at_once = Frames::default();
        at_once.follow(&stream);
        assert!(at_once.may_close());
    }

    #[test]
    fn nothing_follows_a_close_frame() {
        let mut frames = Frames::default();
        frames.follow(&[0x81, 0x01, 0x08]);
        assert!(frames.may_close() && !frames.is_closed(), "a payload is no opcode");
        frames.follow(&[0x88, 0x02, 0x03]);
        assert!(frames.is_closed() && !frames.may_close());
        frames.follow(&[0xe8]);
        assert!(frames.is_closed() && !frames.may_close());
    }
}
