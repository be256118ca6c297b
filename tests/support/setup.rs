//! The config of an edge under test, and its start.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::edge::Edge;
use super::raw::Addressed;

/// A config under construction. Without a word more: one plain listener, one service for any host, no health checks
/// and no passive detection, so that only what a test does happens.
pub(crate) struct Setup {
    dir: TempDir,
    listeners: String,
    service: String,
    more: String,
    whole: Option<String>,
    shell: Option<String>,
    state: PathBuf,
}

impl Setup {
    /// One service with these backends, at one site; none is left for how it answers.
    pub(crate) fn to(backends: &[&dyn Addressed]) -> Setup {
        let list: Vec<String> = backends.iter().map(|backend| format!("{:?}", backend.address())).collect();
        Setup::new(format!(
            "[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\npassive_fall = 0\n\
             outlier.max_ejected_percent = 0\nbackends = [{}]\n",
            list.join(", ")
        ))
    }

    /// These services, as text.
    pub(crate) fn services(text: &str) -> Setup {
        Setup::new(text.to_owned())
    }

    fn new(service: String) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        Setup {
            state: dir.path().join("state"),
            dir,
            listeners: PLAIN.to_owned(),
            service,
            more: String::new(),
            whole: None,
            shell: None,
        }
    }

    /// A whole file, word for word.
    pub(crate) fn file(text: &str) -> Setup {
        Setup { whole: Some(text.to_owned()), ..Setup::new(String::new()) }
    }

    /// Further lines of the service, tables included.
    pub(crate) fn with(mut self, lines: &str) -> Setup {
        self.service.push_str(lines);
        self.service.push('\n');
        self
    }

    /// Further tables of the file.
    pub(crate) fn and(mut self, tables: &str) -> Setup {
        self.more.push_str(tables);
        self.more.push('\n');
        self
    }

    /// Listeners in place of the plain one.
    pub(crate) fn listening(mut self, text: &str) -> Setup {
        self.listeners = text.to_owned();
        self
    }

    /// An HTTPS listener with the local CA beside the plain one, which then redirects nothing.
    pub(crate) fn secure(self) -> Setup {
        let both = format!("{PLAIN}[listener.https]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n");
        self.listening(&both)
    }

    /// Runs it under a shell line in which `exec "$@"` is the edge, as `ulimit -n 64; exec "$@"`.
    pub(crate) fn under(mut self, shell: &str) -> Setup {
        self.shell = Some(shell.to_owned());
        self
    }

    /// Keeps its state there, and not in its own directory.
    pub(crate) fn state_in(mut self, dir: &Path) -> Setup {
        self.state = dir.to_owned();
        self
    }

    /// The directory the config and the state are in.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file as it will be.
    pub(crate) fn text(&self) -> String {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        let metrics = if self.more.contains("[metrics]") { "" } else { "[metrics]\naddress = false\n" };
        format!("{}{metrics}{}\n{}", self.more, self.listeners, self.service)
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub(crate) fn start(self) -> Edge {
        let mut edge = self.launch();
        edge.wait_until_ready();
        edge
    }

    /// Starts it; it may fail to.
    pub(crate) fn launch(self) -> Edge {
        let config = self.dir.path().join("proxy.toml");
        std::fs::write(&config, self.text()).unwrap();
        let log = self.dir.path().join("log");
        let child = spawn(self.dir.path(), &config, &log, &self.state, self.shell.as_deref());
        let Setup { dir, shell, state, .. } = self;
        Edge { child, config, log, dir, shell, state }
    }
}

const PLAIN: &str = "[listener.http]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\nredirect = false\n";

pub(super) fn spawn(dir: &Path, config: &Path, log: &Path, state: &Path, shell: Option<&str>) -> Child {
    let executable = env!("CARGO_BIN_EXE_relais");
    let mut command = match shell {
        None => Command::new(executable),
        Some(line) => {
            let mut command = Command::new("/bin/bash");
            command.args(["-c", line, "bash", executable]);
            command
        }
    };
    command.args(["run", "--config"]).arg(config).arg("--state-dir").arg(state);
    command.arg("--socket").arg(dir.join("admin.sock")).current_dir(dir);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", dir).env("RUST_BACKTRACE", "1");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}
