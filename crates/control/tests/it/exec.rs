//! A program as a check: its exit code, its words, its surroundings, and that nothing of it stays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use relais_control::Status;
use relais_core::{Fault, Health, ProbeReport};
use tempfile::TempDir;

use crate::probing::{backend, nobody, with};
use crate::support::{Bench, eventually, probed};

/// A script in a folder of its own.
fn script(lines: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("check");
    // Put there by another process: a file that is open for writing, as in a child that another test just forks, cannot be run.
    let text = file.with_extension("text");
    std::fs::write(&text, format!("#!/bin/sh\n{lines}\n")).unwrap();
    let put = std::process::Command::new("install").args(["-m", "755"]).args([&text, &file]).status().unwrap();
    assert!(put.success());
    (dir, file)
}

/// Waits until a process is gone whose number a script left under this name. Who took in an orphan is not us: where nobody
/// takes note of its end, its entry stays.
async fn gone(dir: &TempDir, name: &str, orphan: bool) {
    let id = std::fs::read_to_string(dir.path().join(name)).unwrap();
    let id: u32 = id.trim().parse().unwrap();
    let gone = || match std::fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(stat) => orphan && stat.contains(") Z "),
        Err(_) => true,
    };
    eventually(&format!("{name} is gone"), async || gone().then_some(())).await;
}

/// What a script writes as a whole: the next run may be stopped at any moment.
fn noted(what: &str, name: &str) -> String {
    format!("echo {what} > \"$0.new\"; mv \"$0.new\" \"$0.{name}\"")
}

