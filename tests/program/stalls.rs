//! The edge itself is stopped (SIGSTOP) or starved while its backends are well: that must look like no dead site.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::load::{Connections, Load};
use crate::support::edge::{Edge, Setup, send_signal};
use crate::support::process::Process;
use crate::support::raw::Addressed;
use crate::support::wait_for;
use crate::support::wire::get;

/// Two services at one site and another, checked by a page and by a connect. A check has a second: the backends run beside
/// what starves the edge, and one that really answers late would rightly be called down.
fn edge(a: &Process, b: &Process) -> Edge {
    let (a, b) = (a.address(), b.address());
    Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 1\n[service.web]\nhosts = [\"*\"]\nfailover_within = \"5s\"\nhealth = \"/health\"\n\
         [service.web.backends]\ndijon = [\"{a}\"]\nthory = [\"{b}\"]\n\
         [service.raw]\nhosts = [\"raw.test\"]\nfailover_within = \"5s\"\n[service.raw.backends]\ndijon = [\"{a}\"]\nthory = [\"{b}\"]\n"
    ))
    .start()
}

fn checks(edge: &Edge) -> f64 {
    edge.sample("relais_probes_total", &["ok"])
}

#[track_caller]
fn nobody_was_called_down(edge: &Edge) {
    // What was judged wrongly would be judged by now: everybody was asked several times since.
    let before = checks(edge);
    wait_for("checks go on", || checks(edge) > before + 20.0);
    let log = edge.log();
    let down: Vec<&str> =
        log.lines().filter(|line| line.contains("backend down") || line.contains("site down")).collect();
    assert!(down.is_empty(), "{down:#?}");
}

#[test]
fn an_edge_that_was_stopped_for_seconds_calls_nobody_down_and_fails_no_request() {
    let (a, b) = (Process::start(), Process::start());
    let edge = edge(&a, &b);
    edge.wait_for_health(&a, "up");
    edge.wait_for_health(&b, "up");
    for connections in [Connections::Kept, Connections::Fresh] {
        let load = Load::start(edge.http(), 4, connections, get);
        load.go_on_for(100);
        for _ in 0..2 {
            send_signal("STOP", edge.pid());
            std::thread::sleep(Duration::from_secs(3));
            send_signal("CONT", edge.pid());
            load.go_on_for(100);
        }
        let tally = load.stop();
        assert!(tally.bad.is_empty(), "{} of {} failed: {:?}", tally.bad.len(), tally.good, tally.bad);
    }
    nobody_was_called_down(&edge);
}

/// Threads that only burn time.
struct Burners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burners {
    fn start(n: usize) -> Burners {
        let stop = Arc::new(AtomicBool::new(false));
        let burn = |stop: Arc<AtomicBool>| {
            move || {
                while !stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
            }
        };
        let threads = (0..n).map(|_| std::thread::spawn(burn(Arc::clone(&stop)))).collect();
        Burners { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn an_edge_that_gets_hardly_any_time_calls_nobody_down() {
    let (a, b) = (Process::start(), Process::start());
    let edge = edge(&a, &b);
    edge.wait_for_health(&a, "up");
    edge.wait_for_health(&b, "up");
    let threads = std::fs::read_dir(format!("/proc/{}/task", edge.pid())).unwrap();
    let threads: Vec<String> = threads.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let renice = Command::new("renice").args(["-n", "19", "-p"]).args(&threads).output().unwrap();
    assert!(renice.status.success(), "{renice:?}");
    let cores = std::thread::available_parallelism().unwrap().get();
    let burners = Burners::start(cores * 2);
    let before = checks(&edge);
    std::thread::sleep(Duration::from_secs(5));
    burners.stop();
    wait_for("checks went on", || checks(&edge) > before);
    nobody_was_called_down(&edge);
}
