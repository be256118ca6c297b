//! Timers set by hand: those that cannot keep the contract are refused with the sum that shows it, those that only fit
//! badly are warned of. The arithmetic is in `pace`; this room knows where the keys stand.

use std::time::Duration;

use crate::fault::Fault;
use crate::reader::Reader;
use crate::value::measure::shown;
use crate::words::{count, short};
use crate::{CheckKind, Forward, HealthCheck, Pace};

/// Values people write, largest first.
const PLAIN: [u64; 22] = [
    30_000, 20_000, 15_000, 10_000, 8_000, 5_000, 4_000, 3_000, 2_000, 1_500, 1_000, 800, 600, 500, 400, 300, 250, 200,
    150, 100, 50, 20,
];

/// The keys of `health` that the contract depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Interval,
    Timeout,
    Fall,
    Jitter,
}

impl Key {
    const ALL: [Key; 4] = [Key::Interval, Key::Timeout, Key::Fall, Key::Jitter];

    fn name(self) -> &'static str {
        match self {
            Key::Interval => "interval",
            Key::Timeout => "timeout",
            Key::Fall => "fall",
            Key::Jitter => "jitter",
        }
    }

    /// How much of the sum comes from it.
    fn weight(self, pace: &Pace) -> Duration {
        match self {
            Key::Interval => pace.interval,
            Key::Timeout => pace.timeout,
            Key::Fall => pace.round() * pace.patience.saturating_sub(1),
            Key::Jitter => pace.longest_interval().saturating_sub(pace.interval),
        }
    }

    /// The key as the file would have it, with the largest value that keeps the contract beside the others.
    fn mend(self, check: &HealthCheck, fits: impl Fn(&HealthCheck) -> bool) -> Option<String> {
        let with = |edit: &dyn Fn(&mut HealthCheck)| {
            let mut other = check.clone();
            edit(&mut other);
            fits(&other)
        };
        let plain = || PLAIN.into_iter().map(Duration::from_millis);
        let text = match self {
            Key::Interval => {
                let time = plain().find(|time| with(&|other| other.interval = Some(*time)))?;
                format!("\"{}\"", shown(time))
            }
            Key::Timeout => {
                let time = plain().find(|time| with(&|other| other.timeout = Some(*time)))?;
                format!("\"{}\"", shown(time))
            }
            Key::Fall => (1..check.fall?).rev().find(|fall| with(&|other| other.fall = Some(*fall)))?.to_string(),
            Key::Jitter => {
                let jitter = [0.4, 0.3, 0.2, 0.1, 0.0].into_iter().filter(|jitter| *jitter < check.jitter);
                format!("{:.1}", jitter.into_iter().find(|jitter| with(&|other| other.jitter = *jitter))?)
            }
        };
        Some(format!("{} = {text}", self.name()))
    }
}

/// Judges the timers of one `health` table.
pub(crate) fn judge(table: &Reader<'_>, check: &HealthCheck, contract: Duration) {
    if check.kind == CheckKind::Off {
        return;
    }
    let pace = Pace::of(contract, check);
    if !pace.holds() {
        refuse(table, check, &pace);
    } else if !matches!(check.kind, CheckKind::Tcp) && pace.hang() > contract {
        warn_hang(table, check, &pace);
    }
}

fn refuse(table: &Reader<'_>, check: &HealthCheck, pace: &Pace) {
    let Some((key, mended)) = blame(table, check, pace, Pace::silence) else { return };
    let contract = pace.contract;
    let fault = Fault::new(format!("{} is more than failover_within = {}", pace.sum(), short(contract)))
        .label(format!("a cut could go unseen for {}", short(pace.silence())));
    let longer = Pace::least_contract(contract, check, Duration::ZERO);
    let service = table.path.strip_suffix(".health").unwrap_or(&table.path);
    let longer = longer.map(|longer| format!("`failover_within = \"{}\"` in `[{service}]`", shown(longer)));
    let shorter = match mended {
        Some(mended) => format!("write `{mended}`"),
        None => format!("take {} out: they are derived from failover_within then", set_keys(table)),
    };
    let help = match longer {
        Some(longer) => format!("write {longer}, or {}", shorter.trim_start_matches("write ")),
        None => shorter,
    };
    if let Some(node) = table.get(key.name()) {
        node.error(fault.help(help));
    }
}

