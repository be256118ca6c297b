//! From text to config: syntax, sections, then what concerns several of them.

use toml::de::DeTable;

use crate::check;
use crate::context::Context;
use crate::reader::Reader;
use crate::section::{acme, authority, client_tls, edge, listener, service, site};
use crate::shape;
use crate::syntax;
use crate::{Config, ConfigErrors, Lookup, Parsed, Places};

impl Config {
    /// Reads the text of a `proxy.toml`.
    ///
    /// `file` is its path as the user named it: it is shown in messages, and relative paths in the text start at its
    /// folder. `lookup` gives what lies outside the text.
    ///
    /// # Errors
    /// All mistakes of the text at once, in its order.
    pub fn parse(file: &str, text: &str, lookup: &Lookup<'_>) -> Result<Parsed, ConfigErrors> {
        let syntax::Mended { text: whole, faults, torn } = syntax::mend(text);
        let (tree, _) = DeTable::parse_recoverable(&whole);
        let mut cx = Context::new(file, text, lookup);
        cx.syntax(faults, torn);
        let config = config(&cx, tree.get_ref(), text);
        let found = cx.into_found();
        if found.errors.is_empty() {
            return Ok(Parsed { config, warnings: found.warnings, files: found.files });
        }
        Err(ConfigErrors { file: file.to_owned(), text: text.to_owned(), problems: found.errors })
    }
}

impl Places {
    /// Reads what a `proxy.toml` says of where its edge keeps things, whatever mistakes there are elsewhere: an edge that
    /// runs must be found although its file was just broken.
    pub fn read(file: &str, text: &str, lookup: &Lookup<'_>) -> Places {
        let syntax::Mended { text: whole, .. } = syntax::mend(text);
        let (tree, _) = DeTable::parse_recoverable(&whole);
        let cx = Context::new(file, text, lookup);
        let root = Reader::new(&cx, &shape::ROOT, String::new(), Some(tree.get_ref()), 0..0);
        Places { state_dir: edge::state_dir(&root), socket: edge::admin(&root).socket }
    }
}

/// Reads the sections. What is wrong is noted in `cx`, and the config is then not to be used.
fn config(cx: &Context<'_>, tree: &DeTable<'_>, text: &str) -> Config {
    let root = Reader::new(cx, &shape::ROOT, String::new(), Some(tree), 0..0);
    let edge::EdgeRead { edge, redirect, tls_span } = edge::read(&root);
    let metrics = edge::metrics(&root);
    let listeners = listener::read(&root, redirect, &metrics);
    let certificates = listener::certificates(&root);
    let authorities = authority::read(&root, edge.email.as_deref());
    let acme = acme::read(&root, &authorities);
    let mut sites = site::read(&root);
    let services = service::read(&root, &edge, &mut sites);
    check::some_service(&root, text);
    check::claims(cx, &services);
    client_tls::agree(cx, &services);
    let declared = authorities.declared;
    let found =
        check::Certificates { listeners: &listeners, files: &certificates, edge_span: tls_span, acme: &acme, declared };
    found.check(cx, &services);
    sites.warn_unused(cx);
    Config {
        edge,
        listeners,
        sites: sites.into_sites(),
        services: services.into_iter().map(|read| read.service.into()).collect(),
        certificates,
        acme,
        admin: edge::admin(&root),
        metrics: metrics.metrics,
        log: edge::log(&root),
    }
}
