//! The socket file: made in private, shown only when its mode is right, taken over from a dead process, never from a
//! living one.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

/// Owner and group may speak to it.
const MODE: u32 = 0o660;

/// A file by its identity: device and inode.
pub(super) type Inode = (u64, u64);

/// An open socket.
pub(super) struct Opened {
    pub(super) listener: UnixListener,
    pub(super) inode: Inode,
}

/// Opens the socket at `path`. `Err`: what is wrong and the way out.
pub(super) async fn open(path: &Path) -> Result<Opened, (String, String)> {
    let shown = path.display();
    match in_the_way(path).await {
        Ok(None) => {}
        Ok(Some(what)) => {
            let help = match what {
                InTheWay::Living => "stop the other relais, or name another `[admin] socket`",
                InTheWay::NoSocket => "remove it, or name another `[admin] socket`",
            };
            return Err((format!("cannot open the admin socket {shown}: {}", what.as_str()), help.to_string()));
        }
        Err(error) => return Err(explain(path, &error)),
    }
    make(path).map_err(|error| explain(path, &error))
}

fn explain(path: &Path, error: &io::Error) -> (String, String) {
    let help = match error.kind() {
        ErrorKind::PermissionDenied => "give the user that runs relais the right to write there",
        ErrorKind::InvalidInput => "a socket's path has about 100 bytes at most: name a shorter `[admin] socket`",
        _ => "make the directory usable, or name another `[admin] socket`",
    };
    (format!("cannot open the admin socket {}: {error}", path.display()), help.to_string())
}

enum InTheWay {
    Living,
    NoSocket,
}

impl InTheWay {
    fn as_str(&self) -> &'static str {
        match self {
            InTheWay::Living => "another process answers there",
            InTheWay::NoSocket => "something that is no socket is there",
        }
    }
}

/// What must not be replaced. A socket nobody listens on is what a dead process left.
async fn in_the_way(path: &Path) -> io::Result<Option<InTheWay>> {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !meta.file_type().is_socket() {
        return Ok(Some(InTheWay::NoSocket));
    }
    match UnixStream::connect(path).await {
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        // A full queue is an answer too: somebody lives there.
        _ => Ok(Some(InTheWay::Living)),
    }
}

/// Binds in a directory only we can enter, sets the mode, then renames into place: at no moment can others connect.
fn make(path: &Path) -> io::Result<Opened> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    let private = parent.join(format!(".relais-{}", std::process::id()));
    let made = make_in(&private, path);
    // What is left in it is ours alone; that it cannot be removed harms nobody.
    let _ = std::fs::remove_dir_all(&private);
    made
}

fn make_in(private: &Path, path: &Path) -> io::Result<Opened> {
    match std::fs::remove_dir_all(private) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::DirBuilder::new().mode(0o700).create(private)?;
    let hidden = private.join("s");
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(MODE))?;
    let inode = inode(&hidden)?;
    std::fs::rename(&hidden, path)?;
    Ok(Opened { listener, inode })
}

fn inode(path: &Path) -> io::Result<Inode> {
    path.symlink_metadata().map(|meta| (meta.dev(), meta.ino()))
}

/// Resolves when the file is no longer ours: a cleaner of temporary files took it.
pub(super) async fn lost(path: &Path, ours: Inode, look: Duration) {
    loop {
        tokio::time::sleep(look).await;
        if !inode(path).is_ok_and(|now| now == ours) {
            return;
        }
    }
}

/// Removes the file if it is ours.
pub(super) fn remove(path: &Path, ours: Inode) {
    if inode(path).is_ok_and(|now| now == ours) {
        // Gone in between is what we wanted.
        let _ = std::fs::remove_file(path);
    }
}
