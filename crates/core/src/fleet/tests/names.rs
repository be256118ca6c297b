//! Names of backends: looked up by their time, and the last good answer kept.

use std::net::SocketAddr;

use relais_config::Address;

use super::*;
use crate::errand::ResolveOrder;
use crate::event::Resolved;

const NAME: &str = "app.internal:80";

/// One service: a named backend, and one with an address at another site.
fn named(edit: impl FnOnce(&mut relais_config::Forward)) -> Config {
    let mut decl = backend("a", A1, 1);
    decl.address = Address::Name("app.internal".to_owned(), 80);
    config(vec![service("api", vec![decl, backend("b", B1, 1)], edit)])
}

fn unchecked() -> Config {
    named(|forward| forward.health.kind = CheckKind::Off)
}

fn at(text: &[&str]) -> Vec<SocketAddr> {
    text.iter().map(|address| address.parse().unwrap()).collect()
}

impl Rig {
    /// The look-ups asked for since the last call.
    fn look_ups(&mut self) -> Vec<ResolveOrder> {
        let order = |effect: &Effect| if let Effect::Resolve(order) = effect { Some(order.clone()) } else { None };
        let orders = self.said.iter().filter_map(order).collect();
        self.said.clear();
        orders
    }

    /// Answers the latest look-up.
    fn answer(&mut self, result: Result<(&[&str], Duration), &str>) {
        let order = self.look_ups().pop().expect("a look-up is under way");
        let result = result.map(|(addresses, good_for)| Resolved { addresses: at(addresses), good_for });
        let (slot, id) = (order.slot, order.id);
        self.event(Event::Resolved { slot, id, result: result.map_err(str::to_owned) });
    }

    /// How long until the next look-up.
    fn next_look_up(&mut self) -> Duration {
        self.until(ms(70_000), |rig| rig.said.iter().any(|effect| matches!(effect, Effect::Resolve(_))))
    }
}

fn resolved(config: Config, addresses: &[&str], good_for: Duration) -> Rig {
    let mut rig = Rig::new(config);
    rig.run(ms(1));
    rig.answer(Ok((addresses, good_for)));
    rig.run(ms(10));
    rig
}

#[test]
fn a_name_is_looked_up_before_anyone_is_asked() {
    let mut rig = Rig::new(named(|_| {}));
    rig.run(ms(2));
    let [order] = rig.look_ups().try_into().unwrap();
    assert_eq!((&*order.host, order.port), ("app.internal", 80));
    rig.run(ms(500));
    assert!(rig.probes.iter().all(|(_, order)| *order.backend.id.address != *NAME), "nowhere to ask");
    assert_eq!((rig.health(NAME), rig.why(NAME).as_str()), (Health::Probing, "its name is looked up"));
    let result = Ok(Resolved { addresses: at(&["10.9.0.2:80", "10.9.0.1:80"]), good_for: ms(30_000) });
    rig.event(Event::Resolved { slot: order.slot, id: order.id, result });
    assert_eq!(*rig.member(NAME).addresses, at(&["10.9.0.1:80", "10.9.0.2:80"]));
    let (when, probe) = rig.probes.last().unwrap();
    assert_eq!((*when, &*probe.addresses), (rig.now, &*rig.member(NAME).addresses), "asked at once, there");
    rig.run(ms(5));
    assert_eq!(rig.health(NAME), Health::Up);
    assert_eq!(*rig.member(B1).addresses, at(&[B1]), "an address is one");
}

#[test]
fn a_name_that_does_not_resolve_is_down_and_comes_up_when_it_does() {
    let mut rig = Rig::new(named(|_| {}));
    rig.run(ms(1));
    rig.answer(Err("no such name"));
    assert_eq!(rig.health(NAME), Health::Down);
    assert_eq!(rig.why(NAME), "name does not resolve: no such name");
    assert_eq!(rig.fleet.report(rig.now).services[0].backends[0].unresolved.as_deref(), Some("no such name"));
    for pause in [1_000, 2_000, 4_000, 5_000, 5_000] {
        assert_eq!(rig.next_look_up(), ms(pause));
        rig.answer(Err("timed out"));
    }
    assert_eq!(rig.why(NAME), "name does not resolve: timed out");
    rig.next_look_up();
    rig.answer(Ok((&[], ms(30_000))));
    assert_eq!(rig.why(NAME), "name does not resolve: it has no address");
    rig.next_look_up();
    rig.answer(Ok((&["10.9.0.1:80"], ms(30_000))));
    rig.until(ms(1_000), |rig| rig.health(NAME) == Health::Up);
    assert_eq!(rig.fleet.report(rig.now).services[0].backends[0].unresolved, None);
}

#[test]
fn the_time_of_an_answer_is_kept_within_bounds() {
    for (good_for, due) in [(0, 1_000), (5_000, 5_000), (3_600_000, 60_000)] {
        let mut rig = resolved(named(|_| {}), &["10.9.0.1:80"], ms(good_for));
        assert_eq!(rig.next_look_up() + ms(10), ms(due));
    }
}

