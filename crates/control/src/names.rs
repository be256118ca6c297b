//! Names to addresses: asks the name servers for the fleet, which decides when, and keeps what was good. Decides nothing.
//!
//! `/etc/hosts` comes first, then the name servers of the config or of the system; what only other parts of the system
//! know (mDNS, virtual machines) is asked for last. Answers of name servers are kept here as long as they say.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::read_system_conf;
use relais_core::{ResolveOrder, Resolved};
use tokio::sync::Mutex;

/// What the answers depend on besides the config: a change makes everything be asked anew.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// Longest wait for one answer of one server.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait for everything that is tried for one name.
const DEADLINE: Duration = Duration::from_secs(8);
/// "There is no such name" is believed no longer than this: names are made just before they are used.
const NEGATIVE: Duration = Duration::from_secs(2);
/// How long an answer is used that came without a time.
const UNTIMED: Duration = Duration::from_secs(10);

/// Asks for names.
pub(crate) struct Names {
    /// Empty: the system's.
    servers: Vec<SocketAddr>,
    resolver: Mutex<Option<Known>>,
}

/// A resolver, and the state of the files it was made from.
struct Known {
    stamp: Stamp,
    resolver: TokioResolver,
}

type Stamp = [Option<(SystemTime, u64)>; FILES.len()];

impl Names {
    pub(crate) fn new(servers: &[SocketAddr]) -> Names {
        Names { servers: servers.to_vec(), resolver: Mutex::default() }
    }

    /// The addresses of a name.
    ///
    /// # Errors
    /// Why there are none, in words.
    pub(crate) async fn look_up(&self, order: &ResolveOrder) -> Result<Resolved, String> {
        match tokio::time::timeout(DEADLINE, self.ask(&order.host, order.port)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer in {} s", DEADLINE.as_secs())),
        }
    }

    async fn ask(&self, host: &str, port: u16) -> Result<Resolved, String> {
        let why = match self.resolver().await {
            // Names of containers may have letters that public names must not have.
            Ok(resolver) => {
                match resolver.lookup_ip(Name::from_ascii(host).map_err(|error| error.to_string())?).await {
                    Ok(found) => {
                        let good_for = found.valid_until().saturating_duration_since(Instant::now());
                        let addresses = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
                        return Ok(Resolved { addresses, good_for });
                    }
                    Err(error) if error.is_no_records_found() => "no such name".to_owned(),
                    Err(error) => return Err(error.to_string()),
                }
            }
            Err(why) => why,
        };
        if !self.servers.is_empty() {
            return Err(why);
        }
        match tokio::net::lookup_host((host, port)).await {
            Ok(found) => Ok(Resolved { addresses: found.collect(), good_for: UNTIMED }),
            Err(error) => {
                tracing::debug!(host, %error, "the system does not know the name either");
                Err(why)
            }
        }
    }

    /// The resolver, made anew when the files it was made from have changed.
    async fn resolver(&self) -> Result<TokioResolver, String> {
        let mut known = self.resolver.lock().await;
        let servers = self.servers.clone();
        let old = known.take();
        let made = tokio::task::spawn_blocking(move || {
            let stamp = FILES.map(stamp);
            match old {
                Some(old) if old.stamp == stamp => Ok(old),
                _ => resolver(&servers).map(|resolver| Known { stamp, resolver }),
            }
        });
        let made = made.await.map_err(|error| error.to_string())??;
        Ok(known.insert(made).resolver.clone())
    }
}

fn stamp(path: &str) -> Option<(SystemTime, u64)> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let (config, mut options) = if servers.is_empty() {
        read_system_conf().map_err(|error| format!("no name server is known: {error}"))?
    } else {
        let servers = servers.iter().map(|server| name_server(*server)).collect();
        (ResolverConfig::from_name_servers(servers), ResolverOpts::default())
    };
    options.timeout = options.timeout.min(PATIENCE);
    options.negative_max_ttl = Some(NEGATIVE);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(|error| error.to_string())
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (address.port(), address.port());
    NameServerConfig::new(address.ip(), true, vec![udp, tcp])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(host: &str) -> ResolveOrder {
        ResolveOrder { id: 0, slot: 0, host: host.into(), port: 80 }
    }

    #[tokio::test]
    async fn localhost_resolves_and_nonsense_does_not() {
        let names = Names::new(&[]);
        let found = names.look_up(&order("localhost")).await.unwrap();
        assert!(!found.addresses.is_empty());
        assert!(found.addresses.iter().all(|a| a.ip().is_loopback() && a.port() == 80), "{found:?}");
        names.look_up(&order("no-such-host.invalid")).await.unwrap_err();
    }
}
