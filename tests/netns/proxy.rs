//! What stands at the edge: relais as it ships, or one of its peers with a configuration as good as its manual allows.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::backend::Backend;
use crate::support::edge::{Edge, Setup};
use crate::support::wait_for;
use crate::world::{EDGE, SITES, World};

/// Names another proxy to measure: `haproxy`, `caddy` or `nginx`.
pub(crate) const PEER: &str = "RELAIS_NETNS_PEER";

/// How the service is set up.
pub(crate) struct Service {
    /// The site that takes all while it can.
    pub(crate) preferred: Option<usize>,
    /// Whether 500 is tried elsewhere too. Peers always do where they can.
    pub(crate) retry_500: bool,
    /// `failover_within`, milliseconds. Peers have no such thing.
    pub(crate) contract: Option<u64>,
    /// `balance`, when not what it is by itself. Peers have their own.
    pub(crate) balance: Option<&'static str>,
}

/// What serves the users.
pub(crate) enum Proxy {
    Relais(Box<Edge>),
    Peer(Peer),
}

/// A peer, as a process group of its own.
pub(crate) struct Peer {
    kind: Kind,
    child: Child,
    namespace: String,
    dir: PathBuf,
    config: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Haproxy,
    Caddy,
    Nginx,
}

/// The name of what is measured.
pub(crate) fn name() -> String {
    std::env::var(PEER).unwrap_or_else(|_| "relais".to_owned())
}

/// What a namespace's child is started under: killed with the test, whatever becomes of it.
fn tied(namespace: &str) -> [&str; 7] {
    ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", namespace]
}

impl Proxy {
    pub(crate) fn start(world: &World, backends: &[Backend], service: &Service, dir: &Path) -> Proxy {
        let kind = match name().as_str() {
            "relais" => return Proxy::Relais(Box::new(relais(world, backends, service))),
            "haproxy" => Kind::Haproxy,
            "caddy" => Kind::Caddy,
            "nginx" => Kind::Nginx,
            other => panic!("{PEER}={other}: haproxy, caddy and nginx are known"),
        };
        let config = kind.config(backends, service, dir);
        let namespace = world.edge();
        let child = kind.start(&namespace, dir, &config);
        Proxy::Peer(Peer { kind, child, namespace, dir: dir.to_owned(), config })
    }

    /// relais, when it is relais.
    pub(crate) fn relais(&self) -> Option<&Edge> {
        match self {
            Proxy::Relais(edge) => Some(edge),
            Proxy::Peer(_) => None,
        }
    }

    /// Has it take a changed file: the value of a header of every answer is another.
    pub(crate) fn reload(&self, generation: u32) {
        match self {
            Proxy::Relais(edge) => {
                edge.save(&edge.text().replace("X-Gen = \"0\"", &format!("X-Gen = \"{generation}\"")));
                let (status, verdict) = edge.reload();
                assert_eq!(status, 200, "{verdict}");
            }
            Proxy::Peer(peer) => peer.reload(generation),
        }
    }

    /// SIGKILL, and the same again.
    pub(crate) fn crash(&mut self) {
        match self {
            Proxy::Relais(edge) => edge.crash_and_restart(),
            Proxy::Peer(peer) => {
                peer.kill();
                peer.child = peer.kind.start(&peer.namespace, &peer.dir, &peer.config);
            }
        }
    }
}

