//! Checks that fail for nothing, at all backends of a service, and nobody asks for a while.

use super::*;
use crate::snapshot::Trial;

const ALL: [&str; 4] = [A1, A2, B1, B2];

fn wrong_everywhere(fault: Fault) -> Rig {
    let mut rig = started(two_sites());
    ALL.iter().for_each(|address| rig.set(address, Err(fault)));
    rig.until(ms(5_000), |rig| ALL.iter().all(|address| rig.health(address) == Health::Down));
    rig.run(ms(1_000));
    rig
}

impl Rig {
    fn on_trial(&self) -> Vec<&str> {
        let members = &self.snapshot.pools[0].members;
        members.iter().filter(|member| member.trial.is_some()).map(|member| &*member.backend.id.address).collect()
    }

    /// What a worker tells of an answer at a backend that is not up.
    fn replies(&mut self, address: &str, status: u16) {
        let member = self.member(address);
        let result = member.trial.map_or(Ok(()), |trial| trial.result(status));
        member.backend.stats.succeed(status);
        member.backend.stats.serve(status);
        self.event(Event::Served { slot: member.backend.slot, result });
    }

    pub(super) fn logged(&self, note: impl Fn(&Transition) -> bool) -> usize {
        self.notes().iter().filter(|one| note(one)).count()
    }
}

#[test]
fn a_request_shows_that_the_checks_are_wrong_and_all_come_back() {
    for fault in [Fault::Status(500), Fault::Status(404), Fault::BodyMismatch, Fault::Unwell] {
        let mut rig = wrong_everywhere(fault);
        assert_eq!(rig.on_trial().len(), 3, "{fault}");
        assert_eq!(rig.logged(|note| matches!(note, Transition::Trial { .. })), 1);
        let first = rig.on_trial()[0].to_owned();
        assert!(rig.why(&first).contains("nobody else is left"), "{}", rig.why(&first));
        rig.replies(&first, 404);
        assert!(ALL.iter().all(|address| rig.health(address) == Health::Up), "{fault}");
        assert!(rig.on_trial().is_empty());
        // Nobody asks for a long time: nothing has changed.
        rig.run(Duration::from_secs(300));
        assert!(ALL.iter().all(|address| rig.health(address) == Health::Up), "{fault}");
        assert!(ALL.iter().all(|address| rig.why(address).contains("requests succeed")), "{}", rig.why(A2));
        assert_eq!(rig.logged(|note| matches!(note, Transition::Believed { .. })), 1);
        // A check that passes is believed, and so are those that do not.
        rig.set(B2, Ok(()));
        rig.run(ms(2_000));
        assert_eq!(rig.health(B2), Health::Up);
        assert!([A1, A2, B1].iter().all(|address| rig.health(address) == Health::Down), "{fault}");
        assert_eq!(rig.logged(|note| matches!(note, Transition::Believed { believed: true, .. })), 1);
    }
}

#[test]
fn a_broken_service_gets_few_requests() {
    let mut rig = wrong_everywhere(Fault::Status(500));
    let mut asked = 0;
    for _ in 0..200 {
        let trials: Vec<String> = rig.on_trial().into_iter().map(str::to_owned).collect();
        for address in trials {
            asked += 1;
            rig.replies(&address, 500);
            assert!(rig.member(&address).trial.is_none(), "a failed request ends it");
        }
        rig.run(ms(100));
    }
    assert!((20..=63).contains(&asked), "{asked} in 20 contracts");
    assert!(ALL.iter().all(|address| rig.health(address) == Health::Down));
    assert_eq!(rig.logged(|note| matches!(note, Transition::Trial { .. })), 1, "told once");
    // Who was not tried for longest comes next: all of them are.
    rig.run(ms(2_000));
    let before: Vec<String> = rig.on_trial().into_iter().map(str::to_owned).collect();
    let left = ALL.iter().find(|address| !before.iter().any(|one| one == **address)).unwrap();
    before.iter().for_each(|address| rig.replies(address, 503));
    rig.until(ms(2_000), |rig| rig.on_trial().contains(left));
}

#[test]
fn one_request_more_than_are_there_is_let_through_in_a_contract() {
    let mut rig = started(config(vec![service("api", vec![backend("a", A1, 1)], |_| {})]));
    let streams = [rig.member(A1).backend.enter(), rig.member(A1).backend.enter()];
    rig.set(A1, Err(Fault::Status(500)));
    rig.until(ms(1_500), |rig| rig.member(A1).trial.is_some());
    assert_eq!(rig.member(A1).trial, Some(Trial { cap: 3, proof: 500 }));
    let _slow = rig.member(A1).backend.enter();
    rig.until(ms(1_200), |rig| rig.member(A1).trial == Some(Trial { cap: 4, proof: 500 }));
    drop(streams);
    rig.until(ms(1_200), |rig| rig.member(A1).trial == Some(Trial { cap: 2, proof: 500 }));
}

#[test]
fn who_may_just_be_starting_has_time() {
    let mut rig = started(two_sites());
    ALL.iter().for_each(|address| rig.set(address, Err(Fault::Refused)));
    rig.run(ms(2_000));
    ALL.iter().for_each(|address| rig.set(address, Err(Fault::Status(404))));
    rig.run(ms(9_500));
    assert!(rig.on_trial().is_empty());
    rig.until(ms(1_700), |rig| !rig.on_trial().is_empty());
    let one = rig.on_trial()[0].to_owned();
    rig.replies(&one, 404);
    assert_eq!(rig.health(&one), Health::Down, "that is how one answers that is not ready");
    rig.until(ms(1_200), |rig| !rig.on_trial().is_empty());
    let one = rig.on_trial()[0].to_owned();
    rig.replies(&one, 200);
    assert_eq!(rig.health(&one), Health::Up);
    // Not even with others there whose checks say nothing.
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::Status(500)));
    rig.set(B1, Err(Fault::Refused));
    rig.until(ms(1_500), |rig| !rig.on_trial().is_empty());
    rig.replies(A1, 200);
    rig.set(B1, Err(Fault::Status(404)));
    rig.run(ms(9_500));
    assert_eq!((rig.health(A1), rig.health(B1)), (Health::Up, Health::Down));
    rig.until(ms(2_500), |rig| rig.health(B1) == Health::Up);
}

