//! What survives a restart, and for how long it is believed.

use super::*;

fn record(site: &str, address: &str, health: Health, age: Duration) -> Record {
    Record::Backend(BackendRecord {
        id: BackendId { service: "api".into(), site: site.into(), address: address.into() },
        health,
        since: START - ms(3_600_000),
        verified: START - age,
        why: "as saved".to_owned(),
        downs: vec![START - ms(5_000)],
        addresses: Vec::new(),
        ejected_until: None,
        ejections: 0,
        left_for_better: false,
        ramp_from: None,
        agent: None,
    })
}

fn restarted(records: Vec<Record>) -> Rig {
    Rig::with(pair(|_| {}), Saved { records })
}

#[test]
fn young_memory_is_believed_and_verified_at_once() {
    let mut rig = restarted(vec![record("a", A1, Health::Down, ms(59_000)), record("b", B1, Health::Up, ms(1_000))]);
    assert_eq!((rig.health(A1), rig.health(B1)), (Health::Down, Health::Up));
    assert_eq!(rig.why(A1), "as saved");
    assert_eq!(rig.fleet.report(START).services[0].backends[0].since, START - ms(3_600_000));
    rig.run(ms(100));
    assert_eq!(rig.probes.len(), 2);
    rig.until(ms(1_500), |rig| rig.health(A1) == Health::Up);
}

#[test]
fn a_site_is_up_since_those_are_that_it_is_made_of() {
    let Record::Backend(mut lately) = record("a", A2, Health::Up, ms(1_000)) else { unreachable!() };
    lately.since = START - ms(10_000);
    let word = AdminRecord {
        target: Target::Backend(BackendId { service: "api".into(), site: "a".into(), address: A1.into() }),
        word: Admin::Disabled,
        since: START - ms(600_000),
        reason: None,
    };
    let up = record("a", A1, Health::Up, ms(1_000));
    let since = |records| Rig::with(two_sites(), Saved { records }).fleet.report(START).sites[0].since;
    assert_eq!(since(vec![up.clone(), Record::Backend(lately.clone())]), START - ms(3_600_000));
    let records = vec![up, Record::Backend(lately), Record::Admin(word)];
    assert_eq!(since(records), START - ms(10_000), "nobody asks the first one");
}

#[test]
fn old_memory_is_verified_first() {
    let old = ms(61_000);
    let mut rig = restarted(vec![record("a", A1, Health::Down, old), record("b", B1, Health::Up, old)]);
    assert_eq!((rig.health(A1), rig.health(B1)), (Health::Probing, Health::Probing));
    rig.set(A1, Err(Fault::Refused));
    rig.run(ms(106));
    assert_eq!(rig.health(A1), Health::Down, "one failed check confirms what was known");
    assert_eq!(rig.health(B1), Health::Up);
}

#[test]
fn old_memory_of_an_outage_is_confirmed_by_one_silence() {
    let mut rig = restarted(vec![record("a", A1, Health::Down, ms(61_000))]);
    rig.set(A1, Err(Fault::ConnectTimeout));
    rig.run(ms(601));
    assert_eq!(rig.health(A1), Health::Down);
    assert!(!rig.member(A1).dead, "one silence proves no dead transport");
    rig.until(ms(30_000), |rig| rig.member(A1).dead);
}

#[test]
fn memory_from_the_future_is_not_believed() {
    let Record::Backend(mut future) = record("a", A1, Health::Up, ms(0)) else { unreachable!() };
    future.verified = START + ms(5_000);
    future.downs = vec![START + ms(1)];
    let rig = restarted(vec![Record::Backend(future)]);
    assert_eq!(rig.health(A1), Health::Probing);
}

