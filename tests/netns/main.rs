//! The whole program in a small internet of network namespaces: an edge, a hub, three sites with two backends each, users
//! who ask at a fixed rate, and everything that breaks. Each scenario shows a row of what the users felt.
//!
//! Needs root and iproute2. `benches/failover/README.md` tells the switches: the whole list, and the same for peers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "times are shown in seconds")]

#[path = "../support/mod.rs"]
mod support;

mod backend;
mod http;
mod load;
mod proxy;
mod row;
mod scenario;
mod world;

use scenario::Step::{Again, Behave, Crash, Cut, Forget, Freeze, Kill, Lose, LoseLarge, Mend, Reload, Thaw};
use scenario::{Outage, Scenario};
use world::Direction::{self, FromSite, ToSite};

const DIJON: &[usize] = &[0, 1];
const DIJON_1: &[usize] = &[0];
const THORY: &[usize] = &[2, 3];
const THORY_1: &[usize] = &[2];
const DIJON_AND_THORY: &[usize] = &[0, 1, 2, 3];
const ONE_AND_ONE: &[usize] = &[0, 2];
const EVERYWHERE: &[usize] = &[0, 1, 2, 3, 4, 5];

const BOTH: &[Direction] = &[ToSite, FromSite];

/// A WebSocket of whatever failed is closed by relais itself.
const SAID: Option<&[&str]> = Some(&["1012"]);

/// What may have been received is never repeated: it waits for its backend, until its user has had enough.
const GIVEN_UP: &[&str] = &["http_502", "http_504", "timeout"];

