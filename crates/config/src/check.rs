//! What concerns several sections: services that claim the same requests, certificates, and files without services.

use std::collections::HashMap;

use crate::context::{Context, Span};
use crate::fault::Fault;
use crate::reader::Reader;
use crate::section::service::ServiceRead;

mod certificates;

pub(crate) use certificates::Certificates;

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
    // Who claims a host and path first, and where the host stands.
    let mut claimed: HashMap<(&str, &str), (&ServiceRead, &Span)> = HashMap::new();
    for later in services {
        for (host, span) in &later.hosts {
            for (path, path_span) in &later.paths {
                if let Some((earlier, first)) = claimed.get(&(host.as_str(), path.as_str())) {
                    let at = if path == "/" { span } else { path_span };
                    cx.error(at.clone(), claimed_twice(cx, earlier, later, (host, path), first));
                }
            }
        }
        // Only now: what one service says twice is told elsewhere.
        for (host, span) in &later.hosts {
            for (path, _) in &later.paths {
                claimed.entry((host.as_str(), path.as_str())).or_insert((later, span));
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
