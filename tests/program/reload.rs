//! A changed file: seen however it was saved, applied as a difference, refused whole when it is wrong. Nobody's
//! connection suffers.

use std::io::Write;
use std::net::TcpStream;

use crate::load::{Connections, Load};
use crate::support::edge::{Edge, Setup};
use crate::support::raw::{Addressed, Plain, Raw};
use crate::support::wire::{Conn, get, ok};
use crate::support::{free_address, wait_for};

/// A service that says which version of the file it is from.
fn version(n: usize) -> String {
    format!("[service.web]\nhosts = [\"*\"]\nrespond = {{ body = \"version {n}\" }}\n")
}

fn says(edge: &Edge, n: usize) -> bool {
    edge.connect().ask(get("/")).text() == format!("version {n}")
}

#[track_caller]
fn becomes(edge: &Edge, n: usize, how: &str) {
    wait_for(&format!("version {n} by {how}"), || says(edge, n));
}

#[test]
fn a_saved_file_is_applied_however_it_was_saved() {
    let edge = Setup::services(&version(0)).start();
    let file = |n: usize| edge.text().replace(&current(&edge), &format!("version {n}"));
    let path = edge.config.clone();
    let other = edge.dir().join("other");

    edge.save(&file(1));
    becomes(&edge, 1, "rename over it");
    edge.save(&file(2));
    becomes(&edge, 2, "a second rename over it");
    std::fs::write(&path, file(3)).unwrap();
    becomes(&edge, 3, "writing in place");
    // As vim does with a backup: the old file moves away, a new one takes its name.
    let text = file(4);
    std::fs::rename(&path, path.with_extension("toml~")).unwrap();
    std::fs::write(&path, text).unwrap();
    becomes(&edge, 4, "moving away and writing anew");
    // In pieces: what is there in between is no good, and changes nothing.
    let text = file(5);
    let mut open = std::fs::File::create(&path).unwrap();
    let (first, second) = text.split_at(text.len() / 2);
    open.write_all(first.as_bytes()).unwrap();
    open.sync_all().unwrap();
    assert!(says(&edge, 4));
    open.write_all(second.as_bytes()).unwrap();
    drop(open);
    becomes(&edge, 5, "pieces");
    // A link that is pointed elsewhere, as configuration managers and Kubernetes do.
    std::fs::write(&other, file(6)).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&other, &path).unwrap();
    becomes(&edge, 6, "a link in its place");
    let third = edge.dir().join("third");
    std::fs::write(&third, file(7)).unwrap();
    let link = edge.dir().join("link");
    std::os::unix::fs::symlink(&third, &link).unwrap();
    std::fs::rename(&link, &path).unwrap();
    becomes(&edge, 7, "another link over it");
    std::fs::write(&third, file(8)).unwrap();
    becomes(&edge, 8, "writing behind the link");
}

fn current(edge: &Edge) -> String {
    let text = edge.text();
    let at = text.find("version ").unwrap();
    text[at..].split('"').next().unwrap().to_owned()
}

