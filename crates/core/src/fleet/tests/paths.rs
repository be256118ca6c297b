//! Measured round trips and what follows from them.

use super::*;

impl Rig {
    fn connects_take(&mut self, address: &str, took: Duration) {
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
    assert_eq!(rig.snapshot.pools[0].timers.connect, ms(500));
    rig.connects_take(B1, ms(120));
    let timers = &rig.snapshot.pools[0].timers;
    assert_eq!((timers.connect, timers.stagger), (ms(760), ms(240)));
    let generation = rig.snapshot.generation;
    for took in [ms(118), ms(125), ms(110), ms(130)] {
        rig.connects_take(B2, took);
    }
    assert_eq!(rig.snapshot.generation, generation, "a trembling path changes nothing");
    let site = &rig.fleet.report(rig.now).sites[1];
    assert!(site.round_trip_micros.is_some_and(|micros| (100_000..140_000).contains(&micros)));
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
    assert_eq!(rig.snapshot.pools[0].timers.stagger, ms(240));
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
