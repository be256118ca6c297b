//! Agents: the third voice. They take load away, never more than the operator gives, and are forgotten when silent.

use super::*;
use crate::errand::AgentOrder;

/// Two tiers, two backends each, and an agent beside every backend.
fn watched(edit: impl FnOnce(&mut relais_config::Forward)) -> Config {
    let backends = vec![backend("a", A1, 1), backend("a", A2, 1), backend("b", B1, 2), backend("b", B2, 2)];
    config(vec![service("api", backends, |forward| {
        forward.agent = Some(relais_config::Agent { port: 9999, interval: ms(2_000), send: b"db\n".to_vec() });
        edit(forward);
    })])
}

impl Rig {
    /// The questions to agents since the last call.
    fn questions(&mut self) -> Vec<AgentOrder> {
        let order = |effect: &Effect| if let Effect::Agent(order) = effect { Some(order.clone()) } else { None };
        let orders = self.said.iter().filter_map(order).collect();
        self.said.clear();
        orders
    }

    /// Waits for the next question to the agent of a backend, and answers it.
    fn agent(&mut self, address: &str, line: Result<&str, Fault>) {
        let to = |effect: &Effect| matches!(effect, Effect::Agent(order) if *order.backend.id.address == *address);
        self.said.clear();
        // What the others are asked is not answered: they are asked again after the interval and the grace.
        self.until(ms(4_001), |rig| rig.said.iter().any(to));
        let order = self.questions().into_iter().rfind(|order| *order.backend.id.address == *address).unwrap();
        let (slot, id) = (order.backend.slot, order.id);
        self.event(Event::Agent { slot, id, line: line.map(str::to_owned) });
    }

    fn told(&self) -> Vec<Option<String>> {
        let told = |note: Transition| if let Transition::Agent { said, .. } = note { Some(said) } else { None };
        self.notes().into_iter().filter_map(told).collect()
    }
}

#[test]
fn every_agent_is_asked_at_once_and_then_in_its_interval() {
    let mut rig = Rig::new(watched(|_| {}));
    rig.run(ms(1));
    let orders = rig.questions();
    assert_eq!(orders.len(), 4);
    assert_eq!(*orders[0].addresses, ["10.0.1.1:9999".parse().unwrap()]);
    assert_eq!(orders[0].timeout, ms(2_000));
    rig.run(ms(1_990));
    assert!(rig.questions().is_empty());
    // Answers that come a little late, or never, are waited for: two are there in time.
    for order in &orders[..2] {
        rig.event(Event::Agent { slot: order.backend.slot, id: order.id, line: Ok("up".to_owned()) });
    }
    rig.run(ms(20));
    assert_eq!(rig.questions().len(), 2);
    rig.event(Event::Agent { slot: orders[2].backend.slot, id: orders[2].id, line: Ok("up".to_owned()) });
    rig.run(ms(1));
    assert_eq!(rig.questions().len(), 1, "the next question was due");
    rig.run(ms(1_970));
    assert!(rig.questions().iter().all(|order| order.backend.slot != orders[3].backend.slot));
    rig.run(ms(20));
    assert!(rig.questions().iter().any(|order| order.backend.slot == orders[3].backend.slot));
    let mut silent = started(two_sites());
    silent.run(ms(5_000));
    assert!(silent.questions().is_empty(), "nobody is asked who was not named");
}

#[test]
fn drain_maint_and_ready_are_words_beside_the_operators() {
    let mut rig = started(watched(|_| {}));
    rig.agent(A1, Ok("drain # lag 40 s"));
    assert_eq!(rig.member(A1).admin, Admin::Draining);
    assert_eq!(rig.why(A1), "draining by its agent: drain # lag 40 s");
    assert_eq!(rig.told(), [Some("drain # lag 40 s".to_owned())]);
    assert_eq!(rig.member(A2).admin, Admin::Enabled);
    rig.agent(A1, Ok("up 100%"));
    assert_eq!(rig.why(A1), "draining by its agent until it says ready, now: up 100%");
    rig.order(&format!("api/{A1}"), Admin::Disabled);
    assert_eq!(rig.member(A1).admin, Admin::Disabled, "the operator is stricter");
    assert_eq!(rig.why(A1), "disabled by the operator");
    rig.order(&format!("api/{A1}"), Admin::Enabled);
    rig.agent(A1, Ok("maint"));
    rig.order(&format!("api/{A1}"), Admin::Draining);
    assert_eq!(rig.member(A1).admin, Admin::Disabled, "the agent is stricter");
    rig.agent(A1, Ok("ready"));
    assert_eq!(rig.member(A1).admin, Admin::Draining, "and loosens only its own word");
    rig.order(&format!("api/{A1}"), Admin::Enabled);
    rig.until(ms(1_000), |rig| rig.member(A1).usable());
}

