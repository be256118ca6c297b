//! Measured round trips and what follows from them.

use super::*;
use crate::errand::MeasureOrder;

impl Rig {
    /// From now on a site's backends are so far away: `Duration::MAX` is dead.
    fn away(&mut self, addresses: &[&str], away: Duration) {
        addresses.iter().for_each(|address| {
            self.far.insert((*address).to_owned(), away);
        });
    }

    /// Answers a patient connect as the kernel does.
    pub(super) fn measure(&mut self, order: &MeasureOrder) {
        let address = order.address.to_string();
        let dead = self.world.get(&address).is_some_and(|result| result.is_err_and(Fault::is_silence));
        let away = self.far.get(&address).copied().unwrap_or(ms(5));
        let took = Some(away).filter(|away| !dead && *away <= order.within);
        self.measures += 1;
        let at = self.now + took.unwrap_or(order.within);
        self.connects.insert((at, u64::MAX - self.measures), Event::Measured { slot: order.slot, took });
    }

    /// How long requests wait for a connect there, and how long before another is tried beside it.
    fn reach(&self, address: &str) -> (Duration, Duration) {
        let pool = &self.snapshot.pools[0];
        let relais_config::Action::Forward(forward) = &pool.service.action else { panic!("it forwards") };
        let reach = pool.timers.reach(forward, self.member(address).away);
        (reach.connect, reach.stagger)
    }

    pub(super) fn connects_take(&mut self, address: &str, took: Duration) {
        let slot = self.member(address).backend.slot;
        for _ in 0..50 {
            self.event(Event::Connected { slot, took });
        }
    }
}

fn troubles(rig: &Rig) -> Vec<Option<String>> {
    let contract = |note| if let Transition::Contract { trouble, .. } = note { Some(trouble) } else { None };
    rig.notes().into_iter().filter_map(contract).collect()
}

#[test]
fn no_check_of_a_far_site_waits_for_less_than_three_round_trips() {
    let mut rig = started(two_sites());
    rig.connects_take(B1, ms(70));
    rig.set(A1, Err(Fault::ConnectTimeout));
    rig.set(B1, Err(Fault::ConnectTimeout));
    rig.run(ms(500));
    let least = |address: &str| {
        rig.probes.iter().filter(|(_, o)| *o.backend.id.address == *address).map(|(_, o)| o.connect).min().unwrap()
    };
    assert_eq!(least(A1), ms(80), "nothing is known of the distance of the other site");
    assert_eq!(least(B1), ms(230), "3 * 70 + 20");
}

#[test]
fn a_far_site_gives_connects_time_and_is_published_once() {
    let mut rig = started(two_sites());
    assert_eq!(rig.reach(B1), (ms(500), ms(200)));
    rig.connects_take(B1, ms(120));
    assert_eq!(rig.reach(B1), (ms(760), ms(240)));
    assert_eq!(rig.reach(B2), (ms(760), ms(240)), "it is as far away");
    let generation = rig.snapshot.generation;
    for took in [ms(118), ms(125), ms(110), ms(130)] {
        rig.connects_take(B2, took);
    }
    assert_eq!(rig.snapshot.generation, generation, "a trembling path changes nothing");
    let site = &rig.fleet.report(rig.now).sites[1];
    assert!(site.round_trip_micros.is_some_and(|micros| (100_000..140_000).contains(&micros)));
}

/// However far the other is, and also when that is dead for good.
#[test]
fn a_far_site_is_no_reason_to_wait_longer_at_a_near_one() {
    let mut rig = Rig::new(near_and_far(ms(1_000)));
    rig.away(&[B1, B2], ms(600));
    rig.until(ms(16_000), |rig| rig.health(B1) == Health::Up);
    assert_eq!(rig.reach(B1), (ms(3_640), ms(1_200)));
    assert_eq!([A1, A2].map(|one| rig.reach(one)), [(ms(500), ms(200)); 2]);
    // Who is new there has a first check as short as any nearby.
    let mut more = near_and_far(ms(1_000));
    let backends = vec![backend("a", "10.0.1.3:80", 1), backend("a", A1, 1), backend("b", B1, 2), backend("b", B2, 2)];
    more.services = config(vec![service("api", backends, |_| {})]).services;
    rig.probes.clear();
    rig.event(Event::Reload(Arc::new(more)));
    rig.run(ms(200));
    let first = rig.probes.iter().find(|(_, order)| *order.backend.id.address == *"10.0.1.3:80").unwrap();
    assert_eq!(first.1.connect, ms(500));
    [B1, B2].iter().for_each(|one| rig.set(one, Err(Fault::ConnectTimeout)));
    rig.run(ms(120_000));
    assert_eq!((rig.health(B1), rig.reach(A1)), (Health::Down, (ms(500), ms(200))));
}

