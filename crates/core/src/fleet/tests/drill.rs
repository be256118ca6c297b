//! Drills: when they are refused, what they change, how they end, what they say.

use super::*;
use crate::{DrillOrder, DrillRefused};

fn order(site: &str) -> DrillOrder {
    DrillOrder { site: site.to_owned(), shape: Shape::Silent, lasts: ms(20_000), force: false }
}

impl Rig {
    fn drill(&mut self, order: &DrillOrder) -> Result<u64, DrillRefused> {
        let begun = self.fleet.begin_drill(order, self.now);
        self.take();
        begun
    }

    /// Lets time pass while somebody asks for the drill.
    fn attend(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.run(ms(200).min(end.since(self.now)));
            self.fleet.ask_drill(self.now);
        }
    }

    fn end(&mut self, end: DrillEnd) {
        self.fleet.end_drill(end, self.now);
        self.take();
    }

    fn drills(&self) -> Vec<DrillRecord> {
        self.fleet.drills().cloned().collect()
    }

    fn refusal(&mut self, order: &DrillOrder) -> String {
        let refused = self.drill(order).unwrap_err();
        format!("{} ({})", refused.error, refused.help)
    }
}

#[test]
fn a_good_drill_cuts_the_site_brings_it_back_and_is_kept() {
    let mut rig = started(two_sites());
    assert_eq!(rig.drill(&order("a")), Ok(1));
    assert_eq!((rig.member(A1).drill, rig.member(B1).drill), (Some(Shape::Silent), None));
    let cut = rig.now;
    rig.attend(ms(500));
    rig.moved(A1, cut + ms(10), Left::Overtaken);
    rig.attend(ms(300));
    assert_eq!((rig.health(A1), rig.health(A2), rig.health(B1)), (Health::Down, Health::Down, Health::Up));
    rig.moved(A1, cut + ms(300), Left::Rescued);
    rig.moved(A2, cut + ms(400), Left::Told);
    rig.attend(ms(19_000));
    assert_eq!(rig.member(A1).drill, Some(Shape::Silent));
    rig.attend(ms(300));
    assert_eq!(rig.member(A1).drill, None, "its time is over");
    rig.attend(ms(3_000));
    assert_eq!(rig.health(A1), Health::Up);
    let [record] = &rig.drills()[..] else { panic!("{:?}", rig.drills()) };
    assert!(record.passed(), "{record:#?}");
    assert_eq!(record.end, Some(DrillEnd::Time));
    let [service] = &record.services[..] else { panic!("{record:?}") };
    assert_eq!((service.moved, service.rescued, service.told, service.lost, service.slow), (2, 1, 1, 0, 0));
    assert_eq!(service.last_moved_micros, Some(800_000));
    assert!(service.declared_micros.is_some_and(|micros| micros <= 800_000), "{service:?}");
    assert!(record.returned_micros.is_some_and(|micros| micros < 1_000_000), "{record:?}");
    assert!(rig.saves().contains(&Record::Drill(Box::new(record.clone()))));
    let [failover] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert!(failover.drill && !failover.overran(), "{failover:?}");
    assert_eq!(rig.fleet.report(rig.now).drill, None, "it is over");
}

#[test]
fn what_leaves_as_its_answer_comes_late_is_not_slow_to_leave() {
    let mut rig = started(two_sites());
    rig.drill(&DrillOrder { shape: Shape::Slow, ..order("a") }).unwrap();
    let asked = rig.now;
    rig.attend(ms(1_500));
    for (how, slow) in [(Left::Late, 0), (Left::Failed, 1)] {
        rig.moved(A1, asked, how);
        assert_eq!(rig.fleet.drill_record().unwrap().services[0].slow, slow, "{how:?}");
    }
}

