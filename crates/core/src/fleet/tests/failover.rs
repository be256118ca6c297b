//! The time of a failover: from the first lost packet the edge could know of to the last request affected.

use super::*;

impl Rig {
    pub(super) fn moved(&mut self, address: &str, began: Instant, how: Left) {
        let slot = self.member(address).backend.slot;
        self.event(Event::Moved { slot, began, how });
    }

    /// A request was answered there now.
    pub(super) fn answered(&mut self, address: &str) {
        let backend = self.member(address).backend;
        backend.stats.succeeded.inc();
        backend.set_latency(1.0, self.now.0);
    }

    pub(super) fn failovers(&self) -> Vec<FailoverRecord> {
        self.fleet.failovers().cloned().collect()
    }

    fn cut_a(&mut self) {
        self.set(A1, Err(Fault::ConnectTimeout));
        self.set(A2, Err(Fault::ConnectTimeout));
    }
}

#[test]
fn a_cut_nobody_was_at_is_timed_from_the_first_lost_probe_to_the_verdict() {
    let mut rig = started(two_sites());
    rig.cut_a();
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    let declared = rig.fleet.report(rig.now).services[0].backends[0].since;
    let first = rig.probes.iter().find(|(at, o)| *o.backend.id.site == *"a" && *at >= START + ms(2_000)).unwrap().0;
    assert!(rig.failovers().is_empty(), "requests may still be there");
    rig.run(ms(1_500));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert_eq!((record.began, record.ended, record.took()), (first, declared, declared.since(first)));
    assert!(!record.overran() && record.took() < ms(800), "{record:?}");
    assert_eq!((record.number, &*record.service, record.moved), (1, "api", 0));
    assert_eq!(record.sites, ["a".into()] as [Arc<str>; 1]);
    assert_eq!(record.backends.len(), 2);
    let stats = &rig.snapshot.pools[0].stats;
    assert_eq!(stats.failover.read().0.iter().sum::<u64>(), 1);
    assert_eq!(stats.overruns.get(), 0);
    let report = rig.fleet.report(rig.now);
    assert_eq!(report.services[0].last_failover.as_ref(), Some(record));
    assert!(rig.saves().contains(&Record::Failover(Box::new(record.clone()))));
    assert!(rig.notes().contains(&Transition::Failover(Box::new(record.clone()))));
}

