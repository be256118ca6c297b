//! Takes a prepared file into force, all or nothing, and keeps what came of it for status, metrics and the log.

use std::path::Path;
use std::sync::Arc;

use relais_config::{Config, words};
use relais_core::{Event, Instant};
use relais_tls::CertProblem;

use crate::alarm::AlarmReport;
use crate::control::Control;
use crate::loading::{Ask, Certificates, Finished, Ground};
use crate::reload::{self, Outcome, Prepared, Refused, Trigger, Verdict};
use crate::setup::Setup;
use crate::watch::{self, Change, Target};

/// Reloads since start, by outcome.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reloads {
    pub(crate) applied: u64,
    pub(crate) unchanged: u64,
    pub(crate) refused: u64,
}

/// What is in force, besides what the snapshot holds.
pub(crate) struct Current {
    pub(crate) verdict: Verdict,
    pub(crate) reloads: Reloads,
    /// Of the config in force.
    pub(crate) warnings: Vec<String>,
    /// Since when, and who asked.
    in_force: (Instant, Trigger),
    text_hash: u64,
    /// Files that went into it.
    files: Vec<Target>,
    /// Files that a refused file wants.
    wanted: Vec<Target>,
}

impl Current {
    /// As the process was started.
    pub(crate) fn at_start(setup: &Setup, generation: u64, now: Instant) -> Current {
        let warnings = reload::warnings(&setup.warnings);
        let mut files = reload::certificate_files(&setup.config);
        files.extend(setup.files.iter().map(|path| Target::now(path.clone(), Change::Config)));
        Current {
            verdict: Verdict {
                at: now,
                trigger: Trigger::Start,
                outcome: Outcome::Applied,
                message: describe(&setup.config),
                help: None,
                warnings: warnings.clone(),
                generation,
            },
            reloads: Reloads::default(),
            warnings,
            in_force: (now, Trigger::Start),
            text_hash: watch::hash(setup.text.as_bytes()),
            files,
            wanted: Vec::new(),
        }
    }

    /// That the file says what is in force, and since when.
    fn unchanged(&self, now: Instant) -> String {
        let (since, by) = self.in_force;
        let by = match by {
            Trigger::Start => "the start",
            Trigger::Watch => "it was saved",
            Trigger::Request => "a reload",
        };
        let (date, ago) = (relais_tls::date(since), words::short(now.since(since)));
        format!(
            "unchanged: what the file says has been in force since {by} {ago} ago ({date}); certificates were read again"
        )
    }

    /// What to watch.
    pub(crate) fn targets(&self, path: Option<&Path>) -> Vec<Target> {
        let in_force = Some(self.text_hash);
        let own = path.map(|path| Target { path: path.to_path_buf(), kind: Change::Config, in_force });
        let mut targets: Vec<Target> = Vec::new();
        for target in own.iter().chain(&self.files).chain(&self.wanted) {
            if targets.iter().all(|known| known.path != target.path) {
                targets.push(target.clone());
            }
        }
        targets
    }
}

fn describe(config: &Config) -> String {
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    format!("{} on {}", count(config.services.len(), "service"), count(config.listeners.len(), "listener"))
}

impl Control {
    /// A file changed.
    pub(crate) fn file_changed(&mut self, change: Change) {
        // A certificate may be what a refused file was waiting for.
        if change == Change::Config || self.current.verdict.outcome == Outcome::Refused {
            self.ask_reload(Ask { trigger: Trigger::Watch, force: false, reply: None });
        } else {
            self.renew_certificates();
        }
    }

    /// Reads the certificates of the running config again.
    pub(crate) fn renew_certificates(&mut self) {
        let running = self.snapshot.load_full();
        self.loading.certificates(&ground(&self.identity, &running.config));
    }

    /// Reads the file again; the answer comes with the verdict.
    pub(crate) fn ask_reload(&mut self, ask: Ask) {
        if let Some(refused) = self.takes_no_file() {
            let verdict = self.refusal(&refused, ask.trigger);
            // That nobody waits any more is no fault.
            let _ = ask.reply.map(|reply| reply.send(verdict));
            return;
        }
        let running = self.snapshot.load_full();
        self.loading.reload(ask, &ground(&self.identity, &running.config));
    }

