//! Programs of the operator's: a health check, a change of the DNS. May run them; knows neither what they are for nor
//! what their end means. Whatever happens, nothing of a program's process group stays behind: what it leaves running is
//! killed, and it itself, with all its children, when it is dropped before its end. It gets no input, and of our environment, where
//! secrets may be, only `PATH`.

mod usable;

use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

pub use usable::{Unusable, unusable};

/// How much of the output is kept: its end.
const OUTPUT: usize = 4096;
/// After the program's end, output that it wrote before is waited for so long: a child it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Its end is looked for at least so often.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// What it left behind is dead so soon after it was killed, in so many looks.
const LOOKS: usize = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// Where programs are looked for by a script, when relais itself was not told.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command that runs `program`, for its caller to add arguments and variables to. A bare name is not looked for in
/// `PATH`: it is a file like any other in the config.
pub fn command(program: &Path) -> Command {
    let mut command = match program.components().count() {
        1 => Command::new(Path::new(".").join(program)),
        _ => Command::new(program),
    };
    command.env_clear().env("PATH", path());
    command
}

fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| PATH.into())
}

/// How a program ended, in words: `exit code 2`, `killed by signal 9`.
pub fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// A program that runs, in a process group of its own, and what it prints.
#[derive(Debug)]
pub struct Program {
    running: Running,
    output: Output,
}

impl Program {
    /// Starts what [`command`] made.
    ///
    /// # Errors
    /// It cannot be run, or descriptors or processes have run out.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let child = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0).spawn();
        // The command holds the writing end: kept open, the output would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running(Some(child?));
        Ok(Self { running, output: Output { pipe: receiver(reader)?, end: Vec::new(), open: true } })
    }

    /// Reads until the program has ended, so that a full pipe never holds it up; `heard` gets what was said so far each
    /// time that there is more. What it leaves running is then killed. May be given up at any moment.
    ///
    /// # Errors
    /// Its end was not seen.
    pub async fn ended(&mut self, mut heard: impl FnMut(&[u8])) -> io::Result<ExitStatus> {
        let Self { running, output } = self;
        loop {
            tokio::select! {
                over = running.over() => break over?,
                () = output.more(), if output.open => heard(&output.end),
            }
        }
        let rest = async {
            while output.open {
                output.more().await;
                heard(&output.end);
            }
        };
        // Running out of this time only loses words.
        let _ = tokio::time::timeout(LAST_WORDS, rest).await;
        running.ended().await
    }

    /// The end of what it has printed so far, at most 4 KiB.
    pub fn said(&self) -> &[u8] {
        &self.output.end
    }
}

fn receiver(reader: PipeReader) -> io::Result<Receiver> {
    Receiver::from_owned_fd(OwnedFd::from(reader))
}

/// Dropping it kills it with its process group and awaits its end elsewhere.
#[derive(Debug)]
struct Running(Option<Child>);

impl Running {
    /// Its number and its group's, for as long as nobody has taken note of its end: afterwards they may be another's.
    fn group(&self) -> Option<Pid> {
        self.0.as_ref()?.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    /// Waits until it is over, and takes no note of it.
    async fn over(&self) -> io::Result<()> {
        let Some(id) = self.group() else { return Ok(()) };
        // Before the first look: an end after it is then told.
        let mut ends = signal(SignalKind::child())?;
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(id), look)?.is_none() {
            // Whoever started us may have had the signal blocked, and so may we.
            let _ = tokio::time::timeout(LOOK_AGAIN, ends.recv()).await;
        }
        Ok(())
    }

    /// Ends what is left of it, and says how it ended itself.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        let group = self.group();
        let Some(child) = &mut self.0 else { return Err(io::Error::other("no program")) };
        let status = child.wait().await?;
        bury(group).await;
        Ok(status)
    }

    fn kill(&self) {
        if let Some(group) = self.group()
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "what is left of a program could not be killed");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let group = self.group();
        let Some(mut child) = self.0.take().filter(|child| child.id().is_some()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = child.wait().await;
                bury(group).await;
            });
        }
    }
}

