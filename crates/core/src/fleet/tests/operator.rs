//! The operator's words and the names they use.

use super::*;

#[test]
fn a_drained_site_gets_nothing_new_but_is_still_probed() {
    let mut rig = started(two_sites());
    rig.order("a", Admin::Draining);
    for address in [A1, A2] {
        assert_eq!(rig.member(address).admin, Admin::Draining);
        assert!(!rig.member(address).usable());
    }
    assert_eq!(rig.member(B1).admin, Admin::Enabled);
    rig.run(ms(1_000));
    assert!(rig.probes.iter().any(|(_, o)| *o.backend.id.address == *A1));
    assert!(rig.saves().iter().any(
        |r| matches!(r, Record::Admin(AdminRecord { word: Admin::Draining, target: Target::Site(s), .. }) if **s == *"a"),
    ));
    rig.order("a", Admin::Enabled);
    assert!(rig.member(A1).usable());
}

#[test]
fn the_stricter_word_holds() {
    let mut rig = started(two_sites());
    rig.order("a", Admin::Draining);
    rig.order(&format!("api/{A1}"), Admin::Disabled);
    assert_eq!(rig.member(A1).admin, Admin::Disabled);
    assert_eq!(rig.member(A2).admin, Admin::Draining);
    rig.order("a", Admin::Enabled);
    assert_eq!(rig.member(A1).admin, Admin::Disabled);
    assert_eq!(rig.member(A2).admin, Admin::Enabled);
    rig.order("a", Admin::Disabled);
    rig.order(&format!("api/{A1}"), Admin::Enabled);
    assert_eq!(rig.member(A1).admin, Admin::Disabled, "the site's word still holds");
}

#[test]
fn a_disabled_backend_is_not_probed_and_is_asked_before_it_is_used_again() {
    let mut rig = started(two_sites());
    rig.order(&format!("api/{A1}"), Admin::Disabled);
    rig.answers.clear();
    rig.probes.clear();
    rig.run(ms(5_000));
    assert!(rig.probes.iter().all(|(_, o)| *o.backend.id.address != *A1));
    rig.served(A1, Err(Fault::Refused));
    rig.order(&format!("api/{A1}"), Admin::Enabled);
    assert_eq!(rig.health(A1), Health::Probing);
    assert!(rig.probes.iter().any(|(at, o)| *at == rig.now && *o.backend.id.address == *A1), "at once");
    rig.run(ms(10));
    assert_eq!(rig.health(A1), Health::Up);
}

#[test]
fn a_disabled_backend_that_was_down_needs_one_failed_check_to_be_down_again() {
    let mut rig = started(two_sites());
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.order(&format!("api/{A1}"), Admin::Disabled);
    rig.run(ms(1_000));
    rig.order(&format!("api/{A1}"), Admin::Enabled);
    rig.run(ms(6));
    assert_eq!(rig.health(A1), Health::Down);
}

#[test]
fn words_survive_reload_and_restart_and_end_with_the_config() {
    let mut rig = started(two_sites());
    rig.order("a", Admin::Draining);
    rig.order(&format!("api/{B1}"), Admin::Disabled);
    let saved = Saved { records: rig.saves() };
    let mut edited = two_sites();
    edited.services[0] = Arc::new(service("api", vec![backend("a", A1, 1), backend("b", B1, 1)], |_| {}));
    rig.event(Event::Reload(Arc::new(edited)));
    assert_eq!((rig.member(A1).admin, rig.member(B1).admin), (Admin::Draining, Admin::Disabled));
    let again = Rig::with(two_sites(), saved);
    assert_eq!((again.member(A1).admin, again.member(B1).admin), (Admin::Draining, Admin::Disabled));
    assert_eq!((again.member(A2).admin, again.member(B2).admin), (Admin::Draining, Admin::Enabled));
    rig.said.clear();
    rig.event(Event::Reload(Arc::new(config(vec![service("api", vec![backend("b", B2, 1)], |_| {})]))));
    let forgotten: Vec<RecordKey> =
        rig.said.iter().filter_map(|e| if let Effect::Forget(key) = e { Some(key.clone()) } else { None }).collect();
    assert!(forgotten.contains(&RecordKey::Admin(Target::Site("a".into()))), "{forgotten:?}");
    assert_eq!(forgotten.iter().filter(|key| matches!(key, RecordKey::Admin(_))).count(), 2);
}

