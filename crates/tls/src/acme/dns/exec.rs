//! A program of the operator's that changes the DNS: `PROGRAM ARGUMENTS... present|cleanup FQDN VALUE`. May run it;
//! whatever happens, nothing of the program stays behind: at the deadline it is killed with all its children.

use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::fault::{DnsFault, quoted};
use super::{Action, Undo};

/// How much of the output is kept: its end.
const OUTPUT: usize = 4096;
/// After the program's end, output that it wrote before is waited for so long: a child it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Where programs are looked for by a script, when relais itself was not told.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
        // A bare name would be looked for in `PATH`: it is a file like any other in the config.
        let program = if program.components().count() == 1 { Path::new(".").join(program) } else { program.into() };
        Self { program, arguments: arguments.to_vec(), within, alone: Mutex::new(()) }
    }

    pub(super) async fn run(&self, action: Action, undo: &Undo) -> Result<(), DnsFault> {
        let _alone = self.alone.lock().await;
        let name = self.program.display();
        let (mut child, output) = self.start(action, undo).map_err(|fault| {
            let help = "check that the file is there, is executable, and begins with a `#!` line or is a program";
            DnsFault::new(format!("cannot run {name}: {fault}"), help)
        })?;
        let mut output = Output { pipe: output, end: Vec::new(), open: true };
        let end = tokio::time::timeout(self.within, output.until(&mut child)).await;
        let words = output.words();
        match end {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(DnsFault::new(
                format!("{name} {action} {} {}{words}", undo.fqdn, ending(status)),
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

    /// Starts the program in a process group of its own. It gets no input, and of our environment, where secrets may be,
    /// only `PATH` and `HOME`.
    fn start(&self, action: Action, undo: &Undo) -> io::Result<(Program, Receiver)> {
        let (reader, writer) = io::pipe()?;
        let home = std::env::var_os("HOME").map(|home| ("HOME", home));
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .args([action.as_str(), &undo.fqdn, &undo.value])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
            .envs(home)
            .env("RELAIS_ACTION", action.as_str())
            .env("RELAIS_FQDN", &undo.fqdn)
            .env("RELAIS_VALUE", &undo.value)
            .env("RELAIS_HOST", &undo.host)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()?;
        let program = Program(Some(child));
        Ok((program, receiver(reader)?))
    }
}

fn receiver(reader: PipeReader) -> io::Result<Receiver> {
    Receiver::from_owned_fd(OwnedFd::from(reader))
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// A program that runs. Dropping it kills it with its process group and awaits its end elsewhere.
struct Program(Option<Child>);

impl Program {
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        match &mut self.0 {
            Some(child) => child.wait().await,
            None => Err(io::Error::other("no program")),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        // No id: its end was seen, and the number may be another's by now.
        let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else { return };
        if let Err(error) = kill_process_group(id, Signal::KILL) {
            tracing::debug!(%error, "a DNS program that is overdue could not be killed");
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { child.wait().await });
        }
    }
}

/// The end of what a program prints.
struct Output {
    pipe: Receiver,
    end: Vec<u8>,
    open: bool,
}

impl Output {
    /// Reads until the program has ended, so that a full pipe never holds it up.
    async fn until(&mut self, program: &mut Program) -> io::Result<ExitStatus> {
        let status = loop {
            tokio::select! {
                status = program.ended() => break status?,
                () = self.more(), if self.open => {}
            }
        };
        let rest = async {
            while self.open {
                self.more().await;
            }
        };
        // Running out of this time only loses words.
        let _ = tokio::time::timeout(LAST_WORDS, rest).await;
        Ok(status)
    }

    async fn more(&mut self) {
        let mut some = [0; 1024];
        match self.pipe.read(&mut some).await {
            Ok(read) if read > 0 => {
                self.end.extend_from_slice(&some[..read]);
                let surplus = self.end.len().saturating_sub(OUTPUT);
                self.end.drain(..surplus);
            }
            _ => self.open = false,
        }
    }

    /// Its last lines.
    fn words(&self) -> String {
        const LINES: usize = 3;
        let text = String::from_utf8_lossy(&self.end);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return ", saying nothing".to_owned();
        }
        format!(", saying {}", quoted(&lines[lines.len().saturating_sub(LINES)..].join(" "), &[]))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hang.sh");
        let text = format!("#!/bin/sh\necho waiting\nsleep 3600 &\necho $! >{}/child\nwait\n", dir.path().display());
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let undo = Undo { provider: "x".into(), host: "a.test".into(), fqdn: "n.a.test".into(), value: "v".into() };
        let exec = Exec::new(&file, &[], Duration::from_secs(2));
        let said = exec.run(Action::Present, &undo).await.unwrap_err().to_string();
        assert!(said.contains("present n.a.test did not end in 2s and was stopped, saying \"waiting\"; "), "{said}");
        let child = std::fs::read_to_string(dir.path().join("child")).unwrap();
        // Dead, or a zombie that its new parent has not yet looked at.
        let gone = || match std::fs::read_to_string(format!("/proc/{}/stat", child.trim())) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        let end = Instant::now() + Duration::from_secs(20);
        while !gone() {
            assert!(Instant::now() < end, "the child {child} lives on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