#[test]
fn who_does_not_answer_its_checks_is_not_tried() {
    for fault in [Fault::Refused, Fault::ConnectTimeout, Fault::ResponseTimeout, Fault::Reset, Fault::Tls] {
        let mut rig = wrong_everywhere(fault);
        rig.run(ms(30_000));
        assert!(rig.on_trial().is_empty(), "{fault}");
    }
    // Nor is one that has begun to fall silent.
    let mut rig = wrong_everywhere(Fault::Status(500));
    let one = rig.on_trial()[0].to_owned();
    rig.set(&one, Err(Fault::Refused));
    rig.run(ms(500));
    assert!(!rig.on_trial().contains(&&*one));
    // Or while somebody is left, a page stands in, everybody is asked anyway, or the operator says no.
    let mut rig = started(two_sites());
    [A1, A2, B1].iter().for_each(|address| rig.set(address, Err(Fault::Status(500))));
    rig.run(ms(30_000));
    assert!(rig.on_trial().is_empty());
    rig.order("b", Admin::Draining);
    rig.run(ms(1_500));
    assert_eq!(rig.on_trial(), [A1, A2]);
    let open: fn(&mut relais_config::Forward) = |forward| forward.fail_open = true;
    let page: fn(&mut relais_config::Forward) = |forward| {
        let (body, headers) = (b"soon"[..].into(), Vec::new());
        forward.maintenance =
            Some(relais_config::StaticAnswer { status: 503, body, content_type: "text/plain".to_owned(), headers });
    };
    for edit in [open, page] {
        let mut rig = started(pair(edit));
        [A1, B1].iter().for_each(|address| rig.set(address, Err(Fault::Status(500))));
        rig.run(ms(30_000));
        assert!(rig.on_trial().is_empty());
    }
}

#[test]
fn a_check_that_fails_is_believed_when_requests_fail_as_well() {
    for status in [500, 503] {
        let mut rig = wrong_everywhere(Fault::Status(500));
        let one = rig.on_trial()[0].to_owned();
        rig.replies(&one, 200);
        rig.run(ms(5_000));
        assert_eq!(rig.health(A2), Health::Up);
        for _ in 0..10 {
            if status == 500 {
                rig.member(A2).backend.stats.succeed(status);
            } else {
                rig.served(A2, Err(Fault::Status(status)));
            }
        }
        rig.run(ms(1_000));
        assert_eq!(rig.health(A2), Health::Down);
        assert!(rig.on_trial().is_empty(), "the others are there");
        rig.run(ms(25_000));
        assert_eq!(rig.health(A2), Health::Down);
    }
}

#[test]
fn who_was_out_before_does_not_come_back_with_the_others() {
    let mut rig = started(two_sites());
    rig.set(B2, Err(Fault::Status(503)));
    rig.run(ms(20_000));
    [A1, A2, B1].iter().for_each(|address| rig.set(address, Err(Fault::Status(500))));
    rig.until(ms(6_000), |rig| rig.on_trial().contains(&A1));
    rig.replies(A1, 200);
    rig.run(ms(60_000));
    assert!([A1, A2, B1].iter().all(|address| rig.health(address) == Health::Up));
    assert_eq!(rig.health(B2), Health::Down, "the checks of others passed when its own failed");
}

#[test]
fn a_backend_that_says_no_while_it_still_serves_brings_nobody_back() {
    for offset in 0..40 {
        let mut rig = started(two_sites());
        rig.set(B2, Err(Fault::Status(503)));
        rig.run(ms(20_000 + offset * 7));
        // The next one begins to leave, too, and has requests.
        rig.set(A1, Err(Fault::Status(503)));
        for _ in 0..200 {
            rig.served(A1, Ok(()));
            rig.run(ms(10));
            assert_eq!(rig.health(B2), Health::Down, "offset {offset}");
        }
        assert_eq!(rig.health(A1), Health::Down, "others pass");
        assert_eq!(rig.logged(|note| matches!(note, Transition::Believed { .. })), 0);
    }
}

#[test]
fn a_lost_packet_makes_nobody_new() {
    let mut rig = wrong_everywhere(Fault::Status(500));
    for fault in [Fault::ConnectTimeout, Fault::Tls, Fault::Unresolved] {
        ALL.iter().for_each(|address| rig.set(address, Err(fault)));
        rig.until(ms(2_000), |rig| rig.on_trial().is_empty());
        ALL.iter().for_each(|address| rig.set(address, Err(Fault::Status(500))));
        rig.until(ms(4_000), |rig| rig.on_trial().len() == 3);
    }
}

#[test]
fn the_last_one_is_not_given_up_for_what_it_answers() {
    let mut rig = started(config(vec![service("api", vec![backend("a", A1, 1)], |_| {})]));
    rig.set(A1, Err(Fault::Status(500)));
    rig.until(ms(2_500), |rig| rig.member(A1).trial.is_some());
    rig.replies(A1, 200);
    for _ in 0..30 {
        rig.member(A1).backend.stats.succeed(500);
        rig.run(ms(500));
        assert_eq!(rig.health(A1), Health::Up);
    }
}