#[test]
fn the_last_good_answer_stays_in_use() {
    let mut rig = resolved(named(|_| {}), &["10.9.0.1:80"], ms(5_000));
    let mut pauses = Vec::new();
    for _ in 0..7 {
        pauses.push(rig.next_look_up().as_millis());
        rig.answer(Err("timed out"));
        let told = rig.notes().iter().any(|note| matches!(note, Transition::Unresolved { .. }));
        assert_eq!(told, pauses.len() == 1, "told once");
    }
    assert_eq!(pauses[1..], [1_000, 2_000, 4_000, 8_000, 16_000, 30_000]);
    assert_eq!(rig.health(NAME), Health::Up);
    assert_eq!(*rig.member(NAME).addresses, at(&["10.9.0.1:80"]));
}

#[test]
fn another_order_is_no_change_and_other_addresses_are() {
    let mut rig = resolved(named(|_| {}), &["10.9.0.1:80", "10.9.0.2:80"], ms(1_000));
    rig.run(ms(500));
    let generation = rig.snapshot.generation;
    rig.next_look_up();
    rig.answer(Ok((&["10.9.0.2:80", "10.9.0.1:80", "10.9.0.2:80"], ms(1_000))));
    assert_eq!(rig.snapshot.generation, generation);
    rig.next_look_up();
    rig.probes.clear();
    rig.answer(Ok((&["[fd00::9]:80", "10.9.0.3:80"], ms(1_000))));
    assert_eq!(*rig.member(NAME).addresses, at(&["10.9.0.3:80", "[fd00::9]:80"]));
    assert_eq!(rig.health(NAME), Health::Up, "until evidence says otherwise");
    rig.run(ms(60));
    let asked = rig.probes.iter().any(|(_, order)| order.addresses == rig.member(NAME).addresses);
    assert!(asked, "the new ones are asked soon");
    assert!(rig.notes().iter().any(|note| matches!(note, Transition::Addresses { .. })));
}

#[test]
fn old_answers_are_ignored_and_lost_ones_asked_for_again() {
    let mut rig = Rig::new(named(|_| {}));
    rig.run(ms(1));
    let old = rig.look_ups().pop().unwrap();
    assert_eq!(rig.next_look_up() + ms(1), ms(60_000));
    let result = Ok(Resolved { addresses: at(&["10.9.0.1:80"]), good_for: ms(1_000) });
    rig.event(Event::Resolved { slot: old.slot, id: old.id, result: result.clone() });
    rig.event(Event::Resolved { slot: 99, id: old.id, result });
    assert!(rig.member(NAME).addresses.is_empty());
    rig.answer(Ok((&["10.9.0.2:80"], ms(1_000))));
    assert_eq!(*rig.member(NAME).addresses, at(&["10.9.0.2:80"]));
}

#[test]
fn without_checks_a_name_is_used_when_it_resolves() {
    let mut rig = Rig::new(unchecked());
    assert_eq!((rig.health(NAME), rig.health(B1)), (Health::Probing, Health::Up));
    rig.run(ms(1));
    rig.answer(Err("no such name"));
    assert_eq!(rig.health(NAME), Health::Down);
    for _ in 0..10 {
        rig.next_look_up();
        assert_eq!(rig.health(NAME), Health::Down, "never tried without an address");
        rig.answer(Err("no such name"));
    }
    rig.next_look_up();
    rig.answer(Ok((&["10.9.0.1:80"], ms(30_000))));
    assert_eq!(rig.health(NAME), Health::Up);
}

#[test]
fn addresses_outlive_a_restart() {
    let mut rig = resolved(named(|_| {}), &["10.9.0.1:80"], ms(30_000));
    rig.run(ms(100));
    let mut records = Vec::new();
    rig.next_look_up();
    rig.answer(Ok((&["10.9.0.7:80"], ms(30_000))));
    records.extend(rig.saves());
    let Some(Record::Backend(saved)) = records.last() else { panic!("saved: {records:?}") };
    assert_eq!(saved.addresses, at(&["10.9.0.7:80"]));
    let young = |addresses: Vec<SocketAddr>| {
        let record = BackendRecord { verified: START, since: START, addresses, ..saved.clone() };
        Rig::with(named(|_| {}), Saved { records: vec![Record::Backend(record)] })
    };
    let mut rig = young(saved.addresses.clone());
    assert_eq!(rig.health(NAME), Health::Up, "used at once");
    assert_eq!(*rig.member(NAME).addresses, at(&["10.9.0.7:80"]));
    rig.run(ms(1));
    rig.answer(Err("the name server is gone"));
    assert_eq!(rig.health(NAME), Health::Up);
    assert_eq!(young(Vec::new()).health(NAME), Health::Probing, "nowhere to go yet");
}

