//! Loops over the hot pure functions: `tools count NAME TIMES` does one of them so often and ends. The difference of the
//! instructions of two runs with different TIMES is that of the function alone. `tools count` lists the names.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use relais_core::{Ask, Instant, Snapshot};
use relais_proxy::headers::{Present, strip_hop_by_hop};

use crate::args::Outcome;
use crate::fleet;

const NOW: Instant = Instant::from_micros(1_700_000_010_000_000);

const NAMES: [&str; 15] = [
    "route/10-hosts",
    "route/1000-hosts",
    "route/1000-paths",
    "route/unknown-host",
    "pick/least-inflight-10",
    "pick/least-inflight-1000",
    "pick/round-robin-1000",
    "pick/least-latency-1000",
    "pick/hash-10",
    "pick/hash-1000",
    "headers/of-a-browser",
    "headers/hop-by-hop",
    "probe/100-backends",
    "probe/1000-backends",
    "reload/1-of-1000-services",
];

pub(crate) fn run(words: &[String]) -> Outcome<()> {
    let [name, times] = words else {
        NAMES.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    let times: u64 = times.parse()?;
    match name.split_once('/') {
        Some(("route", what)) => route(what, times),
        Some(("pick", what)) => pick(what, times),
        Some(("headers", what)) => headers(what, times),
        Some(("probe", what)) => probe(what, times),
        Some(("reload", "1-of-1000-services")) => fleet::reloads(1000, 10, times),
        _ => Err(format!("no function {name}").into()),
    }
}

fn route(what: &str, times: u64) -> Outcome<()> {
    let (snapshot, host, path) = match what {
        "10-hosts" => (hosts(10)?, "s7.bench.test", "/a/page?x=1"),
        "1000-hosts" => (hosts(1000)?, "s777.bench.test", "/a/page?x=1"),
        "unknown-host" => (hosts(1000)?, "nobody.bench.test", "/a/page?x=1"),
        "1000-paths" => (paths(1000)?, "a.bench.test", "/section/777/page"),
        other => return Err(format!("no route {other}").into()),
    };
    for _ in 0..times {
        black_box(black_box(&snapshot).route(black_box(host), black_box(path)));
    }
    Ok(())
}

fn hosts(n: usize) -> Outcome<Arc<Snapshot>> {
    fleet::snapshot(&fleet::text(n, 1, "1s"))
}

fn paths(n: usize) -> Outcome<Arc<Snapshot>> {
    let mut text = String::from("[edge]\ntls = \"internal\"\n");
    for i in 0..n {
        text.push_str(&format!(
            "[service.s{i}]\nhosts = [\"a.bench.test\"]\npaths = [\"/section/{i}\"]\nbackends = [\"127.0.0.1:8080\"]\n"
        ));
    }
    fleet::snapshot(&text)
}

fn pick(what: &str, times: u64) -> Outcome<()> {
    let (policy, members) = what.rsplit_once('-').ok_or("POLICY-MEMBERS")?;
    let balance = if policy == "hash" { "{ hash = \"uri\" }".to_owned() } else { format!("\"{policy}\"") };
    let one = fleet::text(1, members.parse()?, "1s");
    let snapshot = fleet::snapshot(&one.replace("failover_within", &format!("balance = {balance}\nfailover_within")))?;
    let pool = snapshot.route("s0.bench.test", "/").ok_or("no route")?;
    for n in 0..times {
        let roll = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let ask = Ask { tried: &[], roll, now: NOW, key: Some(roll), sticky: None, avoid_site: None, stream: false };
        black_box(black_box(pool).pick(black_box(&ask)));
    }
    Ok(())
}

/// What the fleet does for one probe, with all that comes up meanwhile: here the comparison of backends of which each gives
/// as many wrong answers as the others, so that each of them must be looked at.
fn probe(what: &str, times: u64) -> Outcome<()> {
    let backends = what.strip_suffix("-backends").ok_or("N-backends")?.parse()?;
    let (mut fleet, snapshot, _) = fleet::settled(&fleet::text(1, backends, "1s"))?;
    for member in snapshot.pools.iter().flat_map(|pool| &pool.members) {
        for n in 0..40 {
            member.backend.stats.latency.observe(Duration::from_millis(5));
            member.backend.stats.succeed(if n % 2 == 0 { 500 } else { 200 });
        }
    }
    let mut sent = 0;
    while sent < times {
        let now = fleet.poll_timeout().ok_or("nothing is due")?;
        sent += fleet::step(&mut fleet, Ok(()), now) as u64;
    }
    Ok(())
}

fn headers(what: &str, times: u64) -> Outcome<()> {
    let mut fields = HeaderMap::new();
    for (name, value) in BROWSER {
        fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    for _ in 0..times {
        if what == "hop-by-hop" {
            fields.insert(header::CONNECTION, HeaderValue::from_static("keep-alive, x-of-this-hop"));
            fields.insert(HeaderName::from_static("x-of-this-hop"), HeaderValue::from_static("1"));
        }
        let present = Present::in_(black_box(&fields));
        black_box(strip_hop_by_hop(&mut fields, present));
    }
    Ok(())
}

/// What a browser sends.
const BROWSER: [(&str, &str); 14] = [
    ("host", "www.example.org"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://www.example.org/a/page"),
    ("cookie", "session=0123456789abcdef; theme=dark"),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-user", "?1"),
    ("if-none-match", "\"0123456789abcdef\""),
    ("priority", "u=0, i"),
];
