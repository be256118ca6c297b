//! Backends that die (SIGKILL) and hang (SIGSTOP) under load: who asked what may be repeated never notices, and nothing
//! is executed twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use crate::load::{Connections, Load};
use crate::support::edge::{Edge, Setup};
use crate::support::h2::Client;
use crate::support::process::Process;
use crate::support::raw::{Addressed, Plain};
use crate::support::wire::{get, ok, post};
use crate::support::{free_address, wait_for, websocket};

/// Two sites, two backends each. The contract is long: on a busy machine no check of a living backend is late then.
fn two_sites(backends: &[&Process; 4]) -> Edge {
    let [a, b, c, d] = backends.map(|backend| backend.address());
    Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nfailover_within = \"3s\"\n\
         [service.web.backends]\ndijon = [\"{a}\", \"{b}\"]\nthory = [\"{c}\", \"{d}\"]\n"
    ))
    .start()
}

#[track_caller]
fn nobody_failed(load: Load) {
    let tally = load.stop();
    assert!(
        tally.bad.is_empty(),
        "{} of {} failed: {:?}",
        tally.bad.len(),
        tally.good,
        &tally.bad[..tally.bad.len().min(5)]
    );
}

fn all_up(edge: &Edge, backends: &[&Process]) {
    for backend in backends {
        edge.wait_for_health(*backend, "up");
    }
}

#[test]
fn killed_backends_and_sites_fail_nobody() {
    let (mut a, mut b, c, d) = (Process::start(), Process::start(), Process::start(), Process::start());
    let edge = two_sites(&[&a, &b, &c, &d]);
    all_up(&edge, &[&a, &b, &c, &d]);
    let load = Load::start(edge.http(), 4, Connections::Kept, get);
    load.go_on_for(300);
    assert!(c.executed().is_empty() && d.executed().is_empty(), "the other tier rests");
    a.kill();
    load.go_on_for(300);
    b.kill();
    edge.wait_for_health(&b, "down");
    let before = c.executed().len() + d.executed().len();
    load.go_on_for(300);
    assert!(c.executed().len() + d.executed().len() > before, "the other site serves");
    // And back: when the first site has returned, it is asked again.
    a.again();
    b.again();
    edge.wait_for_health(&a, "up");
    let before = a.executed().len();
    wait_for("the first site serves again", || a.executed().len() > before + 50);
    nobody_failed(load);
}

#[test]
fn a_hanging_backend_fails_nobody() {
    let (a, b, c, d) = (Process::start(), Process::start(), Process::start(), Process::start());
    let edge = two_sites(&[&a, &b, &c, &d]);
    all_up(&edge, &[&a, &b, &c, &d]);
    let load = Load::start(edge.http(), 4, Connections::Kept, get);
    load.go_on_for(200);
    a.stop();
    edge.wait_for_health(&a, "down");
    load.go_on_for(200);
    b.stop();
    edge.wait_for_health(&b, "down");
    load.go_on_for(200);
    a.resume();
    b.resume();
    edge.wait_for_health(&a, "up");
    load.go_on_for(200);
    nobody_failed(load);
}

#[test]
fn no_post_is_executed_twice_whatever_dies() {
    let (mut a, b, c, d) = (Process::start(), Process::start(), Process::start(), Process::start());
    let edge = two_sites(&[&a, &b, &c, &d]);
    all_up(&edge, &[&a, &b, &c, &d]);
    let load = Load::start(edge.http(), 4, Connections::Kept, |path| post(path, "pay"));
    load.go_on_for(200);
    a.kill();
    load.go_on_for(200);
    b.stop();
    edge.wait_for_health(&b, "down");
    load.go_on_for(200);
    a.again();
    b.resume();
    edge.wait_for_health(&b, "up");
    load.go_on_for(200);
    let tally = load.stop();
    // What a hanging backend had received is answered 502 or 504: a few, never repeated.
    assert!(tally.bad.iter().all(|what| what.ends_with("502") || what.ends_with("504")), "{:?}", tally.bad);
    assert!(tally.bad.len() < 50, "{} failed", tally.bad.len());
    let executed: Vec<String> = [&a, &b, &c, &d].iter().flat_map(|backend| backend.executed()).collect();
    let different: HashSet<&String> = executed.iter().collect();
    assert_eq!(different.len(), executed.len(), "executed twice");
    assert!(executed.len() >= tally.good, "every good answer was executed");
}

