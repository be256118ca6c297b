//! A scenario: faults at their times, what users may feel of them, and the run that finds out.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use crate::backend::{self, Backend};
use crate::load::{self, Asked, Class, Load, Seen};
use crate::proxy::{self, Proxy, Service};
use crate::row::{self, HEAD, Row, Times};
use crate::support::edge::Edge;
use crate::support::tools::skipped;
use crate::world::{self, Direction, SITES, World};

/// `all`: every scenario. Otherwise the fast ones.
const WHICH: &str = "RELAIS_NETNS";

/// What the world is allowed to cost a contract of one second on a busy machine, seconds.
const NOISE: f64 = 3.0;

/// What users may still feel after a killed edge serves again, microseconds.
const SETTLES: u64 = 500_000;

/// Until a backend that answers much worse than the others must be left, seconds: some answers, a look a second, noise.
const EJECTS: f64 = 2.0 + NOISE;

/// Milliseconds of load before the fault.
const BEFORE: u64 = 2000;

/// One thing done to the world. Backends are numbered 0 to 5, two a site.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Cut(usize, &'static [Direction]),
    Mend(usize, &'static [Direction]),
    /// Every connection to a site that is open now is lost without a word; new ones are not.
    Forget(usize),
    /// Percent of the packets of a site, each way; 0 ends it.
    Lose(usize, u64),
    /// All packets of a site that are longer than so many bytes.
    LoseLarge(usize, u64),
    Kill(&'static [usize]),
    /// Started again, with how to behave.
    Again(&'static [usize], &'static str),
    Freeze(&'static [usize]),
    Thaw(&'static [usize]),
    Behave(&'static [usize], &'static str),
    Reload(u32),
    /// SIGKILL of the edge, and a new one.
    Crash,
}

/// What is done, and what must hold besides what always must.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Part of every run, not only of `RELAIS_NETNS=all`.
    pub(crate) fast: bool,
    pub(crate) preferred: Option<usize>,
    pub(crate) retry_500: bool,
    /// `failover_within`, milliseconds; unset: what it is by itself.
    pub(crate) contract: Option<u64>,
    /// `balance`; unset: what it is by itself.
    pub(crate) balance: Option<&'static str>,
    /// The backends that fail.
    pub(crate) bad: &'static [usize],
    /// Milliseconds after the fault.
    pub(crate) steps: Vec<(u64, Step)>,
    /// Milliseconds from the fault until all is well again, and from then to the end.
    pub(crate) repair: u64,
    pub(crate) after: u64,
    /// The site that must be declared down.
    pub(crate) down: Option<usize>,
    /// The backend that must be ejected; from then on nobody may meet its fault.
    pub(crate) ejected: Option<usize>,
    /// And within so many seconds.
    pub(crate) ejected_in: f64,
    /// Streams to what fails must be closed: how.
    pub(crate) told: Option<&'static [&'static str]>,
    /// And within how many contracts.
    pub(crate) told_in: u32,
    /// How a POST may fail that its backend may have received, or that its backend itself refused.
    pub(crate) posts: &'static [&'static str],
    /// Nobody is there for a while: then users may fail.
    pub(crate) outage: Option<Outage>,
}

/// When users may fail, milliseconds after the fault.
#[derive(Clone, Copy)]
pub(crate) struct Outage {
    pub(crate) from: u64,
    /// Generous: noise included.
    pub(crate) to: u64,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            name: "",
            fast: false,
            preferred: None,
            retry_500: false,
            contract: None,
            balance: None,
            bad: &[],
            steps: Vec::new(),
            repair: 4000,
            after: 2000,
            down: None,
            ejected: None,
            ejected_in: EJECTS,
            told: None,
            told_in: 1,
            posts: &["http_502", "http_504"],
            outage: None,
        }
    }
}

/// Everything of one run; what needs the world goes before it.
struct Stage {
    load: Load,
    proxy: Proxy,
    backends: Vec<Backend>,
    world: World,
    /// When each site was first seen down, microseconds since 1970.
    down: [Option<u64>; 3],
    /// Who is to be ejected, and when that was first seen.
    ejected: Option<(SocketAddr, Option<u64>)>,
    /// When an edge that was killed served again.
    again: Option<u64>,
    _dir: tempfile::TempDir,
}

