//! Which edge a command is for: `--socket`, else what the config file says, else where a daemon of this user or machine
//! puts its socket. The order of an edge that starts, so that the two meet.

use std::path::{Path, PathBuf};

use clap::Args;
use relais::control;
use relais::core::config::Places;

use super::{EXIT_FAILED, Failure};

/// What may be typed with every command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Whom {
    /// Admin socket of the edge [default: as the config file says, else where an edge of this user or machine puts it]
    #[arg(long, global = true, value_name = "PATH", env = "RELAIS_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Config file [default: ./proxy.toml, then /etc/relais/proxy.toml]
    #[arg(long, short, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Where an edge may answer, best first.
#[derive(Debug, Clone)]
pub(crate) struct Sockets {
    pub(crate) places: Vec<PathBuf>,
    /// The file that named the only one.
    pub(crate) named_by: Option<PathBuf>,
}

impl Whom {
    /// The config file: the one named, else the one in the usual places.
    pub(crate) fn file(&self) -> Result<PathBuf, Failure> {
        self.file_if_any().ok_or_else(|| Failure::new(EXIT_FAILED, relais::StartError::NoConfig))
    }

    fn file_if_any(&self) -> Option<PathBuf> {
        self.config.clone().or_else(relais::find_config)
    }

    /// What the file says of where its edge keeps things. One that was not named and cannot be read says nothing: it may
    /// belong to another user's edge.
    pub(crate) fn places(&self) -> Result<Places, Failure> {
        let Some(file) = self.file_if_any() else { return Ok(Places::default()) };
        match control::places(&file) {
            Err(why) if self.config.is_some() => Err(Failure::new(EXIT_FAILED, why)),
            places => Ok(places.unwrap_or_default()),
        }
    }

    /// Where the edge may answer.
    pub(crate) fn sockets(&self) -> Result<Sockets, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(Sockets { places: vec![socket.clone()], named_by: None });
        }
        let places = self.places()?;
        Ok(match places.socket {
            Some(socket) => Sockets { places: vec![socket], named_by: self.file_if_any() },
            None => Sockets { places: sockets_of(places.state_dir.as_deref()), named_by: None },
        })
    }

    /// Where an edge that `relais run` starts here answers.
    pub(crate) fn own_socket(&self, state_dir: Option<&Path>) -> Result<PathBuf, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let places = self.places()?;
        let state_dir = state_dir.map(Path::to_path_buf).or(places.state_dir);
        let state_dir = state_dir.unwrap_or_else(relais::paths::default_state_dir);
        Ok(places.socket.unwrap_or_else(|| relais::paths::default_admin_socket(&state_dir)))
    }
}

fn sockets_of(state_dir: Option<&Path>) -> Vec<PathBuf> {
    let own = state_dir.map(relais::paths::default_admin_socket);
    let usual = relais::paths::admin_socket_places().into_iter().filter(|place| Some(place) != own.as_ref());
    own.iter().cloned().chain(usual).collect()
}
