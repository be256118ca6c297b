//! What the watched files hold, as hashes, and whether that is news.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Change, Targets};

/// How long a file may be gone before that is news: some editors remove and write anew.
const ABSENCE: Duration = Duration::from_secs(2);

/// Hash of a content.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    relais_core::hash::stable(&[bytes])
}

/// What is known of the watched files.
#[derive(Debug, Default)]
pub(super) struct Contents {
    known: HashMap<PathBuf, Known>,
    /// The hash in force as last told: a new one replaces what was seen.
    in_force: Option<u64>,
}

#[derive(Debug)]
struct Known {
    /// Last content reported or taken as the beginning; `None`: cannot be read, and that was reported.
    hash: Option<u64>,
    gone_since: Option<Instant>,
}

/// The outcome of a look.
pub(super) struct Looked {
    pub(super) contents: Contents,
    pub(super) change: Option<Change>,
}

/// Reads everything and compares, off the loop's thread. `None`: the runtime is shutting down.
pub(super) async fn look(mut contents: Contents, targets: Targets) -> Option<Looked> {
    let work = move || {
        let change = contents.compare(&targets, Instant::now(), |path| std::fs::read(path).ok());
        Looked { contents, change }
    };
    tokio::task::spawn_blocking(work).await.ok()
}

impl Contents {
    /// The most important change since the last call.
    fn compare(&mut self, targets: &Targets, now: Instant, read: impl Fn(&Path) -> Option<Vec<u8>>) -> Option<Change> {
        self.known.retain(|path, _| targets.paths().any(|target| target == path));
        if let Some((path, in_force)) = &targets.config
            && self.in_force != Some(*in_force)
        {
            self.in_force = Some(*in_force);
            self.known.insert(path.clone(), Known { hash: Some(*in_force), gone_since: None });
        }
        let config_files = targets.config.iter().map(|(path, _)| path).chain(&targets.parts);
        let mut config = false;
        for path in config_files {
            config |= self.is_news(path, now, &read);
        }
        let mut certificates = false;
        for path in &targets.certificates {
            certificates |= self.is_news(path, now, &read);
        }
        match (config, certificates) {
            (true, _) => Some(Change::Config),
            (false, true) => Some(Change::Certificates),
            (false, false) => None,
        }
    }

    fn is_news(&mut self, path: &Path, now: Instant, read: impl Fn(&Path) -> Option<Vec<u8>>) -> bool {
        let content = read(path).map(|bytes| hash(&bytes));
        let Some(known) = self.known.get_mut(path) else {
            self.known.insert(path.to_path_buf(), Known { hash: content, gone_since: None });
            return false;
        };
        if content.is_none() && known.hash.is_some() {
            let since = *known.gone_since.get_or_insert(now);
            if now.duration_since(since) < ABSENCE {
                return false;
            }
        }
        known.gone_since = None;
        let news = known.hash != content;
        known.hash = content;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(in_force: &str) -> Targets {
        Targets {
            config: Some((PathBuf::from("proxy.toml"), hash(in_force.as_bytes()))),
            parts: vec![PathBuf::from("page.html")],
            certificates: vec![PathBuf::from("a.pem")],
        }
    }

    struct Disk(HashMap<&'static str, &'static str>);

    impl Disk {
        fn read(&self, path: &Path) -> Option<Vec<u8>> {
            self.0.get(path.to_str().unwrap()).map(|text| text.as_bytes().to_vec())
        }
    }

    #[test]
    fn content_decides_and_absence_needs_time() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut disk = Disk(HashMap::from([("proxy.toml", "one"), ("page.html", "page"), ("a.pem", "key")]));
        let mut contents = Contents::default();
        let told = targets("one");
        assert_eq!(contents.compare(&told, at(0), |p| disk.read(p)), None, "the beginning is no news");

        disk.0.insert("a.pem", "other key");
        assert_eq!(contents.compare(&told, at(1), |p| disk.read(p)), Some(Change::Certificates));
        assert_eq!(contents.compare(&told, at(1), |p| disk.read(p)), None, "news is told once");

        disk.0.insert("page.html", "other page");
        assert_eq!(contents.compare(&told, at(2), |p| disk.read(p)), Some(Change::Config));

        disk.0.remove("proxy.toml");
        assert_eq!(contents.compare(&told, at(3), |p| disk.read(p)), None, "removed a moment ago");
        disk.0.insert("proxy.toml", "one");
        assert_eq!(contents.compare(&told, at(4), |p| disk.read(p)), None, "back as it was");
        disk.0.remove("proxy.toml");
        assert_eq!(contents.compare(&told, at(5), |p| disk.read(p)), None);
        assert_eq!(contents.compare(&told, at(8), |p| disk.read(p)), Some(Change::Config), "gone for good");
        assert_eq!(contents.compare(&told, at(9), |p| disk.read(p)), None);
        disk.0.insert("proxy.toml", "one");
        assert_eq!(contents.compare(&told, at(10), |p| disk.read(p)), Some(Change::Config), "back after the report");
    }

    #[test]
    fn a_file_that_differs_from_what_is_in_force_is_news_at_once() {
        let disk = Disk(HashMap::from([("proxy.toml", "two")]));
        let mut contents = Contents::default();
        assert_eq!(contents.compare(&targets("one"), Instant::now(), |p| disk.read(p)), Some(Change::Config));
        // Applied: told as in force, so it is known.
        assert_eq!(contents.compare(&targets("two"), Instant::now(), |p| disk.read(p)), None);
    }
}
