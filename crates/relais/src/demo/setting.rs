//! The stage of the demo: sites, edge and visitors, built and taken down.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::mpsc;

use relais::core::Health;
use relais::core::config::ListenerProtocol;
use relais::{Edge, internal_ca};

use super::ledger::Ledger;
use super::load::Load;
use super::site::{Condition, Site};
use super::tally::Tally;

/// Name, second-last byte of its 127.0.x.0/24, tier.
const SITES: [(&str, u8, u32); 3] = [("dijon", 11, 1), ("thory", 12, 1), ("ovh", 13, 2)];
/// Service and its host. Every site serves both.
const SERVICES: [(&str, &str); 2] = [("api", "api.localhost"), ("www", "www.localhost")];
/// Backends at each site.
const BACKENDS: u8 = 2;
/// Visitors of each service.
const VISITORS: usize = 6;
/// Where browsers may find the demo; when taken, any free port is used.
const PORTS: (u16, u16) = (8443, 8080);

/// Everything that runs.
pub(crate) struct Setting {
    pub(crate) edge: Edge,
    pub(crate) tally: Tally,
    pub(crate) ledger: Ledger,
    sites: Vec<Site>,
    https: SocketAddr,
    http: SocketAddr,
    dir: Scratch,
}

/// A directory that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left-overs in the temporary directory hurt nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Setting {
    /// Builds everything; `port`: where HTTPS must be.
    pub(crate) fn build(port: Option<u16>) -> Result<Setting, String> {
        let dir = scratch()?;
        let (ledger, tally) = (Ledger::default(), Tally::default());
        let sites = on_a_thread("demo-sites", {
            let ledger = ledger.clone();
            move || {
                let start =
                    |(name, network, _): &(&'static str, u8, u32)| Site::start(name, *network, BACKENDS, &ledger);
                let sites: Result<Vec<Site>, _> = SITES.iter().map(start).collect();
                sites.map_err(|error| format!("cannot start the backends: {error}"))
            }
        })?;
        let (https, http) = port.map_or_else(|| (free(PORTS.0), free(PORTS.1)), |port| (port, 0));
        let edge = Edge::builder()
            .config_text(config(https, http, &sites))
            .state_dir(&dir.0)
            .admin_socket(dir.0.join("admin.sock"))
            .start()
            .map_err(|error| error.to_string())?;
        let address = |protocol| {
            let found = edge.local_addresses().into_iter().find(|at| at.protocol == protocol);
            found.map(|at| at.address).ok_or("the edge listens nowhere".to_owned())
        };
        let (https, http) = (address(ListenerProtocol::Https)?, address(ListenerProtocol::Http)?);
        let load = Load::new(https, &internal_ca::root_path(&dir.0), tally.clone())?;
        on_a_thread("demo-visitors", move || {
            for (service, host) in SERVICES {
                for _ in 0..VISITORS {
                    tokio::spawn(load.clone().visit(service, host));
                }
            }
            Ok(())
        })?;
        Ok(Setting { edge, tally, ledger, sites, https, http, dir })
    }

    /// What people see first.
    pub(crate) fn introduction(&self) -> String {
        let (https, http) = (self.https.port(), self.http.port());
        let root = internal_ca::root_path(&self.dir.0);
        let socket = self.dir.0.join("admin.sock");
        format!(
            "An edge with three sites, each with {BACKENDS} backends; all of it in this process.\n\n\
             \x20 https://api.localhost:{https}/   https://www.localhost:{https}/   (http://api.localhost:{http}/ redirects)\n\n\
             Try, in another terminal:\n\
             \x20 curl --cacert {root} --resolve api.localhost:{https}:127.0.0.1 https://api.localhost:{https}/\n\
             \x20 relais --socket {socket} status",
            root = root.display(),
            socket = socket.display(),
        )
    }

    /// Something happens to a site.
    pub(crate) fn change(&self, name: &str, condition: Condition) {
        for site in self.sites.iter().filter(|site| site.name == name) {
            site.become_(condition);
        }
    }

    /// Whether the edge trusts every site.
    pub(crate) fn all_up(&self) -> bool {
        let status = self.edge.status();
        status.is_ok_and(|status| status.report.sites.iter().all(|site| site.health == Health::Up))
    }
}

fn scratch() -> Result<Scratch, String> {
    let dir = std::env::temp_dir().join(format!("relais-demo-{}", std::process::id()));
    let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
    made.map_err(|error| {
        format!("cannot make {}: {error}; set TMPDIR to a directory you may write in", dir.display())
    })?;
    Ok(Scratch(dir))
}

/// `port` when nobody listens there, else 0: any.
fn free(port: u16) -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_or(0, |_| port)
}

fn config(https: u16, http: u16, sites: &[Site]) -> String {
    let mut text = format!(
        "[edge]\ntls = \"internal\"\ndrain = \"1s\"\nfailover_within = \"500ms\"\n\
         [metrics]\naddress = false\n\
         [listener.https]\naddress = \"127.0.0.1:{https}\"\nprotocol = \"https\"\n\
         [listener.http]\naddress = \"127.0.0.1:{http}\"\nprotocol = \"http\"\n[sites]\n"
    );
    for (name, network, tier) in SITES {
        text.push_str(&format!("{name} = {{ tier = {tier}, network = \"127.0.{network}.0/24\" }}\n"));
    }
    for (service, host) in SERVICES {
        text.push_str(&format!(
            "[service.{service}]\nhosts = [\"{host}\"]\nhealth = \"/health\"\n[service.{service}.backends]\n"
        ));
        for site in sites {
            let addresses: Vec<String> = site.addresses.iter().map(|address| format!("\"{address}\"")).collect();
            text.push_str(&format!("{} = [{}]\n", site.name, addresses.join(", ")));
        }
    }
    text
}

/// Runs `begin` and all it spawns on a thread with a runtime of its own, for as long as the process lives; gives what
/// `begin` gave.
fn on_a_thread<T: Send + 'static>(
    name: &str,
    begin: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (tell, told) = mpsc::channel();
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                // Nobody waits for the answer only when the whole demo has given up.
                let _ = tell.send(begin());
                std::future::pending::<()>().await;
            }),
            Err(error) => {
                let _ = tell.send(Err(error.to_string()));
            }
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|error| error.to_string())?;
    told.recv().map_err(|_| format!("the thread {name} ended early"))?
}
