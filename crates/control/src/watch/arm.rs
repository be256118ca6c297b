//! The kernel's help: events for files and their directories. Always allowed to be deaf; `watch` then polls.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// A directory or file by its identity, so that one that took another's name is armed anew.
type Inode = (u64, u64);

/// What is armed now.
pub(super) struct Armed {
    watcher: Option<RecommendedWatcher>,
    watched: HashMap<Inode, PathBuf>,
    trouble: Option<String>,
}

impl Armed {
    /// Events become nudges; one waiting nudge is enough.
    pub(super) fn new(nudge: mpsc::Sender<()>) -> Armed {
        let on_event = move |event: notify::Result<notify::Event>| {
            // Reading the files ourselves raises Access events: hearing those would never end.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                // Full means that a look is due already.
                let _ = nudge.try_send(());
            }
        };
        match notify::recommended_watcher(on_event) {
            Ok(watcher) => Armed { watcher: Some(watcher), watched: HashMap::new(), trouble: None },
            Err(error) => Armed { trouble: Some(error.to_string()), ..Armed::deaf() },
        }
    }

    /// Without events.
    pub(super) fn deaf() -> Armed {
        Armed { watcher: None, watched: HashMap::new(), trouble: None }
    }

    /// Why events may be missed; `None`: they should come.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Watches these files and their directories, and nothing else. Blocks.
    pub(super) fn arm(&mut self, files: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted = inodes(files);
        self.watched.retain(|inode, path| {
            let stays = wanted.get(inode) == Some(path);
            if !stays {
                // The kernel has dropped it already when the file is gone: an error here says just that.
                let _ = watcher.unwatch(path);
            }
            stays
        });
        self.trouble = None;
        for (inode, path) in wanted {
            if self.watched.contains_key(&inode) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(inode, path);
                }
                // Gone between the look and now: the next look finds what took its place.
                Err(_) if !path.exists() => {}
                Err(error) => self.trouble = Some(error.to_string()),
            }
        }
    }
}

/// Files, their directories, and where links lead: each inode once.
fn inodes(files: &[PathBuf]) -> HashMap<Inode, PathBuf> {
    let mut wanted = HashMap::new();
    for file in files {
        let real = file.canonicalize().ok();
        let candidates = [directory(file), real.as_deref().and_then(directory), Some(file.clone())];
        for path in candidates.into_iter().flatten() {
            if let Ok(meta) = path.metadata() {
                wanted.entry((meta.dev(), meta.ino())).or_insert(path);
            }
        }
    }
    wanted
}

fn directory(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_path_buf() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn nudged(nudges: &mut mpsc::Receiver<()>, how: &str) {
        let nudge = tokio::time::timeout(Duration::from_secs(30), nudges.recv()).await;
        nudge.unwrap_or_else(|_| panic!("no event after: {how}")).expect("the watcher lives");
        // The rest of the same edit.
        while tokio::time::timeout(Duration::from_millis(50), nudges.recv()).await.is_ok() {}
    }

    /// The poll hides a deaf watcher from every test above it: here events alone count, twice for each way.
    #[tokio::test]
    async fn events_come_for_every_way_of_saving() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("proxy.toml"), "zero").unwrap();
        let (nudge, mut nudges) = mpsc::channel(1);
        let mut armed = Armed::new(nudge);
        armed.arm(&[at("proxy.toml")]);
        assert_eq!(armed.trouble(), None);
        for text in ["one", "two"] {
            std::fs::write(at("proxy.toml"), text).unwrap();
            nudged(&mut nudges, "written in place").await;

            std::fs::write(at("new"), text).unwrap();
            std::fs::rename(at("new"), at("proxy.toml")).unwrap();
            nudged(&mut nudges, "renamed over").await;
            armed.arm(&[at("proxy.toml")]);

            std::fs::remove_file(at("proxy.toml")).unwrap();
            nudged(&mut nudges, "removed").await;
            armed.arm(&[at("proxy.toml")]);
            std::fs::write(at("proxy.toml"), text).unwrap();
            nudged(&mut nudges, "made again").await;
            armed.arm(&[at("proxy.toml")]);
        }
    }

    #[tokio::test]
    async fn reading_raises_no_event() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proxy.toml");
        std::fs::write(&file, "zero").unwrap();
        let (nudge, mut nudges) = mpsc::channel(1);
        let mut armed = Armed::new(nudge);
        armed.arm(std::slice::from_ref(&file));
        for _ in 0..10 {
            std::fs::read(&file).unwrap();
        }
        // Events come in order: the first thing heard is this write, and reading came before it.
        std::fs::write(&file, "one").unwrap();
        nudged(&mut nudges, "written").await;
        // On a busy machine the rest of the write may come late; that of reading would come each time.
        let mut heard = 0;
        for _ in 0..5 {
            for _ in 0..10 {
                std::fs::read(&file).unwrap();
            }
            if tokio::time::timeout(Duration::from_millis(300), nudges.recv()).await.is_err() {
                return;
            }
            heard += 1;
        }
        panic!("reading was heard {heard} times");
    }
}
