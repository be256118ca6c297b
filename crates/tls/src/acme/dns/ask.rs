//! Questions to name servers: where a name leads, which zone it is in, who answers for the zone. May send DNS queries and
//! read the system's list of name servers. Keeps no answer: what is asked for here has just changed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::select_ok;
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_resolver::net::DnsHandle;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::FirstAnswer;
use hickory_resolver::system_conf::read_system_conf;

use super::fault::DnsFault;

/// Longest wait for one answer of one server, repetitions of the question included.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Longer chains are a mistake; a CA follows no longer ones either.
const LONGEST_CHAIN: usize = 8;

/// Addresses of a zone's name servers that are asked for one answer, all at once.
const MOST_ASKED: usize = 4;

/// Asks the name servers that look up things for others.
#[derive(Debug, Clone)]
pub(super) struct Resolvers {
    /// Empty: the system's, read anew for each question.
    servers: Vec<SocketAddr>,
}

/// One name server of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameServer {
    pub(super) name: Name,
    pub(super) addresses: Vec<IpAddr>,
}

impl Resolvers {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.to_vec() }
    }

    /// The name that `from` stands for: itself, or the end of the CNAMEs that begin there. A CNAME that answers for every
    /// name beside it is none of these: it gives way to the record that will be written.
    pub(super) async fn follow(&self, from: &Name, port: u16) -> Result<Name, DnsFault> {
        let mut seen = vec![from.clone()];
        while let Some(next) = self.alias(&seen[seen.len() - 1], port).await? {
            if seen.len() == 1 && self.is_wildcard(from, &next, port).await? {
                break;
            }
            if seen.contains(&next) {
                return Err(DnsFault::new(
                    format!("the CNAME of {from} leads in a circle: it comes back to {next}"),
                    "correct the CNAME records, or set `delegation = false`",
                ));
            }
            seen.push(next);
            if seen.len() > LONGEST_CHAIN {
                return Err(DnsFault::new(
                    format!("{from} leads through more than {} CNAMEs", LONGEST_CHAIN - 1),
                    "point it to the last name directly",
                ));
            }
        }
        Ok(seen.swap_remove(seen.len() - 1))
    }

    async fn alias(&self, name: &Name, port: u16) -> Result<Option<Name>, DnsFault> {
        // The zone's own servers first: a resolver would keep in mind for hours that the name is not there.
        if let Ok(servers) = self.authorities(name, port).await
            && let Some(answer) = first_authoritative(&servers, name, RecordType::CNAME, port).await
        {
            return Ok(target(&answer, name));
        }
        Ok(target(&self.ask(name, RecordType::CNAME).await?, name))
    }

    async fn is_wildcard(&self, name: &Name, target: &Name, port: u16) -> Result<bool, DnsFault> {
        // No one has made this name: if it has the same CNAME, a wildcard gave it.
        match name.base_name().prepend_label("_relais-asks-for-a-wildcard") {
            Ok(beside) => Ok(self.alias(&beside, port).await?.as_ref() == Some(target)),
            Err(_) => Ok(false),
        }
    }

    /// The zone that holds `name`.
    pub(super) async fn zone(&self, name: &Name) -> Result<Name, DnsFault> {
        let mut at = name.clone();
        while !at.is_root() {
            let answer = self.ask(&at, RecordType::SOA).await?;
            if let Some(zone) = zone_in(&answer, name) {
                return Ok(zone);
            }
            at = at.base_name();
        }
        Err(DnsFault::new(
            format!("no zone holds {name}"),
            "check that the domain is registered and delegated, or name other `resolvers`",
        ))
    }

    /// Who answers for the zone that holds `name`. Resolvers are asked about the name above it: they must not learn that
    /// this one is not there yet.
    pub(super) async fn authorities(&self, name: &Name, port: u16) -> Result<Vec<NameServer>, DnsFault> {
        let mut zone = match self.zone(&name.base_name()).await {
            Ok(zone) => zone,
            Err(_) => self.zone(name).await?,
        };
        let mut servers = self.name_servers(&zone).await?;
        // The name may begin a zone of its own, which only those above know of.
        for _ in 0..LONGEST_CHAIN {
            let answer = first_answer(&servers, name, RecordType::SOA, port).await;
            match answer.and_then(|answer| zone_below(&answer, name)) {
                Some(below) if below != zone => zone = below,
                _ => break,
            }
            servers = self.name_servers(&zone).await?;
        }
        Ok(servers)
    }

    /// Who answers for a zone, each with its addresses. A name server without an address is left out, like for everyone
    /// else who asks.
    async fn name_servers(&self, zone: &Name) -> Result<Vec<NameServer>, DnsFault> {
        let answer = self.ask(zone, RecordType::NS).await?;
        let mut servers = Vec::new();
        for record in &answer.answers {
            let RData::NS(server) = &record.data else { continue };
            let mut addresses = Vec::new();
            for kind in [RecordType::A, RecordType::AAAA] {
                let answer = self.ask(&server.0, kind).await?;
                addresses.extend(answer.answers.iter().filter_map(|record| match &record.data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                }));
            }
            if !addresses.is_empty() {
                servers.push(NameServer { name: server.0.clone(), addresses });
            }
        }
        if servers.is_empty() {
            return Err(DnsFault::new(
                format!("no name server of the zone {zone} is known"),
                "check the zone's NS records and that their names have addresses",
            ));
        }
        Ok(servers)
    }

    /// The first answer that is one: there are such records, or there are none.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, DnsFault> {
        let servers = if self.servers.is_empty() { system().await? } else { self.servers.clone() };
        let mut said = Vec::new();
        for server in &servers {
            match ask(*server, name, kind, true).await {
                Ok(answer) if matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain) => {
                    return Ok(answer);
                }
                Ok(answer) => said.push(format!("{server} said {}", answer.response_code)),
                Err(why) => said.push(format!("{server}: {why}")),
            }
        }
        Err(DnsFault::new(
            format!("{kind} of {name} cannot be looked up: {}", said.join(", ")),
            "check the name servers of this machine, or name others in `resolvers`",
        ))
    }
}

