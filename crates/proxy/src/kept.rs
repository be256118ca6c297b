//! What is kept of a request body for another attempt: in memory first, then in a spool file.
//!
//! The spool is the one place of this crate that touches a file: a body may be larger than what memory should hold. The
//! file is created without a name and for its owner only (mode 0600), so nothing is left behind whatever happens, and
//! it is written and read on the runtime's blocking threads, never on the worker's own.

use std::fs::{File, Permissions};
use std::future::Future;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes read back at a time, and written to the spool at a time: however small the pieces in which a body comes.
const BLOCK: usize = 64 << 10;

/// Where spool files are made, and how much all of them may hold.
#[derive(Debug)]
pub struct Spools {
    folder: PathBuf,
    used: AtomicU64,
}

impl Spools {
    /// In a folder that must exist.
    #[must_use]
    pub fn new(folder: &Path) -> Arc<Self> {
        Arc::new(Self { folder: folder.to_path_buf(), used: AtomicU64::new(0) })
    }

    /// Takes `bytes` out of what is allowed in all.
    fn reserve(&self, bytes: u64, allowed: u64) -> bool {
        let took =
            self.used.fetch_update(Relaxed, Relaxed, |used| used.checked_add(bytes).filter(|sum| *sum <= allowed));
        took.is_ok()
    }
}

/// How much may be kept.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    /// Bytes in memory; 0: nothing is kept at all.
    pub(crate) memory: u64,
    /// Bytes on disk beyond that.
    pub(crate) disk: u64,
    /// Bytes on disk of all requests together.
    pub(crate) disk_total: u64,
    pub(crate) spools: Arc<Spools>,
}

impl Allowance {
    /// Keeps nothing.
    pub(crate) fn nothing(spools: &Arc<Spools>) -> Self {
        Self { memory: 0, disk: 0, disk_total: 0, spools: Arc::clone(spools) }
    }
}

/// Where a reader stands: bytes taken, kept or not.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Position {
    pub(crate) taken: u64,
}

/// The bytes read from the client so far, as long as all of them are still there.
#[derive(Debug)]
pub(crate) struct Kept {
    allowance: Allowance,
    /// The beginning, copied together: a body may come byte by byte, and each piece as it comes holds a whole buffer.
    memory: Vec<u8>,
    spool: Option<Spool>,
    /// Bytes were dropped: no attempt can have the whole body any more.
    lost: bool,
    /// No further attempt will want them.
    released: bool,
}

/// What is behind the part in memory.
#[derive(Debug)]
struct Spool {
    file: Option<Arc<File>>,
    /// Bytes on disk, or on their way there.
    written: u64,
    /// Bytes for the next block.
    tail: Vec<u8>,
    job: Option<Job>,
    spools: Arc<Spools>,
}

#[derive(Debug)]
enum Job {
    Append(JoinHandle<std::io::Result<Arc<File>>>),
    /// From an offset: a replay that was given up leaves its read behind.
    Read(u64, JoinHandle<std::io::Result<Bytes>>),
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.spools.used.fetch_sub(self.len(), Relaxed);
    }
}

impl Kept {
    /// `expected`: the length of the body, when stated. A body that cannot fit is not kept at all.
    pub(crate) fn new(allowance: Allowance, expected: Option<u64>) -> Self {
        let lost = expected.is_some_and(|length| length > allowance.memory + allowance.disk);
        Self { allowance, memory: Vec::new(), spool: None, lost, released: false }
    }

    /// Whether every byte read so far is there.
    pub(crate) fn whole(&self) -> bool {
        !self.lost
    }

    /// The answer has begun: nobody will ask again for what an attempt has already taken.
    pub(crate) fn release(&mut self) {
        self.released = true;
    }

    fn lose(&mut self) {
        self.lost = true;
        self.memory = Vec::new();
        self.spool = None;
    }

    /// Keeps the next bytes, which the reader at `position` has already.
    pub(crate) fn append(&mut self, data: &Bytes, position: &mut Position) {
        position.taken += data.len() as u64;
        if self.released {
            self.lose();
        }
        if self.lost || data.is_empty() {
            return;
        }
        let bytes = data.len() as u64;
        if self.spool.is_none() && self.memory.len() as u64 + bytes <= self.allowance.memory {
            self.memory.extend_from_slice(data);
            return;
        }
        let spooled = self.spool.as_ref().map_or(0, Spool::len);
        let fits = self.allowance.memory > 0 && spooled + bytes <= self.allowance.disk;
        if !fits || !self.allowance.spools.reserve(bytes, self.allowance.disk_total) {
            self.lose();
            return;
        }
        let spools = &self.allowance.spools;
        let spool = self.spool.get_or_insert_with(|| Spool {
            file: None,
            written: 0,
            tail: Vec::new(),
            job: None,
            spools: Arc::clone(spools),
        });
        spool.append(data);
    }

