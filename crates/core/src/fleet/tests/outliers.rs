//! Who answers, but much worse than its pool.

use super::*;

const ALL: [&str; 4] = [A1, A2, B1, B2];

impl Rig {
    /// So many answers of a backend, some of them wrong but not worth a retry, each after `took`.
    pub(super) fn answers(&self, address: &str, good: u64, wrong: u64, took: Duration) {
        let stats = &self.member(address).backend.stats;
        for n in 0..good + wrong {
            stats.latency.observe(took);
            let status = if n < wrong { 500 } else { 200 };
            stats.succeed(status);
            stats.serve(status);
        }
    }

    /// `seconds` of load on the usable ones: each has `volume` answers a second, of which the `bad` give 3 in 10 wrong.
    fn load(&mut self, seconds: u64, volume: u64, bad: &[&str]) {
        for _ in 0..seconds {
            for address in ALL {
                if self.knows(address) && self.member(address).usable() {
                    let wrong = if bad.contains(&address) { volume * 3 / 10 } else { 0 };
                    self.answers(address, volume - wrong, wrong, ms(5));
                }
            }
            self.run(ms(1_000));
        }
    }

    fn knows(&self, address: &str) -> bool {
        self.snapshot.pools[0].members.iter().any(|member| *member.backend.id.address == *address)
    }

    fn down(&self) -> Vec<&str> {
        ALL.into_iter().filter(|address| self.knows(address) && self.health(address) == Health::Down).collect()
    }

    fn ejections(&self, address: &str) -> [u64; 2] {
        let backend = self.member(address).backend;
        std::array::from_fn(|reason| backend.stats.ejections[reason].get())
    }

    fn ejected(&self, address: &str) -> bool {
        let report = self.fleet.report(self.now);
        let mut backends = report.services.iter().flat_map(|service| &service.backends);
        backends.any(|backend| *backend.address == *address && backend.ejected)
    }
}

/// Loads until a backend is out, and says for how long it then is, with its checks passing all the while.
fn out_for(rig: &mut Rig, bad: &str) -> Duration {
    for _ in 0..100 {
        rig.load(1, 100, &[bad]);
        if rig.health(bad) == Health::Down {
            break;
        }
    }
    let from = rig.now;
    assert_eq!(rig.down(), [bad]);
    rig.until(ms(400_000), |rig| rig.health(bad) == Health::Up).max(rig.now.since(from))
}

#[test]
fn three_wrong_answers_in_ten_eject_a_backend_whatever_its_checks_say() {
    let mut rig = started(two_sites());
    rig.load(20, 100, &[]);
    rig.load(2, 100, &[A1]);
    assert_eq!(rig.down(), [A1]);
    assert!(rig.why(A1).ends_with("answers were errors, pool median 0 %"), "{}", rig.why(A1));
    assert_eq!((rig.ejections(A1), rig.ejected(A1)), ([1, 0], true));
    let member = rig.member(A1);
    assert!(!member.dead && !member.mute, "what waits there may finish");
    let noted = rig.notes();
    let [Transition::Health { to: Health::Down, why, .. }, ..] = &noted[..] else { panic!("{noted:?}") };
    assert!(why.contains("pool median"), "{why}");
    let why = why.clone();
    rig.run(ms(1_000));
    let history: Vec<String> = rig.fleet.failovers().map(|record| record.why.clone()).collect();
    assert_eq!(history, [why], "history tells it");
    rig.load(6, 100, &[]);
    assert_eq!(rig.down(), [A1], "passed checks do not undo it");
    rig.load(4, 100, &[]);
    assert!(rig.down().is_empty());
    assert!(rig.why(A1).contains("after its ejection"), "{}", rig.why(A1));
    assert!(rig.member(A1).ramp_from.is_some(), "its share grows again");
    assert!(!rig.ejected(A1));
    rig.load(120, 100, &[]);
    assert_eq!(rig.ejections(A1), [1, 0]);
}

#[test]
fn who_is_told_what_a_backend_did_sees_its_wrong_answers_as_failed() {
    let rig = started(pair(|_| {}));
    rig.answers(A1, 80, 20, ms(5));
    let stats = &rig.member(A1).backend.stats;
    stats.fail(Fault::Status(503));
    stats.succeed(200);
    stats.break_off();
    stats.spoiled.inc();
    let report = rig.fleet.report(rig.now);
    let told = report.services[0].backends.iter().map(|backend| (backend.succeeded, backend.failed));
    assert_eq!(told.collect::<Vec<_>>(), [(80, 22), (0, 0)]);
}

