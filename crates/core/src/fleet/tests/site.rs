//! The verdict about a whole site.

use super::*;

/// Two sites, three services, two backends of each at each site.
fn three_services() -> Config {
    let services = ["x", "y", "z"].iter().enumerate().map(|(i, name)| {
        let at = |site: &str, net: usize, host: usize| backend(site, &format!("10.{i}.{net}.{host}:80"), 1);
        service(name, vec![at("a", 1, 1), at("a", 1, 2), at("b", 2, 1), at("b", 2, 2)], |_| {})
    });
    config(services.collect())
}

fn of_site(rig: &Rig, site: &str) -> Vec<Member> {
    let members = rig.snapshot.pools.iter().flat_map(|pool| &pool.members);
    members.filter(|member| *member.backend.id.site == *site).cloned().collect()
}

fn cut(rig: &mut Rig, site: &str, fault: Option<Fault>) {
    for member in of_site(rig, site) {
        rig.set(&member.backend.id.address, fault.map_or(Ok(()), Err));
    }
}

#[test]
fn a_silent_site_goes_down_as_a_whole_in_one_snapshot_within_the_contract() {
    for offset in 0..30 {
        for config in [two_sites(), three_services()] {
            let mut rig = started(config);
            rig.run(ms(offset * 11));
            cut(&mut rig, "a", Some(Fault::ConnectTimeout));
            let down = |rig: &Rig| of_site(rig, "a").iter().filter(|m| m.health == Health::Down).count();
            let took = rig.until(ms(1_000), |rig| down(rig) > 0);
            assert!(took < ms(840), "{took:?}");
            let members = of_site(&rig, "a");
            assert!(members.iter().all(|m| m.health == Health::Down && m.dead), "all at once");
            assert!(of_site(&rig, "b").iter().all(|m| m.health == Health::Up));
            let told = rig
                .notes()
                .iter()
                .any(|n| matches!(n, Transition::Site { site, to: Health::Down, .. } if **site == *"a"));
            assert!(told, "{:?}", rig.notes());
        }
    }
}

#[test]
fn a_site_that_was_down_is_not_taken_for_a_lossy_one() {
    let mut rig = started(two_sites());
    for _ in 0..2 {
        rig.said.clear();
        cut(&mut rig, "a", Some(Fault::ConnectTimeout));
        rig.until(ms(2_000), |rig| of_site(rig, "a").iter().all(|m| m.health == Health::Down));
        let whys = rig.notes().into_iter().filter_map(|note| match note {
            Transition::Site { to: Health::Down, why, .. } => Some(why),
            _ => None,
        });
        let whys: Vec<String> = whys.collect();
        assert!(whys[0].starts_with("nothing at the site answers, 5 times in a row"), "{whys:?}");
        rig.run(ms(3_000));
        cut(&mut rig, "a", None);
        rig.until(ms(70_000), |rig| of_site(rig, "a").iter().all(|m| m.health == Health::Up));
    }
}

#[test]
fn cuts_while_its_backends_are_held_back_are_no_losses() {
    for gap in [400, 900, 2_000, 3_000] {
        let mut rig = started(two_sites());
        for round in 0..6 {
            let first = ["a", "b"][round % 2];
            cut(&mut rig, "a", Some(Fault::ConnectTimeout));
            cut(&mut rig, "b", Some(Fault::ConnectTimeout));
            let took =
                rig.until(ms(5_000), |rig| rig.snapshot.pools[0].members.iter().all(|m| m.health == Health::Down));
            assert!(took < ms(840), "cuts of {gap} ms, round {round}: {took:?}");
            rig.run(ms(gap));
            cut(&mut rig, first, None);
            rig.run(ms(350));
            cut(&mut rig, "a", None);
            cut(&mut rig, "b", None);
            rig.run(ms(3_000));
        }
    }
}

#[test]
fn a_site_with_many_backends_is_judged_faster_than_any_of_them_alone() {
    let mut slowest = Duration::ZERO;
    for offset in 0..30 {
        let mut rig = started(three_services());
        rig.run(ms(offset * 11));
        cut(&mut rig, "a", Some(Fault::ConnectTimeout));
        slowest = slowest.max(rig.until(ms(1_000), |rig| of_site(rig, "a")[0].health == Health::Down));
    }
    assert!(slowest < ms(600), "{slowest:?}");
}

