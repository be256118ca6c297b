//! A config in plain words: what it listens on, and for each service who serves it and what it survives.

use std::fmt::Write;

use crate::value::measure::shown;
use crate::{Action, CertificateSource, Config, Forward, Listener, ListenerProtocol, Service};

impl Config {
    /// What the file declares, for people: the answer of `relais check`.
    pub fn summary(&self) -> String {
        let mut text = String::from("listeners\n");
        for listener in &self.listeners {
            let _ = writeln!(text, "  {}", line_of_listener(listener));
        }
        text.push_str("services\n");
        for service in &self.services {
            let _ = writeln!(text, "  {}: {}", service.name, does(service));
            let _ = writeln!(text, "    hosts: {}", hosts(service));
            for line in certificates(self, service) {
                let _ = writeln!(text, "    {line}");
            }
            if let Action::Forward(forward) = &service.action {
                let _ = writeln!(text, "    order: {}", order(forward));
                let _ =
                    writeln!(text, "    check: {}, failover within {}", check(forward), shown(forward.failover_within));
            }
        }
        text
    }
}

fn line_of_listener(listener: &Listener) -> String {
    let addresses: Vec<String> = listener.addresses.iter().map(ToString::to_string).collect();
    let what = match (listener.protocol, listener.redirect_to) {
        (ListenerProtocol::Https, _) => "HTTPS".to_owned(),
        (ListenerProtocol::Http, Some(port)) => format!("HTTP, redirects to HTTPS on port {port}"),
        (ListenerProtocol::Http, None) => "HTTP".to_owned(),
    };
    format!("{}: {} ({what})", listener.name, addresses.join(", "))
}

fn does(service: &Service) -> String {
    match &service.action {
        Action::Forward(forward) => survives(forward),
        Action::Redirect(redirect) => format!("redirects to {} ({})", redirect.to, redirect.status),
        Action::Respond(answer) => format!("answers {} with {} bytes", answer.status, answer.body.len()),
    }
}

/// Sites in the order of the file, each once.
fn sites(forward: &Forward) -> Vec<&str> {
    let mut sites: Vec<&str> = Vec::new();
    for backend in &forward.backends {
        if !sites.contains(&&*backend.site) {
            sites.push(&backend.site);
        }
    }
    sites
}

fn survives(forward: &Forward) -> String {
    let sites = sites(forward);
    let loss = match sites.len() {
        0 | 1 => "survives no loss of a site".to_owned(),
        2 => "survives: any 1 site".to_owned(),
        count => format!("survives: any {} sites", count - 1),
    };
    let backends = counted(forward.backends.len(), "backend");
    format!("{backends} on {} ({}), {loss}", counted(sites.len(), "site"), sites.join(", "))
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn hosts(service: &Service) -> String {
    let mut text = service.hosts.join(", ");
    if service.paths != ["/"] {
        let _ = write!(text, " under {}", service.paths.join(", "));
    }
    if let Some(canonical) = &service.canonical {
        let _ = write!(text, " (redirected to {canonical})");
    }
    text
}

/// Where the certificates of a service's hosts come from: one line when it is the same for all.
fn certificates(config: &Config, service: &Service) -> Vec<String> {
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    if !config.listeners.iter().any(|listener| listener.protocol == ListenerProtocol::Https) {
        return Vec::new();
    }
    for host in &service.hosts {
        let told = certificate(config, service, host);
        match lines.iter_mut().find(|(known, _)| *known == told) {
            Some((_, hosts)) => hosts.push(host),
            None => lines.push((told, vec![host])),
        }
    }
    if let [(told, _)] = lines.as_slice() {
        return vec![format!("certificate: {told}")];
    }
    lines.into_iter().map(|(told, hosts)| format!("certificate of {}: {told}", hosts.join(", "))).collect()
}

fn certificate(config: &Config, service: &Service, host: &str) -> String {
    let acme = &config.acme;
    let authorities: Vec<&str> = acme.authorities.iter().map(|authority| &*authority.name).collect();
    let authorities = authorities.join(", else ");
    let ways = |host: &str| {
        let ways: Vec<&str> = acme.challenges_for(host).into_iter().map(crate::Challenge::as_str).collect();
        ways.join(" or ")
    };
    let told = match config.certificate_source(service, host) {
        CertificateSource::Files => return "a file of [certificate.NAME]".to_owned(),
        CertificateSource::Internal => "the local CA".to_owned(),
        CertificateSource::Acme => format!("{authorities}, by {}", ways(host)),
        CertificateSource::OnDemand => {
            let ask = acme.on_demand.as_ref().map_or("", |on_demand| &on_demand.ask);
            format!("{authorities}, for each name that clients ask for and {ask} allows")
        }
    };
    if config.certificates.is_empty() {
        told
    } else {
        format!("a file of [certificate.NAME] that covers it, else {told}")
    }
}

/// Sites by tier, lower first: `dijon + lyon, then thory`.
fn order(forward: &Forward) -> String {
    let mut tiers: Vec<u32> = forward.backends.iter().map(|backend| backend.tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let of_tier = |tier: u32| {
        let mut names: Vec<&str> = Vec::new();
        for backend in forward.backends.iter().filter(|backend| backend.tier == tier) {
            if !names.contains(&&*backend.site) {
                names.push(&backend.site);
            }
        }
        names.join(" + ")
    };
    let mut order: Vec<String> = tiers.into_iter().map(of_tier).collect();
    if let Some(answer) = &forward.maintenance {
        order.push(format!("the maintenance page ({})", answer.status));
    }
    order.join(", then ")
}

fn check(forward: &Forward) -> String {
    match &forward.agent {
        Some(agent) => format!("{}, agent on port {}", forward.health.kind, agent.port),
        None => forward.health.kind.to_string(),
    }
}
