//! Listening sockets a process is given at its start, by the protocol of systemd's socket units (`LISTEN_FDS`): by systemd, or
//! by the relais whose place it takes. Knows addresses, not listeners: `sockets` decides which of them are wanted.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Sockets that listen already. What no listener of the config names is closed once the edge serves.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(SocketAddr, TcpListener)>,
    /// What cannot be used, in words.
    faults: Vec<String>,
}

impl Inherited {
    /// What the environment says this process was given. To be asked once, by the executable: the variables are taken away, so
    /// that no child believes in them.
    #[must_use]
    pub fn from_environment() -> Self {
        let mut given = ListenFd::from_env();
        let (mut sockets, mut faults) = (Vec::with_capacity(given.len()), Vec::new());
        for index in 0..given.len() {
            let socket = given.take_tcp_listener(index).and_then(|socket| match socket {
                Some(socket) => {
                    socket.set_nonblocking(true)?;
                    Ok(Some((socket.local_addr()?, socket)))
                }
                None => Ok(None),
            });
            match socket {
                Ok(socket) => sockets.extend(socket),
                // No reason not to start, and there is no logger yet.
                Err(error) => faults.push(error.to_string()),
            }
        }
        Self { sockets, faults }
    }

    /// All sockets of an address; of port 0, those of the first port there that `is_named` does not know.
    pub(crate) fn take(&mut self, address: SocketAddr, is_named: impl Fn(SocketAddr) -> bool) -> Vec<TcpListener> {
        let is_it = |held: SocketAddr| match address.port() {
            0 => held.ip() == address.ip() && !is_named(held),
            _ => held == address,
        };
        let Some(found) = self.sockets.iter().map(|(held, _)| *held).find(|held| is_it(*held)) else {
            return Vec::new();
        };
        let (taken, left) = std::mem::take(&mut self.sockets).into_iter().partition(|(held, _)| *held == found);
        self.sockets = left;
        taken.into_iter().map(|(_, socket): (SocketAddr, TcpListener)| socket).collect()
    }

    /// Closes what nobody took, and says so.
    pub(crate) fn close(&mut self) {
        for fault in self.faults.drain(..) {
            tracing::warn!("a socket was handed to this process that is none to listen on: {fault}");
        }
        for (address, _) in self.sockets.drain(..) {
            tracing::warn!(%address, "a socket was handed to this process that no listener of the config names: closed");
        }
    }
}