/// Takes note of the ends of those that a program left behind, where they became our own children: where this is the first
/// process, as in a container, nobody else does.
async fn bury(group: Option<Pid>) {
    let Some(group) = group else { return };
    for _ in 0..LOOKS {
        loop {
            match waitid(WaitId::Pgid(Some(group)), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // There are none.
                Err(_) => return,
            }
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// The end of what a program prints.
#[derive(Debug)]
struct Output {
    pipe: Receiver,
    end: Vec<u8>,
    open: bool,
}

impl Output {
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
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Instant;

    use super::*;

    fn script(dir: &Path, lines: &str) -> PathBuf {
        let file = dir.join("script.sh");
        // Put there by another process: a file that is open for writing, as in a child that another test just forks, cannot be run.
        let text = file.with_extension("text");
        std::fs::write(&text, format!("#!/bin/sh\n{lines}\n")).unwrap();
        let put = std::process::Command::new("install").args(["-m", "755"]).args([&text, &file]).status().unwrap();
        assert!(put.success());
        file
    }

    /// Waits until a process is dead, or a zombie that its new parent has not yet looked at.
    async fn gone(child: &str) {
        assert!(child.parse::<u32>().is_ok(), "no process id: {child:?}");
        let end = Instant::now() + Duration::from_secs(20);
        let gone = || match std::fs::read_to_string(format!("/proc/{child}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !gone() {
            assert!(Instant::now() < end, "the child {child} lives on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn one_that_is_given_up_leaves_no_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = script(dir.path(), "sleep 3600 &\necho $!\nwait");
        let mut program = Program::start(&mut command(&file)).unwrap();
        let mut child = String::new();
        let end = Instant::now() + Duration::from_secs(20);
        while child.is_empty() {
            assert!(Instant::now() < end, "it says nothing");
            let heard = |said: &[u8]| child = String::from_utf8_lossy(said).trim().to_owned();
            let ended = tokio::time::timeout(Duration::from_millis(20), program.ended(heard)).await;
            assert!(ended.is_err(), "{ended:?}");
        }
        assert_eq!(String::from_utf8_lossy(program.said()).trim(), child);
        drop(program);
        gone(&child).await;
    }

    #[tokio::test]
    async fn one_that_ends_leaves_no_children_either() {
        let dir = tempfile::tempdir().unwrap();
        let file = script(dir.path(), "sleep 3600 &\necho $!\nexit 3");
        let mut program = Program::start(&mut command(&file)).unwrap();
        let status = program.ended(|_| ()).await.unwrap();
        assert_eq!(ending(status), "exit code 3");
        gone(String::from_utf8_lossy(program.said()).trim()).await;
    }

    #[tokio::test]
    async fn where_orphans_become_our_children_they_leave_no_zombies() {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = script(dir.path(), "sleep 3600 &\necho $!\nexit 0");
        let mut program = Program::start(&mut command(&file)).unwrap();
        program.ended(|_| ()).await.unwrap();
        let child = String::from_utf8_lossy(program.said()).trim().to_owned();
        assert!(child.parse::<u32>().is_ok(), "no process id: {child:?}");
        let end = Instant::now() + Duration::from_secs(20);
        while Path::new("/proc").join(&child).exists() {
            assert!(Instant::now() < end, "nobody took note of the end of {child}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn more_than_a_pipe_holds_is_read_and_its_end_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = script(dir.path(), "head -c 300000 /dev/zero\necho the end\nexit 3");
        let mut program = Program::start(&mut command(&file)).unwrap();
        let status = program.ended(|_| ()).await.unwrap();
        assert_eq!(ending(status), "exit code 3");
        assert_eq!(program.said().len(), OUTPUT);
        assert!(program.said().ends_with(b"the end\n"));
    }

    #[tokio::test]
    async fn nothing_of_our_environment_reaches_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = script(dir.path(), "env");
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "cargo sets it for tests");
        let mut program = Program::start(command(&file).env("RELAIS_SAID", "x")).unwrap();
        program.ended(|_| ()).await.unwrap();
        let said = String::from_utf8_lossy(program.said());
        assert!(said.contains("PATH=") && said.contains("RELAIS_SAID=x"), "{said}");
        assert!(!said.contains("CARGO"), "{said}");
    }

    #[test]
    fn a_bare_name_is_a_file_here_and_not_looked_for() {
        assert_eq!(command(Path::new("true")).as_std().get_program(), "./true");
        assert_eq!(command(Path::new("/bin/true")).as_std().get_program(), "/bin/true");
    }
}
