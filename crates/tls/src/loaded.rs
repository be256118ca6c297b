//! What a config wants to be served with: certificates of files, and those that the local CA makes for it.
//!
//! May read the files of `[certificate.NAME]` and use the folder of the local CA.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use relais_core::Instant;
use relais_core::config::{Config, Secret};

use crate::acceptor;
use crate::certificate::Certificate;
use crate::clock;
use crate::copies::Copies;
use crate::files;
use crate::internal_ca;
use crate::problem::CertProblem;
use crate::resolver::Names;
use crate::store::CertStore;
use crate::wanted::Wanted;

/// Everything read and made for one config.
#[derive(Debug)]
pub struct Loaded {
    /// Of files in config order, then those of the local CA by host; without `fallback`.
    pub(crate) certificates: Vec<Arc<Certificate>>,
    /// For names that no other one covers.
    pub(crate) fallback: Option<Arc<Certificate>>,
    /// Whether `fallback` is for names too, not only for clients that send none.
    pub(crate) serves_unknown: bool,
    /// Hosts of the config that files cover.
    pub(crate) covered: Vec<String>,
    /// Hosts that a CA is to certify.
    pub(crate) ordered: BTreeSet<String>,
    warnings: Vec<CertProblem>,
    /// What could not be used, and is served as it was before, or not at all.
    damaged: Vec<CertProblem>,
    /// What the files hold.
    copies: Copies,
    /// Clients that send no name, or one that no certificate is for, are refused.
    pub(crate) strict: bool,
}

impl Loaded {
    /// Things that work but are probably not meant: an expired certificate, a host that will be refused.
    #[must_use]
    pub fn warnings(&self) -> &[CertProblem] {
        &self.warnings
    }

    /// What could not be used although it was declared: [`CertStore::load_what_can_be`] alone leaves any.
    #[must_use]
    pub fn damaged(&self) -> &[CertProblem] {
        &self.damaged
    }

    /// What the files hold, for [`CertStore::load_what_can_be`]. Keys are in it.
    #[must_use]
    pub fn copies(&self) -> Secret {
        self.copies.text()
    }

    /// The hosts of the config that files cover: nobody else has to certify them.
    #[must_use]
    pub fn covered(&self) -> &[String] {
        &self.covered
    }
}

/// What [`CertStore::check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Reasons why `load` would fail.
    pub problems: Vec<CertProblem>,
    /// Things that work but are probably not meant.
    pub warnings: Vec<CertProblem>,
}

impl CertStore {
    /// Reads the files of `config` and has the local CA sign what no file covers and the config wants from it.
    ///
    /// # Errors
    /// Every file that cannot be used, all at once. Expired certificates are usable.
    pub fn load(config: &Config, state_dir: &Path) -> Result<Loaded, Vec<CertProblem>> {
        let now = clock::now();
        let (loaded, problems) = Self::load_from(files::read_all(&config.certificates, now), config, state_dir, now);
        if problems.is_empty() { Ok(loaded) } else { Err(problems) }
    }

    /// As [`CertStore::load`], and does without what cannot be used: a damaged file is served as `copies` has it, what
    /// [`Loaded::copies`] gave while it was good; without one its hosts have what hosts without a file have. Clients of a
    /// service whose CA file is damaged are refused.
    #[must_use]
    pub fn load_what_can_be(config: &Config, state_dir: &Path, copies: &Secret) -> Loaded {
        let now = clock::now();
        let read = files::read_all_or_copies(&config.certificates, &Copies::read(copies), now);
        let (loaded, damaged) = Self::load_from(read, config, state_dir, now);
        Loaded { damaged, ..loaded }
    }

    /// What can be served, and what is wrong with the rest.
    fn load_from(
        read: files::FromFiles,
        config: &Config,
        state_dir: &Path,
        now: Instant,
    ) -> (Loaded, Vec<CertProblem>) {
        let files::FromFiles { mut certificates, mut problems, mut warnings, copies } = read;
        let from_files = Names::new(&certificates, None);
        let wanted = Wanted::of(config, &from_files);
        warnings.extend(wanted.refused);
        let (covered, ordered, serves_unknown) = (wanted.covered, wanted.ordered, wanted.serves_unknown);
        let mut fallback = None;
        if !wanted.internal.is_empty() || wanted.default.is_some() {
            match internal_ca::open(state_dir, now) {
                Ok((authority, doubt)) => {
                    warnings.extend(doubt);
                    let mut issue = |name: &str, hosts: &[String]| {
                        let issued = internal_ca::issue(&authority, name, hosts, now);
                        issued.map(Arc::new).map_err(|fault| problems.push(cannot_issue(name, &fault))).ok()
                    };
                    for host in &wanted.internal {
                        certificates.extend(issue(host, std::slice::from_ref(host)));
                    }
                    fallback = wanted.default.and_then(|hosts| issue("default", &hosts));
                }
                Err(problem) => problems.push(problem),
            }
        }
        problems.extend(client_cas(config));
        let (damaged, strict) = (Vec::new(), config.edge.strict_sni);
        let loaded =
            Loaded { certificates, fallback, serves_unknown, covered, ordered, warnings, damaged, copies, strict };
        (loaded, problems)
    }

    /// Reads the files of `config` and says what `load` would say of them. Writes nothing, makes nothing.
    #[must_use]
    pub fn check(config: &Config) -> Checked {
        let files::FromFiles { certificates, mut problems, mut warnings, .. } =
            files::read_all(&config.certificates, clock::now());
        // A name whose file has a problem would be reported twice.
        if problems.is_empty() {
            warnings.extend(Wanted::of(config, &Names::new(&certificates, None)).refused);
        }
        problems.extend(client_cas(config));
        Checked { problems, warnings }
    }
}

fn cannot_issue(name: &str, fault: &str) -> CertProblem {
    CertProblem {
        certificate: name.to_string(),
        file: None,
        message: format!("the local CA cannot sign for it: {fault}"),
        help: "correct the host, or name certificate files for it".to_string(),
    }
}

/// What is wrong with the CA files that clients' certificates are held against.
fn client_cas(config: &Config) -> Vec<CertProblem> {
    let rules = config.services.iter().filter_map(|service| Some((service, service.client_tls.certificate.as_ref()?)));
    let problems = rules.filter_map(|(service, rule)| {
        let trouble = acceptor::verifier(rule).err()?;
        Some(CertProblem {
            certificate: format!("clients of {}", service.name),
            file: Some(rule.ca.clone()),
            message: trouble.message,
            help: trouble.help,
        })
    });
    problems.collect()
}