#[test]
fn it_takes_longer_where_little_is_asked_but_it_is_seen() {
    let mut rig = started(pair(|_| {}));
    let mut asked = 0_u64;
    while rig.health(A1) == Health::Up {
        asked += 1;
        assert!(asked < 150, "{asked} answers");
        rig.answers(A1, u64::from(asked % 10 >= 3), u64::from(asked % 10 < 3), ms(5));
        rig.answers(B1, 1, 0, ms(5));
        rig.run(ms(2_000));
    }
    assert!(asked >= 10, "no verdict from {asked} answers");
}

#[test]
fn what_all_have_in_common_ejects_nobody() {
    let mut rig = started(two_sites());
    rig.load(10, 100, &[]);
    rig.load(300, 100, &ALL);
    for address in ALL {
        rig.answers(address, 100, 0, ms(3_000));
    }
    rig.run(ms(60_000));
    assert!(rig.notes().is_empty(), "{:?}", rig.notes());
}

#[test]
fn never_more_than_half_and_never_the_last() {
    let mut rig = started(two_sites());
    rig.load(5, 100, &[A1, A2]);
    assert_eq!(rig.down(), [A1, A2]);
    rig.load(4, 100, &[B1]);
    assert_eq!(rig.down(), [A1, A2], "half stays");
    let mut rig = started(pair(|forward| forward.outlier.max_ejected_percent = 100));
    rig.load(5, 100, &[A1]);
    assert_eq!(rig.down(), [A1]);
    rig.answers(B1, 0, 1000, ms(5));
    rig.run(ms(2_000));
    assert_eq!(rig.health(B1), Health::Up, "nobody else is left");
}

#[test]
fn who_answers_badly_comes_back_when_others_die() {
    let mut rig = started(two_sites());
    rig.load(3, 100, &[A1]);
    assert_eq!(rig.down(), [A1]);
    rig.set(B1, Err(Fault::Refused));
    rig.load(1, 100, &[]);
    assert_eq!(rig.down(), [A1, B1], "half is left");
    rig.set(B2, Err(Fault::Refused));
    rig.load(1, 100, &[]);
    assert_eq!(rig.down(), [B1, B2]);
    assert_eq!(rig.why(A1), "ejected, but too few others are left");
    // One that does not even pass its check is no help.
    let mut rig = started(pair(|_| {}));
    rig.load(3, 100, &[A1]);
    rig.set(A1, Err(Fault::Refused));
    rig.set(B1, Err(Fault::Refused));
    rig.run(ms(1_000));
    assert_eq!(rig.down(), [A1, B1]);
    rig.set(A1, Ok(()));
    rig.run(ms(300));
    assert_eq!(rig.down(), [B1], "the first that answers is needed, however badly it did");
}

#[test]
fn a_slow_backend_is_ejected_and_its_site_stays_up() {
    let mut rig = started(two_sites());
    rig.load(5, 50, &[]);
    for _ in 0..3 {
        for address in ALL {
            let took = if [A1, A2].contains(&address) { ms(940) } else { ms(18) };
            if rig.member(address).usable() {
                rig.answers(address, 50, 0, took);
            }
        }
        rig.run(ms(1_000));
    }
    assert_eq!(rig.down(), [A1, A2]);
    assert_eq!(rig.why(A1), "answers take 0.75 s, pool median 17 ms");
    assert_eq!(rig.ejections(A1), [0, 1]);
    let sites = rig.fleet.report(rig.now).sites;
    assert!(sites.iter().all(|site| site.health == Health::Up), "{sites:?}");
    assert!(rig.notes().iter().all(|note| !matches!(note, Transition::Site { .. })));
}

/// Three are asked a lot, the fourth is not; then all are asked alike, answer as they are told to, and who is out is said.
fn a_late_comer_and_others(took: [Duration; 4], wrong: [u64; 4]) -> Vec<&'static str> {
    let mut rig = started(two_sites());
    for address in &ALL[1..] {
        rig.answers(address, 100, 0, ms(5));
    }
    rig.run(ms(1_000));
    for ((address, took), wrong) in ALL.into_iter().zip(took).zip(wrong) {
        rig.answers(address, 15 - wrong, wrong, took);
    }
    rig.run(ms(1_000));
    ALL.into_iter().filter(|address| rig.health(address) == Health::Down).collect()
}