    /// Why no file at all can be taken into force now.
    fn takes_no_file(&self) -> Option<Refused> {
        let (message, help) = match self.identity.config_path {
            _ if self.stopping => ("the edge is stopping", "start it again: it reads the file then"),
            None => ("this edge was started without a file", "stop it and start it with the new config"),
            Some(_) => return None,
        };
        Some(Refused { message: message.to_string(), help: help.to_string(), wanted: Vec::new() })
    }

    /// Disk work is done.
    pub(crate) fn loaded(&mut self, finished: Finished) {
        match finished {
            Finished::Certificates(result) => self.certificates_loaded(result),
            Finished::Reload { asks, result } => {
                let asked = asks.iter().any(|ask| ask.trigger == Trigger::Request);
                let trigger = if asked { Trigger::Request } else { Trigger::Watch };
                let verdict = match result.and_then(|prepared| self.apply(*prepared, trigger)) {
                    Ok(verdict) => verdict,
                    Err(refused) => {
                        let verdict = self.refusal(&refused, trigger);
                        self.current.wanted = refused.wanted;
                        // Whatever is wrong with the file: certificates that were renewed go out.
                        self.renew_certificates();
                        verdict
                    }
                };
                self.conclude(&verdict, asks);
            }
        }
        let running = self.snapshot.load_full();
        self.edges.watch(self.current.targets(self.identity.config_path.as_deref()));
        self.loading.next(&ground(&self.identity, &running.config));
    }

    /// Binds, publishes, installs, commits: in this order, so that a failure leaves nothing changed.
    fn apply(&mut self, prepared: Prepared, trigger: Trigger) -> Result<Verdict, Refused> {
        if let Some(refused) = self.takes_no_file() {
            return Err(refused);
        }
        let Prepared { text, config, mut warnings, files, certs } = prepared;
        let running = Arc::clone(&self.snapshot.load().config);
        let unchanged = *config == *running;
        if !unchanged {
            self.bind(&config)?;
            if config.edge.nameservers != running.edge.nameservers {
                self.errands.ask_at(&config.edge.nameservers);
            }
            // First what there is: nothing is ordered that the new file's certificates cover.
            self.tell_inventory(certs.covered().to_vec());
            let now = self.now();
            self.fleet.handle_event(Event::Reload(Arc::clone(&config)), now);
            self.flush();
        }
        (self.keep_files)(certs.copies());
        self.certs.install(certs);
        self.certificates_are_well();
        if !unchanged {
            (self.listeners.commit)(&config);
            self.forget_gone_backends();
            self.edges.metrics_at(config.metrics.address);
            warnings.extend(self.follow_log_level(&running, &config));
        }
        self.store.save_config(&text);
        warnings.extend(reload::waits_for_restart(&self.identity.started_with, &config));
        self.current.text_hash = watch::hash(text.as_bytes());
        self.current.files = files;
        self.current.wanted = Vec::new();
        self.current.warnings.clone_from(&warnings);
        let (outcome, message) = match unchanged {
            true => (Outcome::Unchanged, self.current.unchanged(self.now())),
            false => (Outcome::Applied, describe(&config)),
        };
        if !unchanged {
            self.current.in_force = (self.now(), trigger);
        }
        if trigger == Trigger::Request && unchanged {
            // Whoever asks expected a change: where the file may be another one outside, that is why there is none.
            warnings.extend(self.identity.standing_warnings.iter().cloned());
        }
        let generation = self.snapshot.load().generation;
        Ok(Verdict { at: self.now(), trigger, outcome, message, help: None, warnings, generation })
    }

    fn bind(&mut self, config: &Config) -> Result<(), Refused> {
        (self.listeners.prepare)(config).map_err(|problems| {
            (self.listeners.abandon)();
            Refused {
                message: problems.join("\n"),
                help: "the running config stays; free the address or take it out of the file".to_string(),
                wanted: Vec::new(),
            }
        })
    }

    /// The file's level counts when the file changed it: a level set by hand outlives other reloads.
    fn follow_log_level(&mut self, running: &Config, next: &Config) -> Option<String> {
        if running.log.level == next.log.level {
            return None;
        }
        match (self.set_log_level)(&next.log.level) {
            Ok(()) => {
                self.log_level.clone_from(&next.log.level);
                None
            }
            Err(error) => Some(format!("the log level stays `{}`: {error}", self.log_level)),
        }
    }