#[test]
fn every_refusal_says_why_and_what_to_do() {
    let mut rig = started(two_sites());
    assert_eq!(rig.refusal(&order("dijn")), "there is no site `dijn` (sites: a, b)");
    let brief = DrillOrder { lasts: ms(1_500), ..order("a") };
    assert_eq!(
        rig.refusal(&brief),
        "a drill of 1.5 s makes no sense (write a time from 2 s (two contracts) to 10 min)"
    );
    let long = DrillOrder { lasts: ms(601_000), ..order("a") };
    assert!(rig.refusal(&long).starts_with("a drill of 10 min makes no sense"));
    rig.order("b", Admin::Draining);
    let alone = "api would have no backend: no other site of it is up (bring another site up first; `--force` does it \
                 all the same, and visitors get errors)";
    assert_eq!(rig.refusal(&order("a")), alone);
    let nobody = "no backend at b gets traffic: there is nothing to cut (`relais status` says why; a drill needs a site \
                  that is up and enabled)";
    assert_eq!(rig.refusal(&order("b")), nobody);
    rig.order("b", Admin::Enabled);
    assert!(rig.drill(&order("a")).is_ok());
    assert!(rig.refusal(&order("b")).starts_with("a drill of a is under way: one at a time"));
    assert_eq!(rig.member(B1).drill, None, "a refused drill changes nothing");
}

#[test]
fn a_lost_request_ends_it_at_once_and_fails_it() {
    let mut rig = started(two_sites());
    rig.drill(&order("a")).unwrap();
    rig.attend(ms(2_000));
    rig.snapshot.pools[0].stats.lost.inc();
    rig.attend(ms(200));
    assert_eq!(rig.member(A1).drill, None);
    rig.attend(ms(3_000));
    let [record] = &rig.drills()[..] else { panic!("{:?}", rig.drills()) };
    assert!(!record.passed());
    assert_eq!(record.end, Some(DrillEnd::Lost));
    assert!(record.problems.contains(&"api: 1 request failed that could have been repeated".to_owned()), "{record:?}");
    assert!(record.returned_micros.is_some(), "the return is still waited for");
}

#[test]
fn losing_the_last_other_backend_ends_it() {
    let mut rig = started(two_sites());
    rig.drill(&order("a")).unwrap();
    rig.attend(ms(2_000));
    rig.order("b", Admin::Disabled);
    rig.attend(ms(200));
    let record = rig.fleet.drill_record().unwrap();
    assert_eq!(record.end, Some(DrillEnd::NobodyLeft));
    assert_eq!(rig.member(A1).drill, None);
    rig.attend(ms(3_000));
    assert!(rig.drills()[0].problems.contains(&"api: had no backend left".to_owned()), "{:?}", rig.drills());
}

#[test]
fn one_nobody_attends_ends_by_itself() {
    let mut rig = started(two_sites());
    rig.drill(&order("a")).unwrap();
    rig.run(ms(4_900));
    assert!(rig.member(A1).drill.is_some());
    rig.run(ms(300));
    assert_eq!(rig.member(A1).drill, None);
    assert_eq!(rig.fleet.drill_record().unwrap().end, Some(DrillEnd::Unattended));
    rig.run(ms(3_000));
    assert!(!rig.drills()[0].passed());
}

#[test]
fn operator_reload_and_stop_end_it() {
    let mut rig = started(two_sites());
    rig.drill(&order("a")).unwrap();
    rig.attend(ms(2_000));
    rig.end(DrillEnd::Asked);
    assert_eq!(rig.member(A1).drill, None);
    rig.attend(ms(2_000));
    assert_eq!(rig.drills().len(), 1);

    rig.drill(&order("a")).unwrap();
    rig.attend(ms(2_000));
    rig.event(Event::Reload(Arc::new(two_sites())));
    assert!(rig.member(A1).drill.is_some(), "a reload that changes nothing ends nothing");
    rig.attend(ms(1_000));
    let mut other = two_sites();
    // The drilled service is at another place than when it was cut.
    other.services.insert(0, Arc::new(service("w", vec![backend("a", "10.9.9.9:80", 1)], |_| {})));
    rig.event(Event::Reload(Arc::new(other)));
    assert_eq!(rig.member(A1).drill, None);
    assert_eq!(rig.drills()[1].end, Some(DrillEnd::Reload));

    rig.run(ms(10_000));
    rig.drill(&order("b")).unwrap();
    rig.end(DrillEnd::Stop);
    assert_eq!(rig.member(B1).drill, None);
    let last = &rig.drills()[2];
    assert!(last.done && last.end == Some(DrillEnd::Stop), "{last:?}");
    rig.end(DrillEnd::Asked);
    assert_eq!(rig.drills().len(), 3, "there is none to end");
}

