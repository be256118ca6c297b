//! A control loop on a bench: real files in a temporary directory, hooks that remember what they were told.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use relais_control::{Control, Handle, ListenerHooks, Loaded, Setup, Status};
use relais_core::{Anchor, Event, Fault, ProbeReport, Snapshot};
use relais_store::Store;
use relais_tls::CertStore;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// What the listener hooks were told, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hooked {
    Prepared,
    Committed,
    Abandoned,
}

pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) handle: Handle,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) changed: watch::Receiver<u64>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) hooked: Arc<Mutex<Vec<Hooked>>>,
    pub(crate) levels: Arc<Mutex<Vec<String>>>,
    pub(crate) certs: Arc<CertStore>,
    pub(crate) store: Arc<Store>,
    stop: Option<oneshot::Sender<()>>,
    drained: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// A file whose listener has this name cannot be bound.
pub(crate) const TAKEN: &str = "taken";

/// What every test file begins with: nothing on well-known ports.
pub(crate) const HEAD: &str = "[listener.http]\naddress = \"127.0.0.1:8080\"\nredirect = false\n\
    [metrics]\naddress = false\n";

/// A service that answers by itself.
pub(crate) fn answering(name: &str) -> String {
    format!("[service.{name}]\nhosts = [\"{name}.fr\"]\nrespond = {{ status = 200 }}\n")
}

impl Bench {
    /// Starts with this text as `proxy.toml` in a new directory.
    pub(crate) async fn start(text: &str) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("proxy.toml"), text).unwrap();
        Bench::start_in(dir, Path::new("proxy.toml")).await
    }

    /// Starts with a file that is there already, named relative to the directory.
    pub(crate) async fn start_in(dir: TempDir, file: &Path) -> Bench {
        let path = dir.path().join(file);
        let loaded = relais_control::load(&path).unwrap_or_else(|error| panic!("{error}"));
        Bench::start_from(dir, path, loaded).await
    }

    /// Starts with a config loaded before; the file may have changed since.
    pub(crate) async fn start_from(dir: TempDir, path: PathBuf, loaded: Loaded) -> Bench {
        let Loaded { text, parsed } = loaded;
        let state_dir = dir.path().join("state");
        std::fs::create_dir_all(&state_dir).unwrap();
        let config = Arc::new(parsed.config);
        let certs = CertStore::load(&config, &state_dir).unwrap_or_else(|problems| panic!("{problems:?}"));
        let certs = CertStore::new(certs, relais_tls::Tickets::new(&[], Box::new(|_| ())));
        let (events, reported) = mpsc::channel(64);
        let (changed, watched) = watch::channel(0);
        let (hooks, hooked) = hooks();
        let levels = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&levels);
        let store = Arc::new(Store::memory());
        let anchor = Anchor::new(Instant::now(), SystemTime::now());
        let setup = Setup {
            config_path: Some(path),
            text,
            config,
            warnings: parsed.warnings,
            files: parsed.files,
            store: Arc::clone(&store),
            certs: Arc::clone(&certs),
            damaged: Vec::new(),
            keep_files: Box::new(drop),
            state_dir,
            changed,
            events: reported,
            anchor,
            listeners: hooks,
            set_log_level: Box::new(move |level| match level {
                "nonsense" => Err("`nonsense` is no level".to_string()),
                level => {
                    told.lock().unwrap().push(level.to_string());
                    Ok(())
                }
            }),
            log_lines_dropped: Some(Box::new(|| 3)),
            most_probes: 256,
            upgrades: None,
            admin_socket: dir.path().join("run/admin.sock"),
        };
        let (mut control, snapshot) = Control::new(setup, anchor.at(Instant::now()));
        let handle = control.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        let (drained, workers_gone) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            control.run(async { drop(stopped.await) }).await;
            control.run(async { drop(workers_gone.await) }).await;
            control.close().await;
        });
        Bench {
            dir,
            handle,
            snapshot,
            changed: watched,
            events,
            hooked,
            levels,
            certs,
            store,
            stop: Some(stop),
            drained: Some(drained),
            task,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("proxy.toml")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/admin.sock")
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    pub(crate) async fn status(&self) -> Status {
        self.handle.status().await.unwrap()
    }

    /// Waits until the status says so, and returns it.
    pub(crate) async fn until(&self, what: &str, says: impl Fn(&Status) -> bool) -> Status {
        eventually(what, async || {
            let status = self.status().await;
            says(&status).then_some(status)
        })
        .await
    }

    /// The services in force, by name.
    pub(crate) fn services(&self) -> Vec<String> {
        self.snapshot.load().config.services.iter().map(|service| service.name.to_string()).collect()
    }

    /// Stops and waits for the end.
    pub(crate) async fn stop(mut self) -> TempDir {
        drop(self.stop.take());
        drop(self.drained.take());
        tokio::time::timeout(DEADLINE, &mut self.task).await.expect("control ends").unwrap();
        self.dir
    }

    /// Lets the drain end, after something else caused a stop, and waits for the end.
    pub(crate) async fn ended(mut self) {
        drop(self.drained.take());
        tokio::time::timeout(DEADLINE, &mut self.task).await.expect("control ends").unwrap();
    }

    /// One request on the admin socket, as bytes; status and body of the answer.
    pub(crate) async fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let stream =
            eventually("the admin socket answers", async || UnixStream::connect(self.socket()).await.ok()).await;
        converse(stream, method, target, body).await
    }
}

/// A loopback address no other test uses, and no connection leaves from: a port that was free there a moment ago still is.
pub(crate) fn own_ip() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let pid = std::process::id();
    let byte = |value: u32| u8::try_from(value % 200).unwrap() + 20;
    IpAddr::V4(Ipv4Addr::new(127, byte(pid), byte(pid / 200), NEXT.fetch_add(1, Relaxed)))
}

/// Waits until `look` finds something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not seen in {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One HTTP/1.1 exchange over any stream.
pub(crate) async fn converse(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    method: &str,
    target: &str,
    body: &str,
) -> (u16, String) {
    let length = body.len();
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: relais\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let code = answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{answer}"));
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string()).unwrap_or_default();
    (code, body)
}

/// The first probe of the first backend; `None`: none yet. One that a busy machine left unwatched says nothing.
pub(crate) fn probed(status: &Status) -> Option<&ProbeReport> {
    let backend = status.report.services.first()?.backends.first()?;
    backend.probes.iter().find(|probe| probe.fault != Some(Fault::Unwatched))
}

/// What it came to.
pub(crate) fn result(probe: &ProbeReport) -> Result<(), Fault> {
    probe.fault.map_or(Ok(()), Err)
}

fn hooks() -> (ListenerHooks, Arc<Mutex<Vec<Hooked>>>) {
    let hooked = Arc::new(Mutex::new(Vec::new()));
    let tell = |what: Hooked| {
        let hooked = Arc::clone(&hooked);
        move || hooked.lock().unwrap().push(what.clone())
    };
    let (prepared, committed, abandoned) = (tell(Hooked::Prepared), tell(Hooked::Committed), tell(Hooked::Abandoned));
    let hooks = ListenerHooks {
        prepare: Box::new(move |config| {
            prepared();
            match config.listeners.iter().find(|listener| listener.name == TAKEN) {
                Some(listener) => Err(vec![format!("{} is in use", listener.addresses[0])]),
                None => Ok(()),
            }
        }),
        commit: Box::new(move |_| committed()),
        abandon: Box::new(abandoned),
    };
    (hooks, hooked)
}
