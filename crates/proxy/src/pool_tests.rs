//! What connections do when a snapshot takes another's place.

use relais_core::config::{Config, Lookup};
use relais_core::{Effect, Event, Fleet, Saved};

use super::*;

/// A service `still` of two backends, and `other` of these.
fn config(others: &str) -> Arc<Config> {
    let text = format!(
        "[edge]\ntls = \"internal\"\n[service.still]\nhosts = [\"still.test\"]\nbackends = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n\
         [service.other]\nhosts = [\"other.test\"]\nbackends = [{others}]\n"
    );
    let parsed = Config::parse("proxy.toml", &text, &Lookup::blind());
    Arc::new(parsed.unwrap_or_else(|errors| panic!("{errors}")).config)
}

fn published(fleet: &mut Fleet) -> Arc<Snapshot> {
    let effects = std::iter::from_fn(|| fleet.poll_effect());
    let snapshots = effects.filter_map(|effect| if let Effect::Publish(new) = effect { Some(new) } else { None });
    snapshots.last().expect("something was published")
}

fn drains(slot: &Slot) -> u64 {
    slot.verdicts().drains
}

#[test]
fn a_reload_ends_what_went_to_backends_that_are_gone_and_nothing_else() {
    let now = relais_core::Instant::from_micros(1_700_000_000_000_000);
    let mut fleet = Fleet::new(config("\"10.0.0.3:80\", \"10.0.0.4:80\""), Saved::default(), now, 7);
    let old = published(&mut fleet);
    let connections = Connections::default();
    let slots: Vec<(Arc<Backend>, Arc<Slot>)> = old
        .pools
        .iter()
        .flat_map(|pool| &pool.members)
        .map(|member| (Arc::clone(&member.backend), connections.slot(&member.backend)))
        .collect();
    fleet.handle_event(Event::Reload(config("\"10.0.0.4:80\", \"10.0.0.5:80\"")), now);
    let new = published(&mut fleet);
    assert!(Arc::ptr_eq(&old.pools[0], &new.pools[0]), "what a file does not change stays the very same");
    connections.follow(&old, &new);
    for (backend, slot) in slots {
        let gone = &*backend.id.address == "10.0.0.3:80";
        assert_eq!(drains(&slot), u64::from(gone), "{}", backend.id.address);
        assert_eq!(Arc::ptr_eq(&connections.slot(&backend), &slot), !gone, "{}", backend.id.address);
    }
}

#[test]
fn what_a_late_request_left_behind_goes_in_time() {
    let now = relais_core::Instant::from_micros(1_700_000_000_000_000);
    let mut fleet = Fleet::new(config("\"10.0.0.3:80\""), Saved::default(), now, 7);
    let old = published(&mut fleet);
    let gone = Arc::clone(&old.pools[1].members[0].backend);
    fleet.handle_event(Event::Reload(config("\"10.0.0.4:80\"")), now);
    let new = published(&mut fleet);
    let connections = Connections::default();
    connections.follow(&old, &new);
    let stays = connections.slot(&new.pools[1].members[0].backend);
    connections.slot(&gone);
    connections.expire(&new);
    assert_eq!(connections.slots.lock().len(), 1);
    assert!(Arc::ptr_eq(&connections.slot(&new.pools[1].members[0].backend), &stays));
}