#[test]
fn lag_at_one_site_moves_its_traffic_to_the_next() {
    let mut rig = started(watched(|_| {}));
    assert_eq!(rig.fleet.report(rig.now).services[0].tier, Some(1));
    rig.agent(A1, Ok("up drain"));
    rig.agent(A2, Ok("up drain"));
    assert_eq!(rig.fleet.report(rig.now).services[0].tier, Some(2));
    rig.agent(A1, Ok("up ready"));
    assert_eq!(rig.fleet.report(rig.now).services[0].tier, Some(1));
}

#[test]
fn maintenance_stops_probes_and_the_agent_is_asked_on() {
    let mut rig = started(watched(|_| {}));
    rig.agent(A1, Ok("maint"));
    rig.answers.clear();
    rig.probes.clear();
    rig.agent(A1, Ok("maint"));
    assert!(rig.probes.iter().all(|(_, order)| *order.backend.id.address != *A1));
    rig.agent(A1, Ok("ready"));
    assert_eq!(rig.health(A1), Health::Probing);
    rig.run(ms(5));
    assert!(rig.member(A1).usable());
}

#[test]
fn weights_and_caps_follow_the_agent_in_silence() {
    let mut rig = started(watched(|_| {}));
    let generation = rig.snapshot.generation;
    rig.agent(A1, Ok("75% maxconn:3"));
    assert_eq!((rig.member(A1).weight, rig.member(A1).percent, rig.member(A1).cap), (1, 75, Some(3)));
    assert!(rig.snapshot.generation > generation);
    let generation = rig.snapshot.generation;
    rig.agent(A1, Ok("75%"));
    assert_eq!(rig.snapshot.generation, generation, "nothing new");
    assert_eq!(rig.member(A1).cap, Some(3), "what is not named stays");
    assert_eq!(rig.told(), []);
    let report = rig.fleet.report(rig.now).services[0].backends[0].agent.clone().unwrap();
    assert_eq!((report.line.as_str(), report.percent, report.cap), ("75%", 75, Some(3)));
    assert!(report.since < rig.now, "since it first said so");
    rig.agent(A1, Ok("0%"));
    assert_eq!(rig.member(A1).admin, Admin::Draining);
}

#[test]
fn down_is_down_until_the_agent_says_up() {
    let mut rig = started(watched(|_| {}));
    rig.agent(A1, Ok("fail # disk is full"));
    assert_eq!(rig.health(A1), Health::Down);
    assert!(!rig.member(A1).dead && !rig.member(A1).mute, "it finishes what it has");
    assert_eq!(rig.why(A1), "its agent says fail: disk is full");
    rig.agent(A1, Ok("50%"));
    assert_eq!(rig.health(A1), Health::Down, "good checks and other words change nothing");
    rig.agent(A1, Ok("up 100%"));
    assert_eq!(rig.health(A1), Health::Up);
    assert_eq!(rig.member(A1).ramp_from, Some(rig.now), "its share grows");
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.agent(A1, Ok("up"));
    assert_eq!(rig.health(A1), Health::Down, "up is no evidence");
}

#[test]
fn words_are_forgotten_after_three_intervals_of_silence() {
    let mut rig = started(watched(|_| {}));
    rig.agent(A1, Ok("drain 10%"));
    rig.agent(A1, Err(Fault::Refused));
    rig.agent(A1, Ok("what is this"));
    assert_eq!((rig.member(A1).admin, rig.member(A1).percent), (Admin::Draining, 10));
    rig.agent(A1, Err(Fault::ResponseTimeout));
    assert_eq!((rig.member(A1).admin, rig.member(A1).percent), (Admin::Enabled, 100));
    assert_eq!(rig.told(), [None]);
    rig.agent(A1, Ok("drain"));
    // Who asks always answers: no answer at all is this edge's own trouble.
    rig.run(ms(60_000));
    assert_eq!(rig.member(A1).admin, Admin::Draining);
    for fault in [Fault::ResponseTimeout, Fault::Refused, Fault::Reset] {
        assert_eq!(rig.member(A1).admin, Admin::Draining);
        rig.agent(A1, Err(fault));
    }
    assert_eq!(rig.member(A1).admin, Admin::Enabled);
}

