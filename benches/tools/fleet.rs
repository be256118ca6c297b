//! How core grows: `tools fleet --services N --backends N` times, in this process and on one thread, what the control loop
//! does with a fleet of that size. Nothing is connected to; the answers to probes are made up.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use relais_core::config::{Config, Lookup};
use relais_core::{Admin, Command, Effect, Event, Fault, Fleet, Health, Instant, Saved, Snapshot, Target};
use serde_json::json;

use crate::args::{Args, Outcome};

/// Repetitions of what is quick,
const TIMES: usize = 31;
/// of reloads that change one service, of which the worst of many is told, and of those that change every one.
const RELOADS: (usize, usize) = (61, 15);

pub(crate) fn run(args: &Args) -> Outcome<()> {
    let (services, backends) = (args.get("services", 1000)?, args.get("backends", 10)?);
    let (config, parse) = timed(|| parsed(&text(services, backends, "1s")));
    let config = config?;
    let before = resident_kib();
    let now = Instant::from_micros(1_700_000_000_000_000);
    let (mut fleet, built) = timed(|| Fleet::new(Arc::clone(&config), Saved::default(), now, 7));
    let effects = drained(&mut fleet);
    let born = resident_kib();
    let (mut now, up) = timed(|| all_up(&mut fleet, &effects, now));

    let text = text(services, backends, "900ms");
    let (one, every) = (parsed(&text)?, parsed(&text.replace("\"1s\"", "\"900ms\""))?);
    let mut read = published(&effects);
    let mut to_and_fro = |other, times| alternating(&mut fleet, [other, &config], times, &mut read, &mut now);
    let (one_changed, every_changed) = (to_and_fro(&one, RELOADS.0), to_and_fro(&every, RELOADS.1));
    let (changes, snapshot) = one_backend(&mut fleet, now, services)?;
    let routes = timed(|| snapshot.route(&format!("s{}.bench.test", services - 1), "/")).1;
    let (per_probe, now) = a_round_of_probes(&mut fleet, now);
    let lost = all_lost(&mut fleet, now);
    let all = services * backends;
    println!(
        "{}",
        json!({
            "services": services, "backends": all,
            "parse_ms": ms(parse), "new_fleet_ms": ms(built), "all_up_ms": ms(up),
            "lost_after_ms": lost.0.map(ms), "lost_ms": ms(lost.1),
            "reload_ms": spread(&one_changed), "reload_every_ms": spread(&every_changed),
            "backend_changes_ms": spread(&changes),
            "route_us": routes.as_secs_f64() * 1e6, "probe_us": per_probe.as_secs_f64() * 1e6,
            "bytes_per_backend": (born.saturating_sub(before)) * 1024 / all,
        })
    );
    Ok(())
}

/// A file with so many services; the last one's contract is `within`, so that files differ in one service.
pub(crate) fn text(services: usize, backends: usize, within: &str) -> String {
    let mut text = String::from("[edge]\ntls = \"internal\"\n");
    for service in 0..services {
        let last = if service + 1 == services { within } else { "1s" };
        text.push_str(&format!(
            "[service.s{service}]\nhosts = [\"s{service}.bench.test\"]\nfailover_within = \"{last}\"\nbackends = ["
        ));
        for backend in 0..backends {
            let n = service * backends + backend;
            text.push_str(&format!("\"127.{}.{}.{}:8080\", ", 1 + n / 62_500, n / 250 % 250, 1 + n % 250));
        }
        text.push_str("]\n");
    }
    text
}

/// The config of a text without secrets or variables.
pub(crate) fn parsed(text: &str) -> Outcome<Arc<Config>> {
    let parsed = Config::parse("proxy.toml", text, &Lookup::blind()).map_err(|errors| errors.to_string())?;
    Ok(Arc::new(parsed.config))
}