fn is_ejected(status: &serde_json::Value, address: SocketAddr) -> bool {
    let backends = status["report"]["services"][0]["backends"].as_array().unwrap();
    backends.iter().any(|backend| backend["address"] == address.to_string() && backend["ejected"] == true)
}

/// One world at a time: two would disturb one another.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scenario {
    /// Runs it, shows its row, and fails when relais did not keep its word. A peer is only measured.
    pub(crate) fn run(&self) {
        let _alone = alone();
        if let Some(why) = world::missing() {
            return skipped(why);
        }
        if !self.fast && std::env::var(WHICH).as_deref() != Ok("all") {
            return skipped(&format!("one of the long list: {WHICH}=all"));
        }
        let mut stage = Stage::build(self);
        std::thread::sleep(Duration::from_millis(BEFORE));
        let fault = load::now();
        for (at, step) in &self.steps {
            stage.look_until(fault + at * 1000);
            if let Err(why) = stage.act(*step) {
                return skipped(&why);
            }
        }
        let repair = fault + self.repair * 1000;
        stage.look_until(repair);
        let end = repair + self.after * 1000;
        stage.look_until(end);
        let Stage { load, proxy, backends, down, ejected, again, .. } = stage;
        let seen = load.stop();
        let bad: Vec<String> = self.bad.iter().map(|n| backends[*n].name.clone()).collect();
        let executed: Vec<u64> = backends.iter().flat_map(Backend::executed).collect();
        let row = Row::of(&seen, &executed, &bad, Times { fault, repair, end });
        let left = self.down.and_then(|site| down[site]).or(ejected.and_then(|(_, at)| at));
        let left_after = left.map(|at| at.saturating_sub(fault) as f64 / 1e6);
        static ONCE: Once = Once::new();
        ONCE.call_once(|| row::show(HEAD));
        row::show(&row.line(&proxy::name(), self.name, left_after));
        if row::slowest_wanted() > 0 {
            row::show(&row::slowest(&seen, Times { fault, repair, end }));
            proxy.relais().into_iter().for_each(|edge| row::show(&slow_lines(edge)));
        }
        if proxy.relais().is_some() {
            let outage = self.outage.map(|outage| {
                let to = (fault + outage.to * 1000).max(again.map_or(0, |at| at + SETTLES));
                fault + outage.from * 1000..to
            });
            self.judge(&row, &seen, left_after, fault, outage.as_ref());
            if let Some(n) = self.ejected {
                let name = &backends[n].name;
                let left = left.unwrap_or_else(|| panic!("{name} was never ejected"));
                judge_ejection(&seen, name, fault, left..repair, self.ejected_in);
            }
        }
    }

    /// So many contracts and the noise, seconds.
    fn limit(&self, contracts: u32) -> f64 {
        f64::from(contracts) * self.contract.unwrap_or(1000) as f64 / 1e3 + NOISE
    }

    fn judge(&self, row: &Row, seen: &Seen, left_after: Option<f64>, fault: u64, outage: Option<&Range<u64>>) {
        assert_eq!(row.twice, 0, "POSTs executed twice");
        let corrupt = |asked: &&Asked| ["corrupt", "wrong_answer"].contains(&asked.end.as_str());
        assert_eq!(seen.requests.iter().filter(corrupt).count(), 0, "wrong bytes in an answer that looks whole");
        let excused =
            |asked: &Asked| outage.is_some_and(|outage| asked.at < outage.end && asked.at + asked.took >= outage.start);
        for asked in seen.requests.iter().filter(|asked| asked.end != "ok" && !excused(asked)) {
            let after = (asked.at as f64 - fault as f64) / 1e6;
            let allowed = asked.class == Class::Post && self.posts.contains(&asked.end.as_str());
            assert!(allowed, "{asked:?} failed, planned {after:.3} s after the fault");
        }
        if self.outage.is_none() {
            assert_eq!(row.broken, 0, "streams to what did not fail were broken");
        }
        if let Some(site) = self.down {
            let at = left_after.unwrap_or_else(|| panic!("{} was never declared down", SITES[site]));
            assert!(at < self.limit(1), "{} was declared down after {at} s", SITES[site]);
        }
        if let Some(ways) = self.told {
            assert_eq!(row.told.len(), row.hit, "streams that were told");
            assert!(row.hit > 0, "streams were there to be told");
            for (at, how) in &row.told {
                assert!(*at < self.limit(self.told_in), "a stream was told after {at} s");
                assert!(ways.contains(&how.as_str()), "a stream was told by {how}");
            }
        }
    }
}

