//! Answers what operators ask. An order is answered after its snapshot is published, and after it is on the disk, or with a
//! warning that it is not.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relais_core::{Admin, Command, DrillEnd, Event, Report};
use tokio::sync::oneshot;

use crate::alarm::AlarmReport;
use crate::control::Control;
use crate::handle::{Refusal, RefusalKind, Request};
use crate::loading::Ask;
use crate::metrics::Scrape;
use crate::reload::Trigger;
use crate::status::{self, AdminReply, Certificates, ProcessStatus, Status};

/// Longest time the answer to an operator's word waits for the disk: a disk that stands still must not keep anybody from
/// draining a site.
const KEPT_WITHIN: Duration = Duration::from_secs(1);

const EMBEDDED: &str = "the edge is part of another program: restart that";

const NOT_KEPT: &str = "it is in force, but not on the disk of the state directory: a restart would forget it";

/// What is said while a successor starts would be forgotten: it has read what there was.
pub(crate) fn under_way() -> Refusal {
    Refusal {
        error: "an upgrade is under way".to_owned(),
        help: "say it again in a moment, to the one that serves then".to_owned(),
        kind: RefusalKind::Conflict,
    }
}

/// Answers; that nobody waits any more is no fault.
fn reply<T>(to: oneshot::Sender<T>, answer: T) {
    let _ = to.send(answer);
}

impl Control {
    pub(crate) fn answer(&mut self, request: Request) {
        match request {
            Request::Status(to) => {
                let status = self.status();
                reply(to, Box::new(status));
            }
            Request::Admin { words, word, reason, reply: to } => match self.admin(&words, word, reason) {
                Ok(answer) => self.reply_when_kept(to, answer),
                Err(refusal) => reply(to, Err(refusal)),
            },
            Request::Reload { force, reply: to } => {
                self.ask_reload(Ask { trigger: Trigger::Request, force, reply: Some(to) });
            }
            Request::LogLevel { set, reply: to } => {
                let answer = self.log_level(set);
                reply(to, answer);
            }
            Request::Certificates(to) => reply(to, self.certs.certificates()),
            Request::Certs(to) => {
                let orders = self.fleet.certificates(self.now());
                reply(to, Box::new(Certificates { orders, staples: self.staples() }));
            }
            Request::Cert(wish) => self.certificate_wish(wish),
            Request::Scrape(to) => {
                let scrape = self.scrape();
                reply(to, Box::new(scrape));
            }
            Request::Explain { service, reply: to } => reply(to, self.explain(&service)),
            Request::History(to) => reply(to, Box::new(self.history())),
            Request::BeginDrill { order, reply: to } => {
                let answer = self.begin_drill(&order);
                reply(to, answer);
            }
            Request::AskDrill(to) => {
                let answer = self.ask_drill();
                reply(to, answer);
            }
            Request::EndDrill(to) => {
                let answer = self.end_drill(DrillEnd::Asked);
                reply(to, answer);
            }
            Request::Upgrade(to) => self.upgrade(to),
            Request::MakeWay(to) => {
                self.edges.make_way();
                reply(to, ());
            }
            // Taken by the loop itself before it comes here; answered all the same.
            Request::Stop(to) => reply(to, ()),
        }
    }

    /// The program does it: only it knows how it was started.
    fn upgrade(&self, to: oneshot::Sender<Result<u32, String>>) {
        let refused = match &self.upgrades {
            _ if self.stopping => "the edge is stopping",
            None => EMBEDDED,
            Some(_) if self.fleet.drill_record().is_some_and(|drill| drill.ended.is_none()) => {
                "a drill is under way: wait for its end, or end it"
            }
            // Of a second upgrade the program has the word: what waits for the first asks no CA.
            Some(_) if self.acme.is_busy() && !self.succession.is_under_way() => {
                "a CA is being asked for a certificate, and would look for the answers here: `relais certs` shows when it is done"
            }
            Some(orders) => {
                let (answer, answered) = oneshot::channel();
                // Who cannot be asked any more is ending, and drops the question with it.
                let _ = orders.send(answer);
                // What must not be under way then must not begin either while the new executable is looked at.
                let ordered = self.succession.ordered();
                tokio::spawn(async move {
                    let answer = answered.await;
                    drop(ordered);
                    if let Ok(answer) = answer {
                        reply(to, answer);
                    }
                });
                return;
            }
        };
        reply(to, Err(refused.to_owned()));
    }