fn relais(world: &World, backends: &[Backend], service: &Service) -> Edge {
    let tier = |site: usize| if service.preferred.is_none_or(|preferred| preferred == site) { 1 } else { 2 };
    let sites: String = SITES.iter().enumerate().map(|(n, name)| format!("{name} = {}\n", tier(n))).collect();
    let places: String = SITES
        .iter()
        .enumerate()
        .map(|(n, name)| {
            let there = backends.iter().filter(|backend| backend.site == n);
            let list: Vec<String> = there.map(|backend| format!("\"{}\"", backend.address)).collect();
            format!("{name} = [{}]\n", list.join(", "))
        })
        .collect();
    let retry = if service.retry_500 { "[service.web.retry]\nstatuses = [500, 502, 503, 504]\n" } else { "" };
    let contract = service.contract.map(|millis| format!("failover_within = \"{millis}ms\"\n")).unwrap_or_default();
    let balance = service.balance.map(|balance| format!("balance = \"{balance}\"\n")).unwrap_or_default();
    let under = tied(&world.edge()).join(" ");
    let edge = Setup::services(&format!(
        "[sites]\n{sites}[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\n{contract}{balance}{retry}\
         [service.web.response_headers]\nset = {{ X-Gen = \"0\" }}\n[service.web.backends]\n{places}"
    ))
    .listening(&format!("[listener.http]\naddress = \"{EDGE}\"\nprotocol = \"http\"\nredirect = false\n"))
    .and(&format!("[log]\naccess = {}\n", crate::row::slowest_wanted() > 0))
    .under(&format!("PATH=$PATH:/usr/sbin:/sbin; exec {under} \"$@\""))
    .start();
    wait_for("every backend is up", || {
        let status = edge.status();
        let backends = status["report"]["services"][0]["backends"].as_array().unwrap();
        backends.iter().all(|backend| backend["health"] == "up")
    });
    edge
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Kind::Haproxy => "haproxy.cfg",
            Kind::Caddy => "Caddyfile",
            Kind::Nginx => "nginx.conf",
        }
    }

    fn config(self, backends: &[Backend], service: &Service, dir: &Path) -> String {
        let text = match self {
            Kind::Haproxy => include_str!("peers/haproxy.cfg"),
            Kind::Caddy => include_str!("peers/Caddyfile"),
            Kind::Nginx => include_str!("peers/nginx.conf"),
        };
        let last = |backend: &Backend| service.preferred.is_some_and(|preferred| preferred != backend.site);
        let servers: Vec<String> = backends
            .iter()
            .map(|backend| {
                let (name, address) = (&backend.name, backend.address);
                let backup = if last(backend) { " backup" } else { "" };
                match self {
                    Kind::Haproxy => format!("    server {name} {address} tcp-ut 2s{backup}\n"),
                    Kind::Caddy => format!("{address} "),
                    Kind::Nginx => format!("        server {address} max_fails=2 fail_timeout=5s{backup};\n"),
                }
            })
            .collect();
        let policy = if service.preferred.is_some() { "first" } else { "least_conn" };
        let (host, port) = EDGE.split_once(':').unwrap();
        text.replace("{{servers}}", &servers.concat())
            .replace("{{listen}}", EDGE)
            .replace("{{host}}", host)
            .replace("{{port}}", port)
            .replace("{{policy}}", policy)
            .replace("{{dir}}", dir.to_str().unwrap())
    }

    fn start(self, namespace: &str, dir: &Path, config: &str) -> Child {
        let file = dir.join(self.file());
        std::fs::write(&file, config.replace("{{generation}}", "0")).unwrap();
        let mut command = self.command(namespace, &file, dir);
        let log = File::options().create(true).append(true).open(dir.join("peer.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0).spawn().unwrap()
    }

    fn command(self, namespace: &str, file: &Path, dir: &Path) -> Command {
        let words = tied(namespace);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(dir).env("HOME", dir);
        match self {
            Kind::Haproxy => command.args(["haproxy", "-W", "-f"]).arg(file),
            Kind::Caddy => command.args(["caddy", "run", "--adapter", "caddyfile", "--config"]).arg(file),
            Kind::Nginx => command.args(["nginx", "-p"]).arg(dir).arg("-c").arg(file),
        };
        command
    }
}

impl Peer {
    fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn reload(&self, generation: u32) {
        let file = self.dir.join(self.kind.file());
        std::fs::write(&file, self.config.replace("{{generation}}", &generation.to_string())).unwrap();
        match self.kind {
            Kind::Haproxy => kill_process(self.id(), Signal::USR2).unwrap(),
            Kind::Nginx => kill_process(self.id(), Signal::HUP).unwrap(),
            Kind::Caddy => {
                let mut command = crate::world::inside(&self.namespace, Path::new("caddy"));
                command.args(["reload", "--force", "--adapter", "caddyfile", "--config"]).arg(file);
                let _ = crate::backend::runs(&mut command);
            }
        }
    }

    fn kill(&mut self) {
        // The group: workers too, which would go on listening.
        let _ = kill_process_group(self.id(), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}
