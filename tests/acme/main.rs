//! Certificates from a CA, with the real executable and Debian's `pebble`: from nothing to HTTPS, through kills, damage, a
//! CA that is away, names that come and go, and from another program's folder.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

/// A CA that knows what `pebble` does not.
#[path = "../../crates/tls/tests/acme/fake.rs"]
#[allow(dead_code, reason = "the tests of the library use all of it")]
mod fake;
#[path = "../../crates/tls/tests/dns/fake_cloudflare.rs"]
#[allow(dead_code, reason = "the tests of the library use all of it; here and below")]
mod fake_cloudflare;
#[path = "../../crates/tls/tests/dns/fake_http.rs"]
#[allow(dead_code, reason = "as above")]
mod fake_http;
#[path = "../../crates/tls/tests/dns/fake_ovh.rs"]
#[allow(dead_code, reason = "as above")]
mod fake_ovh;

mod authorities;
mod clock;
mod crash;
mod demand;
mod first;
mod knot;
mod names;
mod operator;
mod pebble;
mod providers;
mod scripted;
mod trouble;
