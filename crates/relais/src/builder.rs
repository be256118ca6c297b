//! How an edge is asked for: where its config comes from and where it keeps its things.

use std::path::PathBuf;

use relais_control::{Loaded, SetLogLevel};
use relais_core::config::{Log, Parsed};

use crate::edge::Edge;
use crate::error::StartError;
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
    state_dir: Option<PathBuf>,
    admin_socket: Option<PathBuf>,
    install_log: Option<InstallLog>,
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
}

impl EdgeBuilder {
    pub(crate) fn new() -> Self {
        Self { source: Source::Anywhere, state_dir: None, admin_socket: None, install_log: None }
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

    /// Starts the edge. Blocks until it serves; the threads it starts are its own.
    ///
    /// # Errors
    /// When the config is not usable, a certificate cannot be used, or an address cannot be bound. Nothing is left
    /// running then.
    pub fn start(self) -> Result<Edge, StartError> {
        Edge::start(self.plan()?)
    }

    fn plan(self) -> Result<Plan, StartError> {
        let (config_path, loaded) = self.source.load()?;
        let Loaded { text, parsed } = loaded;
        let config = &parsed.config;
        let log = self.install_log.map(|install| install(&config.log)).transpose().map_err(StartError::Log)?;
        let state_dir =
            self.state_dir.or_else(|| config.edge.state_dir.clone()).unwrap_or_else(paths::default_state_dir);
        let admin_socket = self
            .admin_socket
            .or_else(|| config.admin.socket.clone())
            .unwrap_or_else(|| paths::default_admin_socket(&state_dir));
        Ok(Plan { config_path, text, parsed, state_dir, admin_socket, log })
    }
}

impl Source {
    fn load(self) -> Result<(Option<PathBuf>, Loaded), StartError> {
        let path = match self {
            Source::File(path) => path,
            Source::Text(text) => return Ok((None, parse(text)?)),
            Source::Anywhere => find_config().ok_or(StartError::NoConfig)?,
        };
        let loaded = relais_control::load(&path).map_err(StartError::Config)?;
        Ok((Some(path), loaded))
    }
}

/// The config file that is used when none is named.
#[must_use]
pub fn find_config() -> Option<PathBuf> {
    paths::config_places().into_iter().find(|path| path.exists())
}

fn parse(text: String) -> Result<Loaded, StartError> {
    let parsed =
        relais_control::parse("config_text", &text).map_err(|errors| StartError::Config(errors.to_string()))?;
    Ok(Loaded { text, parsed })
}
