//! Tests of the verdict alone: one backend, one piece of evidence after the other.

use std::time::Duration;

use super::*;
use crate::random::Random;

const OK: Result<(), Fault> = Ok(());

fn timers() -> Timers {
    Timers::derive(Duration::from_secs(1))
}

fn given(timers: &Timers) -> Given<'_> {
    Given {
        timers,
        patience: timers.patience,
        lived: false,
        excused: false,
        shared: false,
        outdone: false,
        spare: true,
        needed: false,
        short: false,
        said: None,
    }
}

/// The health after each piece of evidence.
fn course(start: Health, evidence: &[Evidence], given: &Given<'_>) -> Vec<Health> {
    let mut counters = Counters::new(start);
    let step = |one: &Evidence| {
        counters = verdict(counters, *one, given).counters;
        counters.health
    };
    evidence.iter().map(step).collect()
}

fn last(start: Health, evidence: &[Evidence], given: &Given<'_>) -> Health {
    *course(start, evidence, given).last().unwrap()
}

fn probes(results: &[Result<(), Fault>]) -> Vec<Evidence> {
    results.iter().copied().map(Evidence::Probe).collect()
}

fn requests(results: &[Result<(), Fault>]) -> Vec<Evidence> {
    results.iter().copied().map(Evidence::Request).collect()
}

#[test]
fn a_wrong_answer_twice_in_a_row_is_down_and_with_a_good_one_between_it_is_not() {
    let timers = timers();
    let given = given(&timers);
    for fault in [Fault::Status(500), Fault::Refused, Fault::Reset, Fault::Tls, Fault::BodyMismatch, Fault::Unresolved]
    {
        let bad = Err(fault);
        assert_eq!(course(Health::Up, &probes(&[bad, bad]), &given), [Health::Up, Health::Down], "{fault}");
        assert_eq!(last(Health::Up, &probes(&[bad, OK, bad, OK, bad, OK]), &given), Health::Up, "{fault}");
    }
}

#[test]
fn silence_is_suspect_at_the_second_sign_and_down_at_the_fourth() {
    let timers = timers();
    let silent = Err(Fault::ConnectTimeout);
    assert_eq!(
        course(Health::Up, &probes(&[silent; 4]), &given(&timers)),
        [Health::Up, Health::Suspect, Health::Suspect, Health::Down]
    );
    let patient = Given { patience: 6, ..given(&timers) };
    let seen = course(Health::Up, &probes(&[silent; 6]), &patient);
    assert_eq!(seen[2..], [Health::Up, Health::Suspect, Health::Suspect, Health::Down]);
    assert_eq!(last(Health::Up, &probes(&[silent, silent, silent, OK]), &given(&timers)), Health::Up);
}

#[test]
fn silent_requests_are_one_sign_together_and_the_probes_decide() {
    let timers = timers();
    let given = given(&timers);
    let silent = Err(Fault::Unacknowledged);
    assert_eq!(last(Health::Up, &requests(&[silent; 50]), &given), Health::Up);
    let mut both = requests(&[silent; 50]);
    both.extend(probes(&[silent; 3]));
    let seen = course(Health::Up, &both, &given);
    assert_eq!(seen[50..], [Health::Suspect, Health::Suspect, Health::Down]);
}

#[test]
fn where_nobody_probes_silent_requests_decide_alone() {
    let timers = Timers { checked: false, ..timers() };
    let given = given(&timers);
    let silent = Err(Fault::ConnectTimeout);
    let seen = course(Health::Up, &requests(&[silent; 4]), &given);
    assert_eq!(seen.last(), Some(&Health::Down), "{seen:?}");
    assert!(seen[..3].iter().all(|health| *health != Health::Down), "{seen:?}");
}

#[test]
fn three_failed_requests_in_a_row_are_down_unless_the_pool_cannot_lose_it() {
    let timers = timers();
    let free = given(&timers);
    let bad = Err(Fault::Status(503));
    assert_eq!(course(Health::Up, &requests(&[bad; 3]), &free), [Health::Up, Health::Up, Health::Down]);
    let bound = Given { spare: false, ..free };
    assert_eq!(last(Health::Up, &requests(&[bad; 30]), &bound), Health::Up);
    let refused = Err(Fault::Refused);
    assert_eq!(last(Health::Up, &requests(&[refused; 3]), &bound), Health::Down, "nothing listens there");
    let off = Timers { passive_fall: 0, ..timers.clone() };
    assert_eq!(last(Health::Up, &requests(&[bad; 30]), &Given { timers: &off, ..free }), Health::Up);
    let between = Given { lived: true, ..free };
    assert_eq!(last(Health::Up, &requests(&[bad; 30]), &between), Health::Up, "a success before each");
}

#[test]
fn good_checks_do_not_excuse_failing_requests() {
    let timers = timers();
    let bad = Evidence::Request(Err(Fault::Status(503)));
    let good = Evidence::Probe(OK);
    assert_eq!(last(Health::Up, &[bad, good, bad, good, bad], &given(&timers)), Health::Down);
}

#[test]
fn no_answer_to_a_probe_says_nothing_while_requests_are_answered() {
    let timers = timers();
    let lived = Given { lived: true, ..given(&timers) };
    for fault in [Fault::ConnectTimeout, Fault::Unreachable, Fault::ResponseTimeout] {
        assert_eq!(last(Health::Up, &probes(&[Err(fault); 50]), &lived), Health::Up, "{fault}");
        assert_eq!(last(Health::Suspect, &probes(&[Err(fault)]), &lived), Health::Up, "{fault}");
    }
    // A wrong answer is an answer.
    assert_eq!(last(Health::Up, &probes(&[Err(Fault::Status(500)); 2]), &lived), Health::Down);
}

