//! The admin socket: HTTP and JSON on a unix socket. Turns requests into questions to the loop and answers into JSON;
//! decides nothing.

mod api;
mod certs;
mod contract;
mod socket;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

use crate::alarm::AlarmReport;
use crate::handle::Handle;

/// How often a socket that was made is looked for, and one that could not be made for long is tried again.
pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// How often it is tried again at first: the process that has it may be about to leave it to us.
pub(crate) const AGAIN: Duration = Duration::from_millis(100);
/// From when on it is trouble: by then that process has left it.
pub(crate) const TROUBLE: Duration = Duration::from_secs(1);

/// Who is at the other end, for the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// User id, when the system tells.
    uid: Option<u32>,
    /// Process id, when the system tells.
    pid: Option<i32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let peer = stream.io().peer_cred().ok();
        Peer { uid: peer.as_ref().map(tokio::net::unix::UCred::uid), pid: peer.and_then(|peer| peer.pid()) }
    }
}

/// Serves the socket until `closing`. What goes wrong is an alarm, and is tried again.
pub(crate) async fn serve(
    path: PathBuf,
    handle: Handle,
    alarms: mpsc::UnboundedSender<AlarmReport>,
    mut closing: watch::Receiver<bool>,
) {
    let (mut ours, mut failing_since) = (None, None);
    loop {
        let trouble = match socket::open(&path).await {
            Ok(opened) => {
                tell(&alarms, None);
                let router = api::router(handle.clone()).into_make_service_with_connect_info::<Peer>();
                let (mut ending, inode) = (closing.clone(), opened.inode);
                (ours, failing_since) = (Some(inode), None);
                let lost_path = path.clone();
                let end = async move {
                    tokio::select! {
                        _ = ending.wait_for(|closing| *closing) => {}
                        () = socket::lost(&lost_path, inode, LOOK) => {}
                    }
                };
                // The server itself never fails: what goes wrong with a connection stays with it.
                let _ = axum::serve(opened.listener, router).with_graceful_shutdown(end).await;
                None
            }
            Err(trouble) => Some(trouble),
        };
        if *closing.borrow() {
            break;
        }
        if let Some(trouble) = trouble {
            let is_trouble = failing_since.get_or_insert_with(Instant::now).elapsed() >= TROUBLE;
            if is_trouble {
                tell(&alarms, Some(trouble));
            }
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => break,
                () = tokio::time::sleep(if is_trouble { LOOK } else { AGAIN }) => {}
            }
        }
    }
    if let Some(inode) = ours {
        socket::remove(&path, inode);
    }
}

fn tell(alarms: &mpsc::UnboundedSender<AlarmReport>, trouble: Option<(String, String)>) {
    // Fails only when the loop is gone, and then nobody needs to know.
    let _ = alarms.send(AlarmReport { about: "admin", trouble });
}