async fn listening() -> String {
    let address = backend(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    format!("\"{address}\"")
}

fn check(file: &Path, timeout: &str, backend: &str) -> String {
    let rule = format!("type = \"exec\"\ncommand = [\"{}\", \"a b\", \"$HOME\"]", file.display());
    with(&rule, backend)
        .replace("timeout = \"300ms\"", &format!("timeout = \"{timeout}\""))
        .replace("\"2s\"", "\"20s\"")
}

async fn first(text: &str) -> ProbeReport {
    let bench = Bench::start(text).await;
    let status = bench.until("a probe has ended", |status| probed(status).is_some()).await;
    bench.stop().await;
    probed(&status).unwrap().clone()
}

#[tokio::test]
async fn exit_code_0_is_good_and_the_last_line_is_kept() {
    let (_dir, file) = script("echo one; echo 'lag is 3 s' >&2; echo");
    let probe = first(&check(&file, "5s", &listening().await)).await;
    assert_eq!((probe.fault, probe.said.as_deref()), (None, Some("lag is 3 s")));
}

#[tokio::test]
async fn any_other_end_is_not() {
    for (lines, words) in [
        ("echo 'lag is 90 s'; exit 3", "lag is 90 s"),
        ("exit 3", "exit code 3"),
        ("kill -TERM $$", "killed by signal 15"),
    ] {
        let (_dir, file) = script(lines);
        let probe = first(&check(&file, "5s", &listening().await)).await;
        assert_eq!((probe.fault, probe.said.as_deref()), (Some(Fault::Unwell), Some(words)), "{lines}");
    }
}

#[tokio::test]
async fn the_reason_reaches_the_status() {
    let (dir, file) = script("cat \"$0.says\"; test \"$RELAIS_PORT\" != \"$(cat \"$0.bad\")\"");
    let says = |words: &str| {
        std::fs::write(dir.path().join("new"), words).unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join("check.says")).unwrap();
    };
    says("lag is 90 s\n");
    let (bad, good) = (listening().await, listening().await);
    let port = bad.trim_matches('"').rsplit(':').next().unwrap().to_owned();
    std::fs::write(dir.path().join("check.bad"), port).unwrap();
    let bench = Bench::start(&check(&file, "5s", &format!("{bad}, {good}"))).await;
    let down = |status: &Status| status.report.services[0].backends[0].health == Health::Down;
    let status = bench.until("it is down", down).await;
    let backend = &status.report.services[0].backends[0];
    assert!(backend.why.starts_with("says it is not well: lag is 90 s, "), "{}", backend.why);
    assert_eq!(status.report.services[0].check, Some(format!("exec {}", file.display())));
    says("no replication at all\n");
    let newer = |status: &Status| {
        status.report.services[0].backends[0].why.ends_with("; now: says it is not well: no replication at all")
    };
    bench.until("what it says by now is shown", newer).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_program_knows_whom_it_is_about_and_little_else() {
    let (dir, file) = script("{ env | sort; printf '%s|' \"$@\"; cat; echo; } >> \"$0.out\"");
    let backend = listening().await;
    let probe = first(&check(&file, "5s", &backend)).await;
    assert_eq!(probe.fault, None, "reading its input ended at once: {:?}", probe.said);
    let told = std::fs::read_to_string(dir.path().join("check.out")).unwrap();
    let (ip, port) = backend.trim_matches('"').rsplit_once(':').unwrap();
    for line in ["RELAIS_SERVICE=api", "RELAIS_SITE=default"] {
        assert!(told.lines().any(|told| told == line), "{line} in {told}");
    }
    assert!(told.contains(&format!("RELAIS_ADDRESS={ip}\n")) && told.contains(&format!("RELAIS_PORT={port}\n")));
    assert!(told.lines().any(|line| line.starts_with("PATH=/")), "{told}");
    assert!(told.contains("a b|$HOME|"), "arguments are as written: {told}");
    // What cargo and the shell set for us is not passed on.
    assert!(!told.contains("CARGO"), "{told}");
}

#[tokio::test]
async fn at_the_deadline_nothing_of_it_stays() {
    let (pid, child) = (noted("$$", "pid"), noted("$!", "child"));
    let (dir, file) = script(&format!("{pid}; sleep 300 & {child}; echo started; wait"));
    // On a busy machine a program may be stopped before it has come to its words.
    for deadline in ["500ms", "2s", "5s"] {
        let probe = first(&check(&file, deadline, &listening().await)).await;
        assert_eq!(probe.fault, Some(Fault::ResponseTimeout));
        if probe.said.is_some() || deadline == "5s" {
            assert_eq!(probe.said.as_deref(), Some("started"), "what it said before is told");
            break;
        }
    }
    gone(&dir, "check.pid", false).await;
    gone(&dir, "check.child", true).await;
}

#[tokio::test]
async fn a_child_left_behind_does_not_hold_up_the_answer_and_ends_too() {
    let (dir, file) = script(&format!("sleep 300 & {}; echo fine", noted("$!", "child")));
    let bench = Bench::start(&check(&file, "4s", &listening().await)).await;
    let status = bench.until("a probe has ended", |status| probed(status).is_some()).await;
    let probe = probed(&status).unwrap();
    assert_eq!((probe.fault, probe.said.as_deref()), (None, Some("fine")));
    assert!(probe.took_micros < 4_000_000, "{probe:?}");
    gone(&dir, "check.child", true).await;
    bench.stop().await;
}

#[tokio::test]
async fn ended_programs_leave_no_zombies() {
    let (dir, file) = script("echo $$ >> \"$0.pids\"");
    let bench = Bench::start(&check(&file, "5s", &listening().await)).await;
    bench.until("five probes", |status| status.report.services[0].backends[0].probes.len() >= 5).await;
    let ids = std::fs::read_to_string(dir.path().join("check.pids")).unwrap();
    for id in ids.lines().take(5) {
        assert!(!Path::new("/proc").join(id).exists(), "{id} is still there");
    }
    bench.stop().await;
}

#[tokio::test]
async fn what_cannot_be_run_says_so() {
    // The file is there, as far as the config can tell; what is to read it is not.
    let (_dir, file) = script("");
    std::fs::write(&file, "#!/nonexistent/sh\n").unwrap();
    let probe = first(&check(&file, "5s", &listening().await)).await;
    assert_eq!(probe.fault, Some(Fault::Unwell));
    let said = probe.said.unwrap();
    assert!(said.starts_with(&format!("cannot run {}: No such file", file.display())), "{said}");
}

#[tokio::test]
async fn a_backend_that_takes_no_connection_is_not_asked_further() {
    let (dir, file) = script("echo ran > \"$0.out\"");
    let probe = first(&check(&file, "5s", &format!("\"{}\"", nobody().await))).await;
    assert_eq!(probe.fault, Some(Fault::Refused));
    assert!(!dir.path().join("check.out").exists());
}
