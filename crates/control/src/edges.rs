//! The edges that run beside the loop: admin socket, metrics listener, file watcher. Started once, told by values,
//! ended in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::alarm::AlarmReport;
use crate::handle::Handle;
use crate::setup::Setup;
use crate::watch::{Change, Reports, Target};
use crate::{admin, metrics};

/// How long open answers may take at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The edges' ends that the loop holds.
pub(crate) struct Edges {
    tasks: JoinSet<()>,
    opened: bool,
    admin_socket: PathBuf,
    alarms: mpsc::UnboundedSender<AlarmReport>,
    changes: mpsc::Sender<Change>,
    targets: watch::Sender<Vec<Target>>,
    metrics: watch::Sender<Option<SocketAddr>>,
    closing: watch::Sender<bool>,
}

impl Edges {
    pub(crate) fn new(
        setup: &Setup,
        targets: Vec<Target>,
        changes: mpsc::Sender<Change>,
        alarms: mpsc::UnboundedSender<AlarmReport>,
    ) -> Edges {
        Edges {
            tasks: JoinSet::new(),
            opened: false,
            admin_socket: setup.admin_socket.clone(),
            alarms,
            changes,
            targets: watch::Sender::new(targets),
            metrics: watch::Sender::new(setup.config.metrics.address),
            closing: watch::Sender::new(false),
        }
    }

    /// Starts the edges, the first time it is called.
    pub(crate) fn open(&mut self, handle: &Handle) {
        if std::mem::replace(&mut self.opened, true) {
            return;
        }
        let closing = || self.closing.subscribe();
        self.tasks.spawn(admin::serve(self.admin_socket.clone(), handle.clone(), self.alarms.clone(), closing()));
        self.tasks.spawn(metrics::serve(self.metrics.subscribe(), handle.clone(), self.alarms.clone(), closing()));
        let reports = Reports { changes: self.changes.clone(), alarms: self.alarms.clone() };
        let (targets, mut closing) = (self.targets.subscribe(), closing());
        self.tasks.spawn(async move {
            tokio::select! {
                () = crate::watch::run(targets, reports) => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        });
    }

    /// Watches other files from now on.
    pub(crate) fn watch(&self, targets: Vec<Target>) {
        self.targets.send_if_modified(|now| {
            let differs = *now != targets;
            *now = targets;
            differs
        });
    }

    /// Serves metrics elsewhere from now on.
    pub(crate) fn metrics_at(&self, address: Option<SocketAddr>) {
        self.metrics.send_if_modified(|now| std::mem::replace(now, address) != address);
    }

    /// Accepts no more questions on the admin socket and none for metrics, and watches no files: another process does. What
    /// was asked is answered.
    pub(crate) fn make_way(&self) {
        self.closing.send_replace(true);
    }

    /// Lets open answers go out, then ends everything.
    pub(crate) async fn close(&mut self) {
        self.closing.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_ANSWERS, ended).await.is_err() {
            tracing::debug!("an open connection to the admin socket or to metrics was cut at the end");
        }
        self.tasks.shutdown().await;
    }
}