#[test]
fn forced_it_goes_on_without_another_site_and_says_so() {
    let mut rig = started(two_sites());
    rig.order("b", Admin::Disabled);
    let forced = DrillOrder { force: true, lasts: ms(3_000), ..order("a") };
    rig.drill(&forced).unwrap();
    rig.snapshot.pools[0].stats.lost.inc();
    rig.attend(ms(2_800));
    assert!(rig.member(A1).drill.is_some(), "that was to be expected");
    rig.attend(ms(10_000));
    let [record] = &rig.drills()[..] else { panic!("{:?}", rig.drills()) };
    assert!(record.forced && record.services[0].alone && !record.services[0].kept, "{record:?}");
    assert!(!record.passed());
}

#[test]
fn refused_connections_and_slow_answers_have_their_own_verdicts() {
    let mut rig = started(two_sites());
    rig.drill(&DrillOrder { shape: Shape::Refused, lasts: ms(5_000), ..order("a") }).unwrap();
    rig.attend(ms(9_000));
    assert!(rig.drills()[0].passed(), "{:#?}", rig.drills());
    let config = config(vec![service("api", two_sites_of(), |forward| forward.health.kind = CheckKind::Tcp)]);
    let mut rig = started(config);
    rig.drill(&DrillOrder { shape: Shape::Slow, lasts: ms(5_000), ..order("a") }).unwrap();
    rig.attend(ms(15_000));
    assert!(rig.drills()[0].passed(), "slowness has no deadline: {:#?}", rig.drills());
}

fn two_sites_of() -> Vec<relais_config::BackendDecl> {
    vec![backend("a", A1, 1), backend("b", B1, 1)]
}

#[test]
fn a_site_that_does_not_come_back_is_told() {
    let mut rig = started(two_sites());
    rig.drill(&DrillOrder { lasts: ms(3_000), ..order("a") }).unwrap();
    rig.attend(ms(2_000));
    rig.set(A1, Err(Fault::Refused));
    rig.attend(ms(130_000));
    let [record] = &rig.drills()[..] else { panic!("{:?}", rig.drills()) };
    assert!(record.problems.contains(&"a was not back 2 min after the end".to_owned()), "{record:?}");
}

#[test]
fn the_report_shows_it_while_it_runs() {
    let mut rig = started(two_sites());
    rig.drill(&order("a")).unwrap();
    rig.attend(ms(1_000));
    let report = rig.fleet.report(rig.now);
    assert_eq!(report.drill.map(|record| record.number), Some(1));
    assert_eq!(report.sites[0].drill, Some(Shape::Silent));
}

#[test]
fn drills_make_nobody_wait_longer() {
    let mut rig = started(two_sites());
    for number in 1..=4 {
        assert_eq!(rig.drill(&DrillOrder { lasts: ms(3_000), ..order("a") }), Ok(number));
        rig.attend(ms(8_000));
        let drills = rig.drills();
        let returned = drills.last().unwrap().returned_micros;
        assert!(returned.is_some_and(|micros| micros < 1_000_000), "drill {number}: {returned:?}");
    }
    // An outage does, from the second one on.
    for expected in [ms(0)..ms(1_500), ms(2_000)..ms(3_500)] {
        rig.set(A1, Err(Fault::Refused));
        rig.run(ms(2_000));
        rig.set(A1, Ok(()));
        let waited = rig.until(ms(10_000), |rig| rig.health(A1) == Health::Up);
        assert!(expected.contains(&waited), "{waited:?} is not in {expected:?}");
    }
}

#[test]
fn slow_answers_overrun_nothing() {
    let mut rig = started(config(vec![service("api", two_sites_of(), |forward| {
        forward.failover_within = ms(300);
        forward.health.timeout = Some(ms(120));
    })]));
    rig.drill(&DrillOrder { shape: Shape::Slow, lasts: ms(5_000), ..order("a") }).unwrap();
    rig.attend(ms(15_000));
    let [failover] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert!(failover.slow && failover.drill && failover.took_micros > failover.contract_micros, "{failover:?}");
    assert!(!failover.overran());
    assert_eq!(rig.snapshot.pools[0].stats.overruns.get(), 0);
}
