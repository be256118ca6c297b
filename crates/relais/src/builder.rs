//! How an edge is asked for: where its config comes from and where it keeps its things.

use std::path::{Path, PathBuf};

use relais_control::{Loaded, SetLogLevel, UpgradeOrders};
use relais_core::config::{Log, Parsed};
use relais_store::Store;

use crate::edge::Edge;
use crate::error::StartError;
use crate::inherited::Inherited;
use crate::paths;

/// Log level switch and drop counter of the embedding program's logger.
pub struct LogHooks {
    /// Applies a level or filter; `Err`: a sentence saying what is wrong with it.
    pub set_level: SetLogLevel,
    /// Lines dropped since start.
    pub dropped: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// Called once with `[log]` of the config, before anything is logged.
type InstallLog = Box<dyn FnOnce(&Log) -> Result<LogHooks, String>>;

/// Asks for an [`Edge`].
#[must_use = "nothing runs until `start`"]
pub struct EdgeBuilder {
    source: Source,
    last_good: bool,
    state_dir: Option<PathBuf>,
    admin_socket: Option<PathBuf>,
    install_log: Option<InstallLog>,
    inherited: Inherited,
    upgrades: Option<UpgradeOrders>,
}

/// Where the config comes from.
enum Source {
    /// `proxy.toml` here, else in `/etc/relais`.
    Anywhere,
    File(PathBuf),
    Text(String),
}

/// What `start` works from.
pub(crate) struct Plan {
    pub(crate) config_path: Option<PathBuf>,
    pub(crate) text: String,
    pub(crate) parsed: Parsed,
    pub(crate) state_dir: PathBuf,
    pub(crate) admin_socket: PathBuf,
    pub(crate) log: Option<LogHooks>,
    /// Certificate files that are damaged are no reason not to start.
    pub(crate) last_good: bool,
    pub(crate) inherited: Inherited,
    pub(crate) upgrades: Option<UpgradeOrders>,
}

impl EdgeBuilder {
    pub(crate) fn new() -> Self {
        Self {
            source: Source::Anywhere,
            last_good: false,
            state_dir: None,
            admin_socket: None,
            install_log: None,
            inherited: Inherited::default(),
            upgrades: None,
        }
    }

    /// Runs from this file, and follows its changes. Default: `./proxy.toml`, then `/etc/relais/proxy.toml`.
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.source = Source::File(path.into());
        self
    }

    /// Runs from this text, which never changes.
    pub fn config_text(mut self, text: impl Into<String>) -> Self {
        self.source = Source::Text(text.into());
        self
    }

    /// When the file cannot be used, starts with the config that was in force last, kept in the state directory, and
    /// says so in the log and in `status`; the file is followed all the same. A certificate file that is damaged or gone is
    /// served as it was last, from a copy in the state directory; without one its hosts have what hosts without a file
    /// have. Default: refuses to start, and keeps no copies.
    pub fn or_last_good(mut self, yes: bool) -> Self {
        self.last_good = yes;
        self
    }

    /// Keeps state here, whatever the config says.
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(dir.into());
        self
    }

    /// Answers operators here, whatever the config says.
    pub fn admin_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.admin_socket = Some(path.into());
        self
    }

    /// Installs a logger as `[log]` says, before anything is logged. Without it lines go to whatever `tracing`
    /// subscriber the program has, and the level cannot be changed through the admin socket.
    pub fn logging(mut self, install: impl FnOnce(&Log) -> Result<LogHooks, String> + 'static) -> Self {
        self.install_log = Some(Box::new(install));
        self
    }

    /// Listens with these sockets where the config names their addresses, instead of binding new ones.
    pub fn inherited(mut self, sockets: Inherited) -> Self {
        self.inherited = sockets;
        self
    }

    /// Sends orders to upgrade here. Default: they are refused, as only a program knows how it is started.
    pub fn upgrades(mut self, orders: UpgradeOrders) -> Self {
        self.upgrades = Some(orders);
        self
    }

    /// Starts the edge. Blocks until it serves; the threads it starts are its own.
    ///
    /// # Errors
    /// When the config is not usable, a certificate cannot be used, or an address cannot be bound. Nothing is left
    /// running then.
    pub fn start(self) -> Result<Edge, StartError> {
        Edge::start(self.plan()?)
    }

    fn plan(self) -> Result<Plan, StartError> {
        let (config_path, loaded) = match self.source {
            Source::Text(text) => (None, parse(CONFIG_TEXT, text)),
            Source::File(path) => from_file(path),
            Source::Anywhere => from_file(find_config().ok_or(StartError::NoConfig)?),
        };
        let mut without = None;
        let (loaded, refused) = match (loaded, &config_path) {
            (Err(StartError::Config(refused)), Some(path)) if self.last_good => {
                match relais_control::load_past_certificates(path) {
                    // Nothing is wrong but certificates, which the start tells of, CA files and programs.
                    Ok(loaded) => {
                        without = Some(refused);
                        (loaded, None)
                    }
                    Err(_) => {
                        let dir = self.state_dir.clone().unwrap_or_else(paths::default_state_dir);
                        (last_good(path, &dir, &refused)?, Some(refused))
                    }
                }
            }
            (loaded, _) => (loaded?, None),
        };
        let Loaded { text, parsed } = loaded;
        let config = &parsed.config;
        let log = self.install_log.map(|install| install(&config.log)).transpose().map_err(StartError::Log)?;
        if let Some(wrong) = without {
            tracing::error!("starting without what is missing or cannot be used\n{wrong}");
        }
        if let Some(refused) = refused {
            tracing::error!("starting with the config that was in force last: the file is refused\n{refused}");
        }
        let state_dir =
            self.state_dir.or_else(|| config.edge.state_dir.clone()).unwrap_or_else(paths::default_state_dir);
        let admin_socket = self
            .admin_socket
            .or_else(|| config.admin.socket.clone())
            .unwrap_or_else(|| paths::default_admin_socket(&state_dir));
        Ok(Plan {
            config_path,
            text,
            parsed,
            state_dir,
            admin_socket,
            log,
            last_good: self.last_good,
            inherited: self.inherited,
            upgrades: self.upgrades,
        })
    }
}

fn from_file(path: PathBuf) -> (Option<PathBuf>, Result<Loaded, StartError>) {
    let loaded = relais_control::load(&path).map_err(StartError::Config);
    (Some(path), loaded)
}

/// What the text of an embedding program is called in messages.
const CONFIG_TEXT: &str = "config_text";

/// The config that was in force last, as the store in `dir` remembers it. Relative paths in it start where the file is.
fn last_good(path: &Path, dir: &Path, refused: &str) -> Result<Loaded, StartError> {
    let none = || StartError::Config(format!("{refused}\n{} remembers no config that was in force", dir.display()));
    let text = Store::open(dir).last_good_config().ok_or_else(none)?;
    let parsed = relais_control::parse_past_certificates(&path.display().to_string(), &text);
    Ok(Loaded { parsed: parsed.map_err(|errors| StartError::Config(errors.to_string()))?, text })
}

/// The config file that is used when none is named.
#[must_use]
pub fn find_config() -> Option<PathBuf> {
    paths::config_places().into_iter().find(|path| path.exists())
}

fn parse(name: &str, text: String) -> Result<Loaded, StartError> {
    let parsed = relais_control::parse(name, &text).map_err(|errors| StartError::Config(errors.to_string()))?;
    Ok(Loaded { text, parsed })
}
