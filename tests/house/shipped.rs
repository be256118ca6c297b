//! The files that are shipped beside the program must fit it: configs, unit, container, alerts.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use super::{none, root};

fn relais(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_relais")).args(args).current_dir(root()).output().unwrap()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_config_of_the_containers_is_good() {
    let checked = relais(&["check", "docker/edge/proxy.toml"]);
    assert!(checked.status.success(), "{}", told(&checked));
    assert!(told(&checked).contains("good, 0 warnings"), "{}", told(&checked));
}

/// The indented blocks of a section of the README that begin with a table.
fn files_in_the_readme(heading: &str) -> Vec<String> {
    let readme = text("README.md");
    let (_, rest) = readme.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let mut blocks = vec![String::new()];
    for line in section.lines() {
        match (line.strip_prefix("    "), blocks.last_mut()) {
            (Some(line), Some(block)) => *block += &format!("{line}\n"),
            _ => blocks.push(String::new()),
        }
    }
    blocks.retain(|block| block.starts_with('['));
    blocks
}

#[test]
fn the_first_files_of_the_readme_are_good() {
    let files = files_in_the_readme("A first file");
    assert_eq!(files.len(), 2, "{files:#?}");
    let dir = tempfile::tempdir().unwrap();
    for file in &files {
        let path = dir.path().join("small.toml");
        std::fs::write(&path, file).unwrap();
        let checked = relais(&["check", path.to_str().unwrap()]);
        assert!(checked.status.success(), "{}", told(&checked));
        assert!(told(&checked).contains("good, 0 warnings"), "{}", told(&checked));
    }
    let ports = |file: &str| -> Vec<u16> {
        let after = file.split("address = \"127.0.0.1:").skip(1);
        after.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
    };
    let small = ports(&files[1]);
    assert!(small.len() == 3 && small.iter().all(|port| *port >= 1024), "an ordinary user can run it: {small:?}");
}

#[test]
fn every_command_in_the_unit_and_the_image_exists() {
    let unit = text("packaging/relais.service");
    let mut commands: Vec<Vec<&str>> = unit
        .lines()
        .filter_map(|line| line.split_once("=/usr/local/bin/relais "))
        .map(|(_, words)| words.split(' ').collect())
        .collect();
    assert_eq!(commands.len(), 2, "the unit starts and reloads");
    let image = text("docker/Dockerfile");
    let entry = image.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    let words: Vec<String> = serde_json::from_str(entry).unwrap();
    commands.push(words.iter().map(String::as_str).collect());
    let check = image.lines().find_map(|line| line.trim().strip_prefix("CMD relais ")).unwrap();
    commands.push(vec![check.split(' ').next().unwrap()]);
    let broken: Vec<String> = commands
        .into_iter()
        .map(|words| [words, vec!["--help"]].concat())
        .filter(|words| !relais(words).status.success())
        .map(|words| words.join(" "))
        .collect();
    none("the command line knows what the shipped files call", &broken);
}

#[test]
fn the_unit_gives_a_stop_more_time_than_a_drain_takes() {
    let seconds = |file: &str, before: &str| -> u64 {
        let text = text(file);
        let value = text.lines().find_map(|line| line.strip_prefix(before)).unwrap();
        value.split('s').next().unwrap().parse().unwrap()
    };
    let drain = seconds("proxy.toml", "#= drain = \"");
    assert!(seconds("packaging/relais.service", "TimeoutStopSec=") >= drain + 10);
    let (grace, drain) =
        (seconds("docker/compose.yaml", "    stop_grace_period: "), seconds("docker/edge/proxy.toml", "drain = \""));
    assert!(grace > drain, "compose.yaml stops the edge after {grace} s, its drain takes up to {drain} s");
}

#[test]
fn every_metric_in_the_alerts_is_served() {
    let mut sources = String::new();
    for source in super::source::under(&root().join("crates/control/src/metrics")) {
        sources.push_str(&source.text);
    }
    let alerts = text("docker/alerts.yml");
    let named: BTreeSet<&str> = alerts
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("relais_"))
        .collect();
    assert!(named.len() >= 5, "{named:?}");
    let broken: Vec<String> =
        named.into_iter().filter(|name| !sources.contains(&format!("\"{name}\""))).map(str::to_owned).collect();
    none("an alert uses metrics that exist", &broken);
}

#[test]
fn prometheus_accepts_its_files() {
    // Not everybody who runs the tests has Prometheus; where a change is judged it is there.
    let there = Command::new("promtool").arg("--version").output().is_ok();
    assert!(there || std::env::var_os("CI").is_none(), "promtool is missing: it is in Debian's package `prometheus`");
    if !there {
        return;
    }
    for (what, file) in [("config", "prometheus.yml"), ("rules", "alerts.yml")] {
        let checked =
            Command::new("promtool").args(["check", what, file]).current_dir(root().join("docker")).output().unwrap();
        assert!(checked.status.success(), "{}", told(&checked));
    }
    let tested =
        Command::new("promtool").args(["test", "rules", "tests/house/alerts.yml"]).current_dir(root()).output();
    let tested = tested.unwrap();
    assert!(tested.status.success(), "{}", told(&tested));
}
