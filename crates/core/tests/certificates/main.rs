//! Years of certificates: a real `Fleet` among CAs that are out for days, refuse, move their windows and count, while
//! the process is killed, its clock jumps and names come and go. Rules are checked at every step; one seed is one run.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a world that contradicts itself shall panic, and say so")]

mod ca;
mod clients;
mod clock;
mod engine;
mod setting;
#[allow(dead_code, reason = "shared with the simulation of sites")]
#[path = "../../src/testing.rs"]
mod testing;

use std::collections::BTreeMap;

use engine::run;
use setting::{Kind, Setting};

/// Mistakes made on purpose around the fleet, one per rule. Each must be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// At start nobody says what there is.
    InventoryIsEmpty,
    /// A restart begins without the store.
    MemoryIsLost,
    /// Certificates that were got are not told.
    IssuedIsNotTold,
    /// The CA's words on renewal never arrive.
    WordsAreLost,
    /// Orders are never carried out.
    OrdersAreLost,
    /// Timers are looked at every few days only.
    TimersAreLate,
    /// Nobody is asked but the first authority.
    FirstOnly,
    /// Orders are carried out before the record of them is written.
    OrderBeforeSave,
    /// The CA's word on when to come again is dropped.
    RetryAfterIsLost,
    /// Nobody counts: the fleet does not know the limits.
    LimitsAreUnknown,
    /// Every order is carried out as if more were allowed at once.
    NobodyPaces,
    /// That clients use a certificate is told nobody.
    UseIsNotTold,
}

/// Runs seeds of one kind; every rule must hold in each.
fn all_hold(kind: Kind, seeds: std::ops::Range<u64>) -> BTreeMap<&'static str, u64> {
    let (mut breaches, mut checked) = (Vec::new(), BTreeMap::<&'static str, u64>::new());
    for seed in seeds {
        let outcome = run(Setting::draw(kind, seed), None);
        breaches.extend(outcome.breach);
        for (rule, times) in outcome.checked {
            *checked.entry(rule).or_default() += times;
        }
    }
    println!("{kind:?}: {checked:#?}");
    assert!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), breaches.join("\n"));
    checked
}

#[test]
fn nothing_ends_while_cas_are_out_for_days() {
    let checked = all_hold(Kind::Outages, 0..24);
    assert!(checked["no order while a valid one is not due"] > 300, "{checked:?}");
}

#[test]
fn one_hour_a_day_is_enough() {
    all_hold(Kind::OneHour, 0..24);
}

#[test]
fn kills_and_restarts_cost_nothing() {
    let checked = all_hold(Kind::Restarts, 0..24);
    assert!(checked["orders that can go on"] > 100, "{checked:?}");
}

#[test]
fn clocks_may_jump() {
    let checked = all_hold(Kind::Jumps, 0..24);
    assert!(checked["a jump makes no storm"] > 50, "{checked:?}");
}

#[test]
fn wall_clocks_may_leap_while_it_runs() {
    let checked = all_hold(Kind::Leaps, 0..24);
    assert!(checked["a jump makes no storm"] > 50, "{checked:?}");
}

#[test]
fn names_that_clients_ask_for_are_served_and_no_others() {
    let checked = all_hold(Kind::Demand, 0..12);
    assert!(checked["only what clients ask for is ordered"] > 300, "{checked:?}");
    assert!(checked["what clients ask for is served"] > 10_000, "{checked:?}");
}

#[test]
fn a_good_second_stands_in_for_a_failing_first() {
    all_hold(Kind::FailingFirst, 0..24);
}

#[test]
fn limits_are_never_exceeded() {
    let checked = all_hold(Kind::Limits, 0..24);
    assert!(checked["limits are kept"] > 500, "{checked:?}");
}

#[test]
fn names_come_and_go() {
    all_hold(Kind::Names, 0..24);
}

#[test]
fn windows_that_move_are_followed() {
    let checked = all_hold(Kind::Windows, 0..24);
    assert!(checked["a window that moves is followed"] > 20, "{checked:?}");
}

#[test]
fn a_thousand_names_at_once_are_paced() {
    let checked = all_hold(Kind::Many, 0..2);
    assert!(checked["orders are paced"] > 2000, "{checked:?}");
}

#[test]
fn every_mistake_is_caught() {
    let mistakes = [
        (Mistake::InventoryIsEmpty, Kind::Restarts, "no order while a valid one is not due"),
        (Mistake::MemoryIsLost, Kind::Limits, "limits are kept"),
        (Mistake::IssuedIsNotTold, Kind::Outages, "no order while a valid one is not due"),
        (Mistake::WordsAreLost, Kind::Windows, "a window that moves is followed"),
        (Mistake::OrdersAreLost, Kind::OneHour, "who is wanted has one"),
        (Mistake::TimersAreLate, Kind::OneHour, "none in use ends"),
        (Mistake::FirstOnly, Kind::FailingFirst, "who is wanted has one"),
        (Mistake::OrderBeforeSave, Kind::Restarts, "what is ordered is remembered first"),
        (Mistake::RetryAfterIsLost, Kind::Limits, "the CA's word is kept"),
        (Mistake::LimitsAreUnknown, Kind::Limits, "limits are kept"),
        (Mistake::NobodyPaces, Kind::Many, "orders are paced"),
        (Mistake::UseIsNotTold, Kind::Demand, "what clients ask for is served"),
    ];
    for (mistake, kind, rule) in mistakes {
        let caught: Vec<String> =
            (0..8).filter_map(|seed| run(Setting::draw(kind, seed), Some(mistake)).breach).collect();
        assert!(caught.iter().any(|breach| breach.contains(rule)), "{mistake:?} was not caught: {caught:#?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = || run(Setting::draw(Kind::Restarts, 5), None).trace;
    assert_eq!(trace(), trace());
}
