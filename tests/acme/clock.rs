//! Wall clocks that are wrong: a small library, loaded before libc, shifts the one that the edge reads.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::pebble::Pebble;
use crate::support::certs;
use crate::support::edge::Setup;
use crate::support::tools::{have, run};
use crate::support::wait_for;

/// Adds the seconds in the file of `CLOCK_SHIFT` to the time of day.
const SHIFT: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *to) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, to);
    const char *path = getenv("CLOCK_SHIFT");
    FILE *file = clock == CLOCK_REALTIME && path ? fopen(path, "r") : NULL;
    long long shift = 0;
    if (file) {
        if (fscanf(file, "%lld", &shift) == 1) to->tv_sec += shift;
        fclose(file);
    }
    return result;
}
"#;

/// A line for [`Setup::under`]; the clock is right until [`shift`].
pub(crate) fn shifting(dir: &Path) -> String {
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    std::fs::write(&source, SHIFT).unwrap();
    let mut cc = Command::new("/usr/bin/cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    let ran = run(&mut cc);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    shift(dir, 0);
    format!("export LD_PRELOAD={:?} CLOCK_SHIFT={:?}; exec \"$@\"", library, dir.join("shift"))
}

pub(crate) fn shift(dir: &Path, seconds: i64) {
    // A reader must never find it empty.
    std::fs::write(dir.join("shift.new"), seconds.to_string()).unwrap();
    std::fs::rename(dir.join("shift.new"), dir.join("shift")).unwrap();
}

/// A machine without a clock of its own starts in 1970, or where it was switched off: what there is is served, nothing is
/// ordered for that, neither then nor when the time comes; and what the local CA made then is made anew.
#[test]
fn a_clock_that_is_wrong_at_the_start_costs_no_order_and_no_handshake() {
    let Some(pebble) = Pebble::start() else { return };
    if !have("cc", "gcc") {
        return;
    }
    let local = "[service.local]\nhosts = [\"local.test\"]\nrespond = { body = \"hello\" }\n";
    let setup = Setup::file(&(pebble.file(&["a.fr"], "") + local));
    let shell = shifting(setup.dir());
    let mut edge = setup.under(&shell).start();
    let first = pebble.wait_for(&edge, "a.fr");
    wait_for("it is kept", || edge.log().contains("certificate issued"));
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    for wrong in [-365 * 86_400, -now] {
        edge.crash();
        shift(edge.dir(), wrong);
        edge.restart();
        assert_eq!(pebble.shown("a.fr").as_ref(), Some(&first), "{}", edge.log());
        wait_for("it is known to be good", || edge.cli(&["certs"]).1.contains("valid"));
        assert_eq!(pebble.orders(), 1, "{}", edge.log());
    }
    let local = || certs::shown(edge.https(), "local.test", certs::roots_of(&edge.root()));
    assert!(local().is_err(), "it is dated 1970");
    shift(edge.dir(), 0);
    // The clock is looked at once a minute.
    let deadline = Instant::now() + Duration::from_secs(180);
    while local().is_err() {
        assert!(Instant::now() < deadline, "{}", edge.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(pebble.shown("a.fr").as_ref(), Some(&first));
    assert!(edge.cli(&["certs"]).1.contains("valid"));
    assert_eq!(pebble.orders(), 1, "{}", edge.log());
}

/// A first certificate that is ordered under a wrong clock is one for good: nothing is ordered again when the time comes.
#[test]
fn a_first_order_under_a_wrong_clock_is_the_only_one() {
    let Some(pebble) = Pebble::start() else { return };
    if !have("cc", "gcc") {
        return;
    }
    let setup = Setup::file(&pebble.file(&["a.fr"], ""));
    let shell = shifting(setup.dir());
    shift(setup.dir(), -3 * 365 * 86_400);
    let mut edge = setup.under(&shell).start();
    let first = pebble.wait_for(&edge, "a.fr");
    wait_for("it is kept", || edge.log().contains("certificate issued"));
    edge.crash();
    shift(edge.dir(), 0);
    edge.restart();
    assert_eq!(pebble.shown("a.fr"), Some(first));
    wait_for("it is known to be good", || edge.cli(&["certs"]).1.contains("valid"));
    assert_eq!(pebble.orders(), 1, "{}", edge.log());
}