#[test]
fn a_site_in_doubt_is_suspect_and_clears_at_the_first_answer() {
    let mut rig = started(three_services());
    cut(&mut rig, "a", Some(Fault::ConnectTimeout));
    rig.until(ms(1_000), |rig| of_site(rig, "a").iter().all(|m| m.health == Health::Suspect));
    let asked: std::collections::BTreeSet<u32> =
        rig.answers.values().filter(|(_, result, _)| result.is_err()).map(|(slot, ..)| *slot).collect();
    assert_eq!(asked.len(), 6, "every backend there is asked at once");
    // The cut ends before the verdict: whoever answers clears the site.
    rig.answers.clear();
    cut(&mut rig, "a", None);
    let slots: Vec<Member> = of_site(&rig, "a");
    let (id, slot) = rig
        .probes
        .iter()
        .rev()
        .map(|(_, o)| (o.id, o.backend.slot))
        .find(|(_, s)| slots.iter().any(|m| m.backend.slot == *s))
        .unwrap();
    rig.event(Event::Probed { slot, id, result: Ok(()), took: ms(5), said: None });
    assert!(of_site(&rig, "a").iter().filter(|m| m.health == Health::Up).count() >= 5);
    assert!(rig.notes().iter().any(|n| matches!(n, Transition::Site { to: Health::Up, .. })));
    assert!(of_site(&rig, "a").iter().all(|m| m.ramp_from.is_none()), "doubt alone costs no ramp");
}

#[test]
fn answers_to_requests_clear_a_site_too() {
    let mut rig = started(three_services());
    cut(&mut rig, "a", Some(Fault::ConnectTimeout));
    let alive = of_site(&rig, "a")[3].backend.id.address.to_string();
    for _ in 0..400 {
        rig.served(&alive, Ok(()));
        rig.run(ms(10));
        assert!(rig.notes().iter().all(|n| !matches!(n, Transition::Site { to: Health::Down, .. })));
        assert_ne!(rig.health(&alive), Health::Down);
    }
    assert!(of_site(&rig, "a").iter().filter(|m| m.health == Health::Down).count() == 5, "each by its own counters");
}

#[test]
fn refused_connections_and_late_answers_never_accuse_a_site() {
    for fault in [Fault::Refused, Fault::ResponseTimeout, Fault::Status(500), Fault::Tls, Fault::Unresolved] {
        let mut rig = started(three_services());
        cut(&mut rig, "a", Some(fault));
        rig.run(ms(5_000));
        assert!(of_site(&rig, "a").iter().all(|m| m.health == Health::Down && !m.dead));
        assert!(rig.notes().iter().all(|n| !matches!(n, Transition::Site { .. })), "{fault}: {:?}", rig.notes());
    }
}

#[test]
fn one_dead_host_among_good_ones_does_not_accuse_its_site() {
    let mut rig = started(three_services());
    rig.set("10.0.1.1:80", Err(Fault::ConnectTimeout));
    rig.set("10.1.1.1:80", Err(Fault::ConnectTimeout));
    rig.run(ms(60_000));
    assert_eq!(rig.health("10.0.1.1:80"), Health::Down);
    assert_eq!(rig.health("10.1.1.1:80"), Health::Down);
    let good = of_site(&rig, "a").iter().filter(|m| m.health == Health::Up).count();
    assert_eq!(good, 4);
    assert!(rig.notes().iter().all(|n| !matches!(n, Transition::Site { to: Health::Down, .. })));
}

#[test]
fn a_site_of_one_backend_follows_that_backend() {
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::ConnectTimeout));
    rig.until(ms(800), |rig| rig.health(A1) == Health::Down);
    let report = rig.fleet.report(rig.now);
    assert_eq!((report.sites[0].health, report.sites[1].health), (Health::Down, Health::Up));
    rig.set(A1, Ok(()));
    rig.until(ms(1_500), |rig| rig.health(A1) == Health::Up);
    assert_eq!(rig.fleet.report(rig.now).sites[0].health, Health::Up);
}

/// Health of the first site, and since when it is said to be so.
fn shown(rig: &Rig) -> (Health, Instant) {
    let site = &rig.fleet.report(rig.now).sites[0];
    (site.health, site.since)
}

