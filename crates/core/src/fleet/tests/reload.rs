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

#[test]
fn a_service_without_backends_has_an_empty_pool() {
    let mut config = services(&["x"]);
    let mut redirect = (*config.services[0]).clone();
    redirect.name = "old".into();
    redirect.action = relais_config::Action::Redirect(relais_config::Redirect {
        to: "https://x.example".to_owned(),
        status: 308,
        keep_path: true,
    });
    config.services.push(Arc::new(redirect));
    let rig = started(config);
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
