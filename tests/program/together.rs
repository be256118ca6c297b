//! All backends of a service die at once and are back in a moment, as at a deployment or after a kernel's out-of-memory killer:
//! who asked what may be repeated is served by whoever returns, and no budget of retries bounds how many.

use std::time::Duration;

use crate::load::{Connections, Load};
use crate::support::edge::Setup;
use crate::support::process::Process;
use crate::support::wait_for;
use crate::support::wire::get;

/// More than the hundred retries that the budget has, of which half are for those that meet both as they die.
const CLIENTS: usize = 150;

#[test]
fn more_requests_than_the_budget_outlive_two_backends_that_die_together() {
    let mut both = [Process::start(), Process::start()];
    let [one, two] = both.each_ref().map(|backend| backend.address);
    // The contract is long: on a busy machine no check of a living backend is late then.
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nbalance = \"round-robin\"\nfailover_within = \"3s\"\n\
         queue_timeout = \"40s\"\nretry.budget_floor = 10\nretry.budget_percent = 0\nbackends = [\"{one}\", \"{two}\"]\n"
    ))
    .start();
    both.iter().for_each(|backend| edge.wait_for_health(backend, "up"));
    let load = Load::start(edge.http(), CLIENTS, Connections::Kept, |path| get(&format!("/slow/1000{path}")));
    wait_for("all clients wait for an answer", || edge.sample("relais_requests_inflight", &[]) >= 140.0);
    Process::kill_all(&mut both);
    // How long they are away, in which nothing must be seen.
    std::thread::sleep(Duration::from_millis(600));
    both.iter_mut().for_each(Process::again);
    both.iter().for_each(|backend| edge.wait_for_health(backend, "up"));
    load.go_on_for(2 * CLIENTS);
    let tally = load.stop();
    let told = |what: &String| edge.access_to(&format!("/slow/1000{}", what.split(':').next().unwrap()));
    let lines: Vec<_> = tally.bad.iter().take(3).map(told).collect();
    assert!(lines.is_empty(), "{} of {} failed: {lines:#?}", tally.bad.len(), tally.good + tally.bad.len());
    assert!(tally.good >= CLIENTS);
}
