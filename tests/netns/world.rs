//! The world: namespaces of an edge, a hub and three sites, and links between them that lose what they are told to lose,
//! each direction by itself and without a word to either end. Taken down when it goes out of scope.
//!
//! A cut is a blackhole route (towards a site) or a blackhole rule (from a site) at the hub. Loss is a classifier there
//! that asks the kernel for a random number for each packet. There is no delay: not every kernel can.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

/// Their names.
pub(crate) const SITES: [&str; 3] = ["dijon", "thory", "ovh"];

/// Where the edge listens.
pub(crate) const EDGE: &str = "10.99.0.1:8080";

/// Where the namespaces are, by name.
const NAMES: &str = "/run/netns";

const PREFIX: &str = "relais";

/// Port of every backend.
const PORT: u16 = 8080;

/// Packets lost one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToSite,
    FromSite,
}

/// The namespaces of one scenario.
pub(crate) struct World {
    id: String,
}

/// A command inside a namespace. The child is the program itself: `ip` executes it in its place.
pub(crate) fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Why there can be no world here.
pub(crate) fn missing() -> Option<&'static str> {
    let root = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = root.lines().any(|line| line.starts_with("Uid:\t0\t0"));
    let name = format!("{PREFIX}{}try", std::process::id());
    let can = is_root && crate::backend::runs(Command::new("ip").args(["netns", "add", &name]));
    let _ = crate::backend::runs(Command::new("ip").args(["netns", "del", &name]));
    (!can).then_some("needs root and iproute2 (network namespaces)")
}

impl World {
    pub(crate) fn new() -> World {
        sweep();
        // From here on it is taken down, even when the rest fails.
        let world = World { id: format!("{PREFIX}{}", std::process::id()) };
        for namespace in world.namespaces() {
            ip(&["netns", "add", &namespace]);
        }
        world.link(&world.edge(), "10.99.0.1/30", "edge", "10.99.0.2/30");
        for (n, site) in SITES.iter().enumerate() {
            world.link(&world.site(n), &format!("10.98.{n}.2/30"), site, &format!("10.98.{n}.1/30"));
            batch(&world.hub(), &format!("route add 10.200.{n}.0/24 via 10.98.{n}.2"));
            batch(&world.site(n), &format!("addr add 10.200.{n}.1/32 dev lo\naddr add 10.200.{n}.2/32 dev lo"));
            batch(&world.site(n), &format!("route add default via 10.98.{n}.1"));
        }
        batch(&world.edge(), "route add default via 10.99.0.2");
        let mut forward = inside(&world.hub(), Path::new("sh"));
        forward.args(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward && echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter"]);
        assert!(forward.status().unwrap().success(), "the hub forwards");
        world
    }

    fn namespaces(&self) -> Vec<String> {
        [self.edge(), self.hub(), self.site(0), self.site(1), self.site(2)].into()
    }

    pub(crate) fn edge(&self) -> String {
        format!("{}-edge", self.id)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.id)
    }

    pub(crate) fn site(&self, n: usize) -> String {
        format!("{}-{}", self.id, SITES[n])
    }

    /// The address of backend `n` (1 or 2) at a site.
    pub(crate) fn backend(&self, site: usize, n: usize) -> SocketAddr {
        let byte = |value: usize| u8::try_from(value).unwrap();
        SocketAddr::from((Ipv4Addr::new(10, 200, byte(site), byte(n)), PORT))
    }

    /// A link from a namespace (`wire`) to the hub. Packets are sent one by one, as over a real link, so that losing one is
    /// losing one.
    fn link(&self, far: &str, address: &str, name: &str, at_hub: &str) {
        ip(&["-n", far, "link", "add", "wire", "type", "veth", "peer", "name", name, "netns", &self.hub()]);
        batch(far, &format!("link set lo up\naddr add {address} dev wire\nlink set wire up gso_max_segs 1"));
        batch(&self.hub(), &format!("addr add {at_hub} dev {name}\nlink set {name} up gso_max_segs 1"));
    }

    /// Drops every packet of a site in these directions, silently.
    pub(crate) fn cut(&self, site: usize, directions: &[Direction]) {
        self.switch(site, directions, true);
    }

    /// Lets them pass again.
    pub(crate) fn mend(&self, site: usize, directions: &[Direction]) {
        self.switch(site, directions, false);
    }

