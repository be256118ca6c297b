//! Services whose hosts would have no certificate, or one that no browser trusts.

use std::sync::Arc;

use crate::context::{Context, Span};
use crate::fault::Fault;
use crate::section::authority::is_known;
use crate::section::service::ServiceRead;
use crate::source::{address_of, can_be_public};
use crate::{Acme, CertificateFiles, Challenge, Listener, ListenerProtocol, TlsSource};

/// What the file says about certificates.
pub(crate) struct Certificates<'a> {
    pub(crate) listeners: &'a [Arc<Listener>],
    pub(crate) files: &'a [CertificateFiles],
    /// Where `[edge] tls` is set.
    pub(crate) edge_span: Option<Span>,
    pub(crate) acme: &'a Acme,
    /// Whether the file names its CAs itself: an own CA may certify any name.
    pub(crate) declared: bool,
}

impl Certificates<'_> {
    /// Notes services whose hosts would have no certificate, warns of those browsers would not trust.
    pub(crate) fn check(&self, cx: &Context<'_>, services: &[ServiceRead]) {
        let https = self.listeners.iter().any(|listener| listener.protocol == ListenerProtocol::Https);
        // Which hosts the files are for is only known where they are read.
        if !https || !self.files.is_empty() {
            return;
        }
        self.reachable(cx, services);
        for read in services {
            match read.service.tls {
                TlsSource::Files => self.no_files(cx, read),
                TlsSource::Internal => warn_untrusted(cx, read),
                TlsSource::Acme => read.hosts.iter().for_each(|(host, span)| self.obtainable(cx, read, host, span)),
                TlsSource::Auto => read.hosts.iter().for_each(|(host, span)| self.provable(cx, host, span)),
            }
        }
    }

    /// Warns once where a public CA would look for the edge at ports on which nobody listens.
    fn reachable(&self, cx: &Context<'_>, services: &[ServiceRead]) {
        let listens = |port: u16, protocol: ListenerProtocol| {
            let mut ours = self.listeners.iter().filter(|listener| listener.protocol == protocol);
            ours.any(|listener| listener.addresses.iter().any(|address| address.port() == port))
        };
        let public = self.acme.authorities.iter().any(|authority| is_known(&authority.directory));
        if !public || listens(80, ListenerProtocol::Http) && listens(443, ListenerProtocol::Https) {
            return;
        }
        let can = |challenge: &Challenge| match challenge {
            Challenge::Http01 => listens(80, ListenerProtocol::Http),
            Challenge::TlsAlpn01 => listens(443, ListenerProtocol::Https),
            Challenge::Dns01 => true,
        };
        let ordered = services.iter().filter(|read| matches!(read.service.tls, TlsSource::Acme | TlsSource::Auto));
        let stuck = ordered.flat_map(|read| &read.hosts).find(|(host, _)| {
            let challenges = self.acme.challenges_for(host);
            can_be_public(host) && !challenges.is_empty() && !challenges.iter().any(can)
        });
        if let Some((host, span)) = stuck {
            let port = match self.acme.challenges_for(host)[..] {
                [Challenge::Http01] => "port 80",
                [Challenge::TlsAlpn01] => "port 443",
                _ => "port 80 or 443",
            };
            let fault =
                Fault::new(format!("the CA comes to {port} of `{host}` for its proof, and no listener is there"));
            let help = "listen there, or have the port forwarded to yours; a name whose DNS relais may write ([acme.dns.NAME]) needs neither";
            cx.warning(span.clone(), fault.label("may not get a certificate").help(help));
        }
    }

    fn no_files(&self, cx: &Context<'_>, read: &ServiceRead) {
        let span = read.tls_span.clone().or_else(|| self.edge_span.clone()).unwrap_or_else(|| read.span.clone());
        let fault =
            Fault::new("certificates come from files, but the file names none: every handshake would be refused");
        let help = "add `[certificate.NAME]` with `cert = \"site.pem\"` and `key = \"site.key\"`, or write `tls = \"internal\"`";
        cx.missing(span, fault.label("no [certificate.NAME] in the file").help(help));
    }

    /// With `tls = "acme"`: what cannot be had is an error.
    fn obtainable(&self, cx: &Context<'_>, read: &ServiceRead, host: &str, span: &Span) {
        if host == "*" {
            if self.acme.on_demand.is_none() && read.tls_span.is_some() {
                let fault = Fault::new("no CA certifies every host at once").label("stands for hosts nobody knows yet");
                let help = "add `[acme.on_demand]` with `ask`, or write `tls = \"internal\"`";
                cx.missing(span.clone(), fault.help(help));
            }
        } else if !self.declared && address_of(host).is_none() && !can_be_public(host) {
            let fault = Fault::new(format!("no public CA certifies `{host}`")).label("not a public name");
            let help = "write `tls = \"internal\"`, or name a CA of your own: `[authority.house]` with its `directory`";
            cx.missing(span.clone(), fault.help(help));
        } else if self.acme.challenges_for(host).is_empty() && !self.as_asked(host) {
            cx.missing(span.clone(), self.unprovable(host));
        }
    }

    /// With `tls = "auto"`: a wildcard nobody can prove has the local CA, and the operator is told.
    fn provable(&self, cx: &Context<'_>, host: &str, span: &Span) {
        if can_be_public(host) && self.acme.challenges_for(host).is_empty() && !self.as_asked(host) {
            if host.starts_with("*.") {
                let fault =
                    Fault::new(format!("`{host}` has a certificate of the local CA, which browsers do not trust"));
                let help = "a CA certifies a wildcard by `dns-01` only: add `[acme.dns.ovh]` with the keys of your DNS provider, or `[certificate.NAME]` with files";
                cx.warning(span.clone(), fault.label("nobody can prove a wildcard").help(help));
            } else {
                cx.missing(span.clone(), self.unprovable(host));
            }
        }
    }

    /// Whether the hosts of a wildcard are ordered one by one, as clients ask for them.
    fn as_asked(&self, host: &str) -> bool {
        host.starts_with("*.") && self.acme.on_demand.is_some()
    }

    fn unprovable(&self, host: &str) -> Fault {
        let words: Vec<&str> = self.acme.challenges.iter().map(|kind| kind.as_str()).collect();
        let fault = Fault::new(format!("no way to prove that `{host}` is yours")).label("no challenge fits");
        let kinds = words.join(", ");
        fault.help(if host.starts_with("*.") {
            "a wildcard is certified by `dns-01` only: add `[acme.dns.ovh]` with the keys of your provider".to_owned()
        } else if address_of(host).is_some() {
            format!("an address is proven by `http-01` or `tls-alpn-01`; `challenges` of [acme] has only: {kinds}")
        } else {
            format!("`challenges` of [acme] has only: {kinds}; no [acme.dns.NAME] has a zone with this host")
        })
    }
}

fn warn_untrusted(cx: &Context<'_>, read: &ServiceRead) {
    let public: Vec<&(String, Span)> = read.hosts.iter().filter(|(host, _)| can_be_public(host)).collect();
    let Some((first, span)) = public.first() else { return };
    let more = if public.len() > 1 { format!(" and {} more", public.len() - 1) } else { String::new() };
    let fault =
        Fault::new(format!("`{first}`{more}: the certificate comes from the local CA, browsers will not trust it"));
    let help =
        "take `tls = \"internal\"` out for one from a CA; or let clients trust the local CA (`relais trust` says how)";
    cx.warning(span.clone(), fault.label("no certificate file").help(help));
}
