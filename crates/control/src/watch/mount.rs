//! Whether a single file was mounted: then a rename on the other side can never be seen, because the mount keeps the
//! old inode.

use std::path::{Path, PathBuf};

/// Whether the file itself (not a directory above it) is a mount point. `false` where the system cannot tell.
pub(crate) fn is_mount_point(file: &Path) -> bool {
    let Ok(real) = file.canonicalize() else { return false };
    // Mounts of one file system onto itself share their device number: only the mount table tells.
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    mount_points(&table).any(|point| point == real)
}

/// The mount points of a mount table: the fifth field, with octal escapes (proc(5)).
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
    })
}

/// `\040` is a space, and so on.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                rest = &tail[3..];
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            40 22 8:1 /srv/p.toml /etc/my\\040conf/proxy.toml rw - ext4 /dev/sda1 rw\n";
        let points: Vec<PathBuf> = mount_points(table).collect();
        assert_eq!(points, [PathBuf::from("/"), PathBuf::from("/etc/my conf/proxy.toml")]);
    }

    #[test]
    fn an_ordinary_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proxy.toml");
        std::fs::write(&file, "").unwrap();
        assert!(!is_mount_point(&file));
        assert!(!is_mount_point(Path::new("/nonexistent")));
    }
}
