//! Host and path to a service. Built once per config; a lookup allocates nothing and does not grow with the services.
//!
//! Knows names and prefixes only: whether anybody is there to answer is the pool's business.

use relais_config::Config;

use crate::hash::Table;

/// The routes of one config.
///
/// The host decides first: exact, then wildcard, then catch-all. Among the services of one host the longest path
/// prefix wins. A host that matches without a matching path falls on to the next kind of host.
#[derive(Debug, Default)]
pub struct Router {
    exact: Table<Box<str>, Paths>,
    /// `*.a.fr` is kept under `a.fr`.
    wildcard: Table<Box<str>, Paths>,
    any: Paths,
}

/// Hosts with more prefixes than this have a table of them: below it, looking at each is quicker.
const FEW: usize = 8;

/// Path prefixes of one host.
#[derive(Debug, Default)]
struct Paths {
    /// Longest first, each with the index of its service.
    prefixes: Vec<(Box<str>, usize)>,
    /// The same by prefix, when there are more than [`FEW`].
    table: Table<Box<str>, usize>,
}

impl Paths {
    /// A prefix is kept without its closing slash, so that `/a/` and `/a` are one; `/` becomes the empty prefix.
    /// When two services claim the same prefix the first in the file keeps it, because it stands before the other.
    fn add(&mut self, prefix: &str, service: usize) {
        let prefix = prefix.trim_end_matches('/');
        let at = self.prefixes.partition_point(|(known, _)| known.len() >= prefix.len());
        self.prefixes.insert(at, (prefix.into(), service));
    }

    /// To be called when all are there.
    fn index(&mut self) {
        if self.prefixes.len() > FEW {
            // From the last: of equal prefixes the first one stays.
            self.table = self.prefixes.iter().rev().cloned().collect();
        }
    }

    fn find(&self, path: &str) -> Option<usize> {
        if !self.table.is_empty() {
            return self.look_up(path);
        }
        let takes = |prefix: &str| {
            let rest = path.strip_prefix(prefix);
            // The empty prefix takes everything, `*` of an OPTIONS request included.
            prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.prefixes.iter().find(|(prefix, _)| takes(prefix)).map(|(_, service)| *service)
    }

    /// A prefix ends where the path does, or before one of its slashes: the longest first, and none that is longer than
    /// any prefix, so that clients cannot make it long.
    fn look_up(&self, path: &str) -> Option<usize> {
        let longest = self.prefixes.first().map_or(0, |(prefix, _)| prefix.len());
        let mut end = Some(path.len());
        while let Some(at) = end {
            if at <= longest
                && let Some(service) = self.table.get(&path[..at])
            {
                return Some(*service);
            }
            end = path.as_bytes()[..at.min(longest + 1)].iter().rposition(|byte| *byte == b'/');
        }
        self.table.get("").copied()
    }
}

impl Router {
    /// Builds the table.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut router = Self::default();
        for (index, service) in config.services.iter().enumerate() {
            for host in &service.hosts {
                let paths = router.paths_of(host);
                service.paths.iter().for_each(|prefix| paths.add(prefix, index));
            }
        }
        let kinds = router.exact.values_mut().chain(router.wildcard.values_mut()).chain([&mut router.any]);
        kinds.for_each(Paths::index);
        router
    }

    fn paths_of(&mut self, host: &str) -> &mut Paths {
        if host == "*" {
            return &mut self.any;
        }
        match host.strip_prefix("*.") {
            Some(parent) => self.wildcard.entry(parent.into()).or_default(),
            None => self.exact.entry(host.into()).or_default(),
        }
    }

    /// Index in `Config::services` of the service that takes this host (lower case, no port) and path (no query).
    #[must_use]
    pub fn route(&self, host: &str, path: &str) -> Option<usize> {
        let exact = self.exact.get(host).and_then(|paths| paths.find(path));
        exact.or_else(|| self.wildcard_of(host).and_then(|paths| paths.find(path))).or_else(|| self.any.find(path))
    }

    /// Whether any service takes this host, whatever the path.
    #[must_use]
    pub fn knows_host(&self, host: &str) -> bool {
        !self.any.prefixes.is_empty() || self.exact.contains_key(host) || self.wildcard_of(host).is_some()
    }

    /// Index of a service that takes this host (lower case, no port) on some path.
    #[must_use]
    pub fn service_of(&self, host: &str) -> Option<usize> {
        let some = |paths: &Paths| paths.prefixes.first().map(|(_, service)| *service);
        let exact = self.exact.get(host).and_then(some);
        exact.or_else(|| self.wildcard_of(host).and_then(some)).or_else(|| some(&self.any))
    }

    /// A wildcard stands for exactly one label: `x.a.fr` belongs to `*.a.fr`, `x.y.a.fr` and `a.fr` do not.
    fn wildcard_of(&self, host: &str) -> Option<&Paths> {
        let (label, parent) = host.split_once('.')?;
        if label.is_empty() { None } else { self.wildcard.get(parent) }
    }
}

#[cfg(test)]
mod tests;
