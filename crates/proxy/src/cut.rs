//! A drill at the sockets: while a backend's site is in one, its connections behave as if it were cut. This is the only
//! room that acts on a drill; everything above meets what it would meet in a real outage.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use relais_core::{Fault, Shape};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::task::AbortHandle;

const NONE: u8 = 0;
const SILENT: u8 = 1;
const REFUSED: u8 = 2;
const SLOW: u8 = 3;

/// A drill as one backend's connections see it: how they behave, and how late a slow answer is.
pub(crate) type Drilled = (Shape, Duration);

/// The switch of one worker's connections to one backend.
#[derive(Default)]
pub(crate) struct Cut {
    shape: AtomicU8,
    /// Microseconds by which a slow answer is late.
    late: AtomicU64,
    changed: Arc<Notify>,
    /// Tasks that drive connections: those of a killed process break.
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Cut {
    /// Behaves like this from now on.
    pub(crate) fn set(&self, drill: Option<Drilled>) {
        let (shape, late) = match drill {
            None => (NONE, Duration::ZERO),
            Some((Shape::Silent, late)) => (SILENT, late),
            Some((Shape::Refused, late)) => (REFUSED, late),
            Some((Shape::Slow, late)) => (SLOW, late),
        };
        self.late.store(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Relaxed);
        if self.shape.swap(shape, Relaxed) == shape {
            return;
        }
        if shape == REFUSED {
            for task in self.tasks.lock().drain(..) {
                task.abort();
            }
        }
        self.changed.notify_waiters();
    }

    /// Whether connections break and new ones are refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.shape.load(Relaxed) == REFUSED
    }

    /// What a connect meets before it is made.
    pub(crate) async fn pass_connect(&self) -> Result<(), Fault> {
        loop {
            let changed = Arc::clone(&self.changed).notified_owned();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.shape.load(Relaxed) {
                SILENT => changed.await,
                REFUSED => return Err(Fault::Refused),
                _ => return Ok(()),
            }
        }
    }

