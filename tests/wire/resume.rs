//! A download whose backend dies is continued from another one: unbroken for the client, or visibly cut, never mixed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::support::edge::{Setup, request_id};
use crate::support::h2::Client;
use crate::support::raw::{Addressed, Raw, Serving};
use crate::support::wire::{Conn, Head, get};
use crate::support::{assert_same, noise, wait_for};

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

/// Whoever is asked gives half of what was asked for and dies, the first two times.
fn twice_dying(count: &Arc<AtomicUsize>) -> Serving {
    let count = Arc::clone(count);
    Raw::new().serve(move |mut conn| {
        while let Some(request) = conn.try_head() {
            let bytes = noise(SIZE);
            let range = request.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
            let (first, last) =
                range.map_or((0, SIZE - 1), |(first, last)| (first.parse().unwrap(), last.parse().unwrap()));
            let start = match range {
                Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{SIZE}"),
                None => "200 OK".to_owned(),
            };
            let length = last + 1 - first;
            let _ = conn.try_send(format!("HTTP/1.1 {start}\r\nETag: \"v1\"\r\nContent-Length: {length}\r\n\r\n"));
            if count.fetch_add(1, Relaxed) < 2 {
                let _ = conn.try_send(&bytes[first..first + length / 2]);
                return;
            }
            let _ = conn.try_send(&bytes[first..=last]);
        }
    })
}

#[test]
fn a_download_goes_on_though_it_breaks_twice_and_a_range_too() {
    let count = Arc::default();
    let (one, two, three) = (twice_dying(&count), twice_dying(&count), twice_dying(&count));
    let edge = Setup::to(&[&one, &two, &three]).start();
    let answer = edge.connect().ask(get("/film"));
    assert_same(&answer.body, &noise(SIZE));
    assert_eq!(count.swap(0, Relaxed), 3);

    let ranged = "GET /film HTTP/1.1\r\nHost: a.test\r\nRange: bytes=1000-250999\r\n\r\n";
    let answer = edge.connect().ask(ranged);
    assert_eq!((answer.status(), answer.get("content-range")), (206, Some("bytes 1000-250999/300000")));
    assert_same(&answer.body, &noise(SIZE)[1000..251_000]);
    assert_eq!(count.swap(0, Relaxed), 3);

    let client = Client::plain(edge.http());
    assert_same(&client.get("/film").finish().unwrap().0, &noise(SIZE));
    assert_eq!(count.load(Relaxed), 3);
    assert_eq!(edge.sample("relais_downloads_resumed_total", &[]), 6.0);
}

/// It is an error of who broke off as any other, though its head is no answer of its own.
#[test]
fn the_rest_of_a_download_that_breaks_off_is_counted() {
    fn half(conn: &mut Conn, request: &Head) {
        let first = request.get("range").unwrap()[6..].split('-').next().unwrap().parse::<usize>().unwrap();
        let (left, last) = (SIZE - first, SIZE - 1);
        let range = format!("Content-Range: bytes {first}-{last}/{SIZE}\r\nContent-Length: {left}");
        let _ = conn.try_send(format!("HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\n{range}\r\n\r\n"));
        let _ = conn.try_send(&noise(SIZE)[first..first + left / 2]);
        conn.finish_sending();
    }
    let tagged = || dying("ETag: \"v1\"\r\n", half);
    let (one, two) = (tagged(), tagged());
    let edge = Setup::to(&[&one, &two]).start();
    let mut client = edge.connect();
    client.send(get("/film"));
    let head = client.head();
    assert!(client.try_body(&head).is_err(), "looks complete");
    let counted = |of: &Serving| edge.sample("relais_backend_errors_total", &[&of.address()]);
    wait_for("each is counted, once", || {
        let resumed = edge.sample("relais_downloads_resumed_total", &[]);
        resumed >= 1.0 && counted(&one) >= 1.0 && counted(&two) >= 1.0 && counted(&one) + counted(&two) == 1.0 + resumed
    });
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