/// Reloads with one config and the other, to the new snapshot. What becomes due meanwhile is done between them.
fn alternating(
    fleet: &mut Fleet,
    configs: [&Arc<Config>; 2],
    times: usize,
    read: &mut Option<Arc<Snapshot>>,
    now: &mut Instant,
) -> Vec<Duration> {
    let mut took = Vec::new();
    for config in configs.into_iter().cycle().take(times).map(Arc::clone) {
        took.push(timed(|| fleet.handle_event(Event::Reload(config), *now)).1);
        let made = drained(fleet);
        // Readers have the old snapshot until they have the new one.
        *read = published(&made).or(read.take());
        *now = all_up(fleet, &made, *now);
    }
    took
}

/// Reloads of a fleet of which nothing is due meanwhile: one service in so many is declared in another way each time.
pub(crate) fn reloads(services: usize, backends: usize, times: u64) -> Outcome<()> {
    let unchecked = |within| parsed(&text(services, backends, within).replace("hosts =", "health = \"off\"\nhosts ="));
    let (config, other) = (unchecked("1s")?, unchecked("900ms")?);
    let now = Instant::from_micros(1_700_000_000_000_000);
    let mut fleet = Fleet::new(Arc::clone(&config), Saved::default(), now, 7);
    let mut read = drained(&mut fleet);
    for turn in 0..times {
        let next = Arc::clone(if turn % 2 == 0 { &other } else { &config });
        fleet.handle_event(Event::Reload(next), now);
        read = drained(&mut fleet);
    }
    published(&read).map(drop).ok_or_else(|| "nothing was published".into())
}

/// The newest snapshot of a new fleet with every backend up.
pub(crate) fn snapshot(text: &str) -> Outcome<Arc<Snapshot>> {
    Ok(settled(text)?.1)
}

/// A new fleet with every backend up, its newest snapshot, and the time it is.
pub(crate) fn settled(text: &str) -> Outcome<(Fleet, Arc<Snapshot>, Instant)> {
    let now = Instant::from_micros(1_700_000_000_000_000);
    let mut fleet = Fleet::new(parsed(text)?, Saved::default(), now, 7);
    let mut effects = drained(&mut fleet);
    let now = all_up(&mut fleet, &effects, now);
    effects.extend(drained(&mut fleet));
    // `all_up` took what was published meanwhile: ask for one more.
    fleet.handle_event(Event::Reload(parsed(&format!("{text}\n[log]\naccess = false\n"))?), now);
    effects.extend(drained(&mut fleet));
    let snapshot = published(&effects).ok_or("nothing was published")?;
    Ok((fleet, snapshot, now))
}

fn published(effects: &[Effect]) -> Option<Arc<Snapshot>> {
    let mut snapshots = effects.iter().filter_map(|effect| match effect {
        Effect::Publish(snapshot) => Some(snapshot),
        _ => None,
    });
    snapshots.next_back().map(Arc::clone)
}

fn drained(fleet: &mut Fleet) -> Vec<Effect> {
    std::iter::from_fn(|| fleet.poll_effect()).collect()
}

/// Answers every probe well until all have an answer; gives the time it is then.
fn all_up(fleet: &mut Fleet, begun: &[Effect], now: Instant) -> Instant {
    answer(fleet, begun, Ok(()), now);
    let end = now + Duration::from_secs(3);
    let mut now = now;
    while let Some(due) = fleet.poll_timeout().filter(|due| *due < end) {
        now = due.max(now);
        step(fleet, Ok(()), now);
    }
    now
}

/// What is due is done, and probes that are sent have their result at once; gives their number.
pub(crate) fn step(fleet: &mut Fleet, result: Result<(), Fault>, now: Instant) -> usize {
    fleet.handle_timeout(now);
    let effects = drained(fleet);
    answer(fleet, &effects, result, now)
}

