//! Thousands of random pools and asks: what comes out must be allowed by the rules, read off the members one by one.

use super::*;
use crate::backend::InFlight;
use crate::balancer::fixture::{NOW, pool};
use crate::health::{Admin, Health};
use crate::random::Random;
use crate::snapshot::{Choice, Member};

fn one_of<'w>(random: &mut Random, words: &[&'w str]) -> &'w str {
    words[usize::try_from(random.next() % words.len() as u64).unwrap()]
}

fn random_pool(random: &mut Random) -> (Pool, Vec<InFlight>) {
    let count = 1 + random.next() % 9;
    let member = |i| {
        let tier = one_of(random, &["1", "1", "1", "2", "2", "3"]);
        let site = one_of(random, &["dijon", "thory", "ovh"]);
        let weight = one_of(random, &["x1", "x1", "x2", "x7", "x1000"]);
        let health = one_of(random, &["up", "up", "up", "suspect", "down", "down", "probing"]);
        let admin = one_of(random, &["enabled", "enabled", "enabled", "draining", "disabled"]);
        format!("{tier} {site} m{i} {weight} {health} {admin}")
    };
    let members: Vec<String> = (0..count).map(member).collect();
    let balance = EVERY[usize::try_from(random.next() % 5).unwrap()].clone();
    let cap = [None, None, Some(1), Some(3)][usize::try_from(random.next() % 4).unwrap()];
    let open = random.next().is_multiple_of(3);
    let pool = pool(balance, &members.join(",")).declared(|forward| {
        forward.max_inflight = cap;
        forward.fail_open = open;
    });
    let pool = pool.changed(|members| {
        for member in members {
            member.ramp_from = random.next().is_multiple_of(4).then_some(NOW);
        }
    });
    let mut held = Vec::new();
    for member in &pool.members {
        held.extend((0..random.next() % 4).map(|_| member.backend.enter()));
    }
    (pool, held)
}

/// What the rules allow, in the plainest words: the members that may be taken, or else the word that must be said.
fn allowed<'a>(pool: &'a Pool, ask: &Ask<'_>) -> Result<Vec<&'a Member>, &'static str> {
    let forward = pool.forward();
    let enabled = |m: &&Member| m.admin == Admin::Enabled && !ask.tried.contains(&m.backend.slot);
    let free = |m: &&Member| forward.max_inflight.is_none_or(|cap| m.backend.inflight() < cap);
    let with = |health: Health| pool.members.iter().filter(enabled).filter(move |m| m.health == health);
    if let Some(hash) = ask.sticky {
        let usable = with(Health::Up).chain(with(Health::Suspect)).filter(free);
        if let Some(member) = usable.into_iter().find(|m| m.backend.hash == hash) {
            return Ok(vec![member]);
        }
    }
    let anyone_usable = pool.members.iter().any(Member::usable);
    for health in [Health::Up, Health::Suspect, Health::Down] {
        if health == Health::Down {
            if with(Health::Up).chain(with(Health::Suspect)).chain(with(Health::Probing)).next().is_some() {
                return Err("wait");
            }
            if anyone_usable || !forward.fail_open {
                return Err("nobody");
            }
        }
        let all: Vec<&Member> = with(health).filter(free).collect();
        let elsewhere = |m: &&&Member| ask.avoid_site.is_some_and(|site| *m.backend.id.site != *site);
        let preferred: Vec<&Member> = all.iter().filter(elsewhere).copied().collect();
        let candidates = if preferred.is_empty() { all } else { preferred };
        if !candidates.is_empty() {
            return Ok(candidates);
        }
    }
    Err(if with(Health::Down).next().is_some() { "wait" } else { "nobody" })
}

#[test]
fn every_pick_keeps_the_rules() {
    let mut random = Random::new(2026);
    let mut said = BTreeMap::new();
    for _ in 0..6_000 {
        let (pool, _held) = random_pool(&mut random);
        for _ in 0..10 {
            let count = pool.members.len() as u64;
            let tried: Vec<u32> =
                (0..random.next() % (count + 1)).map(|_| u32::try_from(random.next() % count).unwrap()).collect();
            let sites = [None, Some("dijon"), Some("thory"), Some("nowhere")];
            let named = &pool.members[usize::try_from(random.next() % count).unwrap()];
            let ask = Ask {
                tried: &tried,
                roll: random.next(),
                now: NOW + pool.timers.ramp * u32::try_from(random.next() % 5).unwrap() / 4,
                key: random.next().is_multiple_of(2).then(|| random.next()),
                sticky: random.next().is_multiple_of(4).then_some(named.backend.hash),
                avoid_site: sites[usize::try_from(random.next() % 4).unwrap()],
                stream: random.next().is_multiple_of(3),
            };
            let word = match (pool.pick(&ask), allowed(&pool, &ask)) {
                (Choice::Take(member), Ok(members)) => {
                    let known = members.iter().any(|allowed| std::ptr::eq(*allowed, member));
                    assert!(known, "{} must not be picked: {ask:?} of {:#?}", member.backend.id, pool.members);
                    "take"
                }
                (Choice::Wait, Err("wait")) => "wait",
                (Choice::Nobody, Err("nobody")) => "nobody",
                (choice, due) => panic!("{choice:?}, due {due:?}: {ask:?} of {:#?}", pool.members),
            };
            *said.entry(word).or_insert(0) += 1;
        }
    }
    assert!(said.len() == 3 && said.values().all(|times| *times > 3_000), "every answer was seen: {said:?}");
}

#[test]
fn a_retry_reaches_everybody_who_is_left() {
    for balance in EVERY {
        let pool = pool(balance.clone(), "1 dijon a x10, 1 thory b x20, 1 dijon c x90, 2 ovh d");
        let shares = Shares::of(&pool, 5_000, |i| Ask { tried: if i % 2 == 0 { &[] } else { &[2] }, ..client(i) });
        assert!(shares.at("a") > 0.1 && shares.at("b") > 0.2, "{balance:?}: {:?}", shares.0);
        assert_eq!(shares.at("d"), 0.0, "{balance:?}: no need for the next tier");
    }
}