#[test]
fn the_same_word_again_says_nothing_new_and_unknown_targets_change_nothing() {
    let mut rig = started(two_sites());
    rig.order("a", Admin::Draining);
    rig.said.clear();
    let generation = rig.snapshot.generation;
    rig.order("a", Admin::Draining);
    let target = Target::Site("elsewhere".into());
    rig.event(Event::Admin(Command { target, word: Admin::Disabled, reason: None }));
    assert_eq!(rig.snapshot.generation, generation);
    assert!(rig.said.is_empty(), "{:?}", rig.said);
}

#[test]
fn draining_the_last_good_backend_is_obeyed_and_releases_who_is_held() {
    let mut rig = started(pair(|_| {}));
    rig.order("a", Admin::Draining);
    rig.order("b", Admin::Draining);
    assert!(rig.snapshot.pools[0].members.iter().all(|m| !m.usable()));
    assert!(rig.notes().iter().any(|n| matches!(n, Transition::Service { available: false, .. })));
    rig.order("a", Admin::Enabled);
    assert!(rig.notes().iter().any(|n| matches!(n, Transition::Service { available: true, .. })));
}

#[test]
fn names_are_found_and_wrong_ones_get_a_helpful_sentence() {
    let api = service("api", vec![backend("dijon", A1, 1), backend("thory", B1, 1), backend("thory", B2, 1)], |_| {});
    let web = service("web", vec![backend("dijon", A1, 1)], |_| {});
    let rig = Rig::new(config(vec![api, web]));
    let find = |words: &str| rig.fleet.target(words);
    let id = |service: &str, site: &str, address: &str| {
        Target::Backend(BackendId { service: service.into(), site: site.into(), address: address.into() })
    };
    assert_eq!(find("dijon"), Ok(Target::Site("dijon".into())));
    assert_eq!(find("api/10.0.1.1:80"), Ok(id("api", "dijon", A1)));
    assert_eq!(find("api/dijon"), Ok(id("api", "dijon", A1)));
    assert_eq!(find("10.0.2.2:80"), Ok(id("api", "thory", B2)));
    assert_eq!(find("api/thory/10.0.2.2:80"), Ok(id("api", "thory", B2)));
    assert_eq!(find("djon"), Err("no site or backend `djon`; did you mean `dijon`?".to_owned()));
    assert_eq!(
        find("ap/10.0.1.1:80"),
        Err("no site or backend `ap/10.0.1.1:80`; did you mean `api/10.0.1.1:80`?".to_owned())
    );
    assert_eq!(find("nowhere-at-all"), Err("no site or backend `nowhere-at-all`; sites: dijon, thory".to_owned()));
    assert_eq!(
        find("api/thory"),
        Err("`api/thory` names 2 backends; name one: api/thory/10.0.2.1:80, api/thory/10.0.2.2:80".to_owned())
    );
    assert_eq!(
        find("10.0.1.1:80"),
        Err("`10.0.1.1:80` names 2 backends; name one: api/dijon/10.0.1.1:80, web/dijon/10.0.1.1:80".to_owned())
    );
    assert_eq!(find("web"), Err("`web` is a service; name a site or one of its backends: web/10.0.1.1:80".to_owned()));
}

#[test]
fn who_came_up_while_drained_begins_with_a_small_share() {
    let mut rig = started(two_sites());
    rig.order(&format!("api/{A1}"), Admin::Draining);
    rig.run(ms(10_000));
    rig.order(&format!("api/{A1}"), Admin::Enabled);
    assert_eq!(rig.member(A1).ramp_from, None, "it has gone on as it was");
    rig.order("a", Admin::Draining);
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.set(A1, Ok(()));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Up);
    // Long enough for a share to grow that nobody asks for.
    rig.run(ms(60_000));
    let mut reborn = Rig::at(rig.now + ms(1_000), two_sites(), Saved { records: rig.saves() });
    reborn.run(ms(10_000));
    reborn.order("a", Admin::Enabled);
    assert_eq!(reborn.member(A1).ramp_from, Some(reborn.now), "after a restart, too");
    assert_eq!(reborn.member(A2).ramp_from, None);
    rig.order("a", Admin::Enabled);
    assert_eq!(rig.member(A1).ramp_from, Some(rig.now));
    assert_eq!(rig.member(A2).ramp_from, None);
}
