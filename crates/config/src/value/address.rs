//! Addresses and host names: of backends, listeners, networks and the hosts of a service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::Address;
use crate::fault::Fault;

/// Reads `host:port`, `ip:port`, `[ip]:port` or `unix:/path`.
pub(crate) fn backend(text: &str) -> Result<Address, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.starts_with('/') && path.len() > 1 {
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        let fault = Fault::new(format!("`{text}` is not the path of a unix socket")).label("not a whole path");
        return Err(fault.help("write the path from the root, as `unix:/run/api.sock`"));
    }
    no_scheme(text, "a backend is an address and a port", backend_help)?;
    let (host, port) = host_and_port(text)?;
    if port == 0 {
        let fault = Fault::new(format!("`{text}` has port 0")).label("no backend listens on port 0");
        return Err(fault.help("write the port the backend listens on, 1 to 65535"));
    }
    match host {
        // An IPv4 address in IPv6 form is the same backend.
        Host::Ip(ip) => Ok(Address::Socket(SocketAddr::new(ip.to_canonical(), port))),
        Host::Name(name) => Ok(Address::Name(name, port)),
    }
}

fn backend_help(rest: &str, scheme: &str) -> String {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let port = if authority.contains(':') {
        ""
    } else if scheme == "https" {
        ":443"
    } else {
        ":80"
    };
    if scheme == "https" {
        format!("write `{{ addr = \"{authority}{port}\", tls = true }}`")
    } else {
        format!("write `{authority}{port}`")
    }
}

fn no_scheme(text: &str, what: &str, help: impl Fn(&str, &str) -> String) -> Result<(), Fault> {
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let fault = Fault::new(format!("`{text}` is a URL: {what}")).label(format!("drop `{scheme}://`"));
            Err(fault.help(help(rest, scheme)))
        }
        None => Ok(()),
    }
}

enum Host {
    Ip(IpAddr),
    Name(String),
}

fn host_and_port(text: &str) -> Result<(Host, u16), Fault> {
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        let fault = Fault::new(format!("`{text}` has no port")).label("an IPv6 address needs brackets and a port");
        return Err(fault.help(format!("write `[{ip}]:8080`")));
    }
    if text.is_empty() {
        return Err(Fault::new("an address is empty").label("expected `host:port`"));
    }
    let Some((host, port)) = text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) else {
        let fault = Fault::new(format!("`{text}` has no port")).label("expected `host:port`");
        return Err(fault.help(format!("write `{}:8080` with its port", text.trim_end_matches('/'))));
    };
    let port = port_number(port)?;
    if let Some(inner) = host.strip_prefix('[') {
        let ip = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return match ip {
            Some(ip) => Ok((Host::Ip(ip.into()), port)),
            None => Err(Fault::new(format!("`{host}` is not an IPv6 address")).label("expected `[ip]:port`")),
        };
    }
    if host.is_empty() {
        let fault = Fault::new(format!("`{text}` has no host")).label("expected `host:port`");
        return Err(fault.help(format!("write `127.0.0.1:{port}` for this machine")));
    }
    match host.parse::<Ipv4Addr>() {
        Ok(ip) => Ok((Host::Ip(ip.into()), port)),
        Err(_) => Ok((Host::Name(host_name(host)?), port)),
    }
}

fn port_number(text: &str) -> Result<u16, Fault> {
    if let Ok(port) = text.parse::<u16>()
        && !text.starts_with('+')
    {
        return Ok(port);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::new(format!("port {text} is above 65535")).label("ports are 1 to 65535"));
    }
    if let Some((port, path)) = text.split_once('/') {
        let fault = Fault::new(format!("an address has no path, but this one has `/{path}`"));
        return Err(fault.label(format!("drop `/{path}`")).help(format!("end the address with `:{port}`")));
    }
    Err(Fault::new(format!("`{text}` is not a port")).label("ports are 1 to 65535"))
}

/// Reads a host name, lower case. Underscores are allowed: container names have them.
pub(crate) fn host_name(text: &str) -> Result<String, Fault> {
    let wrong = |why: &str| Fault::new(format!("`{text}` is not a host name")).label(why);
    if text.is_empty() {
        return Err(Fault::new("a host name is empty").label("expected a name"));
    }
    if !text.is_ascii() {
        let fault = wrong("only ASCII letters");
        return Err(fault.help("write the name in its ASCII form, which begins with `xn--`"));
    }
    if let Some(name) = text.strip_suffix('.') {
        return Err(wrong("ends with a dot").help(format!("write `{name}`")));
    }
    let letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if let Some(bad) = text.chars().find(|found| !letter(*found) && *found != '.') {
        return Err(wrong(&format!("`{}` cannot be in a host name", bad.escape_debug())));
    }
    if text.len() > 253 || text.split('.').any(|label| label.len() > 63) {
        return Err(wrong("too long: 63 letters between dots, 253 in all"));
    }
    if text.split('.').any(|label| label.is_empty() || label.starts_with('-') || label.ends_with('-')) {
        return Err(wrong("a part between dots is empty, or begins or ends with `-`"));
    }
    if text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(Fault::new(format!("`{text}` is not an IP address")).label("four numbers from 0 to 255"));
    }
    Ok(text.to_ascii_lowercase())
}

