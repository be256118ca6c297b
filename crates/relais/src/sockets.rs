//! The listening sockets of the process, and the difference a new config makes to them.
//!
//! A socket that stays is never closed: closing one of several `SO_REUSEPORT` sockets resets the clients that wait in
//! its queue. When only its listener's meaning changes, workers get a duplicate of the same socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use relais_control::ListenerHooks;
use relais_core::config::{Config, Listener, ListenerProtocol};
use relais_proxy::WorkerOrder;
use tokio::sync::mpsc::UnboundedSender;

use crate::bind::{self, BindError, Group};
use crate::edge::LocalAddress;
use crate::inherited::Inherited;

/// The sockets as control's hooks, the drain and the owner of the edge reach them.
#[derive(Debug, Clone)]
pub(crate) struct SharedSockets(Arc<Mutex<Sockets>>);

impl SharedSockets {
    /// None is open yet; `workers` are told what to do, one channel each. What is `inherited` is not bound again.
    pub(crate) fn new(workers: Vec<UnboundedSender<WorkerOrder>>, inherited: Inherited) -> Self {
        let sockets = Sockets { workers, inherited, open: Vec::new(), prepared: None, closed: Vec::new() };
        Self(Arc::new(Mutex::new(sockets)))
    }

    /// The hooks control applies a new config with.
    pub(crate) fn hooks(&self) -> ListenerHooks {
        let (prepare, commit, abandon) = (self.clone(), self.clone(), self.clone());
        ListenerHooks {
            prepare: Box::new(move |config| prepare.lock().prepare(config)),
            commit: Box::new(move |_| commit.lock().commit()),
            abandon: Box::new(move || abandon.lock().abandon()),
        }
    }

    /// Lets go of every socket: when the workers have let go too, nothing is accepted any more.
    pub(crate) fn release(&self) {
        let mut sockets = self.lock();
        sockets.abandon();
        sockets.open.clear();
    }

    /// Another process accepts on the same sockets from now on.
    pub(crate) fn leave(&self) {
        let mut sockets = self.lock();
        for worker in &sockets.workers {
            // One that is gone has left.
            let _ = worker.send(WorkerOrder::Leave);
        }
        sockets.open.clear();
    }

    /// For one change or one look.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Sockets> {
        // Every change leaves the list whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All listening sockets; each is held here as well as by its worker, so that a reload can hand it on.
#[derive(Debug)]
pub(crate) struct Sockets {
    workers: Vec<UnboundedSender<WorkerOrder>>,
    inherited: Inherited,
    open: Vec<Open>,
    prepared: Option<Prepared>,
    /// Closed a moment ago: workers may still hold their sockets.
    closed: Vec<(SocketAddr, Instant)>,
}

/// What a commit will do, with everything that can fail done.
#[derive(Debug)]
struct Prepared {
    next: Vec<Open>,
    /// The workers' duplicates of each socket; none where workers need not hear of it. Made before anything changes: a
    /// socket in its group that nobody accepts on would hold its share of the clients for ever.
    handed: Vec<Vec<TcpListener>>,
}

/// How long a worker may take to close a socket it was told to close.
const CLOSING: Duration = Duration::from_secs(5);

/// One address of one listener.
#[derive(Debug, Clone)]
struct Open {
    /// As workers were told it.
    listener: Arc<Listener>,
    /// As in the file; its port may be 0.
    declared: SocketAddr,
    group: Arc<Group>,
}

impl Sockets {
    /// Binds what `config` adds. Nothing accepts there yet.
    ///
    /// # Errors
    /// All addresses that could not be bound, a sentence each, and the ways out. What was bound is dropped then.
    pub(crate) fn prepare(&mut self, config: &Config) -> Result<(), Vec<String>> {
        self.prepared = None;
        let mut next: Vec<Open> = Vec::new();
        let (mut problems, mut ways_out) = (Vec::new(), Vec::new());
        let named: Vec<SocketAddr> = config.listeners.iter().flat_map(|listener| listener.addresses.clone()).collect();
        for listener in &config.listeners {
            for &declared in &listener.addresses {
                match self.group_for(listener, declared, &named, &next) {
                    Ok(Some(group)) => next.push(Open { listener: Arc::clone(listener), declared, group }),
                    Ok(None) => {}
                    Err(error) => {
                        problems.push(format!("listener `{}`: {error}", listener.name));
                        // Four addresses without permission have one way out.
                        let help = error.help().map(|help| format!("help: {help}"));
                        ways_out.extend(help.filter(|help| !ways_out.contains(help)));
                    }
                }
            }
        }
        if !problems.is_empty() {
            problems.extend(ways_out);
            return Err(problems);
        }
        fill_redirects(&mut next);
        let handed =
            next.iter().map(|open| self.duplicates(open)).collect::<Result<_, _>>().map_err(|problem| vec![problem])?;
        self.prepared = Some(Prepared { next, handed });
        Ok(())
    }