#[test]
fn an_excused_check_is_noted_and_not_believed() {
    let timers = timers();
    let excused = Given { excused: true, ..given(&timers) };
    let mut counters = Counters::new(Health::Up);
    for _ in 0..20 {
        let said = verdict(counters, Evidence::Probe(Err(Fault::Status(404))), &excused);
        counters = said.counters;
        assert_eq!(counters.health, Health::Up);
        assert_eq!(said.why.is_some(), counters.bad >= timers.fall);
    }
    let silent = probes(&[Err(Fault::ConnectTimeout); 4]);
    assert_eq!(last(Health::Up, &silent, &excused), Health::Down, "silence has no excuse");
}

#[test]
fn a_late_answer_to_a_short_probe_ends_silence_without_being_a_success() {
    let timers = timers();
    let short = Given { short: true, ..given(&timers) };
    let silent = Counters { silent_probes: 3, bad: 3, ..Counters::new(Health::Suspect) };
    let said = verdict(silent, Evidence::Probe(Err(Fault::ResponseTimeout)), &short);
    assert_eq!((said.counters.silent(), said.counters.health), (0, Health::Suspect));
}

#[test]
fn a_lossy_link_gets_patience_with_late_answers_too() {
    let timers = timers();
    let late = probes(&[Err(Fault::ResponseTimeout); 8]);
    let lossy = Given { patience: 8, ..given(&timers) };
    let down = |given: &Given<'_>| course(Health::Up, &late, given).iter().position(|h| *h == Health::Down);
    assert_eq!(down(&given(&timers)), Some(2));
    assert_eq!(down(&lossy), Some(6));
}

#[test]
fn down_is_ready_after_rise_good_checks_or_one_when_nobody_else_is_left() {
    let timers = timers();
    let ready = |given: &Given<'_>, results: &[Result<(), Fault>]| {
        let mut counters = Counters::new(Health::Down);
        let mut said = Vec::new();
        for result in results {
            let one = verdict(counters, Evidence::Probe(*result), given);
            assert_eq!(one.counters.health, Health::Down, "the return is the governor's word");
            counters = one.counters;
            said.push(one.ready);
        }
        said
    };
    let bad = Err(Fault::Refused);
    assert_eq!(ready(&given(&timers), &[OK, bad, OK, OK]), [false, false, false, true]);
    assert_eq!(ready(&Given { needed: true, ..given(&timers) }, &[bad, OK]), [false, true]);
    let late = verdict(Counters::new(Health::Down), Evidence::Request(OK), &given(&timers));
    assert!(!late.ready, "an answer to a request may be from before");
}

#[test]
fn probing_ends_with_the_first_good_check_or_with_as_many_bad_ones_as_down_needs() {
    let timers = timers();
    let given = given(&timers);
    assert_eq!(last(Health::Probing, &probes(&[OK]), &given), Health::Up);
    assert_eq!(last(Health::Probing, &probes(&[Err(Fault::Refused); 2]), &given), Health::Down);
    let seen = course(Health::Probing, &probes(&[Err(Fault::ConnectTimeout); 4]), &given);
    assert_eq!(seen, [Health::Probing, Health::Probing, Health::Probing, Health::Down]);
}

/// Whatever comes in whatever order: nothing good goes down at one sign, nothing down comes up by itself, and after as
/// many good checks in a row as one likes nothing is left of the past.
#[test]
fn any_course_of_evidence_keeps_the_rules() {
    let timers = timers();
    let faults = [
        Fault::Refused,
        Fault::ConnectTimeout,
        Fault::Unacknowledged,
        Fault::Reset,
        Fault::Status(503),
        Fault::ResponseTimeout,
        Fault::Unresolved,
    ];
    let mut random = Random::new(11);
    let mut roll = |n: usize| usize::try_from(random.next() % n as u64).unwrap();
    for _ in 0..20_000 {
        let mut counters = Counters::new(Health::Up);
        for _ in 0..roll(40) {
            let result = if roll(3) == 0 { OK } else { Err(faults[roll(faults.len())]) };
            let evidence = if roll(2) == 0 { Evidence::Probe(result) } else { Evidence::Request(result) };
            let given = Given {
                lived: roll(4) == 0,
                excused: roll(8) == 0,
                spare: roll(2) == 0,
                short: roll(4) == 0,
                ..given(&timers)
            };
            let after = verdict(counters, evidence, &given);
            match (counters.health, after.counters.health) {
                (Health::Up | Health::Suspect, Health::Down) => {
                    assert!(after.why.is_some());
                    assert!(after.counters.bad + after.counters.failed >= 2, "{counters:?} {evidence:?}");
                }
                (Health::Down, now) => assert_eq!(now, Health::Down),
                _ => {}
            }
            assert!(after.counters.bad <= counters.bad + 1 && after.counters.failed <= counters.failed + 1);
            counters = after.counters;
        }
        let mut healed = verdict(counters, Evidence::Probe(OK), &given(&timers));
        healed = verdict(healed.counters, Evidence::Request(OK), &given(&timers));
        assert_eq!((healed.counters.bad, healed.counters.failed, healed.counters.silent()), (0, 0, 0));
    }
}
