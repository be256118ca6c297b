//! `relais run`: logger, limits, edge; then signals until the edge has ended.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::Args;
use relais::control::{Handle, Outcome};
use relais::core::config::Log;
use relais::log::Logger;
use relais::{Edge, EdgeBuilder, Inherited, LogHooks, StartError};
use sd_notify::NotifyState;
use tokio::sync::mpsc;

use super::signals::{Asked, Signals};
use super::upgrade::{Predecessor, Program, Reply, Standing, Step, Upgrading};
use super::{Client, EXIT_FAILED, Failure, Whom};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// When the file cannot be used, start with the config that was in force last rather than not at all; serve a damaged
    /// certificate file as it was last
    #[arg(long)]
    last_good: bool,
    /// Where state is kept, whatever the config says
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub(crate) fn run(options: Options, whom: &Whom) -> Result<ExitCode, Failure> {
    let path = whom.file()?;
    let (program, predecessor) = (
        Program::of_this_process(Some(&path).filter(|_| !options.last_good).map(PathBuf::as_path)).map(Arc::new),
        Predecessor::of_this_process(),
    );
    if predecessor.is_none() {
        refuse_second(&whom.own_socket(options.state_dir.as_deref())?)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(EXIT_FAILED, format!("no runtime: {error}")))?;
    let signals = runtime
        .block_on(async { Signals::new() })
        .map_err(|error| Failure::new(EXIT_FAILED, format!("cannot listen to signals: {error}")))?;
    relais::limits::raise_open_files();
    // Outlives the edge, so that its last lines are written.
    let logger = Arc::new(OnceLock::new());
    let mut builder = with_logger(Edge::builder().config_file(path).or_last_good(options.last_good), &logger);
    if let Some(dir) = options.state_dir {
        builder = builder.state_dir(dir);
    }
    if let Some(socket) = &whom.socket {
        builder = builder.admin_socket(socket);
    }
    let (orders, upgrades) = mpsc::unbounded_channel();
    let builder = builder.inherited(Inherited::from_environment()).upgrades(orders);
    let edge = builder.start().map_err(|error| cannot_start(&error))?;
    // What took the place of another process is the main one only when that one has ended, which tells systemd so.
    if !predecessor.as_ref().is_some_and(Predecessor::relieve) {
        tell_systemd(&[NotifyState::Ready]);
    }
    let standing = Standing { predecessor, is_stopping: false };
    let heir = runtime.block_on(serve(&edge, signals, upgrades, program, standing)).heir();
    let ended = edge.wait();
    tracing::info!("stopped");
    if let Some(Ok(pid)) = heir {
        // Before all else: systemd ends the others when its main process fails.
        tell_systemd(&[NotifyState::MainPid(pid)]);
    }
    ended.map_err(|crashed| Failure::new(EXIT_FAILED, crashed))?;
    if heir == Some(Err(())) {
        // Who watches this process is to start it again.
        return Err(Failure::new(EXIT_FAILED, "the successor has ended: nobody serves"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Longest wait for the edge that may run here already.
const NEIGHBOUR: Duration = Duration::from_secs(2);

/// Says that an edge runs here already, before its state directory and its addresses are found taken. One that drains is no
/// hindrance: it holds no address any more.
fn refuse_second(socket: &Path) -> Result<(), Failure> {
    let Ok(status) = Client::at(socket.to_path_buf()).patient(NEIGHBOUR).get("/status") else { return Ok(()) };
    let process = &status["process"];
    if process["stopping"] != false {
        return Ok(());
    }
    let (pid, file) = (&process["pid"], process["config_path"].as_str().unwrap_or("a config of its own"));
    let message = format!("relais runs here already: pid {pid}, with {file}; it answers on {}", socket.display());
    Err(Failure::new(EXIT_FAILED, message)
        .help("`relais status` shows it, `relais reload` has it read its file again, `relais stop` ends it")
        .help("a second one needs a `state_dir` in [edge], a `socket` in [admin] and listeners of its own"))
}

fn cannot_start(error: &StartError) -> Failure {
    let failure = Failure::new(EXIT_FAILED, error);
    match error {
        StartError::Config(_) => {
            failure.help("correct the file; or start with the one that was in force last: `relais run --last-good`")
        }
        _ => failure,
    }
}

/// Has the edge install the program's logger once its config is known.
fn with_logger(builder: EdgeBuilder, place: &Arc<OnceLock<Logger>>) -> EdgeBuilder {
    let place = Arc::clone(place);
    builder.logging(move |log: &Log| {
        let logger = Logger::install(log)?;
        let (level, dropped) = (logger.level(), logger.dropped_lines());
        // The place is empty: it was made for this one logger.
        let _ = place.set(logger);
        Ok(LogHooks {
            set_level: Box::new(move |words| level.set(words)),
            dropped: Box::new(move || u64::try_from(dropped.dropped_lines()).unwrap_or(u64::MAX)),
        })
    })
}

/// A signal this soon after the first is the same one: `timeout` and others send to the process and to its group.
const ECHO: Duration = Duration::from_millis(200);

/// Does what signals ask until the edge has ended. The upgrade it ended with, if there was one.
async fn serve(
    edge: &Edge,
    mut signals: Signals,
    mut upgrades: mpsc::UnboundedReceiver<Reply>,
    program: io::Result<Arc<Program>>,
    mut standing: Standing,
) -> Upgrading {
    let (mut ended, mut draining) = (std::pin::pin!(edge.ended()), std::pin::pin!(edge.stopping()));
    let (mut upgrading, mut asked_to_stop) = (Upgrading::No, None::<Instant>);
    loop {
        let asked = tokio::select! {
            // A stop counts before what becomes of a successor.
            biased;
            () = &mut ended => {
                upgrading.give_up(edge, "the edge has ended");
                return upgrading;
            }
            () = &mut draining, if !standing.is_stopping => {
                standing.is_stopping = true;
                upgrading.give_up(edge, "the edge is stopping");
                continue;
            }
            Some(reply) = upgrades.recv() => {
                upgrading.begin(&program, &standing, Some(reply));
                continue;
            }
            asked = signals.next() => asked,
            step = upgrading.step() => {
                take(step, &mut upgrading, edge, &program, asked_to_stop.is_some());
                continue;
            }
        };
        match asked {
            Asked::Upgrade => {
                tokio::spawn(ask_for_upgrade(edge.handle()));
            }
            Asked::Succeeded if upgrading.served() => {
                standing.is_stopping = true;
                if let Err(error) = edge.yield_to_successor() {
                    tracing::warn!("upgrade: the admin socket may be late: {error}");
                }
            }
            Asked::Succeeded => tracing::warn!("SIGUSR1, but no successor is about to serve"),
            Asked::Reload => {
                tokio::spawn(reload(edge.handle()));
            }
            Asked::Stop if asked_to_stop.is_some_and(|since| since.elapsed() > ECHO) => {
                tracing::warn!("second signal: cutting what is in flight");
                edge.cut();
            }
            Asked::Stop if asked_to_stop.is_some() => {}
            Asked::Stop => {
                asked_to_stop = Some(Instant::now());
                upgrading.give_up(edge, "the edge is stopping");
                tracing::info!(
                    "stopping: nothing new is accepted, requests in flight may finish; a second signal cuts them"
                );
                if !matches!(upgrading, Upgrading::Served(_)) {
                    tell_systemd(&[NotifyState::Stopping]);
                }
                standing.is_stopping = true;
                edge.begin_stop();
            }
        }
    }
}

/// Takes an upgrade one step further.
fn take(step: Step, upgrading: &mut Upgrading, edge: &Edge, program: &io::Result<Arc<Program>>, asked_to_stop: bool) {
    match (step, program) {
        (Step::Checked(Ok(())), Ok(program)) => upgrading.start(edge, program),
        (Step::Checked(Ok(())), Err(error)) => upgrading.give_up(edge, &error.to_string()),
        (Step::Checked(Err(why)) | Step::Failed(why), _) => upgrading.give_up(edge, &why),
        (Step::Ended { well }, _) if well || asked_to_stop => {
            tracing::info!("the successor was stopped; what is in flight here may finish");
            *upgrading = Upgrading::No;
        }
        (Step::Ended { .. }, _) => {
            tracing::error!("the successor has ended, and nobody else accepts: ending at once, to be started again");
            *upgrading = Upgrading::Died;
            edge.cut();
        }
    }
}

/// As `relais upgrade` does; what comes of it is in the log.
async fn ask_for_upgrade(handle: Handle) {
    if let Err(refusal) = handle.upgrade().await {
        tracing::warn!("SIGUSR2: {refusal}");
    }
}

async fn reload(handle: Handle) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell_systemd(&[NotifyState::Reloading, now]),
        // Without the time systemd would fail the unit: better that it hears of no reload.
        Err(error) => tracing::debug!("systemd is not told of the reload: {error}"),
    }
    match handle.reload(false).await {
        Ok(verdict) if verdict.outcome == Outcome::Refused => {
            tell_systemd(&[NotifyState::Status("last reload refused: see `relais status`")]);
        }
        Ok(_) => tell_systemd(&[NotifyState::Status("serving")]),
        Err(refusal) => tracing::warn!("no reload: {refusal}"),
    }
    tell_systemd(&[NotifyState::Ready]);
}

/// Does nothing when systemd did not start us.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("systemd cannot be told {state:?}: {error}");
    }
}