/// Reads a host of a service: a name, `*.name`, `*` or an IP address (IPv6 in brackets, as in `Host`).
pub(crate) fn host_pattern(text: &str) -> Result<String, Fault> {
    no_scheme(text, "a host is only a name", |rest, _| {
        let name = rest.split(['/', '?', '#', ':']).next().unwrap_or_default();
        format!("write `{name}`")
    })?;
    if text == "*" {
        return Ok(text.to_owned());
    }
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<Ipv6Addr>() {
        return Ok(format!("[{ip}]"));
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(ip.to_string());
    }
    if let Some((name, path)) = text.split_once('/') {
        let fault = Fault::new(format!("`{text}` has a path: a host is only a name")).label(format!("drop `/{path}`"));
        return Err(fault.help(format!("write `{name}`, and the path as `paths = [\"/{path}\"]`")));
    }
    if let Some((name, port)) = text.rsplit_once(':') {
        let fault = Fault::new(format!("`{text}` has a port: a host is only a name")).label(format!("drop `:{port}`"));
        return Err(fault.help(format!("write `{name}`; ports are those of the listeners")));
    }
    match text.strip_prefix("*.") {
        Some(name) if !name.contains('*') => Ok(format!("*.{}", host_name(name)?)),
        _ if text.contains('*') => {
            let fault =
                Fault::new(format!("`{text}` is not a wildcard relais knows")).label("`*` stands for one whole label");
            Err(fault.help("write `*.example.org` for one label, or `*` for any host no other service claims"))
        }
        _ => host_name(text),
    }
}

/// Reads a name that may have a port: what a `Host` header holds.
pub(crate) fn host_header(text: &str) -> Result<String, Fault> {
    no_scheme(text, "a host is a name, maybe with a port", |rest, _| {
        format!("write `{}`", rest.split(['/', '?', '#']).next().unwrap_or_default())
    })?;
    match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') && text.parse::<Ipv6Addr>().is_err() => {
            Ok(format!("{}:{}", exact_host(name)?, port_number(port)?))
        }
        _ => exact_host(text),
    }
}

/// Reads a name or an IP address; no wildcard.
pub(crate) fn exact_host(text: &str) -> Result<String, Fault> {
    let host = host_pattern(text)?;
    if host.starts_with('*') {
        let fault = Fault::new(format!("`{text}` stands for many hosts")).label("expected one host");
        return Err(fault.help("write one name in full, as `www.example.org`"));
    }
    Ok(host)
}

/// Reads an address to listen on; `:443` gives the IPv4 and the IPv6 one.
pub(crate) fn listener(text: &str) -> Result<Vec<SocketAddr>, Fault> {
    no_scheme(text, "a listener has an address and a port", |rest, scheme| {
        let port = rest.rsplit_once(':').map_or(if scheme == "https" { "443" } else { "80" }, |(_, port)| port);
        format!("write `:{}`", port.trim_end_matches('/'))
    })?;
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(vec![socket(text)?]);
    }
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
        let port = port_number(port)?;
        return Ok(vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let fault = Fault::new(format!("`{text}` is not an address")).label("expected `:port` or `ip:port`");
        return Err(fault.help(format!("write `:{text}` for every address of this machine")));
    }
    Ok(vec![socket(text)?])
}

/// Reads `ip:port`; a name is refused, because listening must not depend on a resolver.
pub(crate) fn socket(text: &str) -> Result<SocketAddr, Fault> {
    if text.starts_with(':') && !text.starts_with("::") {
        let fault = Fault::new(format!("`{text}` has no address")).label("expected `ip:port`");
        return Err(fault.help(format!("write `127.0.0.1{text}` for this machine only, `0.0.0.0{text}` for everyone")));
    }
    match host_and_port(text)? {
        (Host::Ip(ip), port) => Ok(SocketAddr::new(ip, port)),
        (Host::Name(name), port) => {
            let fault =
                Fault::new(format!("`{name}` is a name: relais listens on addresses")).label("expected an IP address");
            let whose =
                if name == "localhost" { "" } else { ", or the address of this machine that the name stands for" };
            Err(fault.help(format!("write `127.0.0.1:{port}`{whose}")))
        }
    }
}

/// Reads the address of a name server; the port is 53 unless it says another.
pub(crate) fn nameserver(text: &str) -> Result<SocketAddr, Fault> {
    let with_port = || text.parse::<SocketAddr>().ok().filter(|socket| socket.port() > 0);
    text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)).or_else(with_port).ok_or_else(|| {
        let fault = Fault::new(format!("`{text}` is not the address of a name server"));
        fault.label("expected `ip` or `ip:port`").help("write `10.0.0.2`, or `127.0.0.1:8600` with its port")
    })
}

/// Reads a network in CIDR form; a single address is a network of one.
pub(crate) fn network(text: &str) -> Result<IpNet, Fault> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    let wrong = Fault::new(format!("`{text}` is not a network")).label("expected an address and a prefix length");
    let net: IpNet = text.parse().map_err(|_| wrong.help("write it as `10.200.0.0/24` or `fd00::/64`"))?;
    if net.network() != net.addr() {
        let fault = Fault::new(format!("`{text}` has bits behind its prefix")).label("an address, not a network");
        return Err(fault.help(format!(
            "write `{}` for the network, or `{}` for the address alone",
            net.trunc(),
            net.addr()
        )));
    }
    Ok(net)
}