#[test]
fn flap_history_survives_a_restart() {
    let Record::Backend(mut flapped) = record("a", A1, Health::Down, ms(1_000)) else { unreachable!() };
    flapped.downs = (1..=20).map(|i| START - ms(i * 1_000)).collect();
    let mut rig = restarted(vec![Record::Backend(flapped), record("b", B1, Health::Up, ms(1_000))]);
    let took = rig.until(ms(70_000), |rig| rig.health(A1) == Health::Up);
    assert!(took > ms(60_000), "{took:?}");
}

#[test]
fn records_of_backends_the_config_does_not_name_are_forgotten() {
    let rig = restarted(vec![record("z", "10.9.9.9:80", Health::Up, ms(0))]);
    let forgotten = rig.said.iter().filter(|e| matches!(e, Effect::Forget(RecordKey::Backend(id)) if *id.site == *"z"));
    assert_eq!(forgotten.count(), 1);
}

#[test]
fn transitions_are_saved_and_refreshed_at_most_every_20_s() {
    let mut rig = started(pair(|_| {}));
    rig.run(ms(100_000));
    let saves = rig.saves().len();
    assert!((8..=10).contains(&saves), "{saves}");
    let Record::Backend(last) = rig.saves().pop().unwrap() else { panic!() };
    assert!(last.verified > START + ms(75_000));
    rig.said.clear();
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    let downs: Vec<BackendRecord> = rig
        .saves()
        .into_iter()
        .filter_map(|r| if let Record::Backend(r) = r { Some(r) } else { None })
        .filter(|r| r.health == Health::Down)
        .collect();
    assert_eq!(downs.len(), 1);
    assert_eq!(downs[0].downs, vec![downs[0].since]);
    assert!(rig.now.since(downs[0].since) <= ms(1));
}

#[test]
fn flap_history_keeps_sixteen_outages() {
    let mut rig = started(pair(|_| {}));
    for _ in 0..20 {
        rig.set(A1, Err(Fault::Refused));
        rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
        rig.set(A1, Ok(()));
        rig.until(ms(70_000), |rig| rig.health(A1) == Health::Up);
    }
    let longest = rig.saves().iter().map(|r| if let Record::Backend(r) = r { r.downs.len() } else { 0 }).max();
    assert_eq!(longest, Some(16));
}

#[test]
fn unchecked_backends_are_trusted_unless_they_were_just_seen_dead() {
    let off = || pair(|forward| forward.health.kind = CheckKind::Off);
    let saved = |age| Saved { records: vec![record("a", A1, Health::Down, age)] };
    let mut rig = Rig::with(off(), saved(ms(1_000)));
    assert_eq!(rig.health(A1), Health::Down);
    rig.until(ms(3_000), |rig| rig.health(A1) == Health::Up);
    let mut rig = Rig::with(off(), saved(ms(120_000)));
    assert_eq!(rig.health(A1), Health::Up);
    rig.served(A1, Err(Fault::Refused));
    assert_eq!(rig.health(A1), Health::Down, "one failure confirms what was known");
}

#[test]
fn a_share_that_grew_grows_on_after_a_restart() {
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.set(A1, Ok(()));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Up);
    let from = rig.member(A1).ramp_from;
    assert!(from.is_some());
    rig.run(ms(1_000));
    let reborn = rig.reborn(ms(500), pair(|_| {}));
    assert_eq!(reborn.health(A1), Health::Up);
    assert_eq!(reborn.member(A1).ramp_from, from, "as if nothing had been");
    assert_eq!(reborn.member(B1).ramp_from, None);
    // A ramp of five seconds.
    let reborn = rig.reborn(ms(4_500), pair(|_| {}));
    assert_eq!(reborn.member(A1).ramp_from, None, "it had grown meanwhile");
    // A request that fails there lets the growth begin anew, and that is what is remembered.
    rig.served(A1, Err(Fault::Unacknowledged));
    let again = rig.member(A1).ramp_from;
    assert!(again > from);
    assert_eq!(rig.reborn(ms(500), pair(|_| {})).member(A1).ramp_from, again);
}
