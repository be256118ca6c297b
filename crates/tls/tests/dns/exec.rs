//! A program of the operator's.

use std::path::{Path, PathBuf};

use relais_core::config::DnsProvider;
use relais_tls::acme::dns::Dns;
use tempfile::TempDir;

use crate::{blind, dns, plan, present, refused};

fn script(dir: &Path, text: &str) -> PathBuf {
    let file = dir.join("dns.sh");
    // Put there by another process: a file that is open for writing, as in a child that another test just forks, cannot be run.
    let whole = file.with_extension("text");
    std::fs::write(&whole, format!("#!/bin/sh\ncd {}\n{text}\n", dir.display())).unwrap();
    let put = std::process::Command::new("install").args(["-m", "755"]).args([&whole, &file]).status().unwrap();
    assert!(put.success());
    file
}

fn with(text: &str) -> (Dns, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let provider =
        DnsProvider::Exec { program: script(dir.path(), text), arguments: vec!["--zone".into(), "a b".into()] };
    (dns(blind(provider)), dir)
}

#[tokio::test]
async fn the_program_is_called_with_arguments_and_environment() {
    let (dns, dir) = with(
        "printf '%s|' \"$#\" \"$@\" >>calls; env | grep -v '^PWD\\|^_=\\|^SHLVL\\|^OLDPWD' | cut -d= -f1 | sort >env; printf '%s|' \"$RELAIS_ACTION\" \"$RELAIS_FQDN\" \"$RELAIS_VALUE\" \"$RELAIS_HOST\" >>calls; echo >>calls",
    );
    let presented = present(&dns, &[("*.a.test", "-v_1")]).await.unwrap();
    assert_eq!(presented.clean().await, []);
    let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
    let fqdn = "_acme-challenge.a.test";
    let call = |action: &str| format!("5|--zone|a b|{action}|{fqdn}|-v_1|{action}|{fqdn}|-v_1|a.test|\n");
    assert_eq!(calls, call("present") + &call("cleanup"));
    let known = std::fs::read_to_string(dir.path().join("env")).unwrap();
    let known: Vec<&str> = known.lines().filter(|name| *name != "HOME").collect();
    assert_eq!(known, ["PATH", "RELAIS_ACTION", "RELAIS_FQDN", "RELAIS_HOST", "RELAIS_VALUE"]);
}

#[tokio::test]
async fn what_it_says_is_in_the_error_and_it_is_called_to_clean_up() {
    let (dns, dir) = with("echo $3 >>calls; echo first; echo 'no such zone' >&2; [ $3 = cleanup ] || exit 3");
    let said = refused(&dns, "a.test").await;
    let program = dir.path().join("dns.sh");
    let expected = format!(
        "{} present _acme-challenge.a.test: exit code 3, saying \"first no such zone\"; run `",
        program.display()
    );
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(std::fs::read_to_string(dir.path().join("calls")).unwrap(), "present\ncleanup\n");
    let (dns, _dir) = with("kill -9 $$");
    let failed = present(&dns, &[("a.test", "v")]).await.unwrap_err();
    assert!(failed.fault.message.ends_with(": killed by signal 9, saying nothing"), "{failed}");
    assert_eq!(failed.left.len(), 1, "it could not clean up either");
}

#[tokio::test]
async fn a_program_that_is_none_is_said() {
    let provider = DnsProvider::Exec { program: "/no/such/program".into(), arguments: Vec::new() };
    let said = refused(&dns(blind(provider)), "a.test").await;
    assert!(said.starts_with("cannot run /no/such/program: No such file or directory"), "{said}");
    assert!(said.contains("; check that the file is there, is executable"), "{said}");
}

#[tokio::test]
async fn two_orders_never_run_it_at_the_same_time() {
    // As a script does that reads a zone, changes it and writes it back.
    let (dns, dir) = with(
        "mkdir lock || exit 9; old=$(cat zone 2>/dev/null); sleep 0.1; printf '%s\\n' \"$old\" \"$5\" >zone; rmdir lock",
    );
    let values: Vec<String> = (0..4).map(|number| format!("value-{number}")).collect();
    let mut orders = Vec::new();
    for value in &values {
        let (dns, planned) = (dns.clone(), plan(&dns, &[("a.test", value)]).await.unwrap());
        orders.push(tokio::spawn(async move { dns.present(planned).await.map(std::mem::forget) }));
    }
    for order in orders {
        order.await.unwrap().unwrap();
    }
    let zone = std::fs::read_to_string(dir.path().join("zone")).unwrap();
    assert!(values.iter().all(|value| zone.contains(value)), "{zone}");
}