#[test]
fn a_reload_keeps_addresses_and_asks_other_servers() {
    let mut rig = resolved(named(|_| {}), &["10.9.0.1:80"], ms(30_000));
    rig.event(Event::Reload(Arc::new(named(|forward| forward.fail_open = true))));
    assert_eq!(*rig.member(NAME).addresses, at(&["10.9.0.1:80"]));
    rig.run(ms(10));
    assert!(rig.look_ups().is_empty(), "it is good for longer");
    let mut other = named(|_| {});
    other.edge.nameservers = at(&["10.0.0.53:53"]);
    rig.event(Event::Reload(Arc::new(other.clone())));
    rig.run(ms(1));
    rig.answer(Ok((&["10.9.0.2:80"], ms(30_000))));
    assert_eq!(*rig.member(NAME).addresses, at(&["10.9.0.2:80"]));
    // Another transport: the same place, looked up under its new number.
    let relais_config::Action::Forward(mut forward) = other.services[0].action.clone() else { panic!("it forwards") };
    let tls = relais_config::UpstreamTls { sni: None, ca: None, verify: true };
    forward.backends[0].upstream =
        Arc::new(relais_config::Upstream { protocol: relais_config::UpstreamProtocol::H1, tls: Some(tls) });
    let service =
        relais_config::Service { action: relais_config::Action::Forward(forward), ..(*other.services[0]).clone() };
    other.services[0] = Arc::new(service);
    let slot = rig.member(NAME).backend.slot;
    rig.event(Event::Reload(Arc::new(other)));
    rig.run(ms(1));
    assert_ne!(rig.member(NAME).backend.slot, slot);
    assert_eq!(*rig.member(NAME).addresses, at(&["10.9.0.2:80"]));
    rig.answer(Ok((&["10.9.0.3:80"], ms(30_000))));
    assert_eq!(*rig.member(NAME).addresses, at(&["10.9.0.3:80"]));
}

#[test]
fn a_disabled_name_is_looked_up_when_it_is_enabled() {
    let mut rig = Rig::new(named(|_| {}));
    rig.run(ms(1));
    rig.answer(Err("no such name"));
    rig.order("a", Admin::Disabled);
    rig.run(ms(2_500));
    rig.said.clear();
    rig.order("a", Admin::Enabled);
    assert_eq!(rig.health(NAME), Health::Probing);
    rig.answer(Ok((&["10.9.0.1:80"], ms(30_000))));
    rig.run(ms(5));
    assert_eq!(rig.health(NAME), Health::Up);
}

/// So many addresses of one name.
const MANY: [&str; 6] = ["10.0.1.1:80", "10.0.1.4:80", "10.0.1.6:80", "10.0.1.7:80", "10.0.1.8:80", "10.0.1.9:80"];

/// Its addresses share a connect: where nobody has answered for a while, whoever does is waited for as long as one who has but one.
#[test]
fn each_address_of_a_name_that_is_down_gets_the_time_of_its_path() {
    // Of the latter all together need longer than the contract.
    for addresses in [&MANY[..4], &MANY] {
        for other in [Ok(()), Err(Fault::Refused)] {
            let mut rig = resolved(named(|_| {}), addresses, ms(60_000));
            rig.run(ms(1_000));
            rig.connects_take(NAME, ms(70));
            rig.set(NAME, Err(Fault::ConnectTimeout));
            rig.set(B1, other);
            rig.until(ms(4_000), |rig| rig.health(NAME) == Health::Down);
            rig.run(ms(2_000));
            rig.probes.clear();
            rig.run(ms(6_000));
            let asked = rig.probes.iter().filter(|(_, order)| *order.backend.id.address == *NAME);
            let least = asked.map(|(_, order)| order.connect.min(order.timeout)).min();
            let each = least.map(|least| least / u32::try_from(addresses.len()).unwrap());
            assert_eq!(each, Some(ms(230)), "3 * 70 + 20, for each of {}", addresses.len());
        }
    }
}

/// The first of them may be the dead one, and the only one that lives the last.
#[test]
fn each_address_of_a_name_is_sought_in_its_turn() {
    for addresses in [&MANY[..2], &MANY[..5], &MANY] {
        let mut rig = resolved(named(|_| {}), addresses, ms(60_000));
        rig.run(ms(1_000));
        rig.set(NAME, Err(Fault::ConnectTimeout));
        addresses.iter().for_each(|address| rig.set(address, Err(Fault::ConnectTimeout)));
        rig.run(ms(3_000));
        rig.said.clear();
        let sought = |effect: &Effect| {
            if let Effect::Measure(order) = effect { Some(order.address.to_string()) } else { None }
        };
        let times = |rig: &Rig| rig.said.iter().filter_map(sought).count();
        rig.until(ms(60_000), |rig| times(rig) == addresses.len());
        let sought: std::collections::BTreeSet<String> = rig.said.iter().filter_map(sought).collect();
        assert_eq!(sought.len(), addresses.len(), "none of them twice: {sought:?}");
    }
}
