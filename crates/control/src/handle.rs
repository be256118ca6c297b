//! How the admin socket, signals and an embedding program speak to the control loop: a request and one answer.

use std::fmt;

use relais_core::{Admin, DrillOrder, DrillRecord};
use relais_tls::CertInfo;
use relais_tls::acme::Reason;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::certs::{CertWish, Import, Imported, Tried};
use crate::contract::{Explained, History};
use crate::metrics::Scrape;
use crate::reload::Verdict;
use crate::status::{AdminReply, Certificates, Status};

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// What is wrong, in a sentence.
    pub error: String,
    /// The way out.
    pub help: String,
    /// Whose fault it is.
    #[serde(skip)]
    pub kind: RefusalKind,
}

/// Whose fault a refusal is; decides the status of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The target does not exist (404).
    NotFound,
    /// The request makes no sense (400).
    Invalid,
    /// It cannot be done now (409).
    Conflict,
    /// The control loop has ended (503).
    Gone,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.error, self.help)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    fn gone() -> Self {
        Self {
            error: "the edge is stopping".to_string(),
            help: "start it again with `relais run`".to_string(),
            kind: RefusalKind::Gone,
        }
    }
}

/// One request to the loop, with the place for its answer.
pub(crate) enum Request {
    Status(oneshot::Sender<Box<Status>>),
    Admin { words: String, word: Admin, reason: Option<String>, reply: oneshot::Sender<Result<AdminReply, Refusal>> },
    Reload { force: bool, reply: oneshot::Sender<Verdict> },
    Stop(oneshot::Sender<()>),
    Upgrade(oneshot::Sender<Result<u32, String>>),
    MakeWay(oneshot::Sender<()>),
    LogLevel { set: Option<String>, reply: oneshot::Sender<Result<String, Refusal>> },
    Certificates(oneshot::Sender<Vec<CertInfo>>),
    Certs(oneshot::Sender<Box<Certificates>>),
    Cert(CertWish),
    Scrape(oneshot::Sender<Box<Scrape>>),
    Explain { service: String, reply: oneshot::Sender<Result<Explained, Refusal>> },
    History(oneshot::Sender<Box<History>>),
    BeginDrill { order: DrillOrder, reply: oneshot::Sender<Result<DrillRecord, Refusal>> },
    AskDrill(oneshot::Sender<Option<DrillRecord>>),
    EndDrill(oneshot::Sender<Result<DrillRecord, Refusal>>),
}

/// Speaks to the control loop from any task or thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
}

