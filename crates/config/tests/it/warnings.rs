//! What is said about files that work but probably do not do what was meant.

use relais_config::{Severity, render_problems};

use crate::{parse, warnings, with};

/// A file with two sites and one service on both.
fn two_sites(lines: &str) -> String {
    format!(
        "[sites]\ndijon = {{ tier = 1, network = \"10.0.0.0/24\" }}\nthory = 2\n[service.api]\nhosts = [\"api.test\"]\n{lines}\n\
         [service.api.backends]\ndijon = [\"10.0.0.1:80\"]\nthory = [\"10.0.1.1:80\"]\n"
    )
}

#[test]
fn a_sound_file_has_none() {
    assert_eq!(warnings(&two_sites("")), "");
    assert_eq!(warnings(&two_sites("health = { path = \"/\", interval = \"300ms\", timeout = \"300ms\" }")), "");
}

#[test]
fn services_on_one_site() {
    snapshot!(warnings(&with("")));
}

#[test]
fn unused_sites_and_backends_without_site() {
    snapshot!(warnings(&("[sites]\ndijon = 1\n".to_owned() + &with(""))));
}

#[test]
fn backends_outside_their_network() {
    snapshot!(warnings(&two_sites("").replace("10.0.0.1:80", "192.0.2.1:80")));
}

#[test]
fn tls_without_trust() {
    snapshot!(warnings(&two_sites("upstream = { tls = { verify = false } }")));
    snapshot!(warnings(&two_sites("").replace("10.0.1.1:80", "10.0.1.1:443")));
}

#[test]
fn certificates_that_browsers_do_not_trust() {
    let public =
        two_sites("tls = \"internal\"").replace("\"api.test\"", "\"localhost\", \"api.a.fr\", \"*.a.fr\", \"*\"");
    snapshot!(warnings(&public));
    for host in ["localhost", "a.localhost", "a.test", "*.internal", "a.local", "a.home.arpa", "127.0.0.1", "::1", "*"]
    {
        assert_eq!(warnings(&two_sites("tls = \"internal\"").replace("api.test", host)), "", "{host}");
        assert_eq!(warnings(&two_sites("").replace("api.test", host)), "", "{host}");
    }
    for host in ["mylocalhost.fr", "a.fr", "*.b.fr", "localhost.a.fr"] {
        assert_ne!(warnings(&two_sites("tls = \"internal\"").replace("api.test", host)), "", "{host}");
    }
    let with_files = public.clone() + "[certificate.a]\ncert = \"a.pem\"\nkey = \"a.key\"\n";
    assert_eq!(warnings(&with_files), "", "which hosts the files are for is not known here");
    let plain = public + "[listener.http]\naddress = \":80\"\n";
    assert_eq!(warnings(&plain), "", "no HTTPS, no certificates");
}

#[test]
fn wildcards_that_nobody_can_prove() {
    let wildcard = two_sites("").replace("api.test", "*.a.fr");
    snapshot!(warnings(&wildcard));
    let dns = "[acme.dns.cloudflare]\ntoken = \"x\"\n";
    assert_eq!(warnings(&(wildcard.clone() + dns)), "");
    assert_ne!(warnings(&(wildcard.clone() + dns + "zones = [\"b.fr\"]\n")), "", "another zone");
    assert_eq!(warnings(&(wildcard + "[acme.on_demand]\nask = \"http://127.0.0.1/\"\n")), "", "one by one");
}

#[test]
fn ports_that_no_ca_comes_to() {
    let at = |http: u16, https: u16, more: &str| {
        let listeners = format!(
            "[listener.http]\naddress = \":{http}\"\nprotocol = \"http\"\n[listener.https]\naddress = \":{https}\"\nprotocol = \"https\"\n"
        );
        warnings(&(two_sites("").replace("api.test", "api.a.fr") + &listeners + more))
    };
    snapshot!(at(8080, 8443, ""));
    assert_eq!(at(80, 8443, "") + &at(8080, 443, ""), "", "one is enough");
    assert_ne!(at(80, 8443, "[acme]\nchallenges = [\"tls-alpn-01\"]\n"), "");
    assert_ne!(at(8080, 443, "[acme]\nchallenges = [\"http-01\"]\n"), "");
    assert_eq!(at(8080, 8443, "[acme.dns.cloudflare]\ntoken = \"x\"\n"), "");
    assert_eq!(at(8080, 8443, "[authority.house]\ndirectory = \"https://ca.a.fr/\"\n"), "", "who knows where it looks");
    assert_eq!(warnings(&two_sites("").replace("api.test", "api.localhost")), "");
}

#[test]
fn warnings_are_in_the_order_of_the_file() {
    let text = two_sites("health = { path = \"/\", timeout = \"400ms\", fall = 3 }\ntimeout = { request = \"1ms\" }")
        .replace("api.test", "*.a.fr")
        + "[sites.x]\n";
    let lines: Vec<usize> = parse(&text).unwrap().warnings.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [5, 6, 7, 11]);
}

#[test]
fn colors_change_nothing_but_the_look() {
    let text = with("");
    let problems = parse(&text).unwrap().warnings;
    let render = |color| render_problems("proxy.toml", &text, &problems, Severity::Warning, color);
    let (colored, plain) = (render(true), render(false));
    assert!(colored.contains("\u{1b}[") && !plain.contains('\u{1b}'), "{colored}");
    let mut stripped = String::new();
    for (index, piece) in colored.split("\u{1b}[").enumerate() {
        stripped.push_str(if index == 0 { piece } else { piece.split_once('m').map_or(piece, |(_, rest)| rest) });
    }
    assert_eq!(stripped, plain);
}

/// Text of the file must not be able to steer the terminal.
#[test]
fn control_characters_of_the_file_are_not_printed() {
    let text = "[log]\nlevel = \"\\u001b[31m\"\nformat = '\u{7f}\u{9b}'\n\"\\u001b\" = 1\n[service.\"\\u001b\"]\n";
    let told = parse(text).unwrap_err().to_string();
    assert!(!told.contains(['\u{1b}', '\u{9b}', '\u{7f}']), "{told:?}");
}
