//! `relais upgrade` in the edge that runs: a new process with the executable that is installed now gets the listening sockets
//! and the state directory; when it serves it says so by a signal, and this one drains. When it does not, all is as before.
//!
//! Both accept on the same sockets for a moment, so no connection is refused and none is reset. Decides nothing about traffic.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use relais::Edge;
use rustix::process::{Pid, Signal, getppid, kill_process};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

/// How long the successor may take until it serves. A thousand certificates are read in a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the new executable may take to look at the config file.
const LOOK: Duration = Duration::from_secs(20);
/// The number of the first socket that is handed over, as systemd has it.
const FIRST: i32 = 3;
/// The process whose place this one takes.
const PREDECESSOR: &str = "RELAIS_PREDECESSOR";

/// Where the answer to an order goes.
pub(super) type Reply = oneshot::Sender<Result<u32, String>>;

/// How this process was started, and so its successor is.
pub(super) struct Program {
    executable: PathBuf,
    arguments: Vec<OsString>,
    /// The config file, unless mistakes in it are no reason not to start.
    file: Option<PathBuf>,
}

impl Program {
    /// To be asked at the start: later the executable may be another one, and the system calls this one deleted.
    pub(super) fn of_this_process(file: Option<&Path>) -> std::io::Result<Self> {
        Ok(Self {
            executable: std::env::current_exe()?,
            arguments: std::env::args_os().skip(1).collect(),
            file: file.map(Path::to_path_buf),
        })
    }

    /// Whether the executable that is there now runs at all, and takes the config file.
    async fn check(&self) -> Result<(), String> {
        let executable = self.executable.display();
        let mut look = tokio::process::Command::new(&self.executable);
        match &self.file {
            Some(file) => look.arg("check").arg(file),
            None => look.arg("--version"),
        };
        let looked = timeout(LOOK, look.kill_on_drop(true).output()).await;
        let output = match looked {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(format!("{executable} cannot be started: {error}")),
            Err(_) => return Err(format!("{executable} did not look at the config in {} s", LOOK.as_secs())),
        };
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{executable} refuses:\n{}", String::from_utf8_lossy(&output.stderr).trim_end())),
        }
    }
}

/// A successor that was started and does not serve yet.
pub(super) struct Successor {
    child: Child,
    pid: u32,
    until: Instant,
    reply: Option<Reply>,
}

impl Successor {
    /// Starts it. Without one everything is as before, and who asked has been told.
    pub(super) async fn start(edge: &Edge, program: &Program, reply: Option<Reply>) -> Option<Self> {
        match spawned(edge, program).await {
            Ok((child, pid)) => {
                tracing::info!(pid, "upgrade: the successor is started");
                Some(Self { child, pid, until: Instant::now() + PATIENCE, reply })
            }
            Err(why) => {
                refuse(reply, why);
                None
            }
        }
    }

    /// Resolves, with the reason, when it will never serve. Dropping the wait loses nothing.
    pub(super) async fn failed(&mut self) -> String {
        tokio::select! {
            ended = self.child.wait() => match ended {
                Ok(status) => format!("the successor ended ({status}); its last words are in the log"),
                Err(error) => format!("the successor is lost: {error}"),
            },
            () = sleep_until(self.until) => {
                // It may have ended by itself just now.
                let _ = self.child.kill().await;
                format!("the successor did not serve within {} s and was stopped", PATIENCE.as_secs())
            }
        }
    }

    /// It will not serve: everything is as before.
    pub(super) fn give_up(mut self, edge: &Edge, why: String) {
        // Where it has ended already there is nothing to end.
        let _ = self.child.start_kill();
        edge.succeed_myself();
        refuse(self.reply, why);
    }

    /// It serves: answers who asked. The process id.
    pub(super) fn serves(self) -> u32 {
        tracing::info!(pid = self.pid, "upgrade: the successor serves; what is in flight here may finish");
        if let Some(reply) = self.reply {
            // Whoever asked may have hung up.
            let _ = reply.send(Ok(self.pid));
        }
        self.pid
    }
}

/// No upgrade: says so to who asked, and to the log.
pub(super) fn refuse(reply: Option<Reply>, why: String) {
    tracing::error!("no upgrade: {why}");
    if let Some(reply) = reply {
        let _ = reply.send(Err(why));
    }
}

async fn spawned(edge: &Edge, program: &Program) -> Result<(Child, u32), String> {
    let own = std::process::id();
    if own == 1 {
        return Err("relais is the first process of a container, which ends with it: replace the container".to_owned());
    }
    program.check().await?;
    let sockets = edge.prepare_successor().map_err(|error| format!("nothing can be handed over: {error}"))?;
    let started = spawn(program, sockets.into_iter().map(OwnedFd::from).collect(), own);
    if started.is_err() {
        edge.succeed_myself();
    }
    started
}

fn spawn(program: &Program, sockets: Vec<OwnedFd>, own: u32) -> Result<(Child, u32), String> {
    let cannot = |error: &dyn std::fmt::Display| format!("{} cannot be started: {error}", program.executable.display());
    let mut command = Command::new(&program.executable);
    command.args(&program.arguments).env(PREDECESSOR, own.to_string());
    command.env("LISTEN_FDS", sockets.len().to_string()).env_remove("LISTEN_PID");
    let numbered = (FIRST..).zip(sockets);
    let mappings = numbered.map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
    command.fd_mappings(mappings).map_err(|error| cannot(&error))?;
    let child = tokio::process::Command::from(command).spawn().map_err(|error| cannot(&error))?;
    let pid = child.id().ok_or_else(|| cannot(&"it has ended"))?;
    Ok((child, pid))
}

/// The process whose place this one takes, if it was started to do so.
pub(super) struct Predecessor(Pid);

impl Predecessor {
    /// Who started this process, where that was for this.
    pub(super) fn of_this_process() -> Option<Self> {
        let told: i32 = std::env::var(PREDECESSOR).ok()?.parse().ok()?;
        // The variable may have come down from further up.
        getppid().filter(|parent| parent.as_raw_nonzero().get() == told).map(Self)
    }

    /// This one serves: that one may leave.
    pub(super) fn relieve(&self) {
        if let Err(error) = kill_process(self.0, Signal::USR1) {
            tracing::warn!("upgrade: the predecessor cannot be told: {error}");
        }
    }
}
