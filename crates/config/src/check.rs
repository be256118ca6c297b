//! What concerns several sections: services that claim the same requests, certificates, and files without services.

use crate::context::{Context, Span};
use crate::fault::Fault;
use crate::reader::Reader;
use crate::section::service::ServiceRead;
use crate::{CertificateFiles, Listener, ListenerProtocol, TlsSource};

/// The smallest useful file, shown when there is none.
const SMALLEST: &str = "the smallest useful file:\n\n    [service.api]\n    hosts = [\"api.example.org\"]\n    backends = [\"10.0.0.1:8080\"]\n";

/// Notes that nothing would be served.
pub(crate) fn some_service(root: &Reader<'_>, text: &str) {
    let Some(node) = root.get("service") else {
        let bare = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        let fault = if bare {
            Fault::new("the file is empty: nothing would be served")
        } else {
            Fault::new("the file has no service: nothing would be served")
        };
        root.cx.missing(0..0, fault.label("no `[service.NAME]` in the file").help(SMALLEST));
        return;
    };
    if node.is_table() && node.named("").is_some_and(|services| services.is_empty()) {
        let fault = Fault::new("the file has no service: nothing would be served").label("no service in here");
        root.cx.missing(node.span(), fault.help(SMALLEST));
    }
}

/// Notes hosts and paths that two services claim.
pub(crate) fn claims(cx: &Context<'_>, services: &[ServiceRead]) {
    for (index, later) in services.iter().enumerate() {
        for (host, span) in &later.hosts {
            for (path, path_span) in &later.paths {
                let earlier = services[..index].iter().find_map(|earlier| {
                    let (_, span) = earlier.hosts.iter().find(|(other, _)| other == host)?;
                    earlier.paths.iter().any(|(other, _)| other == path).then_some((earlier, span))
                });
                if let Some((earlier, first)) = earlier {
                    let at = if path == "/" { span } else { path_span };
                    cx.error(at.clone(), claimed_twice(cx, earlier, later, (host, path), first));
                }
            }
        }
    }
}

fn claimed_twice(
    cx: &Context<'_>,
    earlier: &ServiceRead,
    later: &ServiceRead,
    route: (&str, &str),
    first: &Span,
) -> Fault {
    let (one, two, (host, path), line) = (&earlier.service.name, &later.service.name, route, cx.line(first));
    let claim = match (host, path) {
        ("*", "/") => "every host that no other service claims".to_owned(),
        ("*", path) => format!("`{path}` of every host that no other service claims"),
        (host, "/") => format!("host `{host}`"),
        (host, path) => format!("`{host}{path}`"),
    };
    let fault = Fault::new(format!("services `{one}` and `{two}` both claim {claim}"));
    let help = format!("`{one}` claims it on line {line}: take it out of one, or give them different `paths`");
    fault.label(format!("claimed on line {line} too")).help(help)
}

/// What the file says about certificates.
pub(crate) struct Certificates<'a> {
    pub(crate) listeners: &'a [std::sync::Arc<Listener>],
    pub(crate) files: &'a [CertificateFiles],
    /// Where `[edge] tls` is set.
    pub(crate) edge_span: Option<Span>,
}

impl Certificates<'_> {
    /// Notes services whose hosts would have no certificate, warns of those browsers would not trust.
    pub(crate) fn check(&self, cx: &Context<'_>, services: &[ServiceRead]) {
        let https = self.listeners.iter().any(|listener| listener.protocol == ListenerProtocol::Https);
        // Which hosts the files are for is only known where they are read.
        if !https || !self.files.is_empty() {
            return;
        }
        for read in services {
            match read.service.tls {
                TlsSource::Files => self.no_files(cx, read),
                TlsSource::Internal => warn_untrusted(cx, read),
            }
        }
    }

    fn no_files(&self, cx: &Context<'_>, read: &ServiceRead) {
        let span = read.tls_span.clone().or_else(|| self.edge_span.clone()).unwrap_or_else(|| read.span.clone());
        let fault =
            Fault::new("certificates come from files, but the file names none: every handshake would be refused");
        let help = "add `[certificate.NAME]` with `cert = \"site.pem\"` and `key = \"site.key\"`, or write `tls = \"internal\"`";
        cx.missing(span, fault.label("no [certificate.NAME] in the file").help(help));
    }
}

fn warn_untrusted(cx: &Context<'_>, read: &ServiceRead) {
    let public: Vec<&(String, Span)> = read.hosts.iter().filter(|(host, _)| !is_development(host)).collect();
    let Some((first, span)) = public.first() else { return };
    let more = if public.len() > 1 { format!(" and {} more", public.len() - 1) } else { String::new() };
    let fault =
        Fault::new(format!("`{first}`{more}: the certificate comes from the local CA, browsers will not trust it"));
    let help =
        "add `[certificate.NAME]` with `cert` and `key`; or let clients trust the local CA (`relais trust` says how)";
    cx.warning(span.clone(), fault.label("no certificate file").help(help));
}

/// Names that no public CA certifies, and `*`, whose names are not known.
fn is_development(host: &str) -> bool {
    const ENDINGS: [&str; 6] = ["localhost", "test", "internal", "local", "home.arpa", "example"];
    let name = host.strip_prefix("*.").unwrap_or(host);
    let is_ip = name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok();
    let ends = |ending: &str| name.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    host == "*" || is_ip || ENDINGS.into_iter().any(ends)
}
