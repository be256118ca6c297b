//! A reload is a difference.

use super::*;

fn reload(rig: &mut Rig, config: Config) {
    rig.said.clear();
    rig.event(Event::Reload(Arc::new(config)));
}

fn counted(rig: &Rig) -> (usize, usize, usize) {
    rig.notes()
        .iter()
        .find_map(|n| match n {
            Transition::Reloaded { added, removed, kept } => Some((*added, *removed, *kept)),
            _ => None,
        })
        .unwrap()
}

fn services(names: &[&str]) -> Config {
    let make = |name: &&str| {
        let host = name.as_bytes()[0];
        service(
            name,
            vec![backend("a", &format!("10.0.1.{host}:80"), 1), backend("b", &format!("10.0.2.{host}:80"), 1)],
            |_| {},
        )
    };
    config(names.iter().map(make).collect())
}

#[test]
fn an_equal_config_changes_nothing() {
    let mut rig = started(services(&["x", "y"]));
    let generation = rig.snapshot.generation;
    reload(&mut rig, services(&["x", "y"]));
    assert_eq!(rig.snapshot.generation, generation);
    assert_eq!(counted(&rig), (0, 0, 4));
}

#[test]
fn what_stays_keeps_its_pool_its_counters_and_its_verdicts() {
    let mut rig = started(services(&["x", "y"]));
    rig.set("10.0.1.120:80", Err(Fault::Refused));
    rig.run(ms(2_000));
    assert_eq!(rig.health("10.0.1.120:80"), Health::Down);
    let before = rig.snapshot.pools.clone();
    before[0].stats.duration.observe(ms(1));
    reload(&mut rig, services(&["w", "x"]));
    assert_eq!(counted(&rig), (2, 2, 2));
    assert!(Arc::ptr_eq(&before[0], &rig.snapshot.pools[1]), "an unchanged pool is the same pool");
    assert_eq!(rig.health("10.0.1.120:80"), Health::Down);
    assert_eq!(rig.health("10.0.1.119:80"), Health::Probing);
    let forgotten =
        rig.said.iter().filter(|e| matches!(e, Effect::Forget(RecordKey::Backend(id)) if *id.service == *"y"));
    assert_eq!(forgotten.count(), 2);
    rig.run(ms(120));
    assert_eq!(rig.health("10.0.1.119:80"), Health::Up);
    assert!(rig.member("10.0.1.119:80").ramp_from.is_some(), "a backend that joins is cold");
}

#[test]
fn an_edited_service_keeps_backends_stats_and_balancer_state() {
    let mut rig = started(services(&["x"]));
    let before = Arc::clone(&rig.snapshot.pools[0]);
    let mut edited = services(&["x"]);
    let mut service = (*edited.services[0]).clone();
    service.max_body = Some(7);
    edited.services[0] = Arc::new(service);
    reload(&mut rig, edited);
    let after = Arc::clone(&rig.snapshot.pools[0]);
    assert!(!Arc::ptr_eq(&before, &after));
    assert_eq!(after.service.max_body, Some(7));
    assert!(Arc::ptr_eq(&before.stats, &after.stats) && Arc::ptr_eq(&before.shared, &after.shared));
    for (old, new) in before.members.iter().zip(&after.members) {
        assert!(Arc::ptr_eq(&old.backend, &new.backend));
        assert_eq!(new.health, Health::Up);
    }
}

#[test]
fn another_transport_gets_another_slot_but_keeps_health_and_flap_history() {
    let with = |protocol| {
        pair(|forward| {
            forward.backends[0].upstream = Arc::new(relais_config::Upstream { protocol, tls: None });
        })
    };
    let mut rig = started(with(relais_config::UpstreamProtocol::H1));
    let old = rig.member(A1);
    reload(&mut rig, with(relais_config::UpstreamProtocol::H2));
    let new = rig.member(A1);
    assert_ne!(old.backend.slot, new.backend.slot);
    assert_eq!(new.backend.upstream.protocol, relais_config::UpstreamProtocol::H2);
    assert_eq!(new.health, Health::Up);
    assert_eq!(counted(&rig), (0, 0, 2));
    rig.run(ms(1_000));
    assert!(rig.probes.iter().any(|(_, o)| o.backend.slot == new.backend.slot), "the new one is probed");
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
}

#[test]
fn timers_are_solved_again_and_take_effect_at_once() {
    let mut rig = started(pair(|forward| forward.health.interval = Some(ms(30_000))));
    rig.run(ms(40_000));
    reload(&mut rig, pair(|_| {}));
    assert_eq!(rig.snapshot.pools[0].timers.interval, ms(250));
    rig.probes.clear();
    rig.run(ms(3_000));
    assert!(rig.probes.len() >= 22, "{}", rig.probes.len());
}

#[test]
fn checks_can_be_switched_off_and_on() {
    let off = || pair(|forward| forward.health.kind = CheckKind::Off);
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    reload(&mut rig, off());
    rig.probes.clear();
    rig.until(ms(2_000), |rig| rig.health(A1) == Health::Up);
    assert!(rig.probes.is_empty());
    reload(&mut rig, pair(|_| {}));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
}

