//! WireGuard handshakes, read by the `wg` command for kernel and userspace tunnels alike. Keys of interfaces and peers
//! never come into this process. Where `wg` is not there or may not look (it needs `CAP_NET_ADMIN`), nothing is told.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use relais_core::Tunnel;
use tokio::process::Command;

/// Between two readings.
const PACE: Duration = Duration::from_secs(5);
/// The same while there is nothing to read: tunnels may come up later.
const SELDOM: Duration = Duration::from_secs(60);
/// A reading takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest output that is looked at: some ten thousand peers.
const MOST: usize = 4 << 20;

/// The next reading that finds a tunnel. `first`: at once, else at its time.
pub(crate) async fn read(first: bool) -> Vec<Tunnel> {
    let mut pause = if first { Duration::ZERO } else { PACE };
    loop {
        tokio::time::sleep(pause).await;
        if let Some(tunnels) = look().await.filter(|tunnels| !tunnels.is_empty()) {
            return tunnels;
        }
        pause = SELDOM;
    }
}

async fn look() -> Option<Vec<Tunnel>> {
    let networks = ask("allowed-ips").await?;
    if networks.trim().is_empty() {
        return Some(Vec::new());
    }
    let handshakes = ask("latest-handshakes").await?;
    // Handshakes are dated by the wall clock.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(tunnels(&networks, &handshakes, now))
}

/// What `wg show all WHAT` prints. `dump` would print private keys, too.
async fn ask(what: &str) -> Option<String> {
    let mut command = Command::new("wg");
    command.args(["show", "all", what]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) if output.status.success() && output.stdout.len() <= MOST => {
            String::from_utf8(output.stdout).ok()
        }
        Ok(Ok(output)) => {
            tracing::debug!(status = %output.status, "wg shows nothing");
            None
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "wg cannot be run");
            None
        }
        Err(_) => {
            tracing::debug!("wg takes too long");
            None
        }
    }
}

/// Lines of `INTERFACE PUBLIC-KEY NETWORK...` and `INTERFACE PUBLIC-KEY SECONDS`, by tabs and blanks. Seconds since 1970;
/// 0 is never. What is not understood is left out.
fn tunnels(networks: &str, handshakes: &str, now: Duration) -> Vec<Tunnel> {
    let mut dated: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for line in handshakes.lines() {
        let mut words = line.split_whitespace();
        if let (Some(interface), Some(peer), Some(Ok(at))) = (words.next(), words.next(), words.next().map(str::parse))
        {
            dated.insert((interface, peer), at);
        }
    }
    let tunnel = |line: &str| {
        let mut words = line.split_whitespace();
        let (interface, peer) = (words.next()?, words.next()?);
        let at = *dated.get(&(interface, peer))?;
        Some(Tunnel {
            interface: Arc::from(interface),
            networks: words.filter_map(|network| network.parse::<IpNet>().ok()).collect(),
            handshake_age: (at > 0).then(|| now.saturating_sub(Duration::from_secs(at))),
        })
    };
    networks.lines().filter_map(tunnel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wg_prints_is_understood() {
        let networks = "wg0\tAAA=\t10.9.1.0/24 fd00:9:1::/64\nwg0\tBBB=\t10.9.2.1/32\nwg1\tAAA=\t(none)\n";
        let handshakes = "wg0\tAAA=\t900\nwg0\tBBB=\t0\nwg1\tAAA=\t2000\nwg7\tnonsense\n";
        let found = tunnels(networks, handshakes, Duration::from_secs(1000));
        let tunnel = |interface: &str, networks: &[&str], age: Option<u64>| Tunnel {
            interface: interface.into(),
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            handshake_age: age.map(Duration::from_secs),
        };
        assert_eq!(
            found,
            [
                tunnel("wg0", &["10.9.1.0/24", "fd00:9:1::/64"], Some(100)),
                tunnel("wg0", &["10.9.2.1/32"], None),
                // A clock that was set back: as young as can be.
                tunnel("wg1", &[], Some(0)),
            ]
        );
        assert_eq!(tunnels("wg0\tAAA=\t10.9.1.0/24\n", "", Duration::ZERO), [], "a peer that went in between");
    }
}
