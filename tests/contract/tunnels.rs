//! WireGuard: what `wg` says of a tunnel is told beside what is known of its site. `wg` itself is a script here.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::edge::{Edge, Setup};
use crate::support::raw::{Addressed, Plain};
use crate::support::wait_for;
use crate::support::wire::ok;

/// An edge with one backend at `dijon`, and this program as its `wg`.
fn edge(wg: &str) -> (Edge, Plain) {
    let backend = Plain::new(|_| ok("fine").into_bytes());
    let setup = Setup::services(&format!(
        "[sites]\ndijon = 1\n[service.web]\nhosts = [\"*\"]\nhealth = \"/\"\n[service.web.backends]\ndijon = [{:?}]\n",
        backend.address()
    ));
    handshake(setup.dir(), 3600);
    program(&setup.dir().join("wg"), wg);
    let edge = setup.under("PATH=$PWD:$PATH; exec \"$@\"").start();
    edge.wait_for_health(&backend, "up");
    (edge, backend)
}

fn program(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// What `wg show all WHAT` of wireguard-tools prints; the last handshake is as the file beside it says. Asked for more, it
/// fails.
const WG: &str = r#"
here="$(dirname "$0")"
echo "$*" >> "$here/asked"
case "$*" in
"show all allowed-ips") printf 'wg7\tKEY=\t127.0.0.0/8 fd00::/8\n' ;;
"show all latest-handshakes") printf 'wg7\tKEY=\t%s\n' "$(cat "$here/handshake")" ;;
*) exit 1 ;;
esac"#;

fn handshake(dir: &Path, seconds_ago: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // In one step: the script may be reading.
    std::fs::write(dir.join("handshake.new"), format!("{}\n", now - seconds_ago)).unwrap();
    std::fs::rename(dir.join("handshake.new"), dir.join("handshake")).unwrap();
}

#[test]
fn a_site_that_is_down_says_what_its_tunnel_says() {
    let (edge, _backend) = edge(WG);
    edge.line("the tunnel is known", |line| {
        line["message"] == "handshakes of WireGuard wg7 are read for dijon: last handshake 60 min ago"
    });
    let site = |key: &str| edge.status()["report"]["sites"][0][key].clone();
    assert_eq!(site("health"), "up", "it answers: an old handshake is no fault");
    assert_eq!((&site("tunnel")["interface"], site("why")), (&"wg7".into(), "".into()));
    // The cable is cut: nothing comes back any more.
    let (code, body) = edge.admin("POST", "/drill", r#"{"site":"dijon","shape":"silent","seconds":30,"force":true}"#);
    assert_eq!(code, 202, "{body}");
    let told = |words: &str| {
        // A drill nobody asks for ends.
        edge.admin("GET", "/drill", "");
        site("health") == "down" && site("why").as_str().unwrap().contains(words)
    };
    wait_for("the site is down, with the age of its handshake", || told("; WireGuard wg7: last handshake 60 min ago"));
    wait_for("the tunnel is seen to live", || {
        // Whole seconds: one that is in the second of the verdict looks older than it.
        handshake(edge.dir(), 0);
        told("; WireGuard wg7: last handshake ") && told(" ago, the tunnel is up")
    });
    let (_, table, _) = edge.cli(&["status"]);
    assert!(table.contains(" ago, the tunnel is up"), "{table}");
    edge.line("it is told", |line| {
        let message = line["message"].as_str().unwrap_or_default();
        line["level"] == "WARN"
            && message.starts_with("the WireGuard tunnel to dijon is up, nothing behind it answers: ")
    });
    let asked = std::fs::read_to_string(edge.dir().join("asked")).unwrap();
    assert!(!asked.contains("dump") && !asked.contains("key"), "no keys: {asked}");
}

#[test]
fn where_wg_may_not_look_nothing_is_said() {
    let (edge, _backend) = edge("touch \"$(dirname \"$0\")/asked\"; echo 'Operation not permitted' >&2; exit 1");
    wait_for("it was asked", || edge.dir().join("asked").exists());
    let (code, _) = edge.admin("POST", "/reload", "");
    assert_eq!(code, 200, "the loop goes on");
    assert!(edge.status()["report"]["sites"][0]["tunnel"].is_null());
    assert!(!edge.log().contains("ireGuard") && !edge.log().contains("permitted"), "{}", edge.log());
}