#[test]
fn http2_clients_do_not_notice_a_dead_backend() {
    use crate::support::tools::{h2load, have};
    if !have("h2load", "nghttp2-client") {
        return;
    }
    let (mut a, b) = (Process::start(), Process::start());
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nbackends = [\"{}\", \"{}\"]\n",
        a.address(),
        b.address()
    ))
    .start();
    all_up(&edge, &[&a, &b]);
    let url = format!("http://{}/", edge.http());
    let load = std::thread::spawn(move || h2load(&["-n", "4000", "-c", "4", "-m", "10", &url]));
    wait_for("the load has begun", || a.executed().len() > 50);
    a.kill();
    let (succeeded, failed, good) = load.join().unwrap();
    assert_eq!((succeeded, failed, good), (4000, 0, 4000));
}

/// The client of a WebSocket on an HTTP/2 stream is told to come back, and its connection takes it to where it is served.
#[test]
fn websockets_over_http2_of_a_dead_a_hanging_or_a_cut_site_are_told() {
    for (how, cut) in [("killed", "backend_broke_off"), ("stopped", "backend_down"), ("drilled", "backend_dead")] {
        let (mut a, b) = (Process::start(), Process::start());
        let edge = Setup::services(&format!(
            "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\n\
             failover_within = \"3s\"\n[service.web.backends]\ndijon = [\"{}\"]\nthory = [\"{}\"]\n",
            a.address(),
            b.address()
        ))
        .start();
        all_up(&edge, &[&a, &b]);
        let client = Client::plain(edge.http());
        let mut call = websocket::start(&client, "/chat");
        assert_eq!(call.head().status(), 200);
        assert_eq!(call.bytes(4), b"\x81\x02hi");
        call.send(b"\x81\x82\0\0\0\0on", false);
        assert_eq!(call.bytes(8), b"\x81\x82\0\0\0\0on", "the echo");
        std::thread::scope(|scope| {
            match how {
                "killed" => a.kill(),
                "stopped" => a.stop(),
                _ => drop(scope.spawn(|| edge.cli(&["drill", "site", "dijon", "--for", "8s"]))),
            }
            assert_eq!(call.finish().unwrap().0, websocket::TOLD, "{how}");
            call.send(b"", true);
            let mut again = websocket::start(&client, "/again");
            assert_eq!(again.head().status(), 200);
            assert_eq!(again.bytes(4), b"\x81\x02hi");
            assert_eq!(edge.access_to("/chat")["cut"], cut, "{how}");
            again.reset();
            assert_eq!(edge.access_to("/again")["site"], "thory");
        });
    }
}

#[test]
fn a_request_that_comes_while_nobody_is_there_waits_for_a_return() {
    let mut backend = Process::start();
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nqueue_timeout = \"15s\"\nbackends = [\"{}\"]\n",
        backend.address()
    ))
    .start();
    edge.wait_for_health(&backend, "up");
    backend.kill();
    edge.wait_for_health(&backend, "down");
    let mut client = edge.connect();
    client.send(get("/patient"));
    wait_for("the request waits", || edge.sample("relais_requests_inflight", &[]) == 1.0);
    backend.again();
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn a_request_that_was_lost_with_the_last_backend_waits_for_a_return_too() {
    let backend = Process::start();
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nfailover_within = \"3s\"\nqueue_timeout = \"30s\"\n\
         backends = [\"{}\"]\n",
        backend.address()
    ))
    .start();
    edge.wait_for_health(&backend, "up");
    assert_eq!(edge.connect().ask(get("/before")).status(), 200);
    backend.stop();
    let (mut patient, mut told) = (edge.connect(), edge.connect());
    patient.send(get("/patient"));
    told.send(post("/told", "x"));
    edge.wait_for_health(&backend, "down");
    let answer = told.answer();
    assert_eq!(answer.status(), 504, "it may have been received: {}", answer.text());
    backend.resume();
    assert_eq!(patient.answer().status(), 200);
    let executed = backend.executed();
    assert!(executed.iter().filter(|line| line.contains("/told")).count() <= 1, "{executed:?}");
}