/// The zone that an answer to a question for an SOA tells of, asked for `name` or one above it.
pub(super) fn zone_in(answer: &Message, name: &Name) -> Option<Name> {
    let records = answer.answers.iter().chain(&answer.authorities);
    let mut soa = records.filter(|record| record.record_type() == RecordType::SOA);
    // An SOA of the root means that nobody knows the name, and of elsewhere that it is an alias.
    soa.find(|record| record.name.zone_of(name) && !record.name.is_root()).map(|record| record.name.to_lowercase())
}

/// The same for an answer of a server that has the zone itself or one above it, and refers to it.
fn zone_below(answer: &Message, name: &Name) -> Option<Name> {
    if answer.authoritative {
        return zone_in(answer, name);
    }
    let mut cuts = answer.authorities.iter().filter(|record| record.record_type() == RecordType::NS);
    cuts.find(|record| record.name.zone_of(name) && !record.name.is_root()).map(|record| record.name.to_lowercase())
}

/// Where a name leads, as an answer says.
fn target(answer: &Message, name: &Name) -> Option<Name> {
    answer.answers.iter().filter(|record| record.name == *name).find_map(|record| match &record.data {
        RData::CNAME(target) => Some(target.0.to_lowercase()),
        _ => None,
    })
}

async fn first_authoritative(servers: &[NameServer], name: &Name, kind: RecordType, port: u16) -> Option<Message> {
    let answer = first_answer(servers, name, kind, port).await;
    answer.filter(|answer| answer.authoritative)
}

/// What the fastest of some name servers says that says anything of use.
async fn first_answer(servers: &[NameServer], name: &Name, kind: RecordType, port: u16) -> Option<Message> {
    let addresses = servers.iter().flat_map(|server| &server.addresses).take(MOST_ASKED);
    let questions = addresses.map(|address| {
        let address = SocketAddr::new(*address, port);
        Box::pin(async move {
            let answer = ask(address, name, kind, false).await.ok();
            answer
                .filter(|answer| matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain))
                .ok_or(())
        })
    });
    let questions: Vec<_> = questions.collect();
    if questions.is_empty() {
        return None;
    }
    select_ok(questions).await.ok().map(|(answer, _)| answer)
}

async fn system() -> Result<Vec<SocketAddr>, DnsFault> {
    let unknown = |why: String| {
        DnsFault::new(format!("no name server is known: {why}"), "repair /etc/resolv.conf, or name some in `resolvers`")
    };
    let read = tokio::task::spawn_blocking(read_system_conf).await.map_err(|fault| unknown(fault.to_string()))?;
    let (config, _) = read.map_err(|fault| unknown(fault.to_string()))?;
    let servers = config
        .name_servers()
        .iter()
        .filter_map(|server| server.connections.first().map(|connection| SocketAddr::new(server.ip, connection.port)));
    let servers: Vec<SocketAddr> = servers.collect();
    if servers.is_empty() { Err(unknown("the system's list is empty".into())) } else { Ok(servers) }
}

/// Asks one server, by UDP, and by TCP when the answer does not fit. `recursive`: it shall ask others.
pub(super) async fn ask(server: SocketAddr, name: &Name, kind: RecordType, recursive: bool) -> Result<Message, String> {
    let mut options = DnsRequestOptions::default();
    options.recursion_desired = recursive;
    let request = DnsRequest::from_query(Query::query(name.clone(), kind), options);
    match tokio::time::timeout(PATIENCE, by_udp_then_tcp(server, request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(NetError::Timeout)) | Err(_) => Err(format!("no answer in {PATIENCE:?}")),
        Ok(Err(fault)) => Err(fault.to_string()),
    }
}

async fn by_udp_then_tcp(server: SocketAddr, request: DnsRequest) -> Result<Message, NetError> {
    let provider = TokioRuntimeProvider::default();
    let udp = UdpClientStream::builder(server, provider.clone()).with_timeout(Some(PATIENCE)).exchange();
    let answer = udp.send(request.clone()).first_answer().await?;
    if !answer.truncation {
        return Ok(answer.into_message());
    }
    let tcp = TcpClientStream::exchange(server, None, PATIENCE, None, provider).await?;
    Ok(tcp.send(request).first_answer().await?.into_message())
}