#[test]
fn a_contract_the_path_breaks_is_told_once_with_numbers_and_when_it_is_over() {
    let mut rig = started(two_sites());
    rig.connects_take(B1, ms(12));
    assert!(rig.fleet.report(rig.now).services[0].trouble.is_empty());
    rig.connects_take(B1, ms(120));
    let trouble = rig.fleet.report(rig.now).services[0].trouble.clone();
    let [told] = trouble.as_slice() else { panic!("{trouble:?}") };
    assert!(told.starts_with("site b is 1"), "{told}");
    assert!(told.contains(" ms away (measured): interval 250 ms + jitter 25 ms + timeout"), "{told}");
    assert!(told.contains("is more than failover_within = 1 s; write failover_within = \""), "{told}");
    assert_eq!(troubles(&rig).len(), 1, "{:?}", rig.notes());
    rig.connects_take(B1, ms(12));
    assert!(rig.fleet.report(rig.now).services[0].trouble.is_empty());
    assert_eq!(troubles(&rig).last().unwrap(), &None);
}

#[test]
fn the_distance_outlives_a_reload_and_a_stretched_service_is_not_checked_anew() {
    let mut rig = started(two_sites());
    rig.connects_take(B1, ms(120));
    rig.probes.clear();
    let mut longer = two_sites();
    longer.edge.drain = ms(7_000);
    rig.event(Event::Reload(Arc::new(longer)));
    assert_eq!(rig.reach(B1), (ms(760), ms(240)));
    assert!(rig.probes.is_empty(), "nothing about the checks changed");
}

#[test]
fn timers_are_explained_with_the_distances() {
    let mut rig = started(two_sites());
    let before = rig.fleet.explain("api").unwrap();
    rig.connects_take(A1, ms(4));
    let said = rig.fleet.explain("api").unwrap();
    assert_eq!(said.len(), before.len() + 1);
    assert!(said.last().unwrap().starts_with("site a is 4 ms away (measured)"), "{said:?}");
    assert_eq!(rig.fleet.explain("nonsense"), None);
}

/// Two sites of two, tier by tier, with this contract.
fn near_and_far(contract: Duration) -> Config {
    let backends = vec![backend("a", A1, 1), backend("a", A2, 1), backend("b", B1, 2), backend("b", B2, 2)];
    config(vec![service("api", backends, |forward| forward.failover_within = contract)])
}

const FAR: [(u64, u64); 6] = [(300, 160), (300, 200), (300, 400), (1_000, 600), (1_000, 1_200), (10_000, 1_900)];

#[test]
fn a_site_farther_away_than_its_contract_allows_is_found_at_a_start() {
    for (contract, away) in FAR.map(|(contract, away)| (ms(contract), ms(away))) {
        let mut rig = Rig::new(near_and_far(contract));
        rig.away(&[B1, B2], away);
        rig.until(ms(16_000).max(contract * 5), |rig| [B1, B2].iter().all(|one| rig.health(one) == Health::Up));
        let up = rig.now;
        rig.run(ms(120_000));
        let notes = rig.notes().into_iter().filter(|note| matches!(note, Transition::Health { to: Health::Down, .. }));
        assert!(notes.count() <= 2, "it stays up since {up:?}: {:#?}", rig.notes());
        let trouble = rig.fleet.report(rig.now).services[0].trouble.clone();
        assert!(trouble[0].contains("is more than failover_within = "), "{trouble:?}");
        assert!(trouble[0].contains("; write failover_within = \""), "{trouble:?}");
    }
}

#[test]
fn a_path_that_became_longer_than_any_check_waits_is_found() {
    for (contract, away) in FAR.map(|(contract, away)| (ms(contract), ms(away))) {
        for others in [Ok(()), Err(Fault::Refused), Err(Fault::ConnectTimeout)] {
            let mut rig = Rig::new(near_and_far(contract));
            rig.away(&[A1, A2, B1, B2], Duration::from_micros(554));
            rig.run(ms(2_000).max(contract * 2));
            [A1, A2].iter().for_each(|one| rig.set(one, others));
            rig.away(&[B1, B2], away);
            rig.run(contract * 2);
            rig.until(ms(16_000), |rig| [B1, B2].iter().all(|one| rig.health(one) == Health::Up));
            assert_eq!(rig.fleet.report(rig.now).services[0].trouble.len(), 1, "{contract:?} {away:?}");
        }
    }
}

/// Its first check is given up before it can be answered, and so would requests be.
#[test]
fn why_a_site_is_down_whose_connects_are_given_up_too_soon_is_said() {
    let mut config = near_and_far(ms(1_000));
    let backends = vec![backend("a", A1, 1), backend("a", A2, 1), backend("b", B1, 2), backend("b", B2, 2)];
    let hasty = |forward: &mut relais_config::Forward| forward.timeout.connect = Some(ms(50));
    config.services = crate::testing::config(vec![service("api", backends, hasty)]).services;
    let mut rig = Rig::new(config);
    rig.away(&[B1, B2], ms(100));
    rig.until(ms(8_000), |rig| !rig.fleet.report(rig.now).services[0].trouble.is_empty());
    assert_eq!(rig.health(B1), Health::Down);
    let trouble = rig.fleet.report(rig.now).services[0].trouble.clone();
    assert!(trouble[0].contains("timeout.connect = 50 ms is less than the 100 ms"), "{trouble:?}");
}