#[test]
fn a_new_backend_is_asked_as_soon_as_it_was_probed() {
    let backend = Plain::saying("x");
    let services = format!("[service.web]\nhosts = [\"*\"]\nhealth = \"/\"\nbackends = [\"{}\"]\n", backend.address());
    // The very first request, before any probe can have come back, is served and not answered 503.
    for _ in 0..3 {
        let edge = Setup::services(&services).start();
        assert_eq!(edge.connect().ask(get("/first")).status(), 200);
    }
}

#[test]
fn a_check_that_fails_takes_a_backend_out_and_says_why() {
    let sick = Plain::new(|request| {
        let status = if request.head.target() == "/health" { "500 Sick" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let good = Plain::saying("x");
    let services = format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nbackends = [\"{}\", \"{}\"]\n",
        sick.address(),
        good.address()
    );
    let edge = Setup::services(&services).start();
    edge.wait_for_health(&sick, "down");
    let why = edge.backend(&sick)["why"].as_str().unwrap().to_owned();
    assert!(why.contains("500"), "{why}");
    edge.line("the transition is logged with its evidence", |line| {
        line["backend"] == sick.address().as_str() && line["to"] == "down" && line["why"].to_string().contains("500")
    });
    let requests = |backend: &Plain| backend.seen().iter().filter(|seen| seen.head.target() == "/real").count();
    let before = requests(&sick);
    for _ in 0..20 {
        assert_eq!(edge.connect().ask(get("/real")).status(), 200);
    }
    assert_eq!(requests(&sick), before);
    assert_eq!(edge.cli(&["status"]).0, Some(4), "degraded");
}

#[test]
fn a_probe_asks_as_it_was_told() {
    let backend = Plain::new(|_| b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
    let dead = free_address();
    let services = format!(
        "[service.web]\nhosts = [\"web.test\"]\nbackends = [\"{}\", \"{dead}\"]\n[service.web.health]\npath = \"/up?deep=1\"\n\
         method = \"HEAD\"\nhost = \"probe.test\"\nstatus = 204\nheaders = {{ X-Probe = \"relais\" }}\n",
        backend.address()
    );
    let edge = Setup::services(&services).start();
    edge.wait_for_health(&backend, "up");
    edge.wait_for_health(&dead, "down");
    let probe = &backend.seen()[0].head;
    assert_eq!(probe.start, "HEAD /up?deep=1 HTTP/1.1");
    assert_eq!((probe.get("host"), probe.get("x-probe")), (Some("probe.test"), Some("relais")));
}

/// Without a word more, requests are answered 503 and told when to come again.
#[test]
fn a_service_that_fails_open_is_asked_although_every_check_fails() {
    for (word, status) in [("fail_open = true", 200), ("", 503)] {
        let sick = Plain::new(|request| {
            let status = if request.head.target() == "/health" { "503 Sick" } else { "200 OK" };
            format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
        });
        let edge = Setup::services(&format!(
            "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nqueue_timeout = \"100ms\"\n{word}\nbackends = [\"{}\"]\n",
            sick.address()
        ))
        .start();
        edge.wait_for_health(&sick, "down");
        let answer = edge.connect().ask(get("/"));
        assert_eq!(answer.status(), status);
        assert_eq!(answer.get("retry-after").is_some(), status == 503);
    }
}

/// What a release with a broken health page does to a service nobody asks just then.
#[test]
fn a_working_service_whose_checks_all_fail_is_served_though_nobody_asked_for_long() {
    let broken = Arc::new(AtomicBool::new(false));
    let sick = |broken: &Arc<AtomicBool>| {
        let broken = Arc::clone(broken);
        Plain::new(move |request| match request.head.target() {
            "/health" if broken.load(Relaxed) => b"HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n".to_vec(),
            _ => ok("x").into_bytes(),
        })
    };
    let (one, two) = (sick(&broken), sick(&broken));
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nfailover_within = \"3s\"\nqueue_timeout = \"15s\"\n\
         backends = [\"{}\", \"{}\"]\n",
        one.address(),
        two.address()
    ))
    .start();
    [&one, &two].iter().for_each(|backend| edge.wait_for_health(*backend, "up"));
    broken.store(true, Relaxed);
    [&one, &two].iter().for_each(|backend| edge.wait_for_health(*backend, "down"));
    edge.line("the log says so", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("requests try them"))
    });
    let why = || edge.backend(&one)["why"].as_str().unwrap().to_owned();
    wait_for("so does status", || why().contains("answered 500") && why().contains("requests try it"));
    // Many at once: one shows that it works, the others wait for that.
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = edge.connect();
            std::thread::spawn(move || client.ask(get("/")).status())
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), 200);
    }
    edge.line("the log says what that shows", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("the checks are not believed"))
    });
    for backend in [&one, &two] {
        edge.wait_for_health(backend, "up");
        wait_for("status says why", || edge.backend(backend)["why"].as_str().unwrap().contains("requests succeed"));
    }
    for _ in 0..20 {
        assert_eq!(edge.connect().ask(get("/")).status(), 200);
    }
    broken.store(false, Relaxed);
    edge.line("and when they pass", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("believed again"))
    });
}

