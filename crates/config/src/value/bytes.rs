//! Bytes as people write them: text with escapes for what a keyboard does not have.

use crate::fault::Fault;

/// Most bytes of one text.
const MOST: usize = 4096;

/// Reads a text with the escapes `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH`.
pub(crate) fn escaped(text: &str) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (byte, after) = escape(&rest[at + 1..])?;
        bytes.push(byte);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    if bytes.len() > MOST {
        let fault = Fault::new(format!("{} bytes are too many for a check", bytes.len()));
        return Err(fault.label(format!("at most {MOST} bytes")));
    }
    Ok(bytes)
}

/// The byte that the text after a backslash stands for, and what follows.
fn escape(text: &str) -> Result<(u8, &str), Fault> {
    let mut letters = text.chars();
    let byte = match letters.next() {
        Some('r') => b'\r',
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('0') => 0,
        Some('\\') => b'\\',
        Some('x') => {
            let digits = letters.as_str().get(..2).filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
            let Some(byte) = digits.and_then(|two| u8::from_str_radix(two, 16).ok()) else {
                let fault = Fault::new("an escape with `x` has two hexadecimal digits").label("not two digits");
                return Err(fault.help("write `\\x00` to `\\xff`"));
            };
            return Ok((byte, &letters.as_str()[2..]));
        }
        other => {
            let shown: String = std::iter::once('\\').chain(other).collect();
            let fault = Fault::new(format!("`{shown}` is not an escape")).label("unknown escape");
            return Err(fault.help("escapes are \\r, \\n, \\t, \\0, \\xHH, and \\\\ for a backslash itself"));
        }
    };
    Ok((byte, letters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(escaped("PING\\r\\n").unwrap(), b"PING\r\n");
        assert_eq!(escaped("\\x00\\xfF\\0\\t\\\\n").unwrap(), [0, 0xff, 0, b'\t', b'\\', b'n']);
        assert_eq!(escaped("é\r\n").unwrap(), "é\r\n".as_bytes());
        assert_eq!(escaped("").unwrap(), b"");
    }

    #[test]
    fn half_escapes_are_refused() {
        for text in ["\\", "a\\", "\\q", "\\x", "\\x1", "\\xg0", "\\x+1", "\\xé", "\\ r"] {
            escaped(text).unwrap_err();
        }
    }

    #[test]
    fn the_bytes_count_not_the_letters() {
        assert_eq!(escaped(&"\\x00".repeat(4096)).unwrap().len(), 4096);
        escaped(&"é".repeat(2049)).unwrap_err();
    }
}
