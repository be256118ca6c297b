//! The house rules that no compiler knows: who may import whom, what every source file owes its reader.
//!
//! Reads `cargo metadata` and the sources; starts nothing, touches no crate's inside. A rule that is broken is told
//! with all its places at once. The plan of the floors stands in the README: change both together.

#![cfg(test)]

mod metadata;
mod shipped;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use source::Source;

/// Each crate and the crates of the house it may import.
const FLOORS: &[(&str, &[&str])] = &[
    ("relais-config", &[]),
    ("relais-core", &["relais-config"]),
    ("relais-store", &["relais-core"]),
    ("relais-program", &[]),
    ("relais-attend", &["relais-core"]),
    ("relais-tls", &["relais-core", "relais-program"]),
    ("relais-proxy", &["relais-attend", "relais-core", "relais-tls"]),
    (
        "relais-control",
        &["relais-attend", "relais-config", "relais-core", "relais-program", "relais-store", "relais-tls"],
    ),
    ("relais", &["relais-config", "relais-core", "relais-store", "relais-tls", "relais-proxy", "relais-control"]),
];

/// What each crate may not depend on, because its floor may not touch what the dependency is for.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("relais-config", IMPURE),
    ("relais-core", IMPURE),
    ("relais-store", &["hyper", "rustls", "tokio-rustls", "socket2", "axum", "toml"]),
    ("relais-program", &["hyper", "rustls", "socket2", "sled", "toml"]),
    ("relais-attend", &["hyper", "rustls", "socket2", "sled", "toml"]),
    ("relais-tls", &["sled", "axum", "notify", "toml", "prometheus"]),
    ("relais-proxy", &["sled", "axum", "notify", "toml", "prometheus", "rcgen"]),
    ("relais-control", &["sled", "rcgen"]),
    ("relais", &["sled"]),
];

/// I/O, clocks, threads, locks and randomness by other names.
const IMPURE: &[&str] = &[
    "axum",
    "getrandom",
    "hyper",
    "hyper-util",
    "jiff",
    "libc",
    "mio",
    "notify",
    "parking_lot",
    "rand",
    "rustix",
    "rustls",
    "sled",
    "socket2",
    "tokio",
    "tokio-rustls",
    "tracing",
];

/// Lines a file may have, tests apart.
const FILE_LINES: usize = 400;

/// Lines a function should have at most; `LONG_SHARE` of them may have more.
const FUNCTION_LINES: usize = 70;

/// In percent.
const LONG_SHARE: usize = 2;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let sources = source::under(&root().join("crates"));
    assert!(sources.len() > 50, "only {} sources found: this test looks in the wrong place", sources.len());
    sources
}

/// Fails with the rule and every place that breaks it.
fn none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}; broken by:\n  {}", broken.join("\n  "));
}

#[test]
fn every_crate_has_its_floor_and_imports_only_downwards() {
    let edges = metadata::edges();
    let members: BTreeSet<&str> = edges.iter().map(|(member, _)| member.as_str()).collect();
    let rows: BTreeSet<&str> = FLOORS.iter().map(|(name, _)| *name).collect();
    assert_eq!(members, rows, "each crate of the workspace has one row in the table of floors");
    let allowed = |from: &str, to: &str| FLOORS.iter().any(|(name, below)| *name == from && below.contains(&to));
    let broken: Vec<String> = edges
        .iter()
        .flat_map(|(from, below)| below.iter().map(move |to| (from.as_str(), to.as_str())))
        .filter(|(from, to)| rows.contains(to) && !allowed(from, to))
        .map(|(from, to)| format!("{from} -> {to}"))
        .collect();
    none("an import goes down, as the table of floors says", &broken);
}

#[test]
fn no_crate_depends_on_what_its_floor_may_not_touch() {
    let edges = metadata::edges();
    let broken: Vec<String> = edges
        .iter()
        .flat_map(|(from, below)| below.iter().map(move |to| (from.as_str(), to.as_str())))
        .filter(|(from, to)| FORBIDDEN.iter().any(|(name, banned)| name == from && banned.contains(to)))
        .map(|(from, to)| format!("{from} -> {to}"))
        .collect();
    none("what a floor may not touch is not among its dependencies", &broken);
}

#[test]
fn only_the_store_knows_sled() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|source| !source.path.starts_with(root().join("crates/store")))
        .flat_map(|source| source.lines_with_word(&source.code, "sled"))
        .collect();
    none("sled is named in crates/store only", &broken);
}

#[test]
fn every_crate_takes_the_one_table_of_lints() {
    let broken: Vec<String> = metadata::manifests()
        .into_iter()
        .filter(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            !text.contains("\n[lints]\nworkspace = true\n")
        })
        .map(|path| path.display().to_string())
        .collect();
    none("each Cargo.toml says `[lints] workspace = true`", &broken);
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path.display().to_string())
        .collect();
    none("each file opens with `//!`", &broken);
}

#[test]
fn no_unsafe_code() {
    let broken: Vec<String> =
        sources().iter().flat_map(|source| source.lines_with_word(&source.code, "unsafe")).collect();
    none("no `unsafe`", &broken);
}

#[test]
fn nothing_is_left_for_later() {
    let broken: Vec<String> = sources()
        .iter()
        .flat_map(|source| {
            ["TODO", "FIXME", "XXX"].into_iter().flat_map(|mark| source.lines_with_word(&source.text, mark))
        })
        .collect();
    none("no marks for later: an issue is the place", &broken);
}

#[test]
fn nothing_panics_for_want_of_a_word() {
    let broken: Vec<String> = sources()
        .iter()
        .flat_map(|source| {
            [".unwrap()", ".expect("].into_iter().flat_map(|call| source.lines_with(&source.product, call))
        })
        .collect();
    none("no `.unwrap()` and no `.expect(` outside tests", &broken);
}

#[test]
fn no_file_is_long() {
    let broken: Vec<String> = sources()
        .iter()
        .map(|source| (source.product_lines, &source.path))
        .filter(|(lines, _)| *lines > FILE_LINES)
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()))
        .collect();
    none("a file has at most 400 lines, tests apart", &broken);
}

#[test]
fn long_functions_are_few() {
    let functions: Vec<source::Function> = sources().iter().flat_map(Source::functions).collect();
    let long: Vec<String> = functions
        .iter()
        .filter(|function| function.lines > FUNCTION_LINES)
        .map(|function| format!("{}: `{}` has {} lines", function.place, function.name, function.lines))
        .collect();
    println!("{} functions, {} over {FUNCTION_LINES} lines", functions.len(), long.len());
    if long.len() * 100 > functions.len() * LONG_SHARE {
        none("at most 2 % of the functions have more than 70 lines", &long);
    }
}

#[test]
fn what_the_readme_points_to_is_there() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let named: BTreeSet<PathBuf> = text
        .split(|c: char| c.is_whitespace() || "`()[],;".contains(c))
        .filter(|word| {
            ["crates/", "docker/", "benches/", "examples/", "tests/", "packaging/", ".ci/"]
                .iter()
                .any(|at| word.starts_with(at))
        })
        .map(|word| root().join(word.trim_end_matches(['.', ':'])))
        .collect();
    assert!(!named.is_empty(), "the README shows the way through the house");
    let broken: Vec<String> =
        named.iter().filter(|path| !path.exists()).map(|path| path.display().to_string()).collect();
    none("every path in the README exists", &broken);
}
