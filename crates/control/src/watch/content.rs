//! What the watched files hold, as hashes, and whether that is news.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Change, Target};

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
}

#[derive(Debug)]
struct Known {
    /// As last told by the loop: when it is told anew, that counts and not what was seen.
    in_force: Option<u64>,
    /// Last content reported, or in force; `None`: cannot be read.
    hash: Option<u64>,
    gone_since: Option<Instant>,
}

/// The outcome of a look.
pub(super) struct Looked {
    pub(super) contents: Contents,
    pub(super) change: Option<Change>,
}

/// Reads everything and compares, off the loop's thread. `None`: the runtime is shutting down.
pub(super) async fn look(mut contents: Contents, targets: Vec<Target>) -> Option<Looked> {
    let work = move || {
        let change = contents.compare(&targets, Instant::now(), |path| std::fs::read(path).ok());
        Looked { contents, change }
    };
    tokio::task::spawn_blocking(work).await.ok()
}

impl Contents {
    /// The most important change since the last call.
    fn compare(&mut self, targets: &[Target], now: Instant, read: impl Fn(&Path) -> Option<Vec<u8>>) -> Option<Change> {
        self.known.retain(|path, _| targets.iter().any(|target| target.path == *path));
        let mut change = None;
        for target in targets {
            let content = read(&target.path).map(|bytes| hash(&bytes));
            if self.is_news(target, content, now) && change != Some(Change::Config) {
                change = Some(target.kind);
            }
        }
        change
    }

    fn is_news(&mut self, target: &Target, content: Option<u64>, now: Instant) -> bool {
        let in_force = target.in_force;
        let told = || Known { in_force, hash: in_force, gone_since: None };
        let known = self.known.entry(target.path.clone()).or_insert_with(told);
        if known.in_force != in_force {
            *known = told();
        }
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

    type Disk = HashMap<&'static str, &'static str>;

    fn targets(config: &str) -> Vec<Target> {
        let target = |path: &str, kind, text: &str| Target {
            path: PathBuf::from(path),
            kind,
            in_force: Some(hash(text.as_bytes())),
        };
        vec![
            target("proxy.toml", Change::Config, config),
            target("page.html", Change::Config, "page"),
            target("a.pem", Change::Certificates, "key"),
        ]
    }

    fn compare(contents: &mut Contents, targets: &[Target], at: Instant, disk: &Disk) -> Option<Change> {
        contents.compare(targets, at, |path| disk.get(path.to_str().unwrap()).map(|text| text.as_bytes().to_vec()))
    }

    #[test]
    fn content_decides_and_absence_needs_time() {
        let start = Instant::now();
        let mut disk = Disk::from([("proxy.toml", "one"), ("page.html", "page"), ("a.pem", "key")]);
        let (mut contents, told) = (Contents::default(), targets("one"));
        let mut look = |disk: &Disk, second| compare(&mut contents, &told, start + Duration::from_secs(second), disk);
        assert_eq!(look(&disk, 0), None, "the beginning is no news");

        disk.insert("a.pem", "other key");
        assert_eq!(look(&disk, 1), Some(Change::Certificates));
        assert_eq!(look(&disk, 1), None, "news is told once");

        disk.insert("page.html", "other page");
        disk.insert("a.pem", "third key");
        assert_eq!(look(&disk, 2), Some(Change::Config), "a reload reads the certificates too");
        assert_eq!(look(&disk, 2), None);

        disk.remove("proxy.toml");
        assert_eq!(look(&disk, 3), None, "removed a moment ago");
        disk.insert("proxy.toml", "one");
        assert_eq!(look(&disk, 4), None, "back as it was");
        disk.remove("proxy.toml");
        assert_eq!(look(&disk, 5), None);
        assert_eq!(look(&disk, 8), Some(Change::Config), "gone for good");
        assert_eq!(look(&disk, 9), None);
        disk.insert("proxy.toml", "one");
        assert_eq!(look(&disk, 10), Some(Change::Config), "back after the report");
    }

    #[test]
    fn whatever_differs_from_what_is_in_force_is_news() {
        let now = Instant::now();
        let mut disk = Disk::from([("proxy.toml", "two"), ("page.html", "page"), ("a.pem", "key")]);
        let mut contents = Contents::default();
        assert_eq!(compare(&mut contents, &targets("one"), now, &disk), Some(Change::Config));
        assert_eq!(compare(&mut contents, &targets("two"), now, &disk), None, "applied: told as in force");
        // It changed again between its reading and its coming into force.
        disk.insert("proxy.toml", "four");
        assert_eq!(compare(&mut contents, &targets("three"), now, &disk), Some(Change::Config));
        assert_eq!(compare(&mut contents, &targets("three"), now, &disk), None);
    }
}