#[test]
fn what_all_have_begins_without_a_past_of_good_answers_to_tell_one_from_the_others() {
    let nobody: Vec<&str> = Vec::new();
    assert_eq!(a_late_comer_and_others([ms(940); 4], [0; 4]), nobody, "all are slow now");
    assert_eq!(a_late_comer_and_others([ms(5); 4], [12; 4]), nobody, "all answer wrongly now");
    assert_eq!(a_late_comer_and_others([ms(940), ms(5), ms(5), ms(5)], [0; 4]), [A1]);
    assert_eq!(a_late_comer_and_others([ms(5); 4], [12, 0, 0, 0]), [A1]);
}

#[test]
fn a_site_whose_backends_all_died_is_down_though_one_was_ejected_before() {
    let mut rig = started(two_sites());
    let site = |rig: &Rig| rig.fleet.report(rig.now).sites[0].health;
    rig.load(20, 100, &[]);
    rig.load(2, 100, &[A1]);
    assert_eq!((rig.ejected(A1), site(&rig)), (true, Health::Up));
    rig.set(A1, Err(Fault::Refused));
    rig.set(A2, Err(Fault::Refused));
    rig.run(ms(1_500));
    assert_eq!((rig.ejected(A1), site(&rig)), (true, Health::Down));
    rig.set(A1, Ok(()));
    rig.run(ms(1_500));
    assert_eq!(site(&rig), Health::Up, "{}", rig.why(A1));
}

/// A1 is down for what it answers: much worse than the others, or to its check.
fn down_for_its_answers(check: Result<(), Fault>) -> Rig {
    let mut rig = started(two_sites());
    rig.load(20, 100, &[]);
    if check.is_ok() {
        rig.load(2, 100, &[A1]);
    } else {
        rig.set(A1, check);
        rig.run(ms(2_000));
    }
    assert_eq!((rig.health(A1), rig.member(A1).dead), (Health::Down, false));
    rig
}

/// Its streams are told, and what waits there is moved, as soon as of one that was up.
#[test]
fn who_answers_badly_and_then_falls_silent_is_dead_within_the_contract_and_its_site_with_it() {
    for check in [Ok(()), Err(Fault::Status(503))] {
        let mut rig = down_for_its_answers(check);
        rig.set(A1, Err(Fault::ConnectTimeout));
        rig.set(A2, Err(Fault::ConnectTimeout));
        rig.until(ms(1_000), |rig| rig.member(A1).dead && rig.member(A2).dead);
        assert_eq!(rig.fleet.report(rig.now).sites[0].health, Health::Down);
        let mut rig = down_for_its_answers(check);
        rig.set(A1, Err(Fault::ConnectTimeout));
        rig.run(ms(260));
        rig.set(A1, check);
        rig.run(ms(2_000));
        assert!(!rig.member(A1).dead, "one lost packet is no death");
    }
}

#[test]
fn every_ejection_lasts_longer_up_to_a_bound_and_peace_is_rewarded() {
    let mut rig = started(two_sites());
    rig.load(5, 100, &[]);
    let times: Vec<u64> = (0..7).map(|_| out_for(&mut rig, A1).as_secs()).collect();
    for (time, due) in times.iter().zip([10, 20, 40, 80, 160, 300, 300]) {
        assert!((due..=due + 1).contains(time), "{times:?}");
    }
    rig.load(3 * 300 + 10, 100, &[]);
    let after = out_for(&mut rig, A1).as_secs();
    assert!((160..=161).contains(&after), "three of seven are forgotten: {after}");
}

#[test]
fn an_unchecked_backend_is_tried_again_after_its_ejection() {
    let mut rig = started(pair(|forward| forward.health.kind = CheckKind::Off));
    rig.load(3, 100, &[A1]);
    assert_eq!(rig.down(), [A1]);
    rig.run(ms(6_000));
    assert_eq!(rig.down(), [A1]);
    let left = rig.until(ms(5_000), |rig| rig.health(A1) == Health::Up);
    assert!(left > ms(500), "{left:?}");
}