#[test]
fn words_are_kept_while_a_starved_edge_cannot_listen() {
    let mut rig = started(watched(|_| {}));
    rig.agent(A1, Ok("drain"));
    for _ in 0..29 {
        rig.agent(A1, Err(Fault::Unwatched));
    }
    assert_eq!(rig.member(A1).admin, Admin::Draining, "nobody could listen");
    rig.agent(A1, Ok("drain"));
    // Each wait is stretched by a stall: the agent's answer comes after the next question would have been due.
    for _ in 0..10 {
        rig.said.clear();
        let to = |effect: &Effect| matches!(effect, Effect::Agent(order) if *order.backend.id.address == *A1);
        rig.until(ms(4_001), |rig| rig.said.iter().any(to));
        let order = rig.questions().into_iter().rfind(|order| *order.backend.id.address == *A1).unwrap();
        rig.run(ms(2_600));
        let line = Ok("drain".to_owned());
        rig.event(Event::Agent { slot: order.backend.slot, id: order.id, line });
        assert_eq!(rig.member(A1).admin, Admin::Draining);
    }
    assert_eq!(rig.told().len(), 0, "nothing to tell");
}

#[test]
fn words_do_not_outlive_whoever_hears_them() {
    let mut rig = started(watched(|_| {}));
    rig.agent(A1, Ok("maint"));
    rig.run(ms(100_000));
    assert_eq!(rig.member(A1).admin, Admin::Disabled);
    rig.run(ms(30_000));
    assert_eq!(rig.member(A1).admin, Admin::Enabled, "thirty questions of which nothing was heard again");
    rig.agent(A1, Ok("drain"));
    for _ in 0..30 {
        assert_eq!(rig.member(A1).admin, Admin::Draining);
        rig.agent(A1, Err(Fault::Unwatched));
    }
    assert_eq!(rig.member(A1).admin, Admin::Enabled);
}

#[test]
fn words_hold_from_the_first_moment_after_a_restart() {
    let mut rig = started(watched(|_| {}));
    rig.agent(A1, Ok("maint # disks"));
    rig.agent(A2, Ok("drain 50%"));
    rig.agent(B1, Ok("down # lag"));
    let reborn = rig.reborn(ms(1_000), watched(|_| {}));
    assert_eq!(reborn.member(A1).admin, Admin::Disabled);
    assert_eq!(reborn.why(A1), "disabled by its agent: maint # disks");
    assert_eq!((reborn.member(A2).admin, reborn.member(A2).percent), (Admin::Draining, 50));
    assert_eq!((reborn.health(B1), reborn.why(B1)), (Health::Down, "its agent says down: lag".to_owned()));
    assert!(reborn.member(B2).usable());
    let mut old = rig.reborn(ms(61_000), watched(|_| {}));
    assert_eq!(old.member(A1).admin, Admin::Enabled, "too old to be believed");
    old.run(ms(500));
    assert!(old.member(A1).usable());
    let plain = config(vec![service("api", vec![backend("a", A1, 1), backend("a", A2, 1)], |_| {})]);
    let mut plain = rig.reborn(ms(1_000), plain);
    plain.run(ms(500));
    assert!(plain.member(A1).usable() && plain.member(A2).usable(), "the file names no agent any more");
    // Who says the same for hours is remembered with it.
    for _ in 0..40 {
        rig.agent(A1, Ok("maint # disks"));
    }
    assert_eq!(rig.reborn(ms(1_000), watched(|_| {})).member(A1).admin, Admin::Disabled);
}

#[test]
fn a_changed_weight_is_saved_soon_but_not_with_every_answer() {
    let often = || watched(|forward| forward.agent.as_mut().unwrap().interval = ms(200));
    let mut rig = started(often());
    let about = |record: &Record| matches!(record, Record::Backend(record) if *record.id.address == *A1);
    let mut saves = 0;
    for n in 0..100 {
        rig.agent(A1, Ok(&format!("up {}%", 50 + n % 20)));
        saves += rig.saves().iter().filter(|record| about(record)).count();
    }
    assert!((15..=25).contains(&saves), "{saves} in twenty seconds");
    // The same once more a second later: what is saved is the last word.
    (0..6).for_each(|_| rig.agent(A1, Ok("up 77%")));
    assert_eq!(rig.reborn(ms(100), often()).member(A1).percent, 77);
}

#[test]
fn who_came_up_while_its_agent_drained_it_begins_with_a_small_share_after_a_restart_too() {
    let mut rig = started(watched(|_| {}));
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(2_000), |rig| rig.health(A1) == Health::Down);
    rig.agent(A1, Ok("drain"));
    rig.agent(A2, Ok("drain"));
    rig.set(A1, Ok(()));
    rig.until(ms(5_000), |rig| rig.health(A1) == Health::Up);
    let mut reborn = rig.reborn(ms(30_000), watched(|_| {}));
    assert_eq!(reborn.member(A1).admin, Admin::Draining);
    reborn.agent(A1, Ok("ready"));
    assert_eq!(reborn.member(A1).ramp_from, Some(reborn.now));
    reborn.agent(A2, Ok("ready"));
    assert_eq!(reborn.member(A2).ramp_from, None, "it was up before");
}