fn warn_hang(table: &Reader<'_>, check: &HealthCheck, pace: &Pace) {
    let Some((key, mended)) = blame(table, check, pace, Pace::hang) else { return };
    let fault = Fault::new(format!(
        "a process that hangs is left after {}: {} until the next check and {} of {} are more than failover_within = {}",
        short(pace.hang()),
        short(pace.longest_interval()),
        count(pace.fall, "late answer"),
        short(pace.timeout),
        short(pace.contract)
    ));
    let fault = fault.label("a dead site is seen in time, a hung process is not");
    if let Some(node) = table.get(key.name()) {
        node.warning(match mended {
            Some(mended) => fault.help(format!("write `{mended}`, or a longer failover_within")),
            None => fault.help("write a longer failover_within"),
        });
    }
}

/// The key set by hand that is most to blame, and what to write there: first one whose change alone is enough.
fn blame(
    table: &Reader<'_>,
    check: &HealthCheck,
    pace: &Pace,
    took: fn(&Pace) -> Duration,
) -> Option<(Key, Option<String>)> {
    let mut set: Vec<Key> = Key::ALL.into_iter().filter(|key| table.has(key.name())).collect();
    set.sort_by_key(|key| std::cmp::Reverse(key.weight(pace)));
    let fits = |other: &HealthCheck| took(&Pace::of(pace.contract, other)) <= pace.contract;
    let mended = set.iter().find_map(|key| Some((*key, Some(key.mend(check, fits)?))));
    mended.or_else(|| set.first().map(|key| (*key, None)))
}

/// `interval`, `timeout` and the like, as far as they are set by hand.
fn set_keys(table: &Reader<'_>) -> String {
    let set = Key::ALL.into_iter().map(Key::name).filter(|key| table.has(key));
    let set: Vec<String> = set.map(|key| format!("`{key}`")).collect();
    match set.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => set.concat(),
    }
}

/// Warns of a service whose other timers work against its contract.
pub(crate) fn warn_service(service: &Reader<'_>, forward: &Forward) {
    let contract = forward.failover_within;
    if let (Some(request), Some(node)) = (forward.timeout.request, service.get("timeout"))
        && request < contract
    {
        let fault = Fault::new(format!(
            "a request is given up after {}, but leaving a dead backend may take {}",
            short(request),
            short(contract)
        ));
        let fault = fault.label(format!("`request` is shorter than failover_within = {}", short(contract)));
        node.warning(fault.help(format!("write `request = \"{}\"` or more", shown(contract * 2))));
    }
    if let (Some(connect), Some(node)) = (forward.timeout.connect, service.get("timeout"))
        && connect > contract
    {
        let fault = Fault::new(format!(
            "a connect that nobody answers is given up after {}, but a dead backend is to be left within {}",
            short(connect),
            short(contract)
        ));
        let fault = fault.label(format!("`connect` is longer than failover_within = {}", short(contract)));
        let half = shown(contract / 2);
        node.warning(
            fault
                .help(format!("write `connect = \"{half}\"`, or take it out: it is derived from failover_within then")),
        );
    }
    if forward.health.kind == CheckKind::Off
        && forward.passive_fall == Some(0)
        && let Some(node) = service.get("passive_fall")
    {
        let fault = Fault::new("nothing shows that a backend is dead: neither checks nor failed requests");
        node.warning(fault.label("with `health = \"off\"`").help("take `passive_fall = 0` or `health = \"off\"` out"));
    }
}
