//! What the control loop answers to operators. Plain values that serialise to the JSON of the admin socket.

use std::path::PathBuf;
use std::sync::Arc;

use relais_config::{Config, ListenerProtocol};
use relais_core::certs::CertificatesReport;
use relais_core::{Admin, Health, Instant, Report, Target};
use relais_store::{Mode, StoreState};
use relais_tls::CertInfo;
use serde::Serialize;

use crate::alarm::Alarm;
use crate::certs::StapleReport;
use crate::reload::Verdict;

/// The answer to `GET /status`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The process.
    pub process: ProcessStatus,
    /// The last reload (or the start).
    pub reload: Verdict,
    /// What is wrong with relais itself.
    pub alarms: Vec<Alarm>,
    /// Where state is kept and how well.
    pub store: StoreState,
    /// What is listened on.
    pub listeners: Vec<ListenerStatus>,
    /// The certificates in use.
    pub certificates: Vec<CertInfo>,
    /// The certificates that CAs are asked for.
    pub orders: CertificatesReport,
    /// What the check of the running file warned about.
    pub warnings: Vec<String>,
    /// Sites, services and backends: what is believed of them and why.
    pub report: Report,
}

/// The answer to `GET /certs`.
#[derive(Debug, Clone, Serialize)]
pub struct Certificates {
    /// The certificates that CAs are asked for.
    #[serde(flatten)]
    pub orders: CertificatesReport,
    /// Those in use that clients refuse without a proof, also from files.
    pub staples: Vec<StapleReport>,
}

/// The process.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessStatus {
    /// Version of relais.
    pub version: &'static str,
    /// Process id.
    pub pid: u32,
    /// It accepts nothing any more, and ends when what is in flight has ended.
    pub stopping: bool,
    /// When it started, microseconds since the Unix epoch.
    pub started: Instant,
    /// The file it runs from; `null`: an embedded config.
    pub config_path: Option<PathBuf>,
    /// Where it keeps state.
    pub state_dir: PathBuf,
    /// Where it is asked.
    pub admin_socket: PathBuf,
    /// Generation of the snapshot workers read.
    pub generation: u64,
    /// Log level or filter in force.
    pub log_level: String,
}

/// One listener.
#[derive(Debug, Clone, Serialize)]
pub struct ListenerStatus {
    /// Name in the file.
    pub name: String,
    /// `http` or `https`.
    pub protocol: &'static str,
    /// Addresses.
    pub addresses: Vec<String>,
    /// Port of the `https://` address that requests are redirected to.
    pub redirect_to: Option<u16>,
}

/// The answer to an operator's word.
#[derive(Debug, Clone, Serialize)]
pub struct AdminReply {
    /// About what, as the fleet names it.
    pub target: String,
    /// The word.
    pub word: Admin,
    /// Generation of the snapshot that carries it: workers have it already.
    pub generation: u64,
    /// Requests in flight at all of `backends`.
    pub inflight: u64,
    /// Every backend the word is about.
    pub backends: Vec<AffectedBackend>,
    /// What follows that is probably not meant: services that have nobody left, or that a restart would forget it.
    pub warnings: Vec<String>,
}

/// One backend an operator's word is about.
#[derive(Debug, Clone, Serialize)]
pub struct AffectedBackend {
    /// Service.
    pub service: Arc<str>,
    /// Site.
    pub site: Arc<str>,
    /// Address as in the file.
    pub address: Arc<str>,
    /// What the evidence says.
    pub health: Health,
    /// What the operator says now (the stricter of the backend's and its site's word).
    pub admin: Admin,
    /// Requests in flight.
    pub inflight: u32,
}

/// The listeners of a config, for `status`.
pub(crate) fn listeners(config: &Config) -> Vec<ListenerStatus> {
    let one = |listener: &Arc<relais_config::Listener>| ListenerStatus {
        name: listener.name.clone(),
        protocol: match listener.protocol {
            ListenerProtocol::Http => "http",
            ListenerProtocol::Https => "https",
        },
        addresses: listener.addresses.iter().map(ToString::to_string).collect(),
        redirect_to: listener.redirect_to,
    };
    config.listeners.iter().map(one).collect()
}

/// The backends a target is about, in the order of the report.
pub(crate) fn affected(report: &Report, target: &Target) -> Vec<AffectedBackend> {
    let mut found = Vec::new();
    for service in &report.services {
        for backend in &service.backends {
            let meant = match target {
                Target::Site(site) => backend.site == *site,
                Target::Backend(id) => {
                    id.service == service.name && id.site == backend.site && id.address == backend.address
                }
            };
            if meant {
                found.push(AffectedBackend {
                    service: Arc::clone(&service.name),
                    site: Arc::clone(&backend.site),
                    address: Arc::clone(&backend.address),
                    health: backend.health,
                    admin: backend.admin,
                    inflight: backend.inflight,
                });
            }
        }
    }
    found
}

/// Services that a word took the last backend from, or that have none besides: what their visitors get.
pub(crate) fn deserted(report: &Report, affected: &[AffectedBackend]) -> Vec<String> {
    let services = report.services.iter().filter(|service| service.tier.is_none());
    let meant = services.filter(|service| affected.iter().any(|backend| backend.service == service.name));
    let told = |service: &relais_core::ServiceReport| {
        let name = &service.name;
        // Nobody waits for who was taken out on purpose.
        let asked = || service.backends.iter().filter(|backend| backend.admin == Admin::Enabled);
        let any = |health: Health| asked().any(|backend| backend.health == health);
        let get = if service.fail_open && any(Health::Down) && !any(Health::Probing) {
            "go to those that are down at once (`fail_open`)"
        } else if asked().next().is_some() {
            "wait a moment for one that is down, then get 503 (or at once its maintenance page)"
        } else {
            "get 503 at once, or its maintenance page"
        };
        format!("service {name} has no backend left: its requests {get}")
    };
    meant.map(told).collect()
}

/// What an alarm about the store says, if there is one to raise.
pub(crate) fn store_trouble(state: &StoreState) -> Option<(String, String)> {
    let detail = |what: &str| match state.detail.as_str() {
        "" => what.to_string(),
        detail => format!("{what}: {detail}"),
    };
    let (message, help) = match state.mode {
        // Made without a directory on purpose (an embedded edge), or a successor has it: nothing is wrong.
        Mode::Memory if state.path.is_none() || state.is_handed_over => return None,
        Mode::Memory => (detail("nothing is remembered across a restart"), "repair the state directory, then restart"),
        Mode::Fresh => {
            (detail("the old store was set aside"), "look at the directory that was set aside; a restart clears this")
        }
        // What failed once and works again is no alarm: `failed_writes` remembers it.
        Mode::Ok | Mode::Healed if state.is_failing => {
            (format!("{} writes failed", state.failed_writes), "check the disk of the state directory")
        }
        Mode::Ok | Mode::Healed if state.is_stuck => (
            "a write has not come back for more than 5 s: nothing since then would survive a restart".to_owned(),
            "check the disk of the state directory",
        ),
        Mode::Ok | Mode::Healed => return None,
    };
    Some((message, help.to_string()))
}