#[test]
fn a_doubt_about_a_site_survives_reloads() {
    let mut rig = started(two_sites());
    rig.set(A1, Err(Fault::ConnectTimeout));
    rig.set(A2, Err(Fault::ConnectTimeout));
    let start = rig.now;
    let mut round = 0;
    while rig.health(A1) != Health::Down {
        assert!(rig.now.since(start) < ms(900));
        let mut config = two_sites();
        config.services =
            vec![Arc::new(relais_config::Service { max_body: Some(round), ..(*config.services[0]).clone() })];
        reload(&mut rig, config);
        round += 1;
        rig.run(ms(50));
    }
    assert_eq!(rig.health(A2), Health::Down);
}

/// `x`, and beside it one that sends clients there.
fn with_redirect() -> Config {
    let mut config = services(&["x"]);
    let mut redirect = (*config.services[0]).clone();
    redirect.name = "old".into();
    redirect.action = relais_config::Action::Redirect(relais_config::Redirect {
        to: "https://x.example".to_owned(),
        status: 308,
        keep_path: true,
    });
    config.services.push(Arc::new(redirect));
    config
}

#[test]
fn hosts_lead_where_the_newest_config_says() {
    let of = |rig: &Rig, host: &str| rig.snapshot.route(host, "/").map(|pool| pool.service.name.to_string());
    let mut rig = started(services(&["x", "y"]));
    let mut edited = services(&["x", "y"]);
    let renamed = relais_config::Service { hosts: vec!["z.example".to_owned()], ..(*edited.services[1]).clone() };
    edited.services[1] = Arc::new(renamed);
    reload(&mut rig, edited);
    assert_eq!((of(&rig, "z.example").as_deref(), of(&rig, "y.example")), (Some("y"), None));
    reload(&mut rig, services(&["y", "x"]));
    for name in ["x", "y"] {
        assert_eq!(of(&rig, &format!("{name}.example")).as_deref(), Some(name));
    }
}

#[test]
fn services_that_change_places_are_judged_and_compared_as_before() {
    let mut rig = started(with_redirect());
    let before = rig.snapshot.pools.clone();
    let mut other = with_redirect();
    other.services.reverse();
    reload(&mut rig, other);
    assert_eq!(counted(&rig), (0, 0, 2));
    assert!(Arc::ptr_eq(&before[0], &rig.snapshot.pools[1]), "it is the same pool");
    assert!(rig.fleet.agenda.at(Alarm::Compare(1)).is_some() && rig.fleet.agenda.at(Alarm::Compare(0)).is_none());
    rig.set("10.0.1.120:80", Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health("10.0.1.120:80") == Health::Down);
    assert_eq!(rig.snapshot.pools[1].members[0].health, Health::Down);
}

#[test]
fn a_site_is_told_of_by_its_backends_of_today() {
    let mut rig = started(services(&["x", "y", "w"]));
    let sites = |rig: &Rig| -> Vec<(Vec<u32>, Vec<usize>)> {
        rig.fleet.sites.iter().map(|site| (site.members.clone(), site.services.clone())).collect()
    };
    assert_eq!(sites(&rig), [(vec![0, 2, 4], vec![0, 1, 2]), (vec![1, 3, 5], vec![0, 1, 2])]);
    let mut next = services(&["w", "v", "x"]);
    let mut moved = (*next.services[0]).clone();
    let relais_config::Action::Forward(forward) = &mut moved.action else { panic!("it forwards") };
    forward.backends.remove(1);
    next.services[0] = Arc::new(moved);
    reload(&mut rig, next);
    assert_eq!(sites(&rig), [(vec![0, 4, 6], vec![0, 1, 2]), (vec![1, 7], vec![1, 2])]);
}

#[test]
fn a_service_without_backends_has_an_empty_pool() {
    let rig = started(with_redirect());
    assert_eq!(rig.snapshot.pools.len(), 2);
    assert!(rig.snapshot.pools[1].members.is_empty());
    assert_eq!(rig.fleet.report(rig.now).services[1].action, "redirect");
}

#[test]
fn a_transition_rebuilds_only_its_own_pool() {
    let names: Vec<String> = (0..200).map(|i| format!("{}{i}", char::from(b'a' + i % 26))).collect();
    let make = |(i, name): (usize, &String)| {
        let address = |site: usize| format!("10.{site}.{}.{}:80", i / 100, i % 100 + 1);
        service(name, vec![backend("a", &address(1), 1), backend("b", &address(2), 1)], |_| {})
    };
    let mut rig = started(config(names.iter().enumerate().map(make).collect()));
    let before = rig.snapshot.clone();
    rig.set("10.1.1.7:80", Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health("10.1.1.7:80") == Health::Down);
    assert_eq!(rig.snapshot.generation, before.generation + 1);
    let changed = before.pools.iter().zip(&rig.snapshot.pools).filter(|(old, new)| !Arc::ptr_eq(old, new)).count();
    assert_eq!(changed, 1);
}
