//! Where things are when nobody says: the config file, the state directory and the admin socket.
//!
//! The daemon and the CLI ask the same table, so that they meet without being told. Reads the environment; opens and
//! creates nothing.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// File name of the admin socket in whatever directory it lives.
const SOCKET: &str = "admin.sock";

/// What the answer depends on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// `$STATE_DIRECTORY`, set by systemd; its first entry counts.
    pub(crate) state_directory: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY`, set by systemd; its first entry counts.
    pub(crate) runtime_directory: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub(crate) xdg_state: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub(crate) xdg_runtime: Option<PathBuf>,
    /// `$HOME`.
    pub(crate) home: Option<PathBuf>,
    /// Effective user id 0.
    pub(crate) root: bool,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn here() -> Self {
        let dir = |name: &str| std::env::var_os(name).and_then(|value| first_entry(&value));
        Self {
            state_directory: dir("STATE_DIRECTORY"),
            runtime_directory: dir("RUNTIME_DIRECTORY"),
            xdg_state: dir("XDG_STATE_HOME"),
            xdg_runtime: dir("XDG_RUNTIME_DIR"),
            home: dir("HOME"),
            // The owner of /proc/self is the effective user: no call into libc is needed to ask.
            root: std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0),
        }
    }

    /// Where state is kept: `$STATE_DIRECTORY`, `/var/lib/relais` for root, else the user's state folder.
    pub(crate) fn state_dir(&self) -> PathBuf {
        if let Some(dir) = &self.state_directory {
            return dir.clone();
        }
        if self.root {
            return PathBuf::from("/var/lib/relais");
        }
        if let Some(dir) = &self.xdg_state {
            return dir.join("relais");
        }
        match &self.home {
            Some(home) => home.join(".local/state/relais"),
            None => std::env::temp_dir().join("relais-state"),
        }
    }

    /// Where the daemon puts its admin socket.
    pub(crate) fn admin_socket(&self, state_dir: &Path) -> PathBuf {
        if let Some(dir) = &self.runtime_directory {
            return dir.join(SOCKET);
        }
        if self.root {
            return PathBuf::from("/run/relais").join(SOCKET);
        }
        match &self.xdg_runtime {
            Some(dir) => dir.join("relais").join(SOCKET),
            None => state_dir.join(SOCKET),
        }
    }

    /// Where the CLI looks for a daemon's socket, best first. An ordinary user may be allowed to talk to the
    /// machine's own daemon, so its place is looked at too.
    pub(crate) fn admin_sockets(&self) -> Vec<PathBuf> {
        let state_dir = self.state_dir();
        let mut places = vec![self.admin_socket(&state_dir), PathBuf::from("/run/relais").join(SOCKET)];
        if let Some(dir) = &self.xdg_runtime {
            places.push(dir.join("relais").join(SOCKET));
        }
        places.push(state_dir.join(SOCKET));
        let mut seen = Vec::new();
        places.retain(|place| {
            let new = !seen.contains(place);
            seen.push(place.clone());
            new
        });
        places
    }
}

/// systemd separates several directories by a colon.
fn first_entry(value: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(value).next().filter(|path| !path.as_os_str().is_empty())
}

/// Where state is kept when neither the file nor the caller says.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    Surroundings::here().state_dir()
}

/// Where a daemon that keeps its state in `state_dir` puts its admin socket when neither the file nor the caller says.
#[must_use]
pub fn default_admin_socket(state_dir: &Path) -> PathBuf {
    Surroundings::here().admin_socket(state_dir)
}

/// Where the CLI looks for a daemon's admin socket, best first.
#[must_use]
pub fn admin_socket_places() -> Vec<PathBuf> {
    Surroundings::here().admin_sockets()
}

/// Where the config file is looked for, best first.
#[must_use]
pub fn config_places() -> [PathBuf; 2] {
    [PathBuf::from("proxy.toml"), PathBuf::from("/etc/relais/proxy.toml")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Surroundings {
        Surroundings { home: Some("/home/ann".into()), xdg_runtime: Some("/run/user/7".into()), ..Default::default() }
    }

    #[test]
    fn an_ordinary_user_keeps_state_at_home_and_the_socket_in_the_session() {
        let user = user();
        assert_eq!(user.state_dir(), Path::new("/home/ann/.local/state/relais"));
        assert_eq!(user.admin_socket(&user.state_dir()), Path::new("/run/user/7/relais/admin.sock"));
    }

    #[test]
    fn without_a_session_the_socket_is_in_the_state_directory() {
        let user = Surroundings { xdg_runtime: None, ..user() };
        assert_eq!(user.admin_socket(Path::new("/s")), Path::new("/s/admin.sock"));
    }

    #[test]
    fn systemd_directories_win_over_root_and_home() {
        let unit = Surroundings {
            state_directory: Some("/var/lib/private/relais".into()),
            runtime_directory: Some("/run/relais-a".into()),
            root: true,
            ..user()
        };
        assert_eq!(unit.state_dir(), Path::new("/var/lib/private/relais"));
        assert_eq!(unit.admin_socket(&unit.state_dir()), Path::new("/run/relais-a/admin.sock"));
    }

    #[test]
    fn the_cli_looks_where_the_daemon_of_the_same_user_puts_it_first_then_at_the_machines_own() {
        let user = user();
        let places = user.admin_sockets();
        assert_eq!(places[0], user.admin_socket(&user.state_dir()));
        assert_eq!(places[1], Path::new("/run/relais/admin.sock"));
        assert_eq!(places.last().unwrap(), Path::new("/home/ann/.local/state/relais/admin.sock"));
        assert_eq!(places.len(), 3);
        let root = Surroundings { root: true, ..Default::default() };
        assert_eq!(root.admin_sockets(), ["/run/relais/admin.sock", "/var/lib/relais/admin.sock"].map(PathBuf::from));
    }

    #[test]
    fn only_the_first_of_several_directories_counts() {
        assert_eq!(first_entry(OsStr::new("/a:/b")), Some(PathBuf::from("/a")));
        assert_eq!(first_entry(OsStr::new("")), None);
    }
}
