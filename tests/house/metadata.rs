//! What cargo knows of the workspace: its crates and what each depends on. Asks no registry.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

fn packages() -> Vec<Value> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let asked = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(asked.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&asked.stderr));
    let told: Value = serde_json::from_slice(&asked.stdout).unwrap();
    told["packages"].as_array().unwrap().clone()
}

/// Every crate of the workspace with all it depends on: normally, to build and to test.
pub(crate) fn edges() -> Vec<(String, Vec<String>)> {
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    packages()
        .iter()
        .map(|package| (name(package), package["dependencies"].as_array().unwrap().iter().map(name).collect()))
        .collect()
}

/// The Cargo.toml of every crate.
pub(crate) fn manifests() -> Vec<PathBuf> {
    packages().iter().map(|package| PathBuf::from(package["manifest_path"].as_str().unwrap())).collect()
}