#[test]
fn since_when_a_site_is_as_it_is_counts_outages_that_only_its_backends_were_told_of() {
    let mut rig = started(two_sites());
    let up = shown(&rig);
    assert_eq!(up.0, Health::Up);
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.run(ms(5_000));
    assert_eq!(shown(&rig), up, "one is left there");
    rig.set(A2, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A2) == Health::Down);
    let fell = rig.now;
    rig.run(ms(5_000));
    assert_eq!(shown(&rig).0, Health::Down);
    assert!(fell.since(shown(&rig).1) <= ms(1), "down since the last one fell");
    assert!(rig.notes().iter().all(|n| !matches!(n, Transition::Site { .. })), "nobody accused the site");
    rig.set(A2, Ok(()));
    rig.until(ms(5_000), |rig| rig.health(A2) == Health::Up);
    let rose = rig.now;
    rig.set(A1, Ok(()));
    rig.until(ms(60_000), |rig| rig.health(A1) == Health::Up);
    assert_eq!(shown(&rig).0, Health::Up);
    assert!(rose.since(shown(&rig).1) <= ms(1), "up since the first one is back");
}

#[test]
fn since_when_a_site_is_as_it_is_holds_over_a_restart() {
    let mut rig = started(two_sites());
    let up = shown(&rig);
    rig.run(ms(30_000));
    assert_eq!(shown(&rig.reborn(ms(500), two_sites())), up, "up since long before the restart");
    for address in [A1, A2] {
        rig.set(address, Err(Fault::Refused));
    }
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down && rig.health(A2) == Health::Down);
    let down = shown(&rig);
    rig.run(ms(5_000));
    let mut reborn = rig.reborn(ms(500), two_sites());
    assert_eq!(shown(&reborn), down);
    reborn.set(A2, Err(Fault::Refused));
    reborn.until(ms(5_000), |rig| rig.health(A1) == Health::Up);
    assert_eq!(shown(&reborn).0, Health::Up);
    assert!(reborn.now.since(shown(&reborn).1) <= ms(1));
}

#[test]
fn an_ejected_backend_that_stops_to_answer_takes_its_site_with_it_from_then_on() {
    let mut rig = started(pair(|_| {}));
    // Left for its answers, while its checks pass.
    for _ in 0..400 {
        rig.member(A1).backend.stats.fail(Fault::Status(500));
        rig.member(B1).backend.stats.succeed(200);
        rig.run(ms(10));
    }
    assert_eq!((rig.health(A1), shown(&rig).0), (Health::Down, Health::Up), "{}", rig.why(A1));
    rig.set(A1, Err(Fault::Refused));
    let stopped = rig.now;
    rig.until(ms(2_000), |rig| shown(rig).0 == Health::Down);
    rig.run(ms(1_000));
    assert!(shown(&rig).1 > stopped && shown(&rig).1 < rig.now - ms(500), "not anew at each look");
}

#[test]
fn a_site_that_returns_is_taken_back_backend_by_backend_with_a_ramp() {
    let mut rig = started(three_services());
    cut(&mut rig, "a", Some(Fault::ConnectTimeout));
    rig.run(ms(20_000));
    cut(&mut rig, "a", None);
    let took = rig.until(ms(2_000), |rig| of_site(rig, "a").iter().all(|m| m.health == Health::Up));
    assert!(took < ms(1_000), "{took:?}");
    assert!(of_site(&rig, "a").iter().all(|m| m.ramp_from.is_some()));
}

#[test]
fn a_site_flapping_every_second_settles_down_and_stays() {
    let mut rig = started(three_services());
    let mut ups = 0;
    for round in 0..120 {
        cut(&mut rig, "a", (round % 2 == 0).then_some(Fault::ConnectTimeout));
        rig.run(ms(1_000));
        ups += of_site(&rig, "a").iter().filter(|m| m.health == Health::Up).count();
        assert!(of_site(&rig, "b").iter().all(|m| m.health == Health::Up));
    }
    assert!(ups <= 18, "{ups}");
}

#[test]
fn a_lossy_link_is_given_more_patience() {
    let mut rig = started(two_sites());
    // One probe of A1 in three is lost, never two in a row.
    for _ in 0..60 {
        rig.set(A1, Err(Fault::ConnectTimeout));
        let asked = rig.probes.len();
        rig.until(ms(500), |rig| rig.probes[asked..].iter().any(|(_, o)| *o.backend.id.address == *A1));
        rig.set(A1, Ok(()));
        rig.run(ms(700));
    }
    rig.set(A1, Err(Fault::ConnectTimeout));
    let took = rig.until(ms(3_000), |rig| rig.health(A1) == Health::Down);
    assert!(took > ms(700), "more than three signs: {took:?}");
    assert_eq!(rig.health(A2), Health::Up);
}

const A3: &str = "10.0.1.3:80";

