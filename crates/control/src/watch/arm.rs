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