#[test]
fn the_preferred_site_is_cut_silently() {
    Scenario {
        name: "preferred site cut",
        fast: true,
        preferred: Some(0),
        bad: DIJON,
        steps: vec![(0, Cut(0, BOTH)), (4000, Mend(0, BOTH))],
        down: Some(0),
        told: SAID,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_shared_site_is_cut_silently() {
    Scenario {
        name: "shared site cut",
        bad: DIJON,
        steps: vec![(0, Cut(0, BOTH)), (4000, Mend(0, BOTH))],
        down: Some(0),
        told: SAID,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn nothing_comes_back_from_a_site() {
    Scenario {
        name: "cut one way: from the site",
        fast: true,
        bad: DIJON,
        steps: vec![(0, Cut(0, &[FromSite])), (4000, Mend(0, &[FromSite]))],
        down: Some(0),
        told: SAID,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn nothing_arrives_at_a_site() {
    Scenario {
        name: "cut one way: to the site",
        bad: DIJON,
        steps: vec![(0, Cut(0, &[ToSite])), (4000, Mend(0, &[ToSite]))],
        down: Some(0),
        told: SAID,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn the_preferred_site_is_cut_silently_with_a_contract_of_300_ms() {
    Scenario {
        name: "preferred site cut, failover_within = 300ms",
        preferred: Some(0),
        contract: Some(300),
        bad: DIJON,
        steps: vec![(0, Cut(0, BOTH)), (4000, Mend(0, BOTH))],
        down: Some(0),
        told: SAID,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_firewall_forgets_the_connections_of_a_site() {
    Scenario {
        name: "firewall forgets a site's connections",
        fast: true,
        bad: DIJON,
        // The site lives, and says so to every new connection: only what is open to it is dead.
        steps: vec![(0, Forget(0))],
        told: SAID,
        // Nobody accuses the site, so that a stream has what a lossy line needs: three contracts for what it sent last.
        told_in: 3,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_backend_is_killed() {
    Scenario {
        name: "backend SIGKILL",
        bad: DIJON_1,
        steps: vec![(0, Kill(DIJON_1)), (4000, Again(DIJON_1, ""))],
        told: SAID,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_backend_hangs() {
    Scenario {
        name: "backend SIGSTOP",
        fast: true,
        bad: DIJON_1,
        // Its kernel goes on to acknowledge what is sent there.
        steps: vec![(0, Freeze(DIJON_1)), (4000, Thaw(DIJON_1))],
        told: SAID,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_site_is_killed() {
    Scenario {
        name: "site SIGKILL",
        fast: true,
        preferred: Some(0),
        bad: DIJON,
        steps: vec![(0, Kill(DIJON)), (4000, Again(DIJON, ""))],
        down: Some(0),
        told: SAID,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_backend_refuses_all() {
    Scenario {
        name: "backend answers 503",
        bad: DIJON_1,
        steps: vec![(0, Behave(DIJON_1, "status=503")), (4000, Behave(DIJON_1, ""))],
        posts: &["http_503"],
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_backend_fails_all() {
    Scenario {
        name: "backend answers 500",
        retry_500: true,
        bad: DIJON_1,
        steps: vec![(0, Behave(DIJON_1, "status=500")), (4000, Behave(DIJON_1, ""))],
        posts: &["http_500"],
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_site_fails_three_in_ten() {
    Scenario {
        name: "30 % of a site's answers are 500",
        retry_500: true,
        bad: DIJON,
        steps: vec![(0, Behave(DIJON, "errors=3")), (6000, Behave(DIJON, ""))],
        repair: 6000,
        posts: &["http_500"],
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_site_is_fifty_times_slower() {
    Scenario {
        name: "site 50 times slower",
        bad: DIJON,
        steps: vec![(0, Behave(DIJON, "slow=50")), (6000, Behave(DIJON, ""))],
        repair: 6000,
        after: 3000,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_backend_fails_three_in_ten() {
    Scenario {
        name: "30 % of a backend's answers are 500",
        fast: true,
        balance: Some("round-robin"),
        retry_500: true,
        bad: DIJON_1,
        steps: vec![(0, Behave(DIJON_1, "errors=3")), (8000, Behave(DIJON_1, ""))],
        repair: 8000,
        ejected: Some(0),
        posts: &["http_500"],
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_backend_is_fifty_times_slower() {
    Scenario {
        name: "backend 50 times slower",
        fast: true,
        // Least in flight would leave it before it has answered often enough to be judged.
        balance: Some("round-robin"),
        bad: DIJON_1,
        steps: vec![(0, Behave(DIJON_1, "slow=50")), (8000, Behave(DIJON_1, ""))],
        repair: 8000,
        ejected: Some(0),
        ..Scenario::default()
    }
    .run();
}

/// The default balance: who is slow has more in flight, so that few meet it, and so that it takes longer to be sure of it.
#[test]
fn a_backend_is_fifty_times_slower_and_meets_few() {
    Scenario {
        name: "backend 50 times slower, balance by default",
        bad: DIJON_1,
        steps: vec![(0, Behave(DIJON_1, "slow=50")), (9000, Behave(DIJON_1, ""))],
        repair: 9000,
        ejected: Some(0),
        ejected_in: 8.0,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_site_loses_every_fifth_packet() {
    Scenario {
        name: "20 % of a site's packets lost",
        fast: true,
        bad: DIJON,
        steps: vec![(0, Lose(0, 20)), (6000, Lose(0, 0))],
        repair: 6000,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn the_preferred_site_answers_only_its_checks() {
    Scenario {
        name: "preferred site answers only its checks",
        fast: true,
        preferred: Some(0),
        bad: DIJON,
        // Whoever is stuck there is not lost: it goes on when the fault ends.
        steps: vec![(0, Behave(DIJON, "stuck=1")), (8000, Behave(DIJON, ""))],
        repair: 8000,
        ejected: Some(0),
        // Of this it is sure after one contract and two looks.
        ejected_in: 6.0,
        posts: GIVEN_UP,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn the_path_to_the_preferred_site_loses_large_packets() {
    Scenario {
        name: "path to the preferred site loses large packets",
        preferred: Some(0),
        bad: DIJON,
        // Checks, connects and small frames of streams pass.
        steps: vec![(0, LoseLarge(0, 1000)), (8000, Lose(0, 0))],
        repair: 8000,
        ejected: Some(0),
        ejected_in: 6.0,
        posts: GIVEN_UP,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn two_sites_fail_at_once() {
    Scenario {
        name: "one site cut, one killed",
        bad: DIJON_AND_THORY,
        steps: vec![(0, Cut(0, BOTH)), (0, Kill(THORY)), (4000, Mend(0, BOTH)), (4000, Again(THORY, ""))],
        down: Some(0),
        told: SAID,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn a_site_flaps() {
    Scenario {
        name: "site 1 s down, 1 s up, five times",
        bad: DIJON,
        steps: (0..5).flat_map(|n| [(n * 2000, Cut(0, BOTH)), (n * 2000 + 1000, Mend(0, BOTH))]).collect(),
        repair: 9000,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn all_sites_are_cut_and_come_back() {
    Scenario {
        name: "all sites cut, then back",
        bad: EVERYWHERE,
        steps: (0..3).map(|n| (0, Cut(n, BOTH))).chain((0..3).map(|n| (4000, Mend(n, BOTH)))).collect(),
        after: 5000,
        told: SAID,
        outage: Some(Outage { from: 0, to: 7000 }),
        ..Scenario::default()
    }
    .run();
}

#[test]
fn the_health_of_a_site_lies_that_it_is_sick() {
    Scenario {
        name: "health of a site says 503, it works",
        bad: DIJON,
        steps: vec![(0, Behave(DIJON, "health=503")), (4000, Behave(DIJON, ""))],
        ..Scenario::default()
    }
    .run();
}

#[test]
fn the_health_of_all_lies_that_they_are_sick() {
    Scenario {
        name: "health everywhere says 503, all works",
        fast: true,
        bad: EVERYWHERE,
        steps: vec![(0, Behave(EVERYWHERE, "health=503")), (4000, Behave(EVERYWHERE, ""))],
        ..Scenario::default()
    }
    .run();
}

#[test]
fn the_health_of_a_site_lies_that_it_is_well() {
    Scenario {
        name: "health of a site says 200, it refuses",
        bad: DIJON,
        steps: vec![(0, Behave(DIJON, "status=503 health=200")), (4000, Behave(DIJON, ""))],
        posts: &["http_503"],
        ..Scenario::default()
    }
    .run();
}

#[test]
fn backends_come_back_cold() {
    Scenario {
        name: "two backends come back cold",
        bad: ONE_AND_ONE,
        steps: vec![
            (0, Kill(ONE_AND_ONE)),
            (1500, Again(DIJON_1, "cold=2000")),
            (3000, Again(THORY_1, "cold=2000 health=200")),
        ],
        repair: 6500,
        posts: &["http_502", "http_503", "http_504"],
        ..Scenario::default()
    }
    .run();
}

#[test]
fn twenty_reloads() {
    Scenario {
        name: "20 reloads",
        steps: (0..20).map(|n| (u64::from(n) * 250, Reload(n + 1))).collect(),
        repair: 5000,
        ..Scenario::default()
    }
    .run();
}

#[test]
fn the_edge_is_killed_while_a_site_is_cut() {
    Scenario {
        name: "edge SIGKILL, preferred site cut",
        fast: true,
        preferred: Some(0),
        bad: DIJON,
        steps: vec![(0, Cut(0, BOTH)), (2500, Crash), (6000, Mend(0, BOTH))],
        repair: 6000,
        down: Some(0),
        told: SAID,
        outage: Some(Outage { from: 2500, to: 4500 }),
        ..Scenario::default()
    }
    .run();
}
