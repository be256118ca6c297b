//! The admin socket as `curl --unix-socket` sees it.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use relais_core::{Admin, Health, Record};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{Bench, HEAD, answering, eventually};

fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// Two sites, one backend each, both answering to a connect.
async fn two_sites() -> (String, [TcpListener; 2]) {
    let listeners = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let [dijon, thory] = [listeners[0].local_addr().unwrap(), listeners[1].local_addr().unwrap()];
    let text = format!(
        "{HEAD}[sites]\ndijon = 1\nthory = 2\n[service.api]\nhosts = [\"a.fr\"]\n\
         [service.api.backends]\ndijon = \"{dijon}\"\nthory = \"{thory}\"\n{}",
        answering("page")
    );
    (text, listeners)
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group() {
    let bench = Bench::start(&format!("{HEAD}{}", answering("a"))).await;
    bench.ask("GET", "/status", "").await;
    let meta = bench.socket().symlink_metadata().unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    let beside: Vec<_> =
        std::fs::read_dir(bench.socket().parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(beside, ["admin.sock"], "nothing is left of how it was made");
    let socket = bench.socket();
    let _dir = bench.stop().await;
    assert!(!socket.exists(), "removed at the end");
}

#[tokio::test]
async fn status_shows_process_services_and_verdict() {
    let (text, _listeners) = two_sites().await;
    let bench = Bench::start(&text).await;
    bench.until("both up", |s| s.report.services[0].backends.iter().all(|b| b.health == Health::Up)).await;
    let (code, body) = bench.ask("GET", "/status", "").await;
    let status = json(&body);
    assert_eq!(code, 200);
    assert_eq!(status["process"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["process"]["pid"], std::process::id());
    assert_eq!(status["process"]["config_path"], bench.path().to_str().unwrap());
    assert_eq!(status["reload"]["outcome"], "applied");
    assert_eq!(status["reload"]["trigger"], "start");
    assert_eq!(status["listeners"][0]["protocol"], "http");
    assert_eq!(status["report"]["services"][0]["backends"][1]["site"], "thory");
    assert_eq!(status["report"]["services"][0]["backends"][1]["health"], "up");
    assert!(status["alarms"].as_array().unwrap().is_empty(), "{status}");
    bench.stop().await;
}

#[tokio::test]
async fn a_word_about_a_site_is_in_force_when_it_is_answered() {
    let (text, _listeners) = two_sites().await;
    let bench = Bench::start(&text).await;
    bench.until("both up", |s| s.report.services[0].backends.iter().all(|b| b.health == Health::Up)).await;
    let busy =
        bench.snapshot.load().pools[0].members.iter().find(|m| &*m.backend.id.site == "dijon").unwrap().backend.clone();
    let _in_flight = [busy.enter(), busy.enter()];
    let order = r#"{"target": "dijon", "word": "draining", "reason": "fibre works"}"#;
    let (code, body) = bench.ask("POST", "/admin", order).await;
    let members = bench.snapshot.load_full();
    let admin = |site: &str| members.pools[0].members.iter().find(|m| &*m.backend.id.site == site).unwrap().admin;
    assert_eq!((admin("dijon"), admin("thory")), (Admin::Draining, Admin::Enabled));
    let reply = json(&body);
    assert_eq!(code, 200, "{body}");
    assert_eq!(reply["inflight"], 2);
    assert_eq!(reply["backends"].as_array().unwrap().len(), 1);
    assert_eq!(reply["backends"][0]["service"], "api");
    assert_eq!(reply["backends"][0]["admin"], "draining");
    assert_eq!(reply["generation"], members.generation);
    let (_, body) = bench.ask("GET", "/status", "").await;
    assert_eq!(json(&body)["report"]["sites"][0]["admin"], "draining");
    let remembered = bench.store.load().records.into_iter().any(|record| match record {
        Record::Admin(record) => record.word == Admin::Draining && record.reason.as_deref() == Some("fibre works"),
        _ => false,
    });
    assert!(remembered, "survives a restart");

    let backend = members.pools[0].members[1].backend.id.to_string();
    let (code, body) = bench.ask("POST", "/admin", &format!(r#"{{"target": "{backend}", "word": "disabled"}}"#)).await;
    assert_eq!(code, 200, "{body}");
    assert_eq!(json(&body)["target"], backend);
    bench.stop().await;
}

#[tokio::test]
async fn nonsense_is_answered_with_the_way_out() {
    let (text, _listeners) = two_sites().await;
    let bench = Bench::start(&text).await;
    let cases = [
        ("POST", "/admin", r#"{"target": "dijn", "word": "draining"}"#, 404, "dijon"),
        ("POST", "/admin", r#"{"target": "dijon", "word": "drain"}"#, 400, "draining"),
        ("POST", "/admin", "not json", 400, "send JSON such as"),
        ("POST", "/admin", r#"{"target": "dijon", "word": "draining", "why": 1}"#, 400, "reason"),
        ("PUT", "/log-level", r#"{"level": "nonsense"}"#, 400, "no level"),
        ("POST", "/reload?force=maybe", "", 400, "force=true"),
        ("GET", "/statsu", "", 404, "/status"),
        ("GET", "/reload", "", 405, "POST /reload"),
    ];
    for (method, target, body, expected, word) in cases {
        let (code, answer) = bench.ask(method, target, body).await;
        assert_eq!(code, expected, "{method} {target} {body}: {answer}");
        let answer = json(&answer);
        let said = format!("{} {}", answer["error"].as_str().unwrap(), answer["help"].as_str().unwrap());
        assert!(said.contains(word), "{method} {target} {body}: {said}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn reload_log_level_certificates_and_metrics_answer() {
    let bench = Bench::start(&format!("{HEAD}{}{}", answering("a"), answering("b"))).await;
    let (code, body) = bench.ask("POST", "/reload", "").await;
    assert_eq!((code, json(&body)["outcome"].as_str()), (200, Some("unchanged")));

    bench.write("nothing");
    let (code, body) = bench.ask("POST", "/reload", "").await;
    let answer = json(&body);
    assert_eq!((code, answer["verdict"]["outcome"].as_str()), (422, Some("refused")), "{body}");
    assert!(answer["error"].as_str().unwrap().contains("proxy.toml"), "{body}");

    bench.write(&format!("{HEAD}{}", answering("z")));
    assert_eq!(bench.ask("POST", "/reload", "").await.0, 422);
    assert_eq!(bench.ask("POST", "/reload?force=true", "").await.0, 200);
    assert_eq!(bench.services(), ["z"]);

    let (code, body) = bench.ask("PUT", "/log-level", r#"{"level": "debug"}"#).await;
    assert_eq!((code, json(&body)["level"].as_str()), (200, Some("debug")));
    assert_eq!(json(&bench.ask("GET", "/log-level", "").await.1)["level"], "debug");
    assert!(json(&bench.ask("GET", "/certificates", "").await.1).is_array());
    let (code, body) = bench.ask("GET", "/metrics", "").await;
    assert_eq!(code, 200);
    assert!(body.contains("relais_build_info"), "{body}");
    bench.stop().await;
}

#[tokio::test]
async fn stop_is_answered_before_the_end() {
    let bench = Bench::start(&format!("{HEAD}{}", answering("a"))).await;
    let (code, body) = bench.ask("POST", "/stop", "").await;
    assert_eq!((code, json(&body)["stopping"].as_bool()), (202, Some(true)));
    // Workers drain: checks and answers go on, but nothing new is opened.
    assert_eq!(bench.status().await.report.services.len(), 1);
    let verdict = bench.handle.reload(true).await.unwrap();
    assert!(verdict.message.contains("stopping"), "{verdict:?}");
    let handle = bench.handle.clone();
    bench.ended().await;
    assert!(handle.status().await.is_err(), "nobody is left to ask");
}

#[tokio::test]
async fn the_socket_of_a_dead_process_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    // Bound and closed: the file stays, nobody listens.
    drop(UnixListener::bind(dir.path().join("run/admin.sock")).unwrap());
    std::fs::write(dir.path().join("proxy.toml"), format!("{HEAD}{}", answering("a"))).unwrap();
    let bench = Bench::start_in(dir, Path::new("proxy.toml")).await;
    let answered = eventually("the new socket answers", async || {
        let stream = tokio::net::UnixStream::connect(bench.socket()).await.ok()?;
        Some(crate::support::converse(stream, "GET", "/status", "").await)
    })
    .await;
    assert_eq!(answered.0, 200);
    bench.stop().await;
}

#[tokio::test]
async fn a_living_socket_is_left_alone_and_taken_when_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/admin.sock");
    std::fs::create_dir(dir.path().join("run")).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    let inode = path.symlink_metadata().unwrap().ino();
    std::fs::write(dir.path().join("proxy.toml"), format!("{HEAD}{}", answering("a"))).unwrap();
    let bench = Bench::start_in(dir, Path::new("proxy.toml")).await;
    let status = bench.until("the alarm", |s| s.alarms.iter().any(|alarm| alarm.about == "admin")).await;
    assert!(status.alarms[0].message.contains("another process answers there"), "{:?}", status.alarms);
    assert_eq!(path.symlink_metadata().unwrap().ino(), inode, "not replaced");
    drop(other);
    bench.until("the alarm is over", |s| s.alarms.is_empty()).await;
    assert_eq!(bench.ask("GET", "/status", "").await.0, 200);
    bench.stop().await;
}

#[tokio::test]
async fn what_is_no_socket_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    std::fs::write(dir.path().join("run/admin.sock"), "precious").unwrap();
    std::fs::write(dir.path().join("proxy.toml"), format!("{HEAD}{}", answering("a"))).unwrap();
    let bench = Bench::start_in(dir, Path::new("proxy.toml")).await;
    bench.until("the alarm", |s| s.alarms.iter().any(|alarm| alarm.about == "admin")).await;
    let dir = bench.stop().await;
    assert_eq!(std::fs::read_to_string(dir.path().join("run/admin.sock")).unwrap(), "precious");
}

#[tokio::test]
async fn a_socket_that_a_cleaner_took_comes_back() {
    let bench = Bench::start(&format!("{HEAD}{}", answering("a"))).await;
    bench.ask("GET", "/status", "").await;
    std::fs::remove_file(bench.socket()).unwrap();
    assert_eq!(bench.ask("GET", "/status", "").await.0, 200);
    bench.stop().await;
}
