//! A download whose backend dies is continued from another one: unbroken for the client, or visibly cut, never mixed.

use crate::support::edge::{Setup, request_id};
use crate::support::h2::Client;
use crate::support::raw::{Addressed, Raw, Serving};
use crate::support::wire::{Conn, Head, get};
use crate::support::{assert_same, noise};

const SIZE: usize = 300_000;

/// Sends half of the whole body and dies; what it makes of a range is the test's business.
fn dying(head: &'static str, range: fn(&mut Conn, &Head)) -> Serving {
    Raw::new().serve(move |mut conn| {
        while let Some(request) = conn.try_head() {
            if request.has("range") {
                range(&mut conn, &request);
                continue;
            }
            let _ = conn.try_send(format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {SIZE}\r\n\r\n"));
            let _ = conn.try_send(&noise(SIZE)[..SIZE / 2]);
            return;
        }
    })
}

/// Answers a range as it should be.
fn honest(conn: &mut Conn, request: &Head) {
    assert_eq!(request.get("if-range"), Some("\"v1\""), "{}", request.raw);
    let range = request.get("range").unwrap().strip_prefix("bytes=").unwrap();
    let first: usize = range.split('-').next().unwrap().parse().unwrap();
    assert_eq!(range, format!("{first}-{}", SIZE - 1));
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nContent-Range: bytes {range}/{SIZE}\r\nContent-Length: {}\r\n\r\n",
        SIZE - first
    );
    let _ = conn.try_send(head);
    let _ = conn.try_send(&noise(SIZE)[first..]);
}

#[test]
fn a_download_goes_on_from_another_backend() {
    let tagged = || dying("ETag: \"v1\"\r\nAccept-Ranges: bytes\r\n", honest);
    let (one, two) = (tagged(), tagged());
    let edge = Setup::to(&[&one, &two]).start();
    let mut client = edge.connect();
    let answer = client.ask(get("/film"));
    assert_eq!((answer.status(), answer.get("content-length")), (200, Some("300000")));
    assert_same(&answer.body, &noise(SIZE));
    let line = edge.access(&request_id(&answer.head));
    assert!(line["attempts"].as_str().unwrap().contains(&one.address()), "{line}");
    assert!(line["attempts"].as_str().unwrap().contains(&two.address()), "{line}");

    let client = Client::plain(edge.http());
    assert_same(&client.get("/film").finish().unwrap().0, &noise(SIZE));
}

#[track_caller]
fn is_cut(one: &Serving, two: &Serving) {
    let edge = Setup::to(&[one, two]).start();
    let mut client = edge.connect();
    client.send(get("/film"));
    let head = client.head();
    let Err(so_far) = client.try_body(&head) else { panic!("looks complete") };
    assert_same(&so_far.0, &noise(SIZE)[..so_far.0.len()]);
}

#[test]
fn another_version_is_never_mixed_in() {
    fn changed(conn: &mut Conn, _: &Head) {
        let _ = conn.try_send(format!("HTTP/1.1 200 OK\r\nETag: \"v2\"\r\nContent-Length: {SIZE}\r\n\r\n"));
        let _ = conn.try_send(vec![b'X'; SIZE]);
    }
    let both = || dying("ETag: \"v1\"\r\n", changed);
    is_cut(&both(), &both());

    // A liar: the right status for another version, or for other bytes.
    fn other_tag(conn: &mut Conn, request: &Head) {
        let range = request.get("range").unwrap().strip_prefix("bytes=").unwrap();
        let _ = conn.try_send(format!(
            "HTTP/1.1 206 Partial Content\r\nETag: \"v2\"\r\nContent-Range: bytes {range}/{SIZE}\r\nContent-Length: 150000\r\n\r\n"
        ));
        let _ = conn.try_send(vec![b'X'; 150_000]);
    }
    let both = || dying("ETag: \"v1\"\r\n", other_tag);
    is_cut(&both(), &both());
    fn other_bytes(conn: &mut Conn, _: &Head) {
        let _ = conn.try_send(format!(
            "HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nContent-Range: bytes 0-{}/{SIZE}\r\nContent-Length: {SIZE}\r\n\r\n",
            SIZE - 1
        ));
        let _ = conn.try_send(vec![b'X'; SIZE]);
    }
    let both = || dying("ETag: \"v1\"\r\n", other_bytes);
    is_cut(&both(), &both());
}

#[test]
fn without_a_strong_validator_nothing_is_continued() {
    fn never(_: &mut Conn, request: &Head) {
        panic!("asked for a range: {}", request.raw);
    }
    for head in ["", "ETag: W/\"v1\"\r\n", "ETag: \"v1\"\r\nAccept-Ranges: none\r\n"] {
        is_cut(&dying(head, never), &dying(head, never));
    }
}