/// What relais logged of requests that took over a second.
fn slow_lines(edge: &Edge) -> String {
    let over = |line: &serde_json::Value| line["duration_ms"].as_f64().is_some_and(|millis| millis > 1000.0);
    let lines = edge.lines().into_iter().filter(|line| line["target"] == "access" && over(line));
    // Streams and downloads take as long as they like.
    let asked = lines.filter(|line| line["path"] == "/w");
    asked.map(|line| format!("{} {}: {}\n", line["duration_ms"], line["method"], line["attempts"])).collect()
}

/// `left`: from when it was seen ejected until all was well again.
fn judge_ejection(seen: &Seen, name: &str, fault: u64, left: Range<u64>, within: f64) {
    let after = left.start.saturating_sub(fault) as f64 / 1e6;
    assert!(after < within, "{name} was ejected after {after} s");
    let begun = |asked: &&Asked| asked.class != Class::Download && left.contains(&asked.at);
    let those: Vec<&Asked> = seen.requests.iter().filter(begun).collect();
    assert!(!those.is_empty(), "{name} was ejected {after} s after its fault, and nobody asked then");
    for asked in those {
        assert!(asked.backend != name && asked.end == "ok", "{asked:?} after {name} was ejected");
    }
}

impl Stage {
    fn build(scenario: &Scenario) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let world = World::new();
        let backends = backend::all(&world, dir.path());
        let Scenario { preferred, retry_500, contract, balance, ejected, .. } = *scenario;
        let service = Service { preferred, retry_500, contract, balance };
        let proxy = Proxy::start(&world, &backends, &service, dir.path());
        let load = Load::start(&world, dir.path());
        let ejected = ejected.map(|n| (backends[n].address, None));
        Stage { load, proxy, backends, world, down: [None; 3], ejected, again: None, _dir: dir }
    }

    /// Waits, and looks meanwhile what relais believes.
    fn look_until(&mut self, until: u64) {
        while load::now() < until {
            if let Some(edge) = self.proxy.relais() {
                let status = edge.status();
                for (site, down) in status["report"]["sites"].as_array().unwrap().iter().zip(&mut self.down) {
                    if site["health"] == "down" {
                        down.get_or_insert_with(load::now);
                    }
                }
                if let Some((address, at)) = &mut self.ejected
                    && is_ejected(&status, *address)
                {
                    at.get_or_insert_with(load::now);
                }
            }
            let left = Duration::from_micros(until.saturating_sub(load::now()));
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn act(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Cut(site, directions) => self.world.cut(site, directions),
            Step::Mend(site, directions) => self.world.mend(site, directions),
            Step::Forget(site) => self.world.forget(site),
            Step::Lose(site, 0) => self.world.lose_nothing(site),
            Step::Lose(site, percent) => {
                let cannot = |why| format!("this kernel or its tc cannot lose packets at random: {why}");
                return self.world.lose(site, percent).map_err(cannot);
            }
            Step::LoseLarge(site, most) => {
                let cannot = |why| format!("this kernel or its tc cannot lose packets by their length: {why}");
                return self.world.lose_large(site, most).map_err(cannot);
            }
            Step::Kill(which) => self.each(which, Backend::kill),
            Step::Again(which, words) => self.each(which, |backend| backend.again(words)),
            Step::Freeze(which) => self.each(which, |backend| backend.signal("STOP")),
            Step::Thaw(which) => self.each(which, |backend| backend.signal("CONT")),
            Step::Behave(which, words) => self.each(which, |backend| backend.behave(words)),
            Step::Reload(generation) => self.proxy.reload(generation),
            Step::Crash => {
                self.proxy.crash();
                self.again = Some(load::now());
            }
        }
        Ok(())
    }

    fn each(&mut self, which: &[usize], mut act: impl FnMut(&mut Backend)) {
        for n in which {
            act(&mut self.backends[*n]);
        }
    }
}
