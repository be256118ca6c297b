//! Who changes the DNS: one enum over all kinds, each of which writes one TXT value beside the others at its name, and
//! removes that value alone. Doing either twice is no fault.

use std::time::Duration;

use relais_core::config::{DnsChallenge, DnsProvider};

use super::ask::Resolvers;
use super::cloudflare::Cloudflare;
use super::exec::Exec;
use super::fault::DnsFault;
use super::ovh::Ovh;
use super::rfc2136::{self, Rfc2136};
use super::webhook::Webhook;
use super::{Action, Undo};
use crate::acme::client::Client;

/// How long a program of the operator's may take for one record.
const PROGRAM: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) enum Provider {
    Exec(Exec),
    Webhook(Webhook),
    Rfc2136(Rfc2136),
    Ovh(Ovh),
    Cloudflare(Cloudflare),
}

impl Provider {
    pub(super) fn new(declared: &DnsChallenge) -> Result<Self, String> {
        let client = || Client::new(None);
        Ok(match &declared.provider {
            DnsProvider::Exec { program, arguments } => Self::Exec(Exec::new(program, arguments, PROGRAM)),
            DnsProvider::Webhook { url, headers } => Self::Webhook(Webhook::new(url, headers, client()?)?),
            DnsProvider::Rfc2136 { server, zone, key_name, algorithm, secret } => {
                Self::Rfc2136(Rfc2136::new(*server, zone.as_deref(), key_name, *algorithm, secret)?)
            }
            DnsProvider::Ovh { endpoint, application_key, application_secret, consumer_key } => {
                Self::Ovh(Ovh::new(endpoint, application_key, application_secret, consumer_key, client()?))
            }
            DnsProvider::Cloudflare { endpoint, token } => {
                Self::Cloudflare(Cloudflare::new(endpoint, token, client()?))
            }
        })
    }

    /// Every kind has its own deadlines: this always ends.
    pub(super) async fn run(&self, action: Action, undo: &Undo, resolvers: &Resolvers) -> Result<(), DnsFault> {
        match self {
            Self::Exec(exec) => exec.run(action, undo).await,
            Self::Webhook(webhook) => webhook.call(action, undo).await,
            Self::Rfc2136(server) => server.run(action, &rfc2136::name(&undo.fqdn)?, &undo.value, resolvers).await,
            Self::Ovh(ovh) => ovh.run(action, &undo.fqdn, &undo.value).await,
            Self::Cloudflare(cloudflare) => cloudflare.run(action, &undo.fqdn, &undo.value).await,
        }
    }
}