    /// Remembers the task that drives a connection, so that it can be broken.
    pub(crate) fn drives(&self, task: AbortHandle) {
        let mut tasks = self.tasks.lock();
        // The list grows with connections, not with time: those that ended go whenever it has doubled.
        if tasks.len() >= 32 && tasks.len().is_power_of_two() {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    }
}

type Wait = Pin<Box<OwnedNotified>>;

/// A connection behind the switch. Outside a drill it costs one relaxed load per call.
pub(crate) struct Gated<S> {
    stream: S,
    cut: Arc<Cut>,
    waits: Option<Box<Waits>>,
}

/// What only a connection in a drill needs.
#[derive(Default)]
struct Waits {
    read: Option<Wait>,
    write: Option<Wait>,
    late: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<S> Gated<S> {
    pub(crate) fn new(stream: S, cut: Arc<Cut>) -> Self {
        Self { stream, cut, waits: None }
    }

    pub(crate) fn inner(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Ready when bytes may pass.
    fn pass(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Result<()>> {
        if self.cut.shape.load(Relaxed) == NONE {
            return Poll::Ready(Ok(()));
        }
        self.drilled(cx, reading)
    }

    #[cold]
    fn drilled(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Result<()>> {
        let waits = self.waits.get_or_insert_with(Box::default);
        loop {
            let wait = if reading { &mut waits.read } else { &mut waits.write };
            // Registered before the look: a change in between is not missed.
            let woken = wait
                .get_or_insert_with(|| Box::pin(Arc::clone(&self.cut.changed).notified_owned()))
                .as_mut()
                .poll(cx)
                .is_ready();
            match self.cut.shape.load(Relaxed) {
                SILENT if !woken => return Poll::Pending,
                SILENT => *wait = None,
                REFUSED => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                SLOW if reading => {
                    let late = Duration::from_micros(self.cut.late.load(Relaxed));
                    let late = waits.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(late)));
                    if !late.is_elapsed() {
                        ready!(late.as_mut().poll(cx));
                    }
                    return Poll::Ready(Ok(()));
                }
                SLOW => {
                    // What is asked now is answered late again. The timer stays: a reader may already wait for it.
                    if let Some(timer) = &mut waits.late {
                        let late = Duration::from_micros(self.cut.late.load(Relaxed));
                        timer.as_mut().reset(tokio::time::Instant::now() + late);
                    }
                    return Poll::Ready(Ok(()));
                }
                _ => {
                    self.waits = None;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.pass(cx, true))?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.pass(cx, false))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.pass(cx, false))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Nothing is kept back here: flushing and closing concern this side alone, as with a cut cable.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;

    const LATE: Duration = Duration::from_millis(100);
    const SOON: Duration = Duration::from_millis(30);

    fn pair() -> (DuplexStream, Gated<DuplexStream>, Arc<Cut>) {
        let (there, here) = duplex(64);
        let cut = Arc::new(Cut::default());
        (there, Gated::new(here, Arc::clone(&cut)), cut)
    }

    #[tokio::test]
    async fn a_silent_connection_gets_and_sends_nothing_and_goes_on_afterwards() {
        let (mut there, mut here, cut) = pair();
        cut.set(Some((Shape::Silent, LATE)));
        there.write_all(b"answer").await.unwrap();
        let mut word = [0; 6];
        assert!(timeout(SOON, here.read_exact(&mut word)).await.is_err());
        assert!(timeout(SOON, here.write_all(b"question")).await.is_err());
        let waiting = tokio::spawn(async move {
            here.read_exact(&mut word).await.unwrap();
            here.write_all(b"ok").await.unwrap();
            word
        });
        tokio::task::yield_now().await;
        cut.set(None);
        assert_eq!(&waiting.await.unwrap(), b"answer");
        let mut ok = [0; 2];
        there.read_exact(&mut ok).await.unwrap();
        assert_eq!(&ok, b"ok", "what was held back while it was cut was never sent");
    }

    #[tokio::test]
    async fn a_waiting_reader_hears_nothing_of_what_comes_in_the_cut() {
        let (mut there, mut here, cut) = pair();
        let waiting = tokio::spawn(async move {
            let mut word = [0; 1];
            here.read_exact(&mut word).await.unwrap();
        });
        tokio::task::yield_now().await;
        cut.set(Some((Shape::Silent, LATE)));
        there.write_all(b"x").await.unwrap();
        tokio::time::sleep(SOON).await;
        assert!(!waiting.is_finished());
        cut.set(None);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_refused_one_breaks_and_its_driver_ends() {
        let (_there, mut here, cut) = pair();
        let driver = tokio::spawn(std::future::pending::<()>());
        cut.drives(driver.abort_handle());
        cut.set(Some((Shape::Refused, LATE)));
        assert!(driver.await.unwrap_err().is_cancelled());
        assert_eq!(here.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(cut.pass_connect().await, Err(Fault::Refused));
        cut.set(None);
        assert_eq!(cut.pass_connect().await, Ok(()));
    }

    #[tokio::test]
    async fn a_slow_one_answers_each_question_late() {
        let (mut there, mut here, cut) = pair();
        cut.set(Some((Shape::Slow, LATE)));
        for _ in 0..2 {
            let asked = tokio::time::Instant::now();
            here.write_all(b"?").await.unwrap();
            there.write_all(b"ab").await.unwrap();
            let mut letter = [0; 1];
            here.read_exact(&mut letter).await.unwrap();
            assert!(asked.elapsed() >= LATE, "{:?}", asked.elapsed());
            let rest = timeout(Duration::ZERO, here.read_exact(&mut letter)).await;
            assert!(rest.is_ok(), "the rest of it comes at once");
        }
        assert_eq!(cut.pass_connect().await, Ok(()));
    }

    /// A connection that idles reads already; the question comes later and from the same task.
    #[tokio::test]
    async fn a_reader_that_waited_before_the_question_hears_the_answer() {
        let (mut there, mut here, cut) = pair();
        cut.set(Some((Shape::Slow, LATE)));
        let mut asked = false;
        let answer = std::future::poll_fn(move |cx| {
            let mut letter = [0; 1];
            let mut buffer = ReadBuf::new(&mut letter);
            if Pin::new(&mut here).poll_read(cx, &mut buffer).is_ready() {
                return Poll::Ready(buffer.filled().to_vec());
            }
            if !std::mem::replace(&mut asked, true) {
                assert!(Pin::new(&mut here).poll_write(cx, b"?").is_ready());
            }
            Poll::Pending
        });
        let answer = tokio::spawn(async move { timeout(LATE * 50, answer).await });
        there.read_exact(&mut [0; 1]).await.unwrap();
        there.write_all(b"!").await.unwrap();
        assert_eq!(answer.await.unwrap().expect("it is not forgotten"), b"!");
    }

    #[tokio::test]
    async fn connects_wait_for_the_end_of_a_silent_cut() {
        let cut = Arc::new(Cut::default());
        cut.set(Some((Shape::Silent, LATE)));
        assert!(timeout(SOON, cut.pass_connect()).await.is_err());
        let waiting = Arc::clone(&cut);
        let waiting = tokio::spawn(async move { waiting.pass_connect().await });
        tokio::task::yield_now().await;
        cut.set(None);
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[test]
    fn the_list_of_drivers_forgets_those_that_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let cut = Cut::default();
        for _ in 0..1000 {
            let driver = runtime.spawn(async {});
            let handle = driver.abort_handle();
            runtime.block_on(driver).unwrap();
            cut.drives(handle);
        }
        assert!(cut.tasks.lock().len() <= 33, "{}", cut.tasks.lock().len());
    }
}
