//! WireGuard handshakes: a sign beside others, and words.

use ipnet::IpNet;

use super::*;
use crate::effect::TunnelStep;
use crate::event::Tunnel;

/// One backend at each of two sites, 10.0.1.1 and 10.0.2.1.
fn one_each() -> Config {
    let at = |site: &str, net: usize| backend(site, &format!("10.0.{net}.1:80"), 1);
    config(vec![service("x", vec![at("a", 1), at("b", 2)], |_| {})])
}

fn tunnel(interface: &str, network: &str, age: Option<u64>) -> Tunnel {
    let networks = vec![network.parse::<IpNet>().unwrap()];
    Tunnel { interface: interface.into(), networks, handshake_age: age.map(Duration::from_secs) }
}

/// Lets time pass; the tunnel to `a` is read every 5 s and has this age at first.
fn run(rig: &mut Rig, mut age: Option<u64>, seconds: u64) {
    for _ in 0..seconds / 5 {
        rig.event(Event::Tunnels(vec![tunnel("wg0", "10.0.1.0/24", age)]));
        rig.run(ms(5_000));
        age = age.map(|age| age + 5);
    }
}

fn why(rig: &Rig, site: usize) -> String {
    rig.fleet.report(rig.now).sites[site].why.clone()
}

fn steps(rig: &Rig) -> Vec<(String, TunnelStep)> {
    let told = |note| match note {
        Transition::Tunnel { site, step, .. } => Some((site.to_string(), step)),
        _ => None,
    };
    rig.notes().into_iter().filter_map(told).collect()
}

#[test]
fn an_old_handshake_harms_nobody_who_answers() {
    let mut rig = started(one_each());
    run(&mut rig, Some(3_600), 60);
    assert_eq!(rig.member("10.0.1.1:80").health, Health::Up);
    assert_eq!(rig.fleet.report(rig.now).sites[0].health, Health::Up);
    assert_eq!(steps(&rig), [("a".to_owned(), TunnelStep::Found)]);
}

#[test]
fn an_old_handshake_is_one_sign_more_against_a_silent_site() {
    let doubted = |age: Option<u64>, fault: Fault| {
        // At start nothing has answered yet.
        let mut rig = Rig::new(one_each());
        rig.event(Event::Tunnels(vec![tunnel("wg0", "10.0.1.0/24", age)]));
        rig.set("10.0.1.1:80", Err(fault));
        rig.run(ms(2_000));
        rig.notes().iter().any(|note| matches!(note, Transition::Site { to: Health::Suspect, .. }))
    };
    assert!(doubted(Some(181), Fault::ConnectTimeout), "its backend and its tunnel: two signs");
    assert!(doubted(None, Fault::ConnectTimeout), "never a handshake");
    assert!(!doubted(Some(170), Fault::ConnectTimeout), "one backend alone accuses no site");
    assert!(!doubted(Some(181), Fault::Refused), "a refusal came through the tunnel");
}

#[test]
fn a_tunnel_that_is_old_while_its_site_answers_is_no_witness() {
    let mut rig = started(one_each());
    rig.event(Event::Tunnels(vec![tunnel("wg0", "10.0.1.0/24", Some(3_600))]));
    rig.set("10.0.1.1:80", Err(Fault::ConnectTimeout));
    rig.run(ms(5_000));
    assert!(!rig.notes().iter().any(|note| matches!(note, Transition::Site { to: Health::Suspect, .. })));
    let told = why(&rig, 0);
    assert!(told.ends_with("; WireGuard wg0: last handshake 60 min ago"), "no word about what it means: {told}");
}

#[test]
fn an_old_reading_says_nothing() {
    let mut rig = started(one_each());
    run(&mut rig, Some(100), 5);
    rig.run(ms(120_000));
    rig.set("10.0.1.1:80", Err(Fault::ConnectTimeout));
    rig.run(ms(5_000));
    assert_eq!(rig.fleet.report(rig.now).sites[0].health, Health::Down);
    assert!(!why(&rig, 0).contains("WireGuard"), "{}", why(&rig, 0));
}

#[test]
fn people_are_told_whether_it_is_the_tunnel_or_what_is_behind_it() {
    let mut rig = started(one_each());
    run(&mut rig, Some(40), 5);
    assert_eq!(why(&rig, 0), "", "a site that is well needs no words");
    rig.set("10.0.1.1:80", Err(Fault::ConnectTimeout));
    run(&mut rig, Some(45), 5);
    assert!(why(&rig, 0).ends_with("; WireGuard wg0: last handshake 50 s ago"), "{}", why(&rig, 0));
    run(&mut rig, Some(50), 200);
    let told = why(&rig, 0);
    assert!(told.ends_with("; WireGuard wg0: last handshake 4 min ago, the tunnel itself is down"), "{told}");
    run(&mut rig, Some(1), 5);
    assert!(why(&rig, 0).ends_with("; WireGuard wg0: last handshake 6 s ago, the tunnel is up"), "{}", why(&rig, 0));
    let all = [TunnelStep::Found, TunnelStep::Down, TunnelStep::Up].map(|step| ("a".to_owned(), step));
    assert_eq!(steps(&rig), all);
    rig.set("10.0.1.1:80", Ok(()));
    run(&mut rig, Some(6), 30);
    assert_eq!((why(&rig, 0).contains("WireGuard"), steps(&rig).len()), (false, 3));
}

#[test]
fn a_site_goes_by_the_narrowest_way_to_it_and_a_way_to_everywhere_is_none() {
    let mut rig = started(one_each());
    rig.event(Event::Tunnels(vec![
        tunnel("exit", "0.0.0.0/0", None),
        tunnel("wide", "10.0.0.0/16", Some(9)),
        tunnel("wg0", "10.0.1.0/24", Some(5)),
    ]));
    let ways = |rig: &Rig| {
        let sites = rig.fleet.report(rig.now).sites;
        sites.into_iter().map(|site| site.tunnel.map(|t| t.interface.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(ways(&rig), [Some("wg0".to_owned()), Some("wide".to_owned())]);
    rig.event(Event::Tunnels(vec![tunnel("exit", "0.0.0.0/0", None)]));
    assert_eq!(ways(&rig), [None, None]);
}