#[test]
fn an_ejection_survives_a_restart_and_so_does_its_length() {
    let mut rig = started(pair(|_| {}));
    rig.load(3, 100, &[A1]);
    let mut saves = rig.saves().into_iter();
    let Some(Record::Backend(record)) =
        saves.rfind(|record| matches!(record, Record::Backend(record) if *record.id.address == *A1))
    else {
        panic!("nothing was saved")
    };
    // The rig's clock begins anew: so does the record's.
    let until = record.ejected_until.map(|until| START + until.since(rig.now));
    let record = BackendRecord { since: START, verified: START, ejected_until: until, ..record };
    let id = BackendId { site: "b".into(), address: B1.into(), ..record.id.clone() };
    let other = BackendRecord { id, health: Health::Up, ejected_until: None, ejections: 0, ..record.clone() };
    let records = vec![Record::Backend(record), Record::Backend(other)];
    let mut rig = Rig::with(pair(|_| {}), Saved { records });
    assert_eq!(rig.down(), [A1]);
    rig.run(ms(6_000));
    assert_eq!(rig.down(), [A1], "its checks pass, its time is not over");
    rig.run(ms(6_000));
    assert!(rig.down().is_empty());
    assert!((19..=21).contains(&out_for(&mut rig, A1).as_secs()), "the second one is longer");
}

#[test]
fn the_operator_and_the_file_end_an_ejection() {
    let mut rig = started(two_sites());
    rig.load(3, 100, &[A1]);
    rig.order(&format!("api/{A1}"), Admin::Disabled);
    rig.order(&format!("api/{A1}"), Admin::Enabled);
    rig.run(ms(500));
    assert!(rig.down().is_empty(), "enabled means now");
    rig.load(3, 100, &[A1]);
    assert_eq!(rig.down(), [A1]);
    let mut off = two_sites();
    let service = Arc::make_mut(&mut off.services[0]);
    let relais_config::Action::Forward(forward) = &mut service.action else { panic!() };
    forward.outlier.max_ejected_percent = 0;
    rig.event(Event::Reload(Arc::new(off)));
    rig.run(ms(2_500));
    assert!(rig.down().is_empty(), "{}", rig.why(A1));
    rig.load(10, 100, &[A1]);
    assert!(rig.down().is_empty(), "switched off");
}

/// Without checks nothing else would bring it back before its time is over; with them the next one would, too late.
#[test]
fn who_is_ejected_comes_back_when_a_reload_leaves_nobody_else() {
    for checked in [false, true] {
        let edit = |forward: &mut relais_config::Forward| {
            if !checked {
                forward.health.kind = CheckKind::Off;
            }
        };
        let mut rig = started(pair(edit));
        rig.load(3, 100, &[A1]);
        assert_eq!(rig.down(), [A1]);
        let one = config(vec![service("api", vec![backend("a", A1, 1)], edit)]);
        rig.event(Event::Reload(Arc::new(one)));
        assert_eq!((rig.health(A1), rig.ejected(A1)), (Health::Up, false), "{checked}: {}", rig.why(A1));
    }
    // Others are left, but nothing would tell when it is well.
    let mut rig = started(pair(|forward| forward.health.kind = CheckKind::Off));
    rig.load(3, 100, &[A1]);
    assert_eq!(rig.down(), [A1]);
    let off = pair(|forward| {
        forward.health.kind = CheckKind::Off;
        forward.outlier.max_ejected_percent = 0;
    });
    rig.event(Event::Reload(Arc::new(off)));
    assert!(rig.down().is_empty(), "{}", rig.why(A1));
}

#[test]
fn a_standby_tier_is_compared_by_the_retries_it_gets() {
    let backends = vec![backend("a", A1, 1), backend("b", B1, 2)];
    let mut rig = started(config(vec![service("api", backends, |_| {})]));
    for _ in 0..5 {
        rig.answers(A1, 70, 30, ms(5));
        rig.answers(B1, 30, 0, ms(5));
        rig.run(ms(1_000));
    }
    assert_eq!(rig.down(), [A1]);
}

#[test]
fn silence_is_no_answer() {
    let mut rig = started(two_sites());
    for address in ALL {
        rig.answers(address, 100, 0, ms(5));
    }
    let stats = Arc::clone(&rig.member(A1).backend);
    (0..100).for_each(|_| stats.stats.fail(Fault::ConnectTimeout));
    rig.run(ms(3_000));
    assert!(rig.down().is_empty(), "checks and the verdict about the site judge silence");
}