/// Three backends at one site, one at another.
fn three_and_one() -> Rig {
    let backends = [A1, A2, A3].into_iter().map(|address| backend("a", address, 1));
    started(config(vec![service("api", backends.chain([backend("b", B1, 1)]).collect(), |_| {})]))
}

#[test]
fn the_first_silence_has_the_others_at_the_site_asked_at_once() {
    let mut rig = three_and_one();
    cut(&mut rig, "a", Some(Fault::ConnectTimeout));
    let failed = |rig: &Rig| {
        let report = rig.fleet.report(rig.now);
        report.services[0].backends.iter().flat_map(|b| &b.probes).any(|probe| probe.fault.is_some())
    };
    rig.until(ms(600), failed);
    let under_way: std::collections::BTreeSet<u32> = rig.answers.values().map(|(slot, ..)| *slot).collect();
    let asked = of_site(&rig, "a").iter().filter(|m| under_way.contains(&m.backend.slot)).count();
    assert_eq!(asked, 3);
}

#[test]
fn a_site_is_not_down_before_every_backend_there_has_had_its_say() {
    let mut rig = three_and_one();
    rig.set(A1, Err(Fault::ConnectTimeout));
    rig.set(A2, Err(Fault::ConnectTimeout));
    let undecided = rig.member(A3).backend.slot;
    for _ in 0..1_500 {
        // The question to the third is still under way.
        rig.answers.retain(|_, (slot, ..)| *slot != undecided);
        rig.run(ms(1));
    }
    assert_eq!((rig.health(A1), rig.health(A2)), (Health::Down, Health::Down));
    assert_ne!(rig.health(A3), Health::Down);
}

#[test]
fn a_wrong_answer_clears_a_site() {
    let mut rig = three_and_one();
    cut(&mut rig, "a", Some(Fault::ConnectTimeout));
    rig.until(ms(1_000), |rig| of_site(rig, "a").iter().all(|m| m.health == Health::Suspect));
    let slot = rig.member(A3).backend.slot;
    let id = rig.answers.iter().find(|(_, (one, ..))| *one == slot).unwrap().0.1;
    rig.said.clear();
    rig.event(Event::Probed { slot, id, result: Err(Fault::Status(500)), took: ms(5), said: None });
    assert!(rig.notes().iter().any(|n| matches!(n, Transition::Site { to: Health::Up, .. })), "{:?}", rig.notes());
}

#[test]
fn requests_answered_by_a_neighbour_nobody_checks_clear_a_site() {
    let checked = service("api", vec![backend("a", A1, 1), backend("a", A2, 1), backend("b", B1, 1)], |_| {});
    let unchecked = service("web", vec![backend("a", A3, 1), backend("b", B2, 1)], |forward| {
        forward.health.kind = CheckKind::Off;
    });
    let mut rig = started(config(vec![checked, unchecked]));
    rig.set(A1, Err(Fault::ConnectTimeout));
    rig.set(A2, Err(Fault::ConnectTimeout));
    for _ in 0..200 {
        rig.served(A3, Ok(()));
        rig.run(ms(10));
    }
    assert_eq!((rig.health(A1), rig.health(A2)), (Health::Down, Health::Down), "each by its own counters");
    assert_eq!(rig.health(A3), Health::Up);
    // And when nothing there answers any longer, it goes with the others.
    let mut rig = started(rig.fleet.config.as_ref().clone());
    rig.set(A1, Err(Fault::ConnectTimeout));
    rig.set(A2, Err(Fault::ConnectTimeout));
    rig.until(ms(1_000), |rig| rig.health(A3) == Health::Down);
}

#[test]
fn while_a_tier_is_in_doubt_the_report_names_the_one_that_takes_its_requests() {
    let backends = vec![backend("a", A1, 1), backend("a", A2, 1), backend("b", B1, 2), backend("b", B2, 2)];
    let mut rig = started(config(vec![service("api", backends, |_| {})]));
    let shown = |rig: &Rig| {
        let service = &rig.fleet.report(rig.now).services[0];
        (service.tier, service.shares.clone())
    };
    assert_eq!(shown(&rig), (Some(1), Vec::new()));
    cut(&mut rig, "a", Some(Fault::ConnectTimeout));
    rig.until(ms(1_000), |rig| of_site(rig, "a").iter().all(|member| member.health == Health::Suspect));
    assert_eq!(shown(&rig), (Some(1), vec![(2, 100)]));
    rig.until(ms(1_000), |rig| of_site(rig, "a").iter().all(|member| member.health == Health::Down));
    assert_eq!(shown(&rig), (Some(2), Vec::new()));
}
