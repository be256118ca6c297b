//! A new file: all of it or nothing, with a verdict that says why.

use relais_control::{Outcome, Trigger};

use crate::support::{Bench, HEAD, Hooked, TAKEN, answering};

fn three() -> String {
    format!("{HEAD}{}{}{}", answering("a"), answering("b"), answering("c"))
}

#[tokio::test]
async fn a_good_file_is_in_force_when_the_verdict_comes() {
    let bench = Bench::start(&three()).await;
    let before = bench.snapshot.load().generation;
    bench.write(&format!("{}{}", three(), answering("d")));
    let verdict = bench.handle.reload(false).await.unwrap();
    assert_eq!((verdict.outcome, verdict.trigger), (Outcome::Applied, Trigger::Request), "{verdict:?}");
    assert_eq!(bench.services(), ["a", "b", "c", "d"]);
    assert!(bench.snapshot.load().generation > before);
    assert_eq!(*bench.changed.borrow(), bench.snapshot.load().generation, "workers are told");
    assert_eq!(*bench.hooked.lock().unwrap(), [Hooked::Prepared, Hooked::Committed]);
    let status = bench.status().await;
    assert_eq!(status.reload.outcome, Outcome::Applied);
    assert!(status.alarms.is_empty(), "{:?}", status.alarms);
    bench.stop().await;
}

#[tokio::test]
async fn a_file_with_errors_changes_nothing_and_says_why_everywhere() {
    let bench = Bench::start(&three()).await;
    let before = bench.snapshot.load_full();
    bench.write(&format!("{}[service.d]\nhots = [\"d.fr\"]\n", three()));
    let verdict = bench.handle.reload(false).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Refused);
    assert!(verdict.message.contains("hots"), "{}", verdict.message);
    assert!(std::sync::Arc::ptr_eq(&before, &bench.snapshot.load_full()), "nothing was published");
    assert!(bench.hooked.lock().unwrap().is_empty());
    let status = bench.status().await;
    assert_eq!(status.reload.outcome, Outcome::Refused);
    assert_eq!(status.alarms.iter().map(|alarm| alarm.about).collect::<Vec<_>>(), ["config"]);

    bench.write(&three());
    assert_eq!(bench.handle.reload(false).await.unwrap().outcome, Outcome::Unchanged);
    assert!(bench.status().await.alarms.is_empty(), "the alarm is over");
    bench.stop().await;
}

#[tokio::test]
async fn a_file_that_drops_most_services_needs_force() {
    let bench = Bench::start(&three()).await;
    bench.write(&format!("{HEAD}{}", answering("a")));
    let verdict = bench.handle.reload(false).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Refused);
    assert!(verdict.message.contains("drop 2 of 3"), "{}", verdict.message);
    assert!(verdict.help.as_deref().is_some_and(|help| help.contains("relais reload --force")), "{verdict:?}");
    assert_eq!(bench.services().len(), 3);

    let verdict = bench.handle.reload(true).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Applied);
    assert_eq!(bench.services(), ["a"]);
    bench.stop().await;
}

#[tokio::test]
async fn an_empty_or_missing_file_changes_nothing() {
    let bench = Bench::start(&three()).await;
    for text in ["", "bad", "[edge]\n"] {
        bench.write(text);
        assert_eq!(bench.handle.reload(false).await.unwrap().outcome, Outcome::Refused, "{text:?}");
    }
    std::fs::remove_file(bench.path()).unwrap();
    let verdict = bench.handle.reload(true).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Refused);
    assert!(verdict.message.contains("cannot read"), "{}", verdict.message);
    assert_eq!(bench.services().len(), 3);
    bench.stop().await;
}

#[tokio::test]
async fn an_address_in_use_refuses_the_whole_file() {
    let bench = Bench::start(&three()).await;
    let before = bench.snapshot.load_full();
    let listener = format!("[listener.{TAKEN}]\naddress = \"127.0.0.1:8081\"\nprotocol = \"http\"\n");
    bench.write(&format!("{}{listener}{}", three(), answering("d")));
    let verdict = bench.handle.reload(false).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Refused);
    assert!(verdict.message.contains("127.0.0.1:8081 is in use"), "{}", verdict.message);
    assert!(std::sync::Arc::ptr_eq(&before, &bench.snapshot.load_full()), "nothing was published");
    assert_eq!(*bench.hooked.lock().unwrap(), [Hooked::Prepared, Hooked::Abandoned]);
    bench.stop().await;
}