/// Nothing but a few of the requests reaches a service that is as broken as its checks say.
#[test]
fn a_broken_service_is_hardly_asked_and_its_return_is_seen() {
    let broken = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let backend = {
        let (broken, asked) = (Arc::clone(&broken), Arc::clone(&asked));
        Plain::new(move |request| {
            let real = request.head.target() != "/health";
            if !broken.load(Relaxed) {
                return ok("x").into_bytes();
            }
            asked.fetch_add(usize::from(real), Relaxed);
            b"HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n".to_vec()
        })
    };
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nfailover_within = \"5s\"\nqueue_timeout = \"50ms\"\n\
         backends = [\"{}\"]\n",
        backend.address()
    ))
    .start();
    edge.wait_for_health(&backend, "up");
    broken.store(true, Relaxed);
    edge.wait_for_health(&backend, "down");
    let began = Instant::now();
    // All at once, and each needs a connection of its own first.
    let burst: Vec<_> = (0..40)
        .map(|_| {
            let mut client = edge.connect();
            std::thread::spawn(move || client.ask(post("/", "x")).status())
        })
        .collect();
    let burst: Vec<u16> = burst.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(burst.iter().all(|status| [500, 503].contains(status)), "{burst:?}");
    let mut refused = 0;
    for _ in 0..40 {
        let answer = edge.connect().ask(get("/"));
        match answer.status() {
            500 => {}
            503 => {
                refused += 1;
                assert!(answer.get("retry-after").is_some(), "{}", answer.head.raw);
            }
            other => panic!("{other}"),
        }
    }
    let contracts = began.elapsed().as_secs() as usize / 5;
    // A busy edge may hear late of the one that failed, and let a few more in.
    assert!(asked.load(Relaxed) <= 10 + contracts, "{} in {contracts} contracts", asked.load(Relaxed));
    assert!(refused > 0);
    broken.store(false, Relaxed);
    edge.wait_for_health(&backend, "up");
    assert_eq!(edge.connect().ask(get("/")).status(), 200);
}

/// Their kernels take connections, and nobody answers: each is given some time, not that of a healthy one (a minute).
#[test]
fn a_request_that_fails_open_does_not_wait_for_ever_at_backends_that_hang() {
    let (one, two) = (Process::start(), Process::start());
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nfail_open = true\nfailover_within = \"300ms\"\n\
         backends = [\"{}\", \"{}\"]\n",
        one.address(),
        two.address()
    ))
    .start();
    all_up(&edge, &[&one, &two]);
    [&one, &two].iter().for_each(|backend| backend.stop());
    [&one, &two].iter().for_each(|backend| edge.wait_for_health(*backend, "down"));
    let answer = edge.connect().ask(get("/"));
    assert_eq!(answer.status(), 504, "{}", answer.head.raw);
    assert!(answer.get("retry-after").is_some(), "{}", answer.head.raw);
    [&one, &two].iter().for_each(|backend| backend.resume());
    all_up(&edge, &[&one, &two]);
    assert_eq!(edge.connect().ask(get("/")).status(), 200);
}
