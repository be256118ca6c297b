//! What the program hands to the control loop at start. Plain values and hooks: nothing here does anything.

use std::path::PathBuf;
use std::sync::Arc;

use relais_config::{Config, Problem, Secret};
use relais_core::{Anchor, Event};
use relais_store::Store;
use relais_tls::{CertProblem, CertStore};
use tokio::sync::{mpsc, oneshot, watch};

/// Applies a log level or filter; `Err`: a sentence saying what is wrong with it.
pub type SetLogLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Binds what a config adds. `Err`: every address that cannot be bound, with the reason.
pub type Bind = Box<dyn FnMut(&Config) -> Result<(), Vec<String>> + Send>;

/// Where orders to upgrade go: the reply is the id of the process that serves from now on, or a sentence saying why none does.
pub type UpgradeOrders = mpsc::UnboundedSender<oneshot::Sender<Result<u32, String>>>;

/// Everything the control loop needs.
pub struct Setup {
    /// The file to watch and reload; `None`: the config was made by the embedding program and never changes.
    pub config_path: Option<PathBuf>,
    /// The text `config` was parsed from (empty without a file). A file that differs from it is reloaded at once.
    pub text: String,
    /// The config to start with.
    pub config: Arc<Config>,
    /// What `Config::parse` warned about.
    pub warnings: Vec<Problem>,
    /// `Parsed::files`: files named by `*_file` keys.
    pub files: Vec<PathBuf>,
    /// What survives a restart.
    pub store: Arc<Store>,
    /// The certificates in use.
    pub certs: Arc<CertStore>,
    /// What could not be used of them; see [`relais_tls::CertStore::load_what_can_be`].
    pub damaged: Vec<CertProblem>,
    /// Told what certificate files hold whenever they were read and are in force.
    pub keep_files: Box<dyn Fn(Secret) + Send>,
    /// Where the internal CA and the store live.
    pub state_dir: PathBuf,
    /// Told the generation of every published snapshot.
    pub changed: watch::Sender<u64>,
    /// What workers report.
    pub events: mpsc::Receiver<Event>,
    /// The process's clock.
    pub anchor: Anchor,
    /// The listening sockets.
    pub listeners: ListenerHooks,
    /// Changes the log level while running.
    pub set_log_level: SetLogLevel,
    /// Has another process take the place of this one; `None`: the program cannot do that.
    pub upgrades: Option<UpgradeOrders>,
    /// Log lines dropped because the writer was too slow, since start; `None`: the program cannot tell.
    pub log_lines_dropped: Option<Box<dyn Fn() -> u64 + Send + Sync>>,
    /// Probes that may be under way at a time; each needs a file descriptor.
    pub most_probes: usize,
    /// Path of the admin socket.
    pub admin_socket: PathBuf,
}

/// How the control loop has listening sockets opened and closed, in two steps so that a reload is all or nothing.
pub struct ListenerHooks {
    /// Binds what a new config adds; nothing accepts yet.
    pub prepare: Bind,
    /// Starts what was prepared and closes what the new config no longer names.
    pub commit: Box<dyn FnMut(&Config) + Send>,
    /// Drops what was prepared.
    pub abandon: Box<dyn FnMut() + Send>,
}
