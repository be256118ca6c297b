//! Which service takes which host and path.

use super::*;
use relais_config::Service;

use crate::testing;

/// A router from `(hosts, paths)` of each service.
fn router(services: &[(&[&str], &[&str])]) -> Router {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_string()).collect();
    let service = |(hosts, paths): &(&[&str], &[&str])| Service {
        hosts: owned(hosts),
        paths: owned(paths),
        ..testing::service("any", Vec::new(), |_| ())
    };
    Router::new(&testing::config(services.iter().map(service).collect()))
}

#[test]
fn exact_before_wildcard_before_catch_all() {
    let router = router(&[(&["*"], &["/"]), (&["*.a.fr"], &["/"]), (&["api.a.fr", "a.fr"], &["/"])]);
    for (host, service) in [
        ("api.a.fr", 2),
        ("a.fr", 2),
        ("www.a.fr", 1),
        ("x.y.a.fr", 0),
        (".a.fr", 0),
        ("b.fr", 0),
        ("localhost", 0),
        ("[::1]", 0),
        ("", 0),
    ] {
        assert_eq!(router.route(host, "/"), Some(service), "{host}");
        assert!(router.knows_host(host), "{host}: the catch-all takes it");
    }
}

#[test]
fn unknown_hosts_are_nobodys() {
    let router = router(&[(&["*.a.fr"], &["/"]), (&["api.b.fr"], &["/"])]);
    for host in ["a.fr", "x.y.a.fr", ".a.fr", "b.fr", "www.b.fr", "fr", "", "*.b.fr"] {
        assert_eq!(router.route(host, "/"), None, "{host}");
        assert!(!router.knows_host(host), "{host}");
    }
    assert!(router.knows_host("www.a.fr") && router.knows_host("api.b.fr"));
}

#[test]
fn the_longest_prefix_wins_at_segment_boundaries() {
    let services: [(&[&str], &[&str]); 4] =
        [(&["a.fr"], &["/"]), (&["a.fr"], &["/a"]), (&["a.fr"], &["/a/b", "/c/"]), (&["a.fr"], &["/a/bc"])];
    // Few prefixes are looked at one by one, many are looked up.
    let others: Vec<String> = (0..30).map(|i| format!("/other/{i}/of/many")).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let many = router(&[&services[..], &[(&["a.fr"], &others)]].concat());
    assert_eq!(many.route("a.fr", "/other/7/of/many/x"), Some(4));
    let few = router(&services);
    for (path, service) in [
        ("/", 0),
        ("/ab", 0),
        ("/b/a", 0),
        ("", 0),
        ("*", 0),
        ("/a", 1),
        ("/a/", 1),
        ("/a/x", 1),
        ("/a/bd", 1),
        ("/a/b", 2),
        ("/a/b/c", 2),
        ("/a/bc", 3),
        ("/c", 2),
        ("/c/d", 2),
        ("/cd", 0),
        ("/A", 0),
    ] {
        assert_eq!(few.route("a.fr", path), Some(service), "{path}");
        assert_eq!(many.route("a.fr", path), Some(service), "{path} among many");
    }
}

#[test]
fn what_no_prefix_takes_among_many_is_nobodys() {
    let prefixes: Vec<String> = (0..30).map(|i| format!("/p/{i}")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let router = router(&[(&["a.fr"], &prefixes), (&["a.fr"], &["/p/7/", "/p/7/x"])]);
    for path in ["/", "", "*", "/p", "/p/", "/p/77", "/p/7x", "p/7"] {
        assert_eq!(router.route("a.fr", path), None, "{path}");
    }
    assert_eq!(router.route("a.fr", "/p/7"), Some(0), "the first in the file keeps it");
    assert_eq!(router.route("a.fr", "/p/7/x/y"), Some(1));
    assert_eq!(router.route("a.fr", &format!("/p/29{}", "/".repeat(10_000))), Some(0));
}

#[test]
fn a_host_without_the_path_falls_on() {
    let router = router(&[(&["api.a.fr"], &["/v1"]), (&["*.a.fr"], &["/v2"]), (&["*"], &["/v3"])]);
    assert_eq!(router.route("api.a.fr", "/v1/x"), Some(0));
    assert_eq!(router.route("api.a.fr", "/v2/x"), Some(1), "exact host, path of the wildcard");
    assert_eq!(router.route("api.a.fr", "/v3"), Some(2), "exact host, path of the catch-all");
    assert_eq!(router.route("www.a.fr", "/v1"), None, "the exact host's path is not the wildcard's");
    assert_eq!(router.route("api.a.fr", "/"), None);
    assert!(router.knows_host("api.a.fr"), "the host is known all the same");
}

#[test]
fn the_first_in_the_file_keeps_a_prefix_claimed_twice() {
    let router = router(&[(&["a.fr"], &["/x"]), (&["a.fr"], &["/x/", "/"])]);
    assert_eq!(router.route("a.fr", "/x"), Some(0));
    assert_eq!(router.route("a.fr", "/"), Some(1));
}

#[test]
fn nothing_declared_matches_nothing() {
    let router = router(&[]);
    assert_eq!(router.route("a.fr", "/"), None);
    assert!(!router.knows_host("a.fr"));
}

#[test]
fn a_thousand_hosts_each_find_their_own() {
    let hosts: Vec<String> = (0..1_000).map(|i| format!("h{i}.a.fr")).collect();
    let lists: Vec<[&str; 1]> = hosts.iter().map(|host| [host.as_str()]).collect();
    let services: Vec<(&[&str], &[&str])> = lists.iter().map(|list| (list.as_slice(), ["/"].as_slice())).collect();
    let router = router(&services);
    for (index, host) in hosts.iter().enumerate() {
        assert_eq!(router.route(host, "/x"), Some(index));
    }
    assert_eq!(router.route("h1000.a.fr", "/x"), None);
}

#[test]
fn a_host_belongs_to_a_service_whatever_its_paths() {
    let router = router(&[(&["*"], &["/any"]), (&["*.a.fr"], &["/w"]), (&["api.a.fr"], &["/x", "/y"])]);
    for (host, service) in [("api.a.fr", 2), ("www.a.fr", 1), ("b.fr", 0), ("", 0)] {
        assert_eq!(router.service_of(host), Some(service), "{host}");
    }
    assert_eq!(Router::new(&testing::config(Vec::new())).service_of("a.fr"), None);
}