#[test]
fn requests_pull_the_beginning_forward_and_the_end_back() {
    let mut rig = started(two_sites());
    rig.answered(A1);
    let alive = rig.now;
    rig.cut_a();
    rig.run(ms(2));
    let asked = rig.now;
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.moved(A1, asked, Left::Rescued);
    // It had waited for long when the cut came: no lost packet of now, but affected.
    rig.run(ms(30));
    rig.moved(A2, alive - ms(20_000), Left::Told);
    rig.moved(A2, alive - ms(20_000), Left::Late);
    let last = rig.now;
    rig.run(ms(2_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert_eq!((record.began, record.ended), (asked, last));
    assert_eq!((record.moved, record.rescued, record.told), (2, 1, 1));
    assert!(Duration::from_micros(record.slowest_micros) <= record.took(), "{record:?}");
}

#[test]
fn what_left_before_the_verdict_belongs_to_it() {
    let mut rig = started(two_sites());
    rig.answered(A1);
    rig.cut_a();
    rig.run(ms(2));
    let asked = rig.now;
    rig.run(ms(200));
    rig.moved(A1, asked, Left::Overtaken);
    assert_eq!(rig.health(A1), Health::Up);
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.run(ms(2_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert_eq!((record.began, record.moved, record.rescued), (asked, 1, 0));
}

#[test]
fn a_lost_packet_of_long_ago_is_not_the_beginning() {
    let mut rig = started(two_sites());
    let long_ago = rig.now;
    rig.run(ms(200));
    rig.moved(A1, long_ago, Left::Failed);
    rig.run(ms(400));
    rig.answered(A1);
    rig.run(ms(10_000));
    rig.cut_a();
    rig.run(ms(3_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert!(record.began >= START + ms(12_000), "{record:?}");
    assert_eq!(record.moved, 0, "it was moved for another reason");
}

/// As where a service asks another backend beside whenever one is slow.
#[test]
fn what_left_before_the_last_sign_of_life_has_nothing_to_do_with_a_cut() {
    let mut rig = started(two_sites());
    for _ in 0..20 {
        rig.moved(A1, rig.now - ms(50), Left::Late);
        rig.run(ms(20));
        rig.answered(A1);
        rig.run(ms(480));
    }
    rig.cut_a();
    rig.run(ms(50));
    rig.moved(A1, rig.now - ms(40), Left::Late);
    rig.run(ms(3_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert_eq!(record.moved, 1, "{record:?}");
}

/// Its checks pass between them, and say that it lives.
#[test]
fn all_that_failed_in_a_row_at_who_passes_its_checks_is_moved() {
    let mut rig = started(pair(|forward| forward.passive_fall = Some(10)));
    for _ in 0..10 {
        rig.run(ms(200));
        rig.served(B1, Ok(()));
        rig.served(A1, Err(Fault::Reset));
        rig.moved(A1, rig.now - ms(5), Left::Failed);
    }
    assert_eq!(rig.health(A1), Health::Down);
    rig.run(ms(3_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert_eq!(record.moved, 10, "{record:?}");
}

/// As where a service asks another backend beside whenever one is slow, and nobody checks.
#[test]
fn what_was_overtaken_is_not_the_beginning() {
    let mut rig = started(pair(|forward| forward.health.kind = CheckKind::Off));
    for _ in 0..40 {
        rig.moved(A1, rig.now - ms(50), Left::Late);
        rig.run(ms(500));
    }
    let cut = rig.now;
    for _ in 0..3 {
        rig.served(B1, Ok(()));
        rig.served(A1, Err(Fault::Refused));
        rig.moved(A1, rig.now, Left::Failed);
    }
    assert_eq!(rig.health(A1), Health::Down);
    rig.run(ms(3_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert!(record.began >= cut && !record.overran(), "{record:?}");
}

#[test]
fn an_overrun_is_counted_and_told() {
    let mut rig = started(two_sites());
    rig.cut_a();
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.run(ms(900));
    let slot = rig.member(A1).backend.slot;
    rig.event(Event::Moved { slot, began: rig.now - ms(800), how: Left::Rescued });
    rig.run(ms(2_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert!(record.overran() && record.took() > ms(1_000), "{record:?}");
    assert_eq!(rig.snapshot.pools[0].stats.overruns.get(), 1);
}

#[test]
fn stragglers_do_not_keep_the_book_open_for_ever() {
    let mut rig = started(two_sites());
    rig.cut_a();
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    for _ in 0..30 {
        rig.run(ms(500));
        rig.moved(A1, rig.now - ms(100), Left::Rescued);
    }
    rig.run(ms(2_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert!(record.ended.since(record.declared) <= ms(10_500), "{record:?}");
}

/// As where a service asks another backend beside whenever one is slow, and the cut was short.
#[test]
fn what_leaves_a_backend_that_is_back_belongs_to_no_failover() {
    let mut rig = started(config(vec![service(
        "api",
        vec![backend("a", A1, 1), backend("a", A2, 1), backend("b", B1, 1)],
        |forward| forward.failover_within = ms(5_000),
    )]));
    let sent_before = rig.now;
    rig.cut_a();
    rig.until(ms(5_000), |rig| rig.health(A1) == Health::Down && rig.health(A2) == Health::Down);
    rig.set(A1, Ok(()));
    rig.until(ms(4_000), |rig| rig.health(A1) == Health::Up);
    rig.moved(A1, sent_before, Left::Late);
    let last = rig.now;
    for _ in 0..12 {
        rig.run(ms(500));
        rig.moved(A1, rig.now - ms(50), Left::Late);
    }
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert_eq!((record.ended, record.moved, record.overran()), (last, 1, false), "{record:?}");
}

/// Two backends of a service that die one after the other are no slow failover.
#[test]
fn losses_one_after_the_other_are_measured_each_by_itself() {
    let mut rig = started(two_sites());
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.run(ms(800));
    rig.set(B1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(B1) == Health::Down);
    rig.run(ms(2_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert!(record.ended.since(record.began) > ms(900), "{record:?}");
    assert!(record.took() < ms(500) && !record.overran(), "{record:?}");
    assert_eq!(record.sites.len(), 2);
}

#[test]
fn an_outage_is_no_failover() {
    let mut rig = started(two_sites());
    for address in [A1, A2, B1, B2] {
        rig.set(address, Err(Fault::ConnectTimeout));
    }
    rig.run(ms(5_000));
    assert_eq!(rig.health(B2), Health::Down);
    assert!(rig.failovers().is_empty(), "{:?}", rig.failovers());
}

#[test]
fn a_hundred_are_kept_in_a_ring_and_survive_a_restart() {
    let mut rig = started(two_sites());
    for _ in 0..103 {
        rig.set(A1, Err(Fault::Refused));
        rig.until(ms(5_000), |rig| rig.health(A1) == Health::Down);
        rig.set(A1, Ok(()));
        rig.until(ms(90_000), |rig| rig.health(A1) == Health::Up);
        rig.run(ms(2_000));
    }
    let numbers: Vec<u64> = rig.failovers().iter().map(|record| record.number).collect();
    assert_eq!((numbers.len(), numbers[0], numbers[99]), (100, 4, 103));
    let mut store: BTreeMap<RecordKey, Record> = BTreeMap::new();
    for record in rig.saves() {
        store.insert(record.key(), record);
    }
    let records: Vec<Record> = store.into_values().collect();
    let again = Rig::with(two_sites(), Saved { records });
    assert_eq!(again.failovers(), rig.failovers());
    assert_eq!(again.fleet.report(again.now).services[0].last_failover, rig.failovers().last().cloned());
}

#[test]
fn a_reload_closes_the_book_before_places_change() {
    let mut rig = started(two_sites());
    rig.cut_a();
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    let backends = vec![backend("b", B1, 1)];
    rig.event(Event::Reload(Arc::new(config(vec![service("other", backends, |_| {})]))));
    assert_eq!(rig.failovers().len(), 1);
    rig.run(ms(5_000));
    assert_eq!(rig.failovers().len(), 1);
}