    /// Ready when no write is under way. A spool that cannot be written loses the body, not the request.
    pub(crate) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(spool) = &mut self.spool else { return Poll::Ready(()) };
        if let Some(Job::Append(job)) = &mut spool.job {
            let result = ready!(Pin::new(job).poll(cx));
            spool.job = None;
            match result {
                Ok(Ok(file)) => spool.file = Some(file),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a request body could not be spooled: it cannot be tried elsewhere");
                    self.lose();
                }
                Err(_) => self.lose(),
            }
        }
        Poll::Ready(())
    }

    /// The next bytes after `position`; `None`: the reader has all that is kept. `Err`: they are gone.
    pub(crate) fn poll_replay(
        &mut self,
        cx: &mut Context<'_>,
        position: &mut Position,
    ) -> Poll<Result<Option<Bytes>, ()>> {
        let in_memory = self.memory.len() as u64;
        if position.taken < in_memory {
            let rest = &self.memory[usize::try_from(position.taken).unwrap_or(usize::MAX)..];
            let data = Bytes::copy_from_slice(&rest[..rest.len().min(BLOCK)]);
            position.taken += data.len() as u64;
            return Poll::Ready(Ok(Some(data)));
        }
        ready!(self.poll_settled(cx));
        let Some(spool) = &mut self.spool else { return Poll::Ready(Ok(None)) };
        let offset = position.taken - in_memory;
        if offset >= spool.len() {
            return Poll::Ready(Ok(None));
        }
        match ready!(spool.poll_read(cx, offset)) {
            Some(data) => {
                position.taken += data.len() as u64;
                Poll::Ready(Ok(Some(data)))
            }
            None => {
                self.lose();
                Poll::Ready(Err(()))
            }
        }
    }
}

