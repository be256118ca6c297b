//! `relais upgrade` in the edge that runs: a new process with the executable that is installed now gets the listening sockets
//! and the state directory; when it serves it says so by a signal, and this one drains. When it does not, all is as before.
//!
//! Both accept on the same sockets for a moment, so no connection is refused and none is reset. Decides nothing about traffic.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
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
        let mut arguments = std::env::args_os();
        // As it was typed: a link may lead to another version by then.
        let typed = arguments.next().map(PathBuf::from).filter(|typed| typed.components().count() > 1);
        let executable = match typed {
            Some(typed) => std::path::absolute(typed)?,
            None => std::env::current_exe()?,
        };
        Ok(Self { executable, arguments: arguments.collect(), file: file.map(Path::to_path_buf) })
    }

    /// Whether the executable that is there now runs at all, and takes the config file.
    async fn check(self: Arc<Self>) -> Result<(), String> {
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

/// Where this process stands among those that follow one another.
pub(super) struct Standing {
    pub(super) predecessor: Option<Predecessor>,
    pub(super) is_stopping: bool,
}

/// How far an upgrade has come.
pub(super) enum Upgrading {
    /// There is none.
    No,
    /// The new executable looks at the config file.
    Checking(Pin<Box<dyn Future<Output = Result<(), String>>>>, Option<Reply>),
    /// It is started.
    Starting(Successor),
    /// It serves, and this edge drains.
    Served(Child),
    /// It served, and has ended before this edge had.
    Died,
}

/// What happened to one.
pub(super) enum Step {
    /// The new executable runs, and takes the config file; or why not.
    Checked(Result<(), String>),
    /// The successor will never serve.
    Failed(String),
    /// It served, and has ended; whether as one that was told to.
    Ended { well: bool },
}

impl Upgrading {
    /// Begins one, unless there is one or this edge ends.
    pub(super) fn begin(&mut self, program: &std::io::Result<Arc<Program>>, standing: &Standing, reply: Option<Reply>) {
        match (program, &self) {
            _ if standing.is_stopping => refuse(reply, "the edge is stopping"),
            // Two at once could not both tell systemd who is the main one.
            _ if standing.predecessor.as_ref().is_some_and(Predecessor::is_there) => {
                refuse(
                    reply,
                    "the process before this one still finishes what it has in flight: try again when it has ended",
                );
            }
            (Ok(program), Self::No) => *self = Self::Checking(Box::pin(Arc::clone(program).check()), reply),
            (Ok(_), _) => refuse(reply, "one is under way"),
            (Err(error), _) => refuse(reply, &format!("it is not known which executable this is: {error}")),
        }
    }

    /// The next step; never, where there is none. Dropping the wait loses nothing.
    pub(super) async fn step(&mut self) -> Step {
        match self {
            Self::No | Self::Died => std::future::pending().await,
            Self::Checking(check, _) => Step::Checked(check.await),
            Self::Starting(successor) => Step::Failed(successor.failed().await),
            Self::Served(child) => match child.wait().await {
                Ok(status) => Step::Ended { well: status.success() },
                // It is alive, as far as anybody can tell.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// The new executable may take the place of this one: starts it.
    pub(super) fn start(&mut self, edge: &Edge, program: &Program) {
        let Self::Checking(_, reply) = std::mem::replace(self, Self::No) else { return };
        match spawned(edge, program) {
            Ok((child, pid)) => {
                tracing::info!(pid, "upgrade: the successor is started");
                *self = Self::Starting(Successor { child, pid, until: Instant::now() + PATIENCE, reply });
            }
            Err(why) => refuse(reply, &why),
        }
    }

    /// It comes to nothing: everything is as before.
    pub(super) fn give_up(&mut self, edge: &Edge, why: &str) {
        match std::mem::replace(self, Self::No) {
            Self::Checking(_, reply) => refuse(reply, why),
            Self::Starting(mut successor) => {
                // Where it has ended already there is nothing to end.
                let _ = successor.child.start_kill();
                let lost = if edge.succeed_myself() { "" } else { "; the state directory could not be taken again" };
                refuse(successor.reply, &format!("{why}{lost}"));
            }
            kept @ (Self::No | Self::Served(_) | Self::Died) => *self = kept,
        }
    }

    /// The successor says that it serves: answers who asked. `false`: nobody does.
    pub(super) fn served(&mut self) -> bool {
        let Self::Starting(successor) = self else { return false };
        if successor.is_over() {
            return false;
        }
        let Self::Starting(Successor { child, pid, reply, .. }) = std::mem::replace(self, Self::No) else {
            return false;
        };
        tracing::info!(pid, "upgrade: the successor serves; what is in flight here may finish");
        if let Some(reply) = reply {
            // Whoever asked may have hung up.
            let _ = reply.send(Ok(pid));
        }
        *self = Self::Served(child);
        true
    }

    /// Whose process is the main one when this one has ended: `None`, nobody's but this one's. `Err`: it has ended, too.
    pub(super) fn heir(self) -> Option<Result<u32, ()>> {
        match self {
            Self::Served(mut child) => match child.try_wait() {
                Ok(None) => Some(child.id().ok_or(())),
                Ok(Some(status)) if status.success() => None,
                Ok(Some(_)) | Err(_) => Some(Err(())),
            },
            Self::Died => Some(Err(())),
            Self::No | Self::Checking(..) | Self::Starting(_) => None,
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
    /// Resolves, with the reason, when it will never serve. Dropping the wait loses nothing.
    async fn failed(&mut self) -> String {
        tokio::select! {
            ended = self.child.wait() => match ended {
                Ok(status) => format!("the successor ended ({status}); its last words are in the log"),
                Err(error) => format!("the successor is lost: {error}"),
            },
            () = sleep_until(self.until) => {
                format!("the successor did not serve within {} s and is stopped", PATIENCE.as_secs())
            }
        }
    }

    /// Whether it has ended, or its time has.
    fn is_over(&mut self) -> bool {
        Instant::now() >= self.until || !matches!(self.child.try_wait(), Ok(None))
    }
}

/// No upgrade: says so to who asked, and to the log.
fn refuse(reply: Option<Reply>, why: &str) {
    tracing::error!("no upgrade: {why}");
    if let Some(reply) = reply {
        let _ = reply.send(Err(why.to_owned()));
    }
}

fn spawned(edge: &Edge, program: &Program) -> Result<(Child, u32), String> {
    let own = std::process::id();
    if own == 1 {
        return Err("relais is the first process of a container, which ends with it: replace the container".to_owned());
    }
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
    command.env("LISTEN_FDS", sockets.len().to_string()).env_remove("LISTEN_PID").env_remove("LISTEN_FDNAMES");
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
    /// `false`: it is gone.
    pub(super) fn relieve(&self) -> bool {
        // Its number may be another process's by now.
        self.is_there() && kill_process(self.0, Signal::USR1).is_ok()
    }

    /// Whether it has not ended yet.
    fn is_there(&self) -> bool {
        getppid() == Some(self.0)
    }
}
