//! Debian's `testssl.sh` looks at the edge as it is configured by nobody: protocols, ciphers, certificates, resumption,
//! headers and every weakness it knows.

use std::collections::BTreeMap;

use crate::support::edge::Setup;
use crate::support::raw::Plain;
use crate::support::tools::{have, run};

/// What it finds fault with and is meant so.
const MEANT: [&str; 7] = [
    // Of the test itself: Debian's openssl, and a certificate of the local CA, which lives 30 days and has no list of those
    // taken back.
    "engine_problem",
    "cert_expirationStatus",
    "cert_notAfter",
    "cert_revocation",
    // Each client takes what its hardware is fast at: all that is offered is AEAD with forward secrecy.
    "cipher_order",
    // What a page may load is its author's business.
    "security_headers",
    // Its `openssl s_client` hangs up at once, on a busy machine before the ticket of TLS 1.3 has reached it, and then calls the
    // session file that was not written a connect problem. Resumption has tests of its own.
    "sessionresumption_ticket",
];

/// What it must have looked at and found good, so that nothing passes by not being looked at.
const GOOD: [&str; 39] = [
    "SSLv2",
    "SSLv3",
    "TLS1_2",
    "TLS1_3",
    "ALPN_HTTP2",
    "cipherlist_NULL",
    "cipherlist_aNULL",
    "cipherlist_EXPORT",
    "cipherlist_LOW",
    "cipherlist_STRONG",
    "PFS",
    "PFS_ECDHE_curves",
    "protocol_negotiated",
    "cipher_negotiated",
    "cert_signatureAlgorithm",
    "cert_keySize",
    "cert_commonName",
    "cert_trust",
    "cert_chain_of_trust",
    "HSTS_time",
    "heartbleed",
    "CCS",
    "ticketbleed",
    "ROBOT",
    "secure_renego",
    "secure_client_renego",
    "CRIME_TLS",
    "BREACH",
    "POODLE_SSL",
    "fallback_SCSV",
    "SWEET32",
    "FREAK",
    "DROWN",
    "LOGJAM",
    "LOGJAM-common_primes",
    "BEAST",
    "LUCKY13",
    "RC4",
    "TLS1_1",
];

#[test]
fn testssl_finds_no_weakness() {
    if !have("testssl", "testssl.sh") {
        return;
    }
    let backend = Plain::saying("hello");
    let services = format!(
        "[service.web]\nhosts = [\"web.test\"]\nhealth = \"off\"\nhsts = {{ max_age = \"365d\" }}\nbackends = [\"{}\"]\n",
        backend.serving.address
    );
    let listening = "[listener.https]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n";
    let edge = Setup::services(&services).listening(listening).start();
    let found = edge.state_dir().join("testssl.json");
    let mut command = std::process::Command::new("/usr/bin/testssl");
    command.args(["--quiet", "--color", "0", "--warnings", "batch", "-n", "none", "--ip"]);
    command
        .arg(edge.https().ip().to_string())
        .args(["-p", "-s", "-f", "-S", "-P", "-U", "-h", "--jsonfile"])
        .arg(&found);
    command.arg("--add-ca").arg(edge.root()).arg(format!("https://web.test:{}", edge.https().port()));
    let ran = run(&mut command);
    let text = std::fs::read_to_string(&found).unwrap_or_else(|fault| panic!("{fault}: {ran:?}"));
    let findings: Vec<BTreeMap<String, String>> = serde_json::from_str(&text).unwrap();
    let bad: Vec<String> = findings
        .iter()
        .filter(|one| !matches!(&*one["severity"], "OK" | "INFO") && !MEANT.contains(&&*one["id"]))
        .map(|one| format!("{} {}: {}", one["severity"], one["id"], one["finding"]))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    for id in GOOD {
        let one = findings.iter().find(|one| one["id"] == id).unwrap_or_else(|| panic!("{id} was not looked at"));
        let old = matches!(id, "TLS1_1").then_some("not offered");
        let good = one["severity"] == "OK" || old.is_some_and(|words| one["finding"].contains(words));
        assert!(good, "{one:?}");
    }
}