impl Spool {
    fn len(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    /// Starts to write when there is a block of it; `poll_settled` must have been ready before.
    fn append(&mut self, data: &Bytes) {
        self.tail.extend_from_slice(data);
        if self.tail.len() < BLOCK {
            return;
        }
        let (block, offset) = (std::mem::take(&mut self.tail), self.written);
        self.written += block.len() as u64;
        let known = self.file.clone();
        let folder = self.spools.folder.clone();
        self.job = Some(Job::Append(spawn_blocking(move || {
            let file = match known {
                Some(file) => file,
                None => Arc::new(create(&folder)?),
            };
            file.write_all_at(&block, offset)?;
            Ok(file)
        })));
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, offset: u64) -> Poll<Option<Bytes>> {
        if let Some(into) = offset.checked_sub(self.written) {
            let into = usize::try_from(into).unwrap_or(usize::MAX);
            return Poll::Ready(self.tail.get(into..).map(Bytes::copy_from_slice));
        }
        if !matches!(self.job, Some(Job::Read(under_way, _)) if under_way == offset) {
            let Some(file) = self.file.clone() else { return Poll::Ready(None) };
            let bytes = usize::try_from((self.written - offset).min(BLOCK as u64)).unwrap_or(0);
            let read = spawn_blocking(move || {
                let mut buffer = vec![0; bytes];
                file.read_exact_at(&mut buffer, offset)?;
                Ok(Bytes::from(buffer))
            });
            self.job = Some(Job::Read(offset, read));
        }
        let Some(Job::Read(_, job)) = &mut self.job else { return Poll::Ready(None) };
        let result = ready!(Pin::new(job).poll(cx));
        self.job = None;
        Poll::Ready(result.ok().and_then(Result::ok))
    }
}

/// A file without a name, for its owner only: without one the system's mask alone would say for whom.
fn create(folder: &Path) -> std::io::Result<File> {
    let file = tempfile::tempfile_in(folder)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn allowance(folder: &Path, memory: u64, disk: u64, disk_total: u64) -> Allowance {
        Allowance { memory, disk, disk_total, spools: Spools::new(folder) }
    }

    async fn keep(kept: &mut Kept, chunks: &[Bytes]) -> Position {
        let mut position = Position::default();
        for chunk in chunks {
            poll_fn(|cx| kept.poll_settled(cx)).await;
            kept.append(chunk, &mut position);
        }
        position
    }

    async fn replay(kept: &mut Kept) -> Result<Vec<u8>, ()> {
        let mut position = Position::default();
        let mut all = Vec::new();
        while let Some(data) = poll_fn(|cx| kept.poll_replay(cx, &mut position)).await? {
            all.extend_from_slice(&data);
        }
        Ok(all)
    }

    fn chunks(sizes: &[usize]) -> Vec<Bytes> {
        sizes.iter().enumerate().map(|(i, size)| Bytes::from(vec![u8::try_from(i).unwrap(); *size])).collect()
    }

    #[tokio::test]
    async fn memory_then_disk_give_back_every_byte_twice() {
        let folder = tempfile::tempdir().unwrap();
        let chunks = chunks(&[100, 60_000, 70_000, 1, 200_000]);
        let mut kept = Kept::new(allowance(folder.path(), 64 << 10, 1 << 20, 1 << 20), None);
        keep(&mut kept, &chunks).await;
        assert!(kept.whole());
        let expected = chunks.concat();
        assert_eq!(replay(&mut kept).await.unwrap(), expected);
        assert_eq!(replay(&mut kept).await.unwrap(), expected);
        let names = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 0, "the spool must have no name");
        let file = kept.spool.as_ref().and_then(|spool| spool.file.as_ref()).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "for its owner only");
        let spools = Arc::clone(&kept.allowance.spools);
        assert_eq!(spools.used.load(Relaxed), 270_001);
        drop(kept);
        assert_eq!(spools.used.load(Relaxed), 0);
    }

    #[test]
    fn a_replay_given_up_in_the_middle_of_a_read_does_not_disturb_the_next() {
        // One blocking thread: whoever holds it, holds up every read.
        let one = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        one.block_on(give_up_a_read());
    }

    async fn give_up_a_read() {
        let folder = tempfile::tempdir().unwrap();
        let chunks = chunks(&[10, 60_000, 70_000, 90_000]);
        let mut kept = Kept::new(allowance(folder.path(), 10, 1 << 20, 1 << 20), None);
        keep(&mut kept, &chunks).await;
        let mut position = Position::default();
        for _ in 0..2 {
            poll_fn(|cx| kept.poll_replay(cx, &mut position)).await.unwrap().unwrap();
        }
        assert!(position.taken > 10);
        // Starts the read behind `position`, which cannot end yet, and leaves it.
        let (go, held) = std::sync::mpsc::channel::<()>();
        let holder = spawn_blocking(move || held.recv());
        let begun = poll_fn(|cx| Poll::Ready(kept.poll_replay(cx, &mut position).is_pending())).await;
        assert!(begun, "the read must be under way");
        drop(go);
        assert!(holder.await.unwrap().is_err(), "nobody said anything");
        assert_eq!(replay(&mut kept).await.unwrap(), chunks.concat());
    }

    #[tokio::test]
    async fn what_is_too_large_is_lost_not_half_kept() {
        let folder = tempfile::tempdir().unwrap();
        for allowance in [
            allowance(folder.path(), 100, 100, 1000),
            allowance(folder.path(), 100, 1000, 100),
            allowance(folder.path(), 0, 1000, 1000),
            allowance(Path::new("/proc/self/nowhere"), 100, 1 << 20, 1 << 20),
        ] {
            let spools = Arc::clone(&allowance.spools);
            let mut kept = Kept::new(allowance, None);
            keep(&mut kept, &chunks(&[90, 90, 90, 90_000])).await;
            poll_fn(|cx| kept.poll_settled(cx)).await;
            assert!(!kept.whole());
            assert_eq!(spools.used.load(Relaxed), 0);
        }
        let kept = Kept::new(allowance(folder.path(), 100, 100, 1000), Some(201));
        assert!(!kept.whole());
    }

    #[tokio::test]
    async fn a_body_that_comes_byte_by_byte_costs_no_more_than_another() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(allowance(folder.path(), 64 << 10, 1 << 20, 1 << 20), None);
        // Each byte as it comes from a socket: a piece of a buffer that is as long as it is held.
        let body: Vec<Bytes> =
            (0..200_000_u32).map(|n| Bytes::from(vec![u8::try_from(n % 251).unwrap(); 64]).slice(..1)).collect();
        keep(&mut kept, &body).await;
        assert!(kept.memory.capacity() <= 128 << 10, "{}", kept.memory.capacity());
        let spool = kept.spool.as_ref().unwrap();
        assert_eq!((spool.written, spool.tail.len()), (2 * BLOCK as u64, 200_000 - 3 * BLOCK), "written in blocks");
        assert_eq!(replay(&mut kept).await.unwrap(), body.concat());
    }

    #[tokio::test]
    async fn after_the_answer_began_nothing_more_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(allowance(folder.path(), 1000, 1000, 1000), None);
        let mut position = keep(&mut kept, &chunks(&[10, 10])).await;
        kept.release();
        kept.append(&Bytes::from_static(b"more"), &mut position);
        assert!(!kept.whole());
        assert_eq!(poll_fn(|cx| kept.poll_replay(cx, &mut position)).await, Ok(None));
    }
}