#[test]
fn sighup_and_the_command_reload_too() {
    let edge = Setup::services(&version(0)).start();
    edge.save(&edge.text().replace("version 0", "version 1"));
    edge.signal("HUP");
    becomes(&edge, 1, "SIGHUP");
    edge.save(&edge.text().replace("version 1", "version 2"));
    let (code, stdout, stderr) = edge.cli(&["reload"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(says(&edge, 2), "applied before the answer");
    let (code, verdict) = edge.reload();
    assert_eq!((code, verdict["outcome"].as_str()), (200, Some("unchanged")));
}

#[test]
fn a_bad_file_changes_nothing_and_says_why_everywhere() {
    let edge = Setup::services(&version(0)).start();
    let good = edge.text();
    edge.save(&good.replace("respond", "respnd"));
    wait_for("the refusal is known", || edge.status()["reload"]["outcome"] == "refused");
    assert!(says(&edge, 0));
    let status = edge.status();
    let why = status["reload"]["message"].to_string();
    assert!(why.contains("respnd") && why.contains("respond"), "{why}");
    assert!(status["alarms"].to_string().contains("config"), "{status}");
    assert_eq!(edge.sample("relais_config_last_reload_success", &[]), 0.0);
    assert!(edge.sample("relais_config_reloads_total", &["refused"]) >= 1.0);
    edge.line("the log says so", |line| line["level"] != "INFO" && line.to_string().contains("respnd"));
    let (code, _, stderr) = edge.cli(&["reload"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("respnd"), "{stderr}");
    // Empty, one word, not text at all: nothing of it takes the site down.
    for bad in ["", "bad", "[service.web]\n", "\0\0\0", "[edge]\n"] {
        edge.save(bad);
        let (code, verdict) = edge.reload();
        assert_eq!(code, 422, "{bad:?}: {verdict}");
        assert!(says(&edge, 0), "{bad:?}");
    }
    std::fs::remove_file(&edge.config).unwrap();
    assert_eq!(edge.reload().0, 422);
    assert!(says(&edge, 0));
    edge.save(&good.replace("version 0", "version 1"));
    becomes(&edge, 1, "a good file");
    assert_eq!(edge.sample("relais_config_last_reload_success", &[]), 1.0);
    assert_eq!(edge.status()["alarms"], serde_json::json!([]));
}

#[test]
fn a_file_that_drops_most_services_needs_force() {
    let service =
        |name: &str| format!("[service.{name}]\nhosts = [\"{name}.test\"]\nrespond = {{ body = \"{name}\" }}\n");
    let edge = Setup::services(&[service("a"), service("b"), service("c")].concat()).start();
    let kept = edge.text().replace(&service("a"), "").replace(&service("b"), "");
    edge.save(&kept);
    let (code, verdict) = edge.reload();
    assert_eq!(code, 422, "{verdict}");
    assert!(verdict["help"].to_string().contains("--force"), "{verdict}");
    assert_eq!(edge.connect().ask("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").text(), "a");
    assert_eq!(edge.cli(&["reload", "--force"]).0, Some(0));
    assert_eq!(edge.connect().ask("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").status(), 404);
}

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn a_hundred_reloads_under_load_fail_nobody() {
    let (one, two) = (Plain::saying("x"), Plain::saying("x"));
    let (chat, slow) = (Raw::new(), Raw::new());
    let service = |name: &str, path: &str, backends: &[&dyn Addressed]| {
        let list: Vec<String> = backends.iter().map(|backend| format!("{:?}", backend.address())).collect();
        format!(
            "[service.{name}]\nhosts = [\"*\"]\npaths = [\"{path}\"]\nhealth = \"off\"\nbackends = [{}]\n",
            list.join(", ")
        )
    };
    let services =
        [service("chat", "/chat", &[&chat]), service("slow", "/slow", &[&slow]), service("web", "/", &[&one])].concat();
    let edge = Setup::services(&services).start();
    // A conversation, a long request and two loads, all of them through all reloads.
    let mut client = edge.connect();
    client.send(ASK);
    let (mut upstream, _) = chat.request();
    upstream.send(YES);
    assert_eq!(client.head().status(), 101);
    let mut patient = edge.connect();
    patient.send(get("/slow"));
    let (mut answering, _) = slow.request();
    let kept = Load::start(edge.http(), 2, Connections::Kept, get);
    let fresh = Load::start(edge.http(), 2, Connections::Fresh, get);
    let first = edge.text();
    let more = service("web", "/", &[&one, &two])
        + "max_body = \"1MB\"\n[service.extra]\nhosts = [\"extra.test\"]\nrespond = { body = \"x\" }\n";
    let second = first.replace(&service("web", "/", &[&one]), &more);
    for n in 0..100 {
        edge.save(if n % 2 == 0 { &second } else { &first });
        let (code, verdict) = edge.reload();
        assert_eq!(code, 200, "{verdict}");
        client.send(format!("{n}."));
        assert_eq!(upstream.until("."), format!("{n}."));
        upstream.send(format!("{n}!"));
        assert_eq!(client.until("!"), format!("{n}!"));
    }
    answering.send(ok("worth waiting for"));
    assert_eq!(patient.answer().text(), "worth waiting for");
    for load in [kept, fresh] {
        let tally = load.stop();
        assert!(
            tally.bad.is_empty(),
            "{} of {}: {:?}",
            tally.bad.len(),
            tally.good,
            &tally.bad[..tally.bad.len().min(5)]
        );
        assert!(tally.good > 100, "{} requests", tally.good);
    }
    assert!(two.count() > 0, "the added backend was used");
    let applied = edge.sample("relais_config_reloads_total", &["applied"])
        + edge.sample("relais_config_reloads_total", &["unchanged"]);
    assert!(applied >= 100.0, "{applied}");
}

#[test]
fn connections_and_words_about_what_stays_survive_a_reload() {
    let (one, two) = (Plain::saying("x"), Plain::saying("x"));
    let setup = Setup::to(&[&one, &two]).and("[edge]\nworkers = 1");
    let edge = setup.start();
    edge.order("draining", &format!("web/{}", two.address()));
    let mut client = edge.connect();
    assert_eq!(client.ask(get("/1")).status(), 200);
    edge.apply(&(edge.text() + "max_body = \"1MB\"\n"));
    assert_eq!(client.ask(get("/2")).status(), 200, "the client's connection");
    assert_eq!(one.connections(), 1, "the backend's connection");
    assert_eq!(edge.backend(&two)["admin"], "draining");
    assert_eq!(two.count(), 0);
}

#[test]
fn listeners_come_and_go_while_others_serve() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).and("[edge]\nworkers = 1").start();
    let first = edge.text();
    let address = free_address();
    let extra = format!("[listener.extra]\naddress = \"{address}\"\nprotocol = \"http\"\nredirect = false\n");
    let (stays, before) = (edge.http(), edge.connect());
    edge.apply(&(extra + &first));
    let mut client = Conn::to(address);
    client.send(get("/new"));
    let (mut upstream, _) = backend.request();
    // Gone again, with a request under way: it is finished, nothing new is taken.
    edge.apply(&first);
    wait_for("the listener is gone", || TcpStream::connect(address).is_err());
    upstream.send(ok("finished"));
    assert_eq!(client.answer().text(), "finished");
    client.ends();
    assert_eq!(edge.http(), stays);
    let mut old = before;
    old.send(get("/old"));
    assert_eq!(upstream.head().target(), "/old");
    upstream.send(ok("still here"));
    assert_eq!(old.answer().text(), "still here");
}

#[test]
fn a_listener_that_cannot_be_bound_refuses_the_whole_file() {
    let edge = Setup::services(&version(0)).start();
    let taken = std::net::TcpListener::bind((crate::support::own_ip(), 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let extra = format!("[listener.extra]\naddress = \"{address}\"\nprotocol = \"http\"\nredirect = false\n");
    edge.save(&(extra + &edge.text().replace("version 0", "version 1")));
    let (code, verdict) = edge.reload();
    assert_eq!(code, 422);
    assert!(verdict.to_string().contains(&address.to_string()), "{verdict}");
    assert!(says(&edge, 0));
}

#[test]
fn a_secret_in_a_file_of_its_own_is_watched_too() {
    let backend = Raw::new();
    let setup = Setup::to(&[&backend]).with("request_headers.set_file = { Authorization = \"token\" }");
    std::fs::write(setup.dir().join("token"), "first\n").unwrap();
    let edge = setup.start();
    let token = || {
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        let (mut upstream, head) = backend.request();
        upstream.send("HTTP/1.1 204 No\r\nConnection: close\r\n\r\n");
        client.answer();
        head.get("authorization").unwrap().to_owned()
    };
    assert_eq!(token(), "first");
    std::fs::write(edge.dir().join("token"), "second\n").unwrap();
    wait_for("the new token is used", || token() == "second");
}