#[test]
fn one_answer_ends_a_silence() {
    let mut rig = started(watched(|_| {}));
    rig.agent(A1, Ok("drain"));
    for _ in 0..4 {
        rig.agent(A1, Err(Fault::Refused));
        rig.agent(A1, Err(Fault::Refused));
        rig.agent(A1, Ok("100%"));
    }
    assert_eq!(rig.member(A1).admin, Admin::Draining);
}

#[test]
fn old_answers_are_ignored() {
    let mut rig = Rig::new(watched(|_| {}));
    rig.run(ms(1));
    let first = rig.questions();
    rig.run(ms(4_001));
    let line = || Ok("drain".to_owned());
    rig.event(Event::Agent { slot: first[0].backend.slot, id: first[0].id, line: line() });
    rig.event(Event::Agent { slot: 99, id: first[0].id, line: line() });
    assert_eq!(rig.member(A1).admin, Admin::Enabled);
}

#[test]
fn who_is_switched_off_is_not_asked_and_starts_afresh() {
    let mut rig = started(watched(|_| {}));
    rig.agent(A1, Ok("50% drain"));
    rig.order("a", Admin::Disabled);
    rig.said.clear();
    rig.run(ms(6_001));
    assert!(rig.questions().iter().all(|order| *order.backend.id.site != *"a"));
    rig.order("a", Admin::Enabled);
    rig.run(ms(5));
    assert_eq!((rig.member(A1).admin, rig.member(A1).percent), (Admin::Enabled, 100));
}

#[test]
fn a_reload_keeps_words_unless_it_ends_the_agent() {
    let mut rig = started(watched(|_| {}));
    rig.agent(A1, Ok("drain 50%"));
    rig.event(Event::Reload(Arc::new(watched(|forward| forward.fail_open = true))));
    assert_eq!((rig.member(A1).admin, rig.member(A1).percent), (Admin::Draining, 50));
    rig.event(Event::Reload(Arc::new(watched(|forward| forward.agent = None))));
    assert_eq!((rig.member(A1).admin, rig.member(A1).percent), (Admin::Enabled, 100));
    rig.said.clear();
    rig.run(ms(5_000));
    assert!(rig.questions().is_empty());
    rig.event(Event::Reload(Arc::new(watched(|_| {}))));
    rig.run(ms(1));
    assert_eq!(rig.questions().len(), 4);
}

impl Rig {
    /// The agent of A1 is not heard once more: what is told of that.
    fn missed(&mut self, fault: Fault) -> Vec<Option<String>> {
        self.agent(A1, Err(fault));
        self.silences()
    }

    fn silences(&self) -> Vec<Option<String>> {
        let told = |note: Transition| if let Transition::AgentSilent { why, .. } = note { Some(why) } else { None };
        self.notes().into_iter().filter_map(told).collect()
    }

    fn silent(&self) -> Option<String> {
        self.fleet.report(self.now).services[0].backends[0].agent_silent.clone()
    }
}

#[test]
fn silence_is_told_anew_of_an_agent_that_is_asked_anew() {
    let at = |port: u16, fail_open| {
        watched(|forward| {
            forward.agent.as_mut().unwrap().port = port;
            forward.fail_open = fail_open;
        })
    };
    let mut rig = started(at(9999, false));
    let told = |rig: &mut Rig, fault: Fault| [(); 3].map(|()| rig.missed(fault)).concat();
    assert_eq!(told(&mut rig, Fault::Refused), [Some("connection refused".to_owned())]);
    rig.event(Event::Reload(Arc::new(at(9999, true))));
    assert_eq!(rig.silent().as_deref(), Some("connection refused"), "it is the same agent");
    assert_eq!(rig.missed(Fault::Refused), []);
    rig.said.clear();
    rig.event(Event::Reload(Arc::new(at(9998, true))));
    assert_eq!(rig.silent(), None);
    rig.run(ms(1));
    assert!(rig.questions().iter().any(|order| order.addresses[0].port() == 9998), "it is asked at once");
    assert_eq!(told(&mut rig, Fault::Reset), [Some(Fault::Reset.to_string())]);
    rig.order(&format!("api/{A1}"), Admin::Disabled);
    rig.run(ms(4_001));
    assert_eq!(rig.silent(), None, "nobody asks it");
    rig.order(&format!("api/{A1}"), Admin::Enabled);
    assert_eq!(told(&mut rig, Fault::Refused), [Some("connection refused".to_owned())]);
    rig.event(Event::Reload(Arc::new(at(9999, true))));
    rig.agent(A1, Ok("up"));
    assert_eq!(rig.silences(), [None], "it is heard again, though elsewhere");
}
