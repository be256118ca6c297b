//! Every way a file is saved is noticed, twice in a row: the second save is where naive watchers have gone deaf.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use relais_control::{Outcome, Trigger};

use crate::support::{Bench, DEADLINE, HEAD, answering, eventually};

fn with(name: &str) -> String {
    format!("{HEAD}{}{}", answering("always"), answering(name))
}

async fn sees(bench: &Bench, name: &str) {
    eventually(&format!("service {name} is in force"), async || {
        bench.services().contains(&name.to_string()).then_some(())
    })
    .await;
    let verdict = bench.status().await.reload;
    assert_eq!((verdict.outcome, verdict.trigger), (Outcome::Applied, Trigger::Watch), "{verdict:?}");
}

#[tokio::test]
async fn written_in_place() {
    let bench = Bench::start(&with("zero")).await;
    for name in ["one", "two"] {
        bench.write(&with(name));
        sees(&bench, name).await;
    }
    bench.stop().await;
}

#[tokio::test]
async fn renamed_over() {
    let bench = Bench::start(&with("zero")).await;
    for name in ["one", "two"] {
        let next = bench.dir.path().join("proxy.toml.new");
        std::fs::write(&next, with(name)).unwrap();
        std::fs::rename(&next, bench.path()).unwrap();
        sees(&bench, name).await;
    }
    bench.stop().await;
}

#[tokio::test]
async fn moved_aside_and_made_anew() {
    let bench = Bench::start(&with("zero")).await;
    for name in ["one", "two"] {
        std::fs::rename(bench.path(), bench.dir.path().join("proxy.toml~")).unwrap();
        bench.write(&with(name));
        sees(&bench, name).await;
    }
    bench.stop().await;
}

#[tokio::test]
async fn removed_and_made_a_moment_later() {
    let bench = Bench::start(&with("zero")).await;
    for name in ["one", "two"] {
        std::fs::remove_file(bench.path()).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.write(&with(name));
        sees(&bench, name).await;
    }
    bench.stop().await;
}

#[tokio::test]
async fn swapped_by_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let version = |name: &str| {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("proxy.toml"), with(name)).unwrap();
    };
    let swap = |dir: &Path, name: &str| {
        std::os::unix::fs::symlink(name, dir.join("..data_tmp")).unwrap();
        std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    };
    for name in ["zero", "one", "two"] {
        version(name);
    }
    swap(dir.path(), "zero");
    std::os::unix::fs::symlink("..data/proxy.toml", dir.path().join("proxy.toml")).unwrap();
    let bench = Bench::start_in(dir, Path::new("proxy.toml")).await;
    for name in ["one", "two"] {
        swap(bench.dir.path(), name);
        sees(&bench, name).await;
    }
    bench.stop().await;
}

#[tokio::test]
async fn its_directory_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("conf")).unwrap();
    std::fs::write(dir.path().join("conf/proxy.toml"), with("zero")).unwrap();
    let bench = Bench::start_in(dir, Path::new("conf/proxy.toml")).await;
    for name in ["one", "two"] {
        let at = |entry: &str| bench.dir.path().join(entry);
        std::fs::create_dir(at("next")).unwrap();
        std::fs::write(at("next/proxy.toml"), with(name)).unwrap();
        std::fs::rename(at("conf"), at(&format!("before-{name}"))).unwrap();
        std::fs::rename(at("next"), at("conf")).unwrap();
        sees(&bench, name).await;
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_part_named_by_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "{HEAD}[service.page]\nhosts = [\"page.fr\"]\nrespond = {{ status = 200, body_file = \"page.html\" }}\n"
    );
    std::fs::write(dir.path().join("proxy.toml"), text).unwrap();
    std::fs::write(dir.path().join("page.html"), "zero").unwrap();
    let bench = Bench::start_in(dir, Path::new("proxy.toml")).await;
    for body in ["one", "two"] {
        std::fs::write(bench.dir.path().join("page.html"), body).unwrap();
        eventually(&format!("body {body} is in force"), async || {
            let config = std::sync::Arc::clone(&bench.snapshot.load().config);
            match &config.services[0].action {
                relais_config::Action::Respond(answer) => (&*answer.body == body.as_bytes()).then_some(()),
                _ => None,
            }
        })
        .await;
    }
    bench.stop().await;
}

#[tokio::test]
async fn saved_between_parse_and_start() {
    // As after a start from the last good config: what is on disk differs from what runs.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.toml");
    std::fs::write(&path, with("zero")).unwrap();
    let loaded = relais_control::load(&path).unwrap();
    std::fs::write(&path, with("one")).unwrap();
    let bench = Bench::start_from(dir, path, loaded).await;
    sees(&bench, "one").await;
    bench.stop().await;
}

#[tokio::test]
async fn a_bad_save_is_told_once_and_a_good_one_heals() {
    let bench = Bench::start(&with("zero")).await;
    // In one step: a look at a file that is half written would be another judgement.
    let save = |text: &str| {
        std::fs::write(bench.dir.path().join("new"), text).unwrap();
        std::fs::rename(bench.dir.path().join("new"), bench.path()).unwrap();
    };
    save("not a config");
    let status = bench.until("the refusal", |status| status.reload.outcome == Outcome::Refused).await;
    assert_eq!(status.reload.trigger, Trigger::Watch);
    // The same bytes in another file: a look, but no second judgement.
    save("not a config");
    save(&with("one"));
    sees(&bench, "one").await;
    let metrics = bench.handle.metrics().await.unwrap();
    assert!(metrics.contains("relais_config_reloads_total{result=\"refused\"} 1\n"), "{metrics}");
    bench.stop().await;
}

const INSIDE: &str = "RELAIS_TEST_IN_MOUNT_NAMESPACE";

/// A single file mounted by itself. Needs a mount namespace of its own, so the test runs itself again inside one.
#[test]
fn a_single_file_bind_mount() {
    if std::env::var_os(INSIDE).is_some() {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(in_mount_namespace());
        return;
    }
    let can = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !can {
        eprintln!("SKIPPED: a_single_file_bind_mount needs the right to make a mount namespace (root)");
        return;
    }
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "watching::a_single_file_bind_mount", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "the inner test did not run: {said}");
}

async fn in_mount_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let host = tempfile::tempdir().unwrap();
    let outside = host.path().join("host.toml");
    std::fs::write(&outside, with("zero")).unwrap();
    std::fs::write(dir.path().join("proxy.toml"), "").unwrap();
    let mounted =
        Command::new("mount").arg("--bind").arg(&outside).arg(dir.path().join("proxy.toml")).status().unwrap();
    assert!(mounted.success(), "mount --bind");
    let bench = Bench::start_in(dir, Path::new("proxy.toml")).await;
    let warnings = bench.status().await.warnings;
    assert!(warnings.iter().any(|w| w.contains("mount the directory, not the file")), "{warnings:?}");
    for name in ["one", "two"] {
        std::fs::write(&outside, with(name)).unwrap();
        sees(&bench, name).await;
    }
    let path = bench.path();
    let dir = bench.stop().await;
    let unmounted = Command::new("umount").arg(&path).status().unwrap();
    assert!(unmounted.success(), "umount within {DEADLINE:?}");
    drop(dir);
}
