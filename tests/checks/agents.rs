//! A program beside each backend that says how much it can take.

use std::io::Write;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::backend;
use crate::support::edge::Setup;
use crate::support::wire::get;
use crate::support::{keeping_up, own_ip, wait_for};

/// What an agent says next.
type Line = Arc<Mutex<&'static str>>;

fn agent(ip: IpAddr, port: u16) -> (u16, Line) {
    let listener = TcpListener::bind((ip, port)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let line: Line = Arc::new(Mutex::new("up 100%\n"));
    let says = Arc::clone(&line);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(says.lock().unwrap().as_bytes());
        }
    });
    (port, line)
}

/// A wrong port, or a program that speaks something else, must not look like an agent that has nothing to say.
#[test]
fn an_agent_that_is_not_heard_is_told() {
    // The interval is the deadline of a question, too.
    keeping_up(Duration::from_secs(1), || {
        let (here, there) = (own_ip(), own_ip());
        let (port, line) = agent(here, 0);
        let (first, second) = (backend(here, 0, "here"), backend(there, 0, "there"));
        let (first, second) = (format!("{here}:{first}"), format!("{there}:{second}"));
        *line.lock().unwrap() = "SSH-2.0-OpenSSH_9.2\n";
        let text = format!(
            "[service.web]\nhosts = [\"*\"]\nagent = {{ port = {port}, interval = \"2s\" }}\n\
             backends = [\"{first}\", \"{second}\"]\n"
        );
        let edge = Setup::services(&text).start();
        let said = "no word of an agent in `SSH-2.0-OpenSSH_9.2`";
        for (backend, why) in [(&first, said), (&second, "connection refused")] {
            let told = edge.line("nobody is heard", |line| line["backend"] == backend.as_str() && line["why"] == why);
            assert_eq!(
                (&told["level"], &told["message"]),
                (&"WARN".into(), &format!("no agent is heard: {why}").into())
            );
            edge.wait_for_health(backend, "up");
            let shown = format!("its agent is not heard ({why})");
            wait_for("the status has it", || edge.cli(&["status"]).1.contains(&shown));
        }
        *line.lock().unwrap() = "up 100%\n";
        edge.line("it is heard again", |line| {
            line["backend"] == first.as_str() && line["message"] == "the agent is heard again"
        });
        wait_for("the status has nothing of it", || edge.backend(&first)["agent_silent"].is_null());
        let lines = edge.lines();
        let told = lines.iter().filter(|line| line["message"] == "no agent is heard: connection refused").count();
        assert_eq!(told, 1, "once, however long it lasts");
    });
}

#[test]
fn lag_at_a_site_drains_it_and_the_operator_stays_master() {
    let (here, there) = (own_ip(), own_ip());
    let (port, lag) = agent(here, 0);
    agent(there, port);
    let (first, second) = (backend(here, 0, "here"), backend(there, 0, "there"));
    let (first, second) = (format!("{here}:{first}"), format!("{there}:{second}"));
    let text = format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nagent = {{ port = {port}, interval = \"100ms\" }}\n\
         [service.web.backends]\ndijon = \"{first}\"\nthory = \"{second}\"\n"
    );
    let edge = Setup::services(&text).start();
    edge.wait_for_health(&first, "up");
    edge.wait_for_health(&second, "up");
    let mut client = edge.connect();
    assert_eq!(client.ask(get("/")).text(), "here");
    let says = |line: &'static str| *lag.lock().unwrap() = line;
    says("drain # replication lag 40 s\n");
    wait_for("it drains", || edge.backend(&first)["admin"] == "draining");
    assert_eq!(client.ask(get("/")).text(), "there");
    let (code, shown, _) = edge.cli(&["status"]);
    assert!(shown.contains("draining by its agent: drain # replication lag 40 s"), "{shown}");
    assert_eq!(code, Some(0), "it is meant");
    let drain = edge.line("the drain", |line| line["message"] == "agent: drain # replication lag 40 s");
    assert_eq!(drain["level"], "WARN");
    says("ready up\n");
    wait_for("it is back", || client.ask(get("/")).text() == "here");
    let back = edge.line("the return", |line| line["message"] == "agent: ready up");
    assert_eq!(back["level"], "INFO", "good news is no warning");
    edge.order("disabled", "dijon");
    says("ready up 50%\n");
    assert_eq!(client.ask(get("/")).text(), "there");
    assert_eq!(edge.backend(&first)["admin"], "disabled", "the operator's word is stricter");
}
