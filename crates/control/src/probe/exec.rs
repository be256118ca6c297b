//! A program of the operator's as a check: exit code 0 is good. Whatever happens to the probe, nothing of the program
//! stays behind: at the deadline it is killed with all its children, and its end is always awaited.

use std::io::{self, PipeReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use relais_config::{Address, ExecCheck};
use relais_core::{Fault, ProbeOrder};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use super::fault::{self, Progress, Trouble};

/// How much of the output is kept: its end.
const OUTPUT: usize = 4096;
/// After the program's end, output that it wrote before is waited for so long: a child it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Where programs are looked for by a script, when relais itself was not told.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the program and judges its exit code.
pub(super) async fn run(
    check: &ExecCheck,
    order: &ProbeOrder,
    address: Option<SocketAddr>,
    progress: &Progress,
) -> Result<(), Trouble> {
    let (mut program, output) = match start(check, order, address) {
        Ok(started) => started,
        // The limit of processes is a shortage, too.
        Err(error) if fault::is_shortage(&error) || error.kind() == io::ErrorKind::WouldBlock => {
            return Err(Trouble::Local(error));
        }
        Err(error) => {
            progress.say(format!("cannot run {}: {error}", check.program.display()).as_bytes());
            return Err(Fault::Unwell.into());
        }
    };
    let mut output = Output { pipe: output, end: Vec::new(), open: true };
    let status = loop {
        tokio::select! {
            status = program.ended() => break status.map_err(Trouble::Local)?,
            () = output.more(), if output.open => output.tell(progress),
        }
    };
    let rest = async {
        while output.open {
            output.more().await;
        }
    };
    // Running out of this time only loses words.
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    output.tell(progress);
    if status.success() {
        return Ok(());
    }
    if progress.said().is_none() {
        progress.say(ending(status).as_bytes());
    }
    Err(Fault::Unwell.into())
}

/// Starts the program in a process group of its own. It gets no input, and nothing of our environment but `PATH`, where
/// secrets may be.
fn start(check: &ExecCheck, order: &ProbeOrder, address: Option<SocketAddr>) -> io::Result<(Program, Receiver)> {
    let (reader, writer) = io::pipe()?;
    let id = &order.backend.id;
    let host = match (address, &order.backend.address) {
        (Some(address), _) => address.ip().to_string(),
        (None, Address::Unix(path)) => path.display().to_string(),
        (None, other) => other.to_string(),
    };
    // A bare name would be looked for in `PATH`: it is a file like any other in the config.
    let file = if check.program.components().count() == 1 {
        std::path::Path::new(".").join(&check.program)
    } else {
        check.program.clone()
    };
    let child = Command::new(file)
        .args(&check.arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
        .env("RELAIS_SERVICE", &*id.service)
        .env("RELAIS_SITE", &*id.site)
        .env("RELAIS_ADDRESS", host)
        .env("RELAIS_PORT", address.map(|address| address.port().to_string()).unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    let program = Program(Some(child));
    Ok((program, receiver(reader)?))
}

fn receiver(reader: PipeReader) -> io::Result<Receiver> {
    Receiver::from_owned_fd(OwnedFd::from(reader))
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "it ended".to_owned(),
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
            tracing::debug!(%error, "a check that is overdue could not be killed");
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

    /// Its last line is what the check says.
    fn tell(&self, progress: &Progress) {
        let mut lines = self.end.split(|byte| matches!(byte, b'\n' | b'\r'));
        if let Some(last) = lines.rfind(|line| !line.trim_ascii().is_empty()) {
            progress.say(last);
        }
    }
}