    /// Who was told that a site is drained must find it drained after a crash, too.
    fn reply_when_kept(&self, to: oneshot::Sender<Result<AdminReply, Refusal>>, mut answer: AdminReply) {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            let kept = tokio::task::spawn_blocking(move || store.keep(KEPT_WITHIN)).await;
            if !kept.unwrap_or(false) {
                tracing::warn!(about = answer.target, "{NOT_KEPT}");
                answer.warnings.push(NOT_KEPT.to_owned());
            }
            reply(to, Ok(answer));
        });
    }

    fn admin(&mut self, words: &str, word: Admin, reason: Option<String>) -> Result<AdminReply, Refusal> {
        if self.succession.is_handed_over() && !self.stopping {
            return Err(under_way());
        }
        let target = self.fleet.target(words).map_err(|error| Refusal {
            error,
            help: "name a SITE, or a backend as SERVICE/ADDRESS; `relais status` lists them".to_string(),
            kind: RefusalKind::NotFound,
        })?;
        let now = self.now();
        self.fleet.handle_event(Event::Admin(Command { target: target.clone(), word, reason }), now);
        self.flush();
        let report = self.fleet.report(now);
        let backends = status::affected(&report, &target);
        let warnings = if word == Admin::Enabled { Vec::new() } else { status::deserted(&report, &backends) };
        for warning in &warnings {
            tracing::warn!(about = %target, "{warning}");
        }
        Ok(AdminReply {
            target: target.to_string(),
            word,
            generation: self.snapshot.load().generation,
            inflight: backends.iter().map(|backend| u64::from(backend.inflight)).sum(),
            backends,
            warnings,
        })
    }

    fn log_level(&mut self, set: Option<String>) -> Result<String, Refusal> {
        if let Some(level) = set {
            (self.set_log_level)(&level).map_err(|error| Refusal {
                error,
                help: "the level stays as it was; `relais log-level` shows it".to_string(),
                kind: RefusalKind::Invalid,
            })?;
            tracing::info!(from = self.log_level, to = level, "log level set");
            self.log_level = level;
        }
        Ok(self.log_level.clone())
    }

    fn status(&mut self) -> Status {
        let now = self.now();
        self.look_at_store();
        let snapshot = self.snapshot.load_full();
        let report = self.fleet.report(now);
        // Whoever reads it may stand in another directory.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Status {
            process: ProcessStatus {
                version: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                stopping: self.stopping,
                started: self.identity.started,
                config_path: self.identity.config_path.as_ref().map(absolute),
                state_dir: absolute(&self.identity.state_dir),
                admin_socket: absolute(&self.identity.admin_socket),
                generation: snapshot.generation,
                log_level: self.log_level.clone(),
            },
            reload: self.current.verdict.clone(),
            alarms: self.alarms.list(),
            store: self.store.state(),
            listeners: status::listeners(&snapshot.config),
            certificates: self.certs.certificates(),
            orders: self.fleet.certificates(now),
            warnings: self.warnings(&report),
            report,
        }
    }

    /// Of the start, of the file, and of contracts that measured paths break, or checks that are late.
    fn warnings(&self, report: &Report) -> Vec<String> {
        let mut warnings = [self.identity.standing_warnings.as_slice(), self.current.warnings.as_slice()].concat();
        for service in &report.services {
            // In the words of the log.
            let told = |trouble| format!("service {}: the contract cannot hold: {trouble}", service.name);
            warnings.extend(service.trouble.iter().map(told));
            warnings.extend(service.crowded.iter().map(|why| format!("service {}: {why}", service.name)));
        }
        warnings
    }

    /// The store says itself in the log what happened to it; here it only has to stay visible.
    fn look_at_store(&mut self) {
        let state = self.store.state();
        let trouble = status::store_trouble(&state);
        let now = self.now();
        self.alarms.set(AlarmReport { about: "store", trouble }, now);
    }

    fn scrape(&self) -> Scrape {
        Scrape {
            report: self.fleet.report(self.now()),
            snapshot: self.snapshot.load_full(),
            probes: self.probes.counts().clone(),
            reloads: self.current.reloads,
            verdict: self.current.verdict.clone(),
            certificates: self.certs.certificates(),
            orders: self.fleet.certificates(self.now()),
            staples: self.staples(),
            store: self.store.state().mode,
            log_lines_dropped: self.log_lines_dropped.as_ref().map(|dropped| dropped()),
        }
    }
}
