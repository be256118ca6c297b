//! A program of the operator's that changes the DNS: `PROGRAM ARGUMENTS... present|cleanup FQDN VALUE`. May run it;
//! nothing of it stays behind.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use relais_program::Program;
use tokio::sync::Mutex;

use super::fault::{DnsFault, quoted};
use super::{Action, Undo};

#[derive(Debug)]
pub(super) struct Exec {
    program: PathBuf,
    arguments: Vec<String>,
    within: Duration,
    /// One call at a time: scripts read a zone, change it, and write it back.
    alone: Mutex<()>,
}

impl Exec {
    pub(super) fn new(program: &Path, arguments: &[String], within: Duration) -> Self {
        Self { program: program.into(), arguments: arguments.to_vec(), within, alone: Mutex::new(()) }
    }

    pub(super) async fn run(&self, action: Action, undo: &Undo) -> Result<(), DnsFault> {
        let _alone = self.alone.lock().await;
        let name = self.program.display();
        let mut program = self.start(action, undo).map_err(|fault| {
            let help = "check that the file is there, is executable, and begins with a `#!` line or is a program";
            DnsFault::new(format!("cannot run {name}: {fault}"), help)
        })?;
        let end = tokio::time::timeout(self.within, program.ended(|_| ())).await;
        let words = words(program.said());
        match end {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(DnsFault::new(
                format!("{name} {action} {}: {}{words}", undo.fqdn, relais_program::ending(status)),
                format!("run `{name} {action} {} {}` by hand to see more", undo.fqdn, undo.value),
            )),
            Ok(Err(fault)) => {
                Err(DnsFault::new(format!("the end of {name} was not seen: {fault}"), "it is tried again"))
            }
            Err(_) => Err(DnsFault::new(
                format!("{name} {action} {} did not end in {:?} and was stopped{words}", undo.fqdn, self.within),
                "let it end as soon as the provider has taken the record; relais itself waits until it is seen",
            )),
        }
    }

    /// Scripts of providers keep their accounts in `HOME`.
    fn start(&self, action: Action, undo: &Undo) -> io::Result<Program> {
        let mut command = relais_program::command(&self.program);
        command
            .args(&self.arguments)
            .args([action.as_str(), &undo.fqdn, &undo.value])
            .envs(std::env::var_os("HOME").map(|home| ("HOME", home)))
            .env("RELAIS_ACTION", action.as_str())
            .env("RELAIS_FQDN", &undo.fqdn)
            .env("RELAIS_VALUE", &undo.value)
            .env("RELAIS_HOST", &undo.host);
        Program::start(&mut command)
    }
}

/// Its last lines.
fn words(said: &[u8]) -> String {
    const LINES: usize = 3;
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return ", saying nothing".to_owned();
    }
    format!(", saying {}", quoted(&lines[lines.len().saturating_sub(LINES)..].join(" "), &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_hangs_is_stopped_and_its_words_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hang.sh");
        // Put there by another process: a file that is open for writing, as in a child that another test just forks, cannot be run.
        let text = file.with_extension("text");
        std::fs::write(&text, "#!/bin/sh\necho waiting\nsleep 3600\n").unwrap();
        let put = std::process::Command::new("install").args(["-m", "755"]).args([&text, &file]).status().unwrap();
        assert!(put.success());
        let undo = Undo { provider: "x".into(), host: "a.test".into(), fqdn: "n.a.test".into(), value: "v".into() };
        let exec = Exec::new(&file, &[], Duration::from_secs(3));
        let said = exec.run(Action::Present, &undo).await.unwrap_err().to_string();
        assert!(said.contains("present n.a.test did not end in 3s and was stopped, saying \"waiting\"; "), "{said}");
    }
}
