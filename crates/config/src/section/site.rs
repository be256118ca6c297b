//! `[sites]`: what fails together, and who uses it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::Site;
use crate::context::{Context, Span};
use crate::fault::Fault;
use crate::node::Node;
use crate::reader::Reader;
use crate::section::{check_name, refuse_twins};
use crate::shape;
use crate::value::address;

/// The site of backends that are listed without one.
pub(crate) const DEFAULT: &str = "default";

/// The highest number of a tier.
pub(crate) const LAST_TIER: u32 = 1000;

/// All sites of the file.
pub(crate) struct Sites {
    entries: Vec<Entry>,
    /// Whether the file has `[sites]`.
    pub(crate) declared: bool,
}

struct Entry {
    site: Site,
    span: Span,
    used: bool,
}

/// Reads `[sites]`.
pub(crate) fn read(root: &Reader<'_>) -> Sites {
    let help = "write `[sites]` and under it one line per site, as `dijon = 1` with the number of its tier";
    let node = root.get("sites");
    let nodes = node.as_ref().and_then(|node| node.named(help)).unwrap_or_default();
    // One behind all others: the example for a site whose tier cannot be read must not make it equal to another.
    let mut free = 1 + nodes.iter().filter_map(written_tier).max().unwrap_or(0);
    let entries: Vec<Entry> = nodes.iter().map(|node| site(node, &mut free)).collect();
    let networks: Vec<(IpNet, Span)> =
        entries.iter().filter_map(|entry| Some((entry.site.network?, entry.span.clone()))).collect();
    refuse_twins(root.cx, "network", &networks);
    Sites { entries, declared: node.is_some() }
}

/// The tier that a site states, right or not. Notes nothing.
fn written_tier(node: &Node<'_>) -> Option<u32> {
    let number = |node: &Node<'_>| node.as_integer().or_else(|| node.spelled());
    let number = match node.is_table() {
        true => node.named("")?.iter().find(|node| node.key == "tier").map_or(Some(1), number),
        false => number(node),
    };
    u32::try_from(number?).ok().filter(|tier| (1..LAST_TIER).contains(tier))
}

/// `free`: a tier that no site has.
fn site(node: &Node<'_>, free: &mut u32) -> Entry {
    check_name(node, "site");
    let mut site = Site { name: node.key.as_str().into(), tier: 1, network: None, labels: Vec::new() };
    if node.is_integer() {
        site.tier = tier(node).unwrap_or(1);
    } else if !node.is_table() {
        let example = written_tier(node).unwrap_or(*free);
        *free = (*free).max(example + 1).min(LAST_TIER);
        node.wrong_type("the number of its tier, or a table", Some(example.to_string()));
    } else if let Some(table) = node.table(&shape::SITE, "") {
        site.tier = table.get("tier").and_then(|node| tier(&node)).unwrap_or(1);
        site.network = table.parsed("network", address::network);
        site.labels = labels(&table);
    }
    Entry { site, span: node.key_span.clone(), used: false }
}

/// Reads the number of a tier.
pub(crate) fn tier(node: &Node<'_>) -> Option<u32> {
    node.integer(1..=LAST_TIER)
}

/// Labels become labels of metrics: their names follow the rule there.
fn labels(table: &Reader<'_>) -> Vec<(String, String)> {
    let nodes = table.get("labels").and_then(|node| node.named("write `labels = { city = \"Dijon\" }`"));
    let label = |node: Node<'_>| {
        let name = &node.key;
        let plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
            && name.starts_with(|first: char| first.is_ascii_alphabetic());
        if !plain || matches!(name.as_str(), "site" | "tier") {
            let fault = Fault::new(format!("`{}` cannot be the name of a label", name.escape_debug()));
            let fault = fault.label("a letter, then letters, digits or `_`; not `site` or `tier`");
            node.cx.error(node.key_span.clone(), fault);
        }
        Some((name.clone(), node.string()?))
    };
    nodes.into_iter().flatten().filter_map(label).collect()
}

impl Sites {
    /// Names of the declared sites.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| &*entry.site.name).collect()
    }

    /// Whether a name is declared.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| &*entry.site.name == name)
    }

    /// Takes a declared site into use.
    pub(crate) fn take(&mut self, name: &str) -> Option<Site> {
        let entry = self.entries.iter_mut().find(|entry| &*entry.site.name == name)?;
        entry.used = true;
        Some(entry.site.clone())
    }

    /// Takes the site of backends without one into use; adds it when it is not declared.
    pub(crate) fn take_default(&mut self) -> Site {
        if let Some(site) = self.take(DEFAULT) {
            return site;
        }
        let site = Site { name: DEFAULT.into(), tier: 1, network: None, labels: Vec::new() };
        self.entries.push(Entry { site: site.clone(), span: 0..0, used: true });
        site
    }

    /// The declared site whose network holds an address; the narrowest, when networks overlap.
    pub(crate) fn holding(&self, ip: IpAddr) -> Option<&Site> {
        let sites = self.entries.iter().map(|entry| &entry.site);
        let holding = sites.filter_map(|site| Some((site.network.filter(|net| net.contains(&ip))?, site)));
        holding.max_by_key(|(net, _)| net.prefix_len()).map(|(_, site)| site)
    }

    /// Warns of sites without backends.
    pub(crate) fn warn_unused(&self, cx: &Context<'_>) {
        for entry in self.entries.iter().filter(|entry| !entry.used) {
            let name = &entry.site.name;
            let fault = Fault::new(format!("no service has a backend on site `{name}`")).label("not used");
            cx.warning(entry.span.clone(), fault.help(format!("list its backends, as `{name} = [\"10.0.0.1:8080\"]` under `[service.NAME.backends]`, or take it out")));
        }
    }

    /// The sites in the order of the file.
    pub(crate) fn into_sites(self) -> Vec<Arc<Site>> {
        self.entries.into_iter().map(|entry| Arc::new(entry.site)).collect()
    }
}
