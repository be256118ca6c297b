//! Binding one address: one `SO_REUSEPORT` socket per worker, and errors that say the way out.
//!
//! Knows nothing of configs or reloads: `sockets` decides what to bind, this does it.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// Connections the kernel may hold for us while every worker is busy. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Why an address could not be bound.
#[derive(Debug)]
pub(crate) struct BindError {
    address: SocketAddr,
    error: io::Error,
}

/// One address, bound once per worker.
#[derive(Debug)]
pub(crate) struct Group {
    /// The address with its real port.
    pub(crate) local: SocketAddr,
    /// One listening socket per worker, or more where they were given to this process: then workers have several.
    pub(crate) sockets: Vec<TcpListener>,
}

/// Binds `address` once per worker; all sockets share the port, also when it was 0.
///
/// `ours` says that this process holds an overlapping address already, so that finding it taken proves nothing.
///
/// # Errors
/// When the address is taken by another program, not ours to bind, or not of this machine.
pub(crate) fn group(address: SocketAddr, workers: usize, ours: bool) -> Result<Group, BindError> {
    let fail = |error| BindError { address, error };
    let mut address = address;
    if !ours && address.port() != 0 {
        // SO_REUSEPORT would let two daemons of one user share the port and halve each other's traffic silently.
        open(address, false).map_err(fail)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = open(address, true).map_err(fail)?;
        socket.listen(BACKLOG).map_err(fail)?;
        let socket = TcpListener::from(socket);
        address = socket.local_addr().map_err(fail)?;
        sockets.push(socket);
    }
    Ok(Group { local: address, sockets })
}

/// The group of an address whose sockets this process was given: each worker gets one at least, and none is left out, as the
/// kernel shares clients out among all of them.
///
/// # Errors
/// When the limit of open files is reached.
pub(crate) fn given(address: SocketAddr, mut sockets: Vec<TcpListener>, workers: usize) -> Result<Group, BindError> {
    for socket in &sockets {
        // What a process let nothing in with while it stopped belongs to the socket and not to it. Mostly there is none.
        let _ = SockRef::from(socket).detach_filter();
    }
    let there = sockets.len();
    for more in there..workers {
        let same = sockets[more % there].try_clone().map_err(|error| BindError { address, error })?;
        sockets.push(same);
    }
    let local = sockets[0].local_addr().map_err(|error| BindError { address, error })?;
    Ok(Group { local, sockets })
}

/// A bound socket that does not listen yet.
fn open(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` must not swallow IPv4: `":443"` means two sockets, so that addresses in logs are what they are.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

impl BindError {
    /// The machine has no IPv6 (or no such address): a dual `":443"` goes on with IPv4 alone.
    pub(crate) fn is_missing_family(&self) -> bool {
        self.address.is_ipv6()
            && matches!(self.error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL | EPROTONOSUPPORT))
    }
}

// Linux numbers; std has no names for these and one constant each does not earn a dependency.
const EPROTONOSUPPORT: i32 = 93;
const EAFNOSUPPORT: i32 = 97;
const EADDRNOTAVAIL: i32 = 99;
const EMFILE: i32 = 24;

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = self.address;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => write!(f, "{address} is in use by another program"),
            io::ErrorKind::PermissionDenied => write!(f, "no permission to listen on {address}"),
            io::ErrorKind::AddrNotAvailable => write!(f, "this machine has no address {}", address.ip()),
            _ => write!(f, "cannot listen on {address}: {}", self.error),
        }
    }
}

impl BindError {
    /// The way out, where there is one to tell.
    pub(crate) fn help(&self) -> Option<String> {
        let port = self.address.port();
        let help = match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("find it with `ss -ltnp 'sport = :{port}'`, then stop it or choose another port")
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need a right: `sudo setcap \
                cap_net_bind_service=+ep $(command -v relais)`, or in the systemd unit \
                `AmbientCapabilities=CAP_NET_BIND_SERVICE`; or choose a port from 1024 up"
                .to_owned(),
            io::ErrorKind::AddrNotAvailable => "`ip address` lists the addresses it has".to_owned(),
            _ if self.error.raw_os_error() == Some(EMFILE) => {
                "raise the limit of open files: `ulimit -n`, or `LimitNOFILE=` in the systemd unit".to_owned()
            }
            _ => return None,
        };
        Some(help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn every_worker_gets_a_socket_on_the_same_port() {
        let group = group(local(0), 3, false).unwrap();
        assert_ne!(group.local.port(), 0);
        assert_eq!(group.sockets.len(), 3);
        for socket in &group.sockets {
            assert_eq!(socket.local_addr().unwrap(), group.local);
        }
    }

    #[test]
    fn a_port_another_program_shares_is_still_in_use() {
        // The other one sets SO_REUSEPORT as well: without the first plain bind both would listen.
        let other = group(local(0), 1, false).unwrap();
        let error = group(other.local, 1, false).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is in use by another program", other.local));
        assert!(error.help().unwrap().contains(&format!("sport = :{}", other.local.port())));
        assert!(group(other.local, 1, true).is_ok(), "what is ours may be bound beside");
    }

    #[test]
    fn permission_and_foreign_addresses_say_the_way_out() {
        let denied = BindError { address: local(443), error: io::Error::from_raw_os_error(13) };
        let denied = denied.help().unwrap();
        assert!(denied.contains("setcap cap_net_bind_service=+ep") && denied.contains("AmbientCapabilities"));
        let foreign = group(SocketAddr::from(([192, 0, 2, 1], 0)), 1, false).unwrap_err().to_string();
        assert!(foreign.contains("this machine has no address 192.0.2.1"), "{foreign}");
    }

    #[test]
    fn only_ipv6_trouble_counts_as_a_missing_family() {
        let error = |address: &str, code| BindError {
            address: address.parse().unwrap(),
            error: io::Error::from_raw_os_error(code),
        };
        assert!(error("[::]:443", EAFNOSUPPORT).is_missing_family());
        assert!(error("[::]:443", EADDRNOTAVAIL).is_missing_family());
        assert!(!error("0.0.0.0:443", EADDRNOTAVAIL).is_missing_family());
        assert!(!error("[::]:443", 98).is_missing_family());
    }
}