    fn switch(&self, site: usize, directions: &[Direction], cut: bool) {
        let lines: Vec<String> = directions
            .iter()
            .map(|direction| match (direction, cut) {
                (Direction::ToSite, true) => format!("route replace blackhole 10.200.{site}.0/24"),
                (Direction::ToSite, false) => format!("route replace 10.200.{site}.0/24 via 10.98.{site}.2"),
                (Direction::FromSite, true) => format!("rule add iif {} blackhole", SITES[site]),
                (Direction::FromSite, false) => format!("rule del iif {} blackhole", SITES[site]),
            })
            .collect();
        batch(&self.hub(), &lines.join("\n"));
    }

    /// Drops every packet of the connections that are open between the edge and a site, silently and for good.
    pub(crate) fn forget(&self, site: usize) {
        let mut command = inside(&self.edge(), Path::new("ss"));
        let output = command.args(["-Htn", "dst", &format!("10.200.{site}.0/24")]).output().unwrap();
        let open = String::from_utf8_lossy(&output.stdout).into_owned();
        // Both ends are named: the port alone may at the same time be that of a connection to another site.
        let ends = open.lines().filter_map(|line| {
            let mut ends = line.split_whitespace().skip(3);
            let (_, port) = ends.next()?.rsplit_once(':')?;
            let (backend, _) = ends.next()?.rsplit_once(':')?;
            Some((port, backend))
        });
        let lines: Vec<String> = ends
            .flat_map(|(port, backend)| {
                let there = format!("rule add iif edge to {backend} ipproto tcp sport {port} blackhole");
                let back = format!("rule add iif {} from {backend} ipproto tcp dport {port} blackhole", SITES[site]);
                [there, back]
            })
            .collect();
        assert!(!lines.is_empty(), "connections are open: {open}");
        batch(&self.hub(), &lines.join("\n"));
    }

    /// Loses this share of the packets of a site, in each direction. The error says what the kernel or `tc` cannot do.
    pub(crate) fn lose(&self, site: usize, percent: u64) -> Result<(), String> {
        // Load a random number; below the threshold drop (2), else go on (-1).
        let below = (u64::from(u32::MAX) + 1) * percent / 100;
        self.lose_where(site, &format!("4,32 0 0 4294963256,53 1 0 {below},6 0 0 2,6 0 0 4294967295"))
    }

    /// Loses every frame of a site that is longer than so many bytes, in each direction, and tells nobody: a tunnel inside
    /// a tunnel whose "too big" does not come through.
    pub(crate) fn lose_large(&self, site: usize, most: u64) -> Result<(), String> {
        // Load the length; above the limit drop (2), else go on (-1).
        self.lose_where(site, &format!("4,128 0 0 0,37 0 1 {most},6 0 0 2,6 0 0 4294967295"))
    }

    fn lose_where(&self, site: usize, program: &str) -> Result<(), String> {
        let device = SITES[site];
        tc(&self.hub(), &["qdisc", "add", "dev", device, "clsact"])?;
        for hook in ["ingress", "egress"] {
            tc(&self.hub(), &["filter", "add", "dev", device, hook, "bpf", "da", "bytecode", program])?;
        }
        Ok(())
    }

    /// Loses nothing any more.
    pub(crate) fn lose_nothing(&self, site: usize) {
        tc(&self.hub(), &["qdisc", "del", "dev", SITES[site], "clsact"]).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for namespace in self.namespaces() {
            let _ = crate::backend::runs(Command::new("ip").args(["netns", "del", &namespace]));
        }
    }
}

/// Takes down what a test left behind that was itself killed: namespaces that carry the id of a process that is gone.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(NAMES) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let Some((id, _)) = rest.split_once('-') else { continue };
        let gone = id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists();
        if gone {
            let _ = crate::backend::runs(Command::new("ip").args(["netns", "del", &name]));
        }
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Several lines of `ip` in one namespace.
#[track_caller]
fn batch(namespace: &str, lines: &str) {
    let mut command = Command::new("ip");
    command.args(["-n", namespace, "-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{lines}: {}", String::from_utf8_lossy(&output.stderr));
}

fn tc(namespace: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("tc").args(["-n", namespace]).args(arguments).output();
    let output = output.map_err(|error| format!("tc: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}