#[tokio::test]
async fn a_missing_certificate_refuses_the_file_and_its_arrival_is_enough() {
    let bench = Bench::start(&three()).await;
    let (chain, key) = pem(&bench);
    let certificate = "[certificate.x]\ncert = \"x.pem\"\nkey = \"x.key\"\n";
    bench.write(&format!("{}{certificate}", three()));
    let verdict = bench.handle.reload(false).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Refused);
    assert!(verdict.message.contains("x.pem"), "{}", verdict.message);
    assert!(bench.snapshot.load().config.certificates.is_empty());
    // Once the watcher has judged the file too, only the certificate can make the difference.
    bench.until("the watcher's own refusal", |status| status.reload.trigger == Trigger::Watch).await;

    std::fs::write(bench.dir.path().join("x.key"), &key).unwrap();
    std::fs::write(bench.dir.path().join("x.pem"), &chain).unwrap();
    bench.until("the file is taken", |status| status.reload.outcome == Outcome::Applied).await;
    assert_eq!(bench.snapshot.load().config.certificates.len(), 1);

    // The running certificate is replaced by nonsense: the old one stays, loudly.
    std::fs::write(bench.dir.path().join("x.pem"), "nonsense").unwrap();
    bench.until("the alarm", |status| status.alarms.iter().any(|alarm| alarm.about == "certificates")).await;
    assert_eq!(bench.certs.certificates().iter().filter(|c| c.name == "x").count(), 1);
    std::fs::write(bench.dir.path().join("x.pem"), &chain).unwrap();
    bench.until("the alarm is over", |status| status.alarms.is_empty()).await;
    bench.stop().await;
}

/// A certificate with its key: those of the local CA itself are at hand.
fn pem(bench: &Bench) -> (Vec<u8>, Vec<u8>) {
    let state = bench.dir.path().join("other-state");
    std::fs::create_dir_all(&state).unwrap();
    relais_tls::internal_ca::ensure(&state).unwrap();
    let root = relais_tls::internal_ca::root_path(&state);
    let mut key = None;
    for entry in std::fs::read_dir(root.parent().unwrap()).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        if String::from_utf8_lossy(&text).contains("PRIVATE KEY") {
            key = Some(text);
        }
    }
    (std::fs::read(root).unwrap(), key.expect("the CA has a key"))
}

#[tokio::test]
async fn an_unchanged_file_says_so() {
    let bench = Bench::start(&three()).await;
    let before = bench.snapshot.load_full();
    let verdict = bench.handle.reload(false).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Unchanged);
    let said = "unchanged: what the file says has been in force since the start ";
    assert!(verdict.message.starts_with(said), "{verdict:?}");
    bench.write(&format!("# a remark\n{}", three()));
    assert_eq!(bench.handle.reload(false).await.unwrap().outcome, Outcome::Unchanged, "remarks are no change");
    assert!(std::sync::Arc::ptr_eq(&before, &bench.snapshot.load_full()));
    bench.stop().await;
}

#[tokio::test]
async fn what_cannot_change_while_running_is_named() {
    let bench = Bench::start(&three()).await;
    bench.write(&format!("[edge]\nworkers = 7\n{}{}", three(), answering("d")));
    let verdict = bench.handle.reload(false).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Applied);
    assert!(verdict.warnings.iter().any(|w| w == "`[edge] workers` takes effect at the next start"), "{verdict:?}");
    bench.stop().await;
}

#[tokio::test]
async fn the_log_level_follows_the_file_only_when_the_file_changes_it() {
    let bench = Bench::start(&format!("{}[log]\nlevel = \"info\"\n", three())).await;
    assert_eq!(bench.handle.set_log_level("debug").await.unwrap(), "debug");
    bench.write(&format!("{}{}[log]\nlevel = \"info\"\n", three(), answering("d")));
    bench.handle.reload(false).await.unwrap();
    assert_eq!(bench.handle.log_level().await.unwrap(), "debug", "set by hand, untouched by the file");
    bench.write(&format!("{}{}[log]\nlevel = \"warn\"\n", three(), answering("d")));
    bench.handle.reload(false).await.unwrap();
    assert_eq!(bench.handle.log_level().await.unwrap(), "warn");
    assert_eq!(*bench.levels.lock().unwrap(), ["debug", "warn"]);
    bench.handle.set_log_level("nonsense").await.unwrap_err();
    assert_eq!(bench.handle.log_level().await.unwrap(), "warn");
    bench.stop().await;
}

#[tokio::test]
async fn many_reloads_at_once_all_get_an_answer() {
    let bench = Bench::start(&three()).await;
    bench.write(&format!("{}{}", three(), answering("d")));
    let asks: Vec<_> = (0..20)
        .map(|_| {
            let handle = bench.handle.clone();
            tokio::spawn(async move { handle.reload(false).await.unwrap().outcome })
        })
        .collect();
    for ask in asks {
        assert_ne!(ask.await.unwrap(), Outcome::Refused);
    }
    assert_eq!(bench.services().len(), 4);
    bench.stop().await;
}
