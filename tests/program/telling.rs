//! Logs: JSON when nobody watches, one line per request with what happened to it, a level that can be changed.

use crate::support::edge::{Setup, request_id};
use crate::support::raw::{Addressed, Plain};
use crate::support::wire::{get, post};
use crate::support::{free_address, until, wait_for};

#[test]
fn every_request_leaves_one_line_with_all_its_attempts() {
    let (backend, dead) = (Plain::saying("four"), free_address());
    let edge = Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 1\n[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\npassive_fall = 0\n\
         [service.web.backends]\ndijon = [\"{dead}\"]\nthory = [\"{}\"]\n",
        backend.address()
    ))
    .start();
    // Until one met the dead backend first.
    let line = until("a request that needed two attempts", || {
        let answer = edge.connect().ask(post("/pay?card=secret", "body"));
        let line = edge.access(&request_id(&answer.head));
        line["attempts"].as_str().unwrap().contains("refused").then_some(line)
    });
    for (field, expected) in [
        ("level", "INFO"),
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("host", "a.test"),
        ("path", "/pay"),
        ("proto", "HTTP/1.1"),
        ("service", "web"),
        ("site", "thory"),
        ("backend", backend.address().as_str()),
        ("cut", "-"),
    ] {
        assert_eq!(line[field], expected, "{field} of {line}");
    }
    assert_eq!(
        (line["status"].as_u64(), line["bytes_in"].as_u64(), line["bytes_out"].as_u64()),
        (Some(200), Some(4), Some(4))
    );
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0 && line["head_ms"].as_f64().unwrap() > 0.0, "{line}");
    let attempts = line["attempts"].as_str().unwrap();
    let (first, second) = attempts.split_once(", ").unwrap();
    assert!(first.starts_with(&format!("dijon/{dead} refused ")), "{attempts}");
    assert!(second.starts_with(&format!("thory/{} answered ", backend.address())), "{attempts}");
    assert!(!edge.log().contains("secret"), "queries are not logged");
    let id = line["request_id"].as_str().unwrap();
    let count = edge.lines().iter().filter(|line| line["request_id"] == id).count();
    assert_eq!(count, 1, "one line per request");
    let other: Vec<String> = edge.log().lines().filter(|line| !line.starts_with('{')).map(str::to_owned).collect();
    assert!(other.is_empty(), "not JSON: {other:?}");
}

#[test]
fn the_level_can_be_changed_while_running() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).start();
    let debug = || edge.lines().iter().filter(|line| line["level"] == "DEBUG" || line["level"] == "TRACE").count();
    assert_eq!(edge.connect().ask(get("/1")).status(), 200);
    edge.access_to("/1");
    assert_eq!(debug(), 0);
    let (code, body) = edge.admin("PUT", "/log-level", r#"{"level": "trace"}"#);
    assert_eq!(code, 200, "{body}");
    wait_for("there are finer lines", || {
        edge.connect().ask(get("/2"));
        debug() > 0
    });
    assert_eq!(edge.admin("PUT", "/log-level", r#"{"level": "loud"}"#).0, 400);
    assert_eq!(edge.cli(&["log-level", "error"]).0, Some(0));
    assert!(edge.admin("GET", "/log-level", "").1.contains("error"));
}

#[test]
fn access_lines_can_be_switched_off() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).and("[log]\naccess = false").start();
    assert_eq!(edge.connect().ask(get("/quiet")).status(), 200);
    edge.apply(&edge.text().replace("access = false", "access = true"));
    assert_eq!(edge.connect().ask(get("/loud")).status(), 200);
    edge.access_to("/loud");
    assert!(!edge.log().contains("/quiet"));
}

#[test]
fn secrets_are_not_logged() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend])
        .with("request_headers.set = { Authorization = \"Bearer tell-nobody\" }")
        .and("[log]\nlevel = \"debug\"")
        .start();
    let request = "GET /?token=tell-nobody HTTP/1.1\r\nHost: a.test\r\nCookie: s=tell-nobody\r\nAuthorization: tell-nobody\r\n\r\n";
    assert_eq!(edge.connect().ask(request).status(), 200);
    edge.access_to("/");
    assert!(!edge.log().contains("tell-nobody"));
}