    /// Duplicates of a socket for all workers, if they shall hear of it.
    fn duplicates(&self, open: &Open) -> Result<Vec<TcpListener>, String> {
        if self.open.iter().any(|old| old.is_same_as(open)) {
            return Ok(Vec::new());
        }
        let duplicates = open.group.sockets.iter().map(TcpListener::try_clone).collect::<Result<_, _>>();
        duplicates.map_err(|error| {
            let (name, address) = (&open.listener.name, open.group.local);
            format!("listener `{name}`: the workers cannot be given {address}: {error}; raise the file descriptor limit (`LimitNOFILE=`)")
        })
    }

    /// The socket that serves this address already, or a new one; `None`: left out for want of IPv6.
    fn group_for(
        &mut self,
        listener: &Listener,
        declared: SocketAddr,
        named: &[SocketAddr],
        next: &[Open],
    ) -> Result<Option<Arc<Group>>, BindError> {
        let mut taken = self.open.iter().filter(|open| !next.iter().any(|n| Arc::ptr_eq(&n.group, &open.group)));
        // Port 0 is "any": only the listener's own name says which of them it was.
        if let Some(open) = taken
            .find(|open| open.declared == declared && (declared.port() != 0 || open.listener.name == listener.name))
        {
            return Ok(Some(Arc::clone(&open.group)));
        }
        let given = self.inherited.take(declared, |held| named.contains(&held));
        if !given.is_empty() {
            return bind::given(declared, given, self.workers.len()).map(|group| Some(Arc::new(group)));
        }
        let closing = self.closed.iter().filter(|(_, at)| at.elapsed() < CLOSING).map(|(address, _)| *address);
        let ours = self.open.iter().map(|open| open.group.local).chain(closing).any(|held| overlap(held, declared));
        match bind::group(declared, self.workers.len(), ours) {
            Ok(group) => Ok(Some(Arc::new(group))),
            Err(error) if error.is_missing_family() && has_ipv4_twin(listener, declared) => {
                tracing::warn!(listener = listener.name, address = %declared, "no IPv6 here, going on with IPv4: {error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Starts what `prepare` bound and closes what the config no longer names.
    pub(crate) fn commit(&mut self) {
        let Some(Prepared { next, handed }) = self.prepared.take() else { return };
        for open in &self.open {
            let kept = next.iter().any(|n| n.is_same_as(open));
            if !kept {
                self.tell_close(open);
            }
        }
        for (open, handed) in next.iter().zip(handed) {
            for (worker, socket) in self.workers.iter().cycle().zip(handed) {
                let _ = worker.send(WorkerOrder::Listen { socket, listener: Arc::clone(&open.listener) });
            }
        }
        let gone = self.open.iter().map(|open| open.group.local);
        let gone = gone.filter(|local| !next.iter().any(|open| open.group.local == *local));
        self.closed.retain(|(_, at)| at.elapsed() < CLOSING);
        self.closed.extend(gone.map(|local| (local, Instant::now())));
        self.open = next;
        self.inherited.close();
    }

    /// All sockets once more, to be given to another process.
    pub(crate) fn copies(&self) -> io::Result<Vec<TcpListener>> {
        self.open.iter().flat_map(|open| &open.group.sockets).map(TcpListener::try_clone).collect()
    }

    /// Drops what `prepare` bound.
    pub(crate) fn abandon(&mut self) {
        self.prepared = None;
    }

    /// What is accepted on, in file order.
    pub(crate) fn local_addresses(&self) -> Vec<LocalAddress> {
        let one = |open: &Open| LocalAddress {
            listener: open.listener.name.clone(),
            protocol: open.listener.protocol,
            address: open.group.local,
        };
        self.open.iter().map(one).collect()
    }

    fn tell_close(&self, open: &Open) {
        for worker in &self.workers {
            let order = WorkerOrder::Close { listener: open.listener.name.clone(), address: open.group.local };
            // A worker that is gone has closed its sockets.
            let _ = worker.send(order);
        }
    }
}

impl Open {
    /// The same socket with the same meaning: workers need not hear of it.
    fn is_same_as(&self, other: &Open) -> bool {
        Arc::ptr_eq(&self.group, &other.group)
            && self.listener.name == other.listener.name
            && self.listener.protocol == other.listener.protocol
            && self.listener.redirect_to == other.listener.redirect_to
    }
}

/// A redirect to port 0 means the HTTPS listener's port, which is known only now.
fn fill_redirects(next: &mut [Open]) {
    let https = next.iter().find(|open| open.listener.protocol == ListenerProtocol::Https);
    let Some(port) = https.map(|open| open.group.local.port()) else { return };
    for open in next {
        if open.listener.redirect_to == Some(0) {
            open.listener = Arc::new(Listener { redirect_to: Some(port), ..Listener::clone(&open.listener) });
        }
    }
}

/// Whether both could not be bound by two programs.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// `":443"` in the file gives both families.
fn has_ipv4_twin(listener: &Listener, declared: SocketAddr) -> bool {
    declared.ip().is_unspecified()
        && listener.addresses.iter().any(|a| a.is_ipv4() && a.ip().is_unspecified() && a.port() == declared.port())
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    struct Bench {
        sockets: SharedSockets,
        inboxes: Vec<UnboundedReceiver<WorkerOrder>>,
    }

    impl Bench {
        fn new() -> Self {
            let (orders, inboxes) = (0..2).map(|_| unbounded_channel()).unzip();
            Self { sockets: SharedSockets::new(orders, Inherited::default()), inboxes }
        }

        /// Applies a config with these listeners (name, address, more keys); gives what each worker was told.
        fn apply(&mut self, listeners: &[(&str, &str, &str)]) -> Vec<Vec<String>> {
            self.sockets.lock().prepare(&config(listeners)).unwrap();
            self.sockets.lock().commit();
            let told = |inbox: &mut UnboundedReceiver<WorkerOrder>| {
                std::iter::from_fn(|| inbox.try_recv().ok()).map(|order| words(&order)).collect()
            };
            self.inboxes.iter_mut().map(told).collect()
        }

        fn address(&self, listener: &str) -> SocketAddr {
            let all = self.sockets.lock().local_addresses();
            all.into_iter().find(|at| at.listener == listener).unwrap().address
        }
    }

    fn words(order: &WorkerOrder) -> String {
        match order {
            WorkerOrder::Listen { socket, listener } => {
                format!("listen {} {} {:?}", listener.name, socket.local_addr().unwrap(), listener.redirect_to)
            }
            WorkerOrder::Close { listener, address } => format!("close {listener} {address}"),
            WorkerOrder::Leave => "leave".to_owned(),
            WorkerOrder::Stop => "stop".to_owned(),
        }
    }

    fn config(listeners: &[(&str, &str, &str)]) -> Config {
        let mut text = String::from("[service.a]\nhosts = [\"a.example\"]\nbackends = [\"127.0.0.1:9\"]\n");
        for (name, address, more) in listeners {
            text.push_str(&format!("[listener.{name}]\naddress = \"{address}\"\n{more}\n"));
        }
        relais_control::parse("test", &text).unwrap_or_else(|errors| panic!("{errors}")).config
    }

    // Where a port must still be free a moment later, the address is the test's own: no connection leaves from it.
    const PLAIN: &str = "protocol = \"http\"\nredirect = false";
    const TLS: &str = "protocol = \"https\"";

    #[test]
    fn every_worker_hears_of_a_new_address_and_a_reload_without_difference_is_silent() {
        let mut bench = Bench::new();
        let told = bench.apply(&[("web", "127.0.0.1:0", PLAIN)]);
        let address = bench.address("web");
        assert_eq!(told, vec![vec![format!("listen web {address} None")]; 2]);
        let told = bench.apply(&[("web", "127.0.0.1:0", PLAIN)]);
        assert_eq!(told, vec![Vec::<String>::new(); 2], "port 0 keeps the port it got");
        assert_eq!(bench.address("web"), address);
    }

    #[test]
    fn a_removed_address_is_closed_and_its_port_is_free_again() {
        let mut bench = Bench::new();
        bench.apply(&[("web", "127.0.7.1:0", PLAIN), ("old", "127.0.7.1:0", PLAIN)]);
        let old = bench.address("old");
        let told = bench.apply(&[("web", "127.0.7.1:0", PLAIN)]);
        assert_eq!(told, vec![vec![format!("close old {old}")]; 2]);
        assert!(TcpListener::bind(old).is_ok(), "nobody holds it any more");
    }

    #[test]
    fn an_address_may_come_back_before_the_workers_have_closed_it() {
        let mut bench = Bench::new();
        bench.apply(&[("web", "127.0.7.2:0", PLAIN), ("old", "127.0.7.2:0", PLAIN)]);
        let address = bench.address("old");
        let held = bench.sockets.lock().open[1].group.sockets[0].try_clone().unwrap();
        bench.apply(&[("web", "127.0.7.2:0", PLAIN)]);
        bench.apply(&[("web", "127.0.7.2:0", PLAIN), ("old", &address.to_string(), PLAIN)]);
        assert_eq!(bench.address("old"), address);
        drop(held);
    }

    #[test]
    fn a_changed_meaning_keeps_the_socket() {
        let mut bench = Bench::new();
        bench.apply(&[("web", "127.0.0.1:0", PLAIN)]);
        let address = bench.address("web");
        let waiting = std::net::TcpStream::connect(address).unwrap();
        let told = bench.apply(&[("web", "127.0.0.1:0", TLS)]);
        assert_eq!(told, vec![vec![format!("close web {address}"), format!("listen web {address} None")]; 2]);
        waiting.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
        let error = std::io::Read::read(&mut &waiting, &mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "a client in the queue is not reset");
    }

    #[test]
    fn a_redirect_to_port_0_means_the_real_port() {
        let mut bench = Bench::new();
        let http = "protocol = \"http\"\nredirect = true";
        let told = bench.apply(&[("http", "127.0.0.1:0", http), ("https", "127.0.0.1:0", TLS)]);
        let (http, https) = (bench.address("http"), bench.address("https"));
        assert_eq!(told[0][0], format!("listen http {http} Some({})", https.port()));
    }

    #[test]
    fn all_addresses_in_use_are_told_at_once_and_nothing_changes() {
        let mut bench = Bench::new();
        bench.apply(&[("web", "127.0.0.1:0", PLAIN)]);
        let before = bench.sockets.lock().local_addresses();
        let (one, two) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let taken = [&one, &two].map(|socket| socket.local_addr().unwrap().to_string());
        let next = config(&[("a", &taken[0], PLAIN), ("new", "127.0.0.1:0", PLAIN), ("b", &taken[1], PLAIN)]);
        let problems = bench.sockets.lock().prepare(&next).unwrap_err();
        let (told, helps): (Vec<String>, Vec<String>) =
            problems.into_iter().partition(|line| !line.starts_with("help: "));
        assert_eq!((told.len(), helps.len()), (2, 2), "{told:?} {helps:?}");
        let problems = told;
        assert!(problems[1].starts_with("listener `b`") && problems[1].contains(&taken[1]), "{problems:?}");
        bench.sockets.lock().commit();
        assert_eq!(bench.sockets.lock().local_addresses(), before);
    }

    #[test]
    fn an_address_may_narrow_in_one_reload() {
        let mut bench = Bench::new();
        bench.apply(&[("web", "0.0.0.0:0", PLAIN)]);
        let narrow = format!("127.0.0.1:{}", bench.address("web").port());
        bench.apply(&[("web", &narrow, PLAIN)]);
        assert_eq!(bench.address("web").to_string(), narrow);
    }

    #[test]
    fn only_an_address_with_an_ipv4_twin_may_be_left_out_for_want_of_ipv6() {
        let config = config(&[("dual", ":8443", TLS), ("six", "[::1]:8444", TLS)]);
        let [dual, six] = &config.listeners[..] else { panic!("two listeners") };
        let of_six = |listener: &Listener| *listener.addresses.iter().find(|address| address.is_ipv6()).unwrap();
        assert!(has_ipv4_twin(dual, of_six(dual)));
        assert!(!has_ipv4_twin(six, of_six(six)));
    }

    #[test]
    fn after_release_nobody_holds_the_port() {
        let mut bench = Bench::new();
        bench.apply(&[("web", "127.0.7.3:0", PLAIN)]);
        let address = bench.address("web");
        bench.sockets.release();
        assert!(TcpListener::bind(address).is_ok());
    }
}