impl Handle {
    pub(crate) fn new(requests: mpsc::Sender<Request>) -> Self {
        Self { requests }
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Refusal::gone())?;
        answer.await.map_err(|_| Refusal::gone())
    }

    /// What `GET /status` answers.
    pub async fn status(&self) -> Result<Status, Refusal> {
        Ok(*self.ask(Request::Status).await?)
    }

    /// The operator's word about `SITE` or `SERVICE/ADDRESS`. Answers when workers can see the change.
    pub async fn admin(&self, target: &str, word: Admin, reason: Option<String>) -> Result<AdminReply, Refusal> {
        let words = target.to_string();
        self.ask(|reply| Request::Admin { words, word, reason, reply }).await?
    }

    /// Reads the file again; `force` passes the guard against a file that drops most services. Answers with the
    /// verdict when workers can see the new config. A refused file changes nothing.
    pub async fn reload(&self, force: bool) -> Result<Verdict, Refusal> {
        self.ask(|reply| Request::Reload { force, reply }).await
    }

    /// Makes `Control::run` return.
    pub async fn stop(&self) -> Result<(), Refusal> {
        self.ask(Request::Stop).await
    }

    /// Has the executable that is on the disk now take the place of the one that runs: it gets the listening sockets, and this
    /// edge drains once that one serves. The answer is its process id. When it cannot, everything is as before.
    pub async fn upgrade(&self) -> Result<u32, Refusal> {
        self.ask(Request::Upgrade).await?.map_err(|error| Refusal {
            error,
            help: "everything is as before; `relais check` and the log say more".to_string(),
            kind: RefusalKind::Conflict,
        })
    }

    /// Closes the admin socket and the metrics listener, for who serves from now on.
    pub async fn make_way(&self) -> Result<(), Refusal> {
        self.ask(Request::MakeWay).await
    }

    /// The log level or filter in force.
    pub async fn log_level(&self) -> Result<String, Refusal> {
        self.ask(|reply| Request::LogLevel { set: None, reply }).await?
    }

    /// Sets the log level or filter until the next start (or until the file's own level changes).
    pub async fn set_log_level(&self, level: &str) -> Result<String, Refusal> {
        let set = Some(level.to_string());
        self.ask(|reply| Request::LogLevel { set, reply }).await?
    }

    /// The certificates in use.
    pub async fn certificates(&self) -> Result<Vec<CertInfo>, Refusal> {
        self.ask(Request::Certificates).await
    }

    /// The certificates that CAs are asked for: how they are, what comes next and why; and those that need a proof.
    pub async fn certs(&self) -> Result<Certificates, Refusal> {
        Ok(*self.ask(Request::Certs).await?)
    }

    async fn wish<T>(&self, wish: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> CertWish) -> Result<T, Refusal> {
        self.ask(|reply| Request::Cert(wish(reply))).await?
    }

    /// Has a certificate renewed now, whatever its dates. Says what comes next; does not wait for it.
    pub async fn renew(&self, name: &str) -> Result<String, Refusal> {
        let name = name.to_string();
        self.wish(|reply| CertWish::Renew { name, reply }).await
    }

    /// Orders a certificate at a CA's rehearsal and throws it away. Takes as long as an order.
    pub async fn try_order(&self, name: &str) -> Result<Tried, Refusal> {
        let name = name.to_string();
        self.wish(|reply| CertWish::Try { name, reply }).await
    }

    /// Takes the certificate in use back at its CA and has another one ordered; it serves on until that is there.
    pub async fn revoke(&self, name: &str, reason: Reason) -> Result<String, Refusal> {
        let name = name.to_string();
        self.wish(|reply| CertWish::Revoke { name, reason, reply }).await
    }

    /// Gives the account at an authority, or at all of them, a new key. Names those that have one now.
    pub async fn rollover(&self, authority: Option<String>) -> Result<Vec<String>, Refusal> {
        self.wish(|reply| CertWish::Rollover { authority, reply }).await
    }

    /// Keeps and serves certificates and accounts of another program.
    pub async fn import(&self, import: Import) -> Result<Imported, Refusal> {
        self.wish(|reply| CertWish::Import { import, reply }).await
    }

    /// How the timers of a service come about, with measured round trips.
    pub async fn explain(&self, service: &str) -> Result<Explained, Refusal> {
        let service = service.to_string();
        self.ask(|reply| Request::Explain { service, reply }).await?
    }

    /// What failovers took and drills showed.
    pub async fn history(&self) -> Result<History, Refusal> {
        Ok(*self.ask(Request::History).await?)
    }

    /// Treats a site as cut for a while. [`Handle::ask_drill`] must be called at least every 5 s while it lasts.
    pub async fn begin_drill(&self, order: DrillOrder) -> Result<DrillRecord, Refusal> {
        self.ask(|reply| Request::BeginDrill { order, reply }).await?
    }

    /// The drill under way, else the last one; keeps the one under way alive.
    pub async fn ask_drill(&self) -> Result<Option<DrillRecord>, Refusal> {
        self.ask(Request::AskDrill).await
    }

    /// Ends the cut before its time.
    pub async fn end_drill(&self) -> Result<DrillRecord, Refusal> {
        self.ask(Request::EndDrill).await?
    }

    /// Every metric in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String, Refusal> {
        Ok(crate::metrics::render(&*self.ask(Request::Scrape).await?))
    }
}
