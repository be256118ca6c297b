//! A program of the operator's as a check: exit code 0 is good. May run it; its end is always awaited, and nothing of it
//! stays behind.

use std::io;
use std::net::SocketAddr;

use relais_config::{Address, ExecCheck};
use relais_core::{Fault, ProbeOrder};
use relais_program::Program;

use super::fault::{self, Progress, Trouble};

/// Runs the program and judges its exit code.
pub(super) async fn run(
    check: &ExecCheck,
    order: &ProbeOrder,
    address: Option<SocketAddr>,
    progress: &Progress,
) -> Result<(), Trouble> {
    let mut program = match start(check, order, address) {
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
    let status = program.ended(|said| tell(said, progress)).await.map_err(Trouble::Local)?;
    if status.success() {
        return Ok(());
    }
    if progress.said().is_none() {
        progress.say(relais_program::ending(status).as_bytes());
    }
    Err(Fault::Unwell.into())
}

fn start(check: &ExecCheck, order: &ProbeOrder, address: Option<SocketAddr>) -> io::Result<Program> {
    let id = &order.backend.id;
    let host = match (address, &order.backend.address) {
        (Some(address), _) => address.ip().to_string(),
        (None, Address::Unix(path)) => path.display().to_string(),
        (None, other) => other.to_string(),
    };
    let mut command = relais_program::command(&check.program);
    command
        .args(&check.arguments)
        .env("RELAIS_SERVICE", &*id.service)
        .env("RELAIS_SITE", &*id.site)
        .env("RELAIS_ADDRESS", host)
        .env("RELAIS_PORT", address.map(|address| address.port().to_string()).unwrap_or_default());
    Program::start(&mut command)
}

/// Its last line is what the check says.
fn tell(said: &[u8], progress: &Progress) {
    let mut lines = said.split(|byte| matches!(byte, b'\n' | b'\r'));
    if let Some(last) = lines.rfind(|line| !line.trim_ascii().is_empty()) {
        progress.say(last);
    }
}