/// Answers the probes among what was ordered, and those that are ordered because of these answers.
fn answer(fleet: &mut Fleet, effects: &[Effect], result: Result<(), Fault>, now: Instant) -> usize {
    let took = Duration::from_micros(300);
    let answers = |effects: &[Effect]| -> Vec<Event> {
        let events = |effect: &Effect| match effect {
            Effect::Probe(order) => {
                let (slot, id) = (order.backend.slot, order.id);
                let connected = result.is_ok().then(|| Event::Connected { slot, took: trembling(id) });
                connected.into_iter().chain([Event::Probed { slot, id, result, took, said: None }]).collect()
            }
            _ => Vec::new(),
        };
        effects.iter().flat_map(events).collect()
    };
    let (mut now, mut all, mut next) = (now, 0, answers(effects));
    while !next.is_empty() {
        all += next.iter().filter(|event| matches!(event, Event::Probed { .. })).count();
        now = now + took;
        fleet.handle_events(next, now);
        next = answers(&drained(fleet));
    }
    all
}

/// A round trip as an edge measures it that has much to do: mostly its own time.
fn trembling(probe: u64) -> Duration {
    Duration::from_micros(100 + (relais_core::hash::mix(probe) >> 48))
}

/// From one moment on nothing answers any more: after how long the site is down, and what that took.
fn all_lost(fleet: &mut Fleet, now: Instant) -> (Option<Duration>, Duration) {
    let (from, end) = (now, now + Duration::from_secs(10));
    let lost = |fleet: &Fleet, now| fleet.report(now).sites.iter().all(|site| site.health == Health::Down);
    let mut now = now;
    let mut took = Duration::ZERO;
    let mut looked = now;
    while let Some(due) = fleet.poll_timeout().filter(|due| *due < end) {
        now = due.max(now);
        took += timed(|| step(fleet, Err(Fault::ConnectTimeout), now)).1;
        if now.since(looked) > Duration::from_millis(5) {
            looked = now;
            if lost(fleet, now) {
                return (Some(now.since(from)), took);
            }
        }
    }
    (None, took)
}

/// One backend goes and comes by the operator's word: each is a new pool and a new snapshot.
fn one_backend(fleet: &mut Fleet, now: Instant, services: usize) -> Outcome<(Vec<Duration>, Arc<Snapshot>)> {
    let name = format!("s{}", services / 2);
    let report = fleet.report(now);
    let service = report.services.iter().find(|service| *service.name == *name).ok_or("no such service")?;
    let backend = service.backends.first().ok_or("no backend")?;
    let target: Target = fleet.target(&format!("{name}/{}", backend.address))?;
    let mut took = Vec::new();
    let mut newest = None;
    for turn in 0..2 * TIMES {
        let word = if turn % 2 == 0 { Admin::Draining } else { Admin::Enabled };
        let command = Command { target: target.clone(), word, reason: None };
        took.push(timed(|| fleet.handle_event(Event::Admin(command), now)).1);
        newest = published(&drained(fleet)).or(newest);
    }
    Ok((took, newest.ok_or("nothing was published")?))
}

/// What one probe costs the loop (planning it, ordering it, judging its answer), and the time it is then.
fn a_round_of_probes(fleet: &mut Fleet, now: Instant) -> (Duration, Instant) {
    let (mut now, end) = (now, now + Duration::from_secs(1));
    let (mut probes, began) = (0, Clock::now());
    while let Some(due) = fleet.poll_timeout().filter(|due| *due < end) {
        now = due.max(now);
        probes += step(fleet, Ok(()), now);
    }
    (began.elapsed() / u32::try_from(probes.max(1)).unwrap_or(u32::MAX), now)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Clock::now();
    let done = work();
    (done, began.elapsed())
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// Median, least and most, in milliseconds.
fn spread(times: &[Duration]) -> serde_json::Value {
    let mut times: Vec<f64> = times.iter().copied().map(ms).collect();
    times.sort_by(f64::total_cmp);
    json!({ "median": times.get(times.len() / 2), "min": times.first(), "max": times.last() })
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}