    fn refusal(&self, refused: &Refused, trigger: Trigger) -> Verdict {
        Verdict {
            at: self.now(),
            trigger,
            outcome: Outcome::Refused,
            message: refused.message.clone(),
            help: Some(refused.help.clone()),
            warnings: Vec::new(),
            generation: self.snapshot.load().generation,
        }
    }

    /// Everything is in force or refused: says so everywhere, then answers.
    fn conclude(&mut self, verdict: &Verdict, asks: Vec<Ask>) {
        let (trigger, generation) = (verdict.trigger.as_str(), verdict.generation);
        let help = verdict.help.clone().unwrap_or_default();
        let mut trouble = None;
        match verdict.outcome {
            Outcome::Applied => {
                self.current.reloads.applied += 1;
                tracing::info!(trigger, generation, "reloaded: {}", verdict.message);
            }
            Outcome::Unchanged => {
                self.current.reloads.unchanged += 1;
                tracing::info!(trigger, generation, "reloaded: {}", verdict.message);
            }
            Outcome::Refused => {
                self.current.reloads.refused += 1;
                tracing::error!(trigger, generation, help, "reload refused\n{}", verdict.message);
                trouble = Some((refused_briefly(&verdict.message), help));
            }
        }
        for warning in &verdict.warnings {
            tracing::warn!("{warning}");
        }
        self.alarms.set(AlarmReport { about: "config", trouble }, verdict.at);
        // A save that changes nothing (a remark, or what a request applied a moment ago) is no news for `status`.
        let idle = verdict.trigger == Trigger::Watch && verdict.outcome == Outcome::Unchanged;
        if !idle || self.current.verdict.outcome == Outcome::Refused {
            self.current.verdict = verdict.clone();
        }
        for reply in asks.into_iter().filter_map(|ask| ask.reply) {
            // That nobody waits any more is no fault.
            let _ = reply.send(verdict.clone());
        }
    }

    fn certificates_loaded(&mut self, result: Result<Certificates, String>) {
        match result {
            Ok(Certificates { loaded, files }) => {
                let covered = loaded.covered().to_vec();
                (self.keep_files)(loaded.copies());
                self.certs.install(*loaded);
                self.tell_inventory(covered);
                self.current.files.retain(|target| target.kind != Change::Certificates);
                self.current.files.extend(files);
                self.certificates_are_well();
                tracing::info!("certificates read again");
            }
            Err(problems) => {
                let help = "the old certificates stay in use; put the right files in place".to_string();
                let trouble = Some((format!("new certificates were refused: {problems}"), help));
                let now = self.now();
                self.alarms.take(AlarmReport { about: "certificates", trouble }, now);
            }
        }
    }

    /// The start did without some.
    pub(crate) fn certificates_are_damaged(&mut self, damaged: &[CertProblem]) {
        if damaged.is_empty() {
            return;
        }
        let message = format!("started without what is damaged: {}", reload::lines(damaged));
        let help =
            "what was served last is served in its place where there is a copy; the right files are read by themselves";
        let trouble = Some((message, help.to_owned()));
        let now = self.now();
        self.alarms.take(AlarmReport { about: "certificates", trouble }, now);
    }

    fn certificates_are_well(&mut self) {
        let now = self.now();
        self.alarms.take(AlarmReport { about: "certificates", trouble: None }, now);
    }
}

/// The first mistake, and how many more: `status` has the whole text beside.
fn refused_briefly(message: &str) -> String {
    let mistakes: Vec<&str> = message.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    let first = mistakes.first().copied().or_else(|| message.lines().next()).unwrap_or_default();
    match mistakes.len() {
        0 | 1 => format!("the file was refused: {first}"),
        all => format!("the file was refused: {first} (and {} more)", all - 1),
    }
}

fn ground<'a>(identity: &'a crate::control::Identity, running: &'a Arc<Config>) -> Ground<'a> {
    Ground { path: identity.config_path.as_deref(), state_dir: &identity.state_dir, running }
}