/// A patient connect is a measure: a dead site gets one now and then, and nothing comes of it.
#[test]
fn a_dead_site_stays_dead_and_as_far_as_it_was() {
    let mut rig = started(two_sites());
    rig.connects_take(B1, ms(4));
    [B1, B2].iter().for_each(|one| rig.set(one, Err(Fault::ConnectTimeout)));
    rig.run(ms(60_000));
    assert!([B1, B2].iter().all(|one| rig.health(one) == Health::Down));
    assert!((15..=21).contains(&rig.measures), "{}", rig.measures);
    assert_eq!(rig.fleet.report(rig.now).sites[1].round_trip_micros, Some(4_000));
}

/// What waited for a path that has just come back is no distance: the packet was sent again, or lay in a queue.
#[test]
fn a_connect_that_outlived_an_outage_is_no_distance() {
    let mut rig = started(two_sites());
    rig.connects_take(B1, ms(4));
    [B1, B2].iter().for_each(|one| rig.set(one, Err(Fault::ConnectTimeout)));
    rig.run(ms(10_000));
    let slot = rig.member(B1).backend.slot;
    rig.event(Event::Measured { slot, took: Some(ms(900)) });
    rig.event(Event::Measured { slot, took: Some(ms(3)) });
    assert_eq!(rig.fleet.report(rig.now).sites[1].round_trip_micros, Some(4_000));
    rig.event(Event::Measured { slot, took: Some(ms(900)) });
    [B1, B2].iter().for_each(|one| rig.set(one, Ok(())));
    rig.until(ms(1_000), |rig| rig.health(B1) == Health::Up);
    rig.event(Event::Measured { slot, took: Some(ms(900)) });
    assert_eq!(rig.fleet.report(rig.now).sites[1].round_trip_micros, Some(4_000), "its checks know better");
}

#[test]
fn a_site_in_a_drill_is_not_sought() {
    let mut rig = started(two_sites());
    let order = crate::DrillOrder { site: "b".into(), shape: Shape::Silent, lasts: ms(20_000), force: false };
    rig.fleet.begin_drill(&order, rig.now).unwrap();
    rig.take();
    rig.run(ms(4_500));
    assert_eq!((rig.health(B1), rig.measures), (Health::Down, 0));
}

/// A site that is far beyond its contract and then cut is down for that, and as a whole.
#[test]
fn a_far_site_that_is_cut_is_left_as_a_whole() {
    let mut rig = Rig::new(near_and_far(ms(300)));
    rig.away(&[B1, B2], ms(200));
    rig.run(ms(20_000));
    assert_eq!(rig.health(B1), Health::Up);
    rig.said.clear();
    [B1, B2].iter().for_each(|one| rig.set(one, Err(Fault::ConnectTimeout)));
    rig.until(ms(6_000), |rig| [B1, B2].iter().all(|one| rig.health(one) == Health::Down));
    let why = |note: &Transition| matches!(note, Transition::Site { to: Health::Down, why, .. } if why.starts_with("nothing"));
    assert!(rig.notes().iter().any(why), "{:#?}", rig.notes());
}

/// Living backends look dead there: that is worse, and status says so.
#[test]
fn a_reason_that_joins_another_is_told_as_well() {
    let mut config = two_sites();
    let backends = vec![backend("a", A1, 1), backend("a", A2, 1), backend("b", B1, 2), backend("b", B2, 2)];
    let hasty = |forward: &mut relais_config::Forward| forward.timeout.connect = Some(ms(150));
    config.services = crate::testing::config(vec![service("api", backends, hasty)]).services;
    let mut rig = started(config);
    let told = |rig: &Rig| rig.fleet.report(rig.now).services[0].trouble.clone();
    rig.connects_take(B1, ms(120));
    assert_eq!(troubles(&rig).len(), 1, "the contract is too short: {:?}", told(&rig));
    rig.connects_take(A1, ms(250));
    let (status, log) = (told(&rig), troubles(&rig));
    assert_eq!(status.len(), 2, "{status:?}");
    assert!(status[0].contains("timeout.connect = 150 ms is less than"), "{status:?}");
    assert!(
        log.iter().flatten().any(|why| why.starts_with("site a is ") && why.contains("timeout.connect")),
        "{log:?}"
    );
    let before = log.len();
    rig.connects_take(A1, ms(260));
    assert_eq!(troubles(&rig).len(), before, "the numbers alone are no news");
    rig.connects_take(A1, ms(10));
    assert_eq!((told(&rig).len(), troubles(&rig).contains(&None)), (1, false), "one reason is left");
    rig.connects_take(B1, ms(10));
    assert_eq!(troubles(&rig).last().unwrap(), &None);
}
