//! What the kernel is told about a line, and when it asks.

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

const PATIENCE: Duration = Duration::from_secs(7);

const AGAIN: Duration = Duration::from_secs(2);

const EVERY: Duration = Duration::from_millis(20);

async fn pair(kind: Carries) -> (TcpStream, Line) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (there, _) = listener.accept().await.unwrap();
    (there, Line::new(stream, PATIENCE, EVERY, kind))
}

fn timeout(line: &Line) -> Option<Duration> {
    SockRef::from(&line.stream).tcp_user_timeout().unwrap().filter(|limit| !limit.is_zero())
}

/// Sends half of the room, hears a byte, and sends as much again, often.
async fn talk(kind: Carries) -> Option<Duration> {
    let (mut there, mut line) = pair(kind).await;
    for _ in 0..4 {
        line.write_all(&[0; ROOM / 2]).await.unwrap();
        there.write_all(b"x").await.unwrap();
        line.read_exact(&mut [0]).await.unwrap();
    }
    timeout(&line)
}

#[tokio::test]
async fn only_what_fits_into_any_window_is_watched() {
    let (_there, mut line) = pair(Carries::Requests(None)).await;
    assert_eq!(timeout(&line), Some(PATIENCE));
    line.write_all(&[0; ROOM]).await.unwrap();
    assert_eq!(timeout(&line), Some(PATIENCE));
    line.write_all(&[0]).await.unwrap();
    assert_eq!(timeout(&line), None);
}

#[tokio::test]
async fn a_connection_that_carried_much_is_watched_again_by_the_next_request() {
    for (again, expected) in [(None, PATIENCE), (Some(AGAIN), AGAIN)] {
        let (mut there, mut line) = pair(Carries::Requests(again)).await;
        line.write_all(&[0; ROOM + 1]).await.unwrap();
        there.read_exact(&mut [0; ROOM + 1]).await.unwrap();
        there.write_all(b"x").await.unwrap();
        line.read_exact(&mut [0]).await.unwrap();
        assert_eq!(timeout(&line), None);
        for _ in 0..2 {
            line.write_all(&[0]).await.unwrap();
            assert_eq!(timeout(&line), Some(expected));
        }
    }
}

#[tokio::test]
async fn an_answer_shows_that_the_request_was_read_and_a_word_in_a_tunnel_does_not() {
    assert_eq!(talk(Carries::Requests(None)).await, Some(PATIENCE));
    assert_eq!(talk(Carries::Shared).await, Some(PATIENCE));
    assert_eq!(talk(Carries::Requests(Some(AGAIN))).await, Some(AGAIN));
    assert_eq!(talk(Carries::Bytes).await, None);
}

async fn reads_until(line: &mut Line, seen: impl Fn(&Line) -> bool) {
    let reads = std::future::poll_fn(|cx| {
        let mut byte = [0];
        let _ = Pin::new(&mut *line).poll_read(cx, &mut ReadBuf::new(&mut byte));
        if seen(line) { Poll::Ready(()) } else { Poll::Pending }
    });
    tokio::time::timeout(Duration::from_secs(30), reads).await.unwrap();
}

fn asks(line: &Line) -> bool {
    SockRef::from(&line.stream).keepalive().unwrap()
}

fn first_question(line: &Line) -> Duration {
    SockRef::from(&line.stream).tcp_keepalive_time().unwrap()
}

#[tokio::test]
async fn a_silent_line_is_asked_after_until_it_is_spoken_on() {
    for kind in [Carries::Requests(None), Carries::Bytes] {
        let (mut there, mut line) = pair(kind).await;
        line.patience = EVERY * 2;
        assert!(!asks(&line));
        for _ in 0..2 {
            reads_until(&mut line, |line| line.asking == Asking::Calm).await;
            assert!(asks(&line));
            // What was sent last may still be lost: that is noticed too, and no single lost question ends it.
            // Longer where this look came late.
            assert!(timeout(&line).is_some_and(|limit| limit >= CALM), "{:?}", timeout(&line));
            assert_eq!(first_question(&line), ASK_AFTER);
            line.write_all(&[0]).await.unwrap();
            assert!(!asks(&line));
            assert_eq!(timeout(&line), Some(EVERY * 2));
            there.write_all(b"x").await.unwrap();
            line.read_exact(&mut [0]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn where_an_answer_is_waited_for_the_questions_come_early_and_not_for_ever() {
    // Nothing is asked before its time where that would lengthen the wait for what may not have arrived.
    for (patience, from) in [(EVERY, EVERY + LATE), (EVERY * 5, EVERY * 5 + LATE), (LEAST_SILENCE * 2, EVERY)] {
        let (_there, mut line) = pair(Carries::Requests(Some(AGAIN))).await;
        line.patience = patience;
        line.write_all(&[0]).await.unwrap();
        reads_until(&mut line, |line| line.asking != Asking::No).await;
        assert_eq!((line.asking, line.silent), (Asking::Hurried, from));
        assert_eq!(first_question(&line), ASK_SOON);
        let limit = timeout(&line).unwrap();
        assert!(limit >= patience.max(LEAST_SILENCE) && limit >= from + HEARD_SOON, "{limit:?}");
        let enough = patience.max(LEAST_SILENCE) * HURRY;
        line.silent = enough - NUDGE * 2;
        reads_until(&mut line, |line| line.silent + NUDGE >= enough).await;
        assert_eq!(line.asking, Asking::Hurried);
        reads_until(&mut line, |line| line.silent >= enough).await;
        assert_eq!((line.asking, timeout(&line), first_question(&line)), (Asking::Calm, Some(CALM), ASK_AFTER));
        line.write_all(&[0]).await.unwrap();
        assert!(!asks(&line));
    }
}

#[tokio::test]
async fn questions_that_begin_late_have_their_time_all_the_same() {
    for (kind, ago, least) in [
        (Carries::Requests(None), LEAST_SILENCE * 2, LEAST_SILENCE * 2 + HEARD_SOON),
        (Carries::Bytes, CALM, CALM + HEARD),
    ] {
        let (_there, mut line) = pair(kind).await;
        line.patience = EVERY;
        line.write_all(&[0]).await.unwrap();
        reads_until(&mut line, |line| !line.silent.is_zero()).await;
        line.since -= ago;
        reads_until(&mut line, |line| line.asking != Asking::No).await;
        let limit = timeout(&line).unwrap();
        assert!(limit >= least, "{limit:?} for {kind:?}");
    }
}

#[tokio::test]
async fn nobody_hurries_any_more_when_the_answer_has_begun() {
    let (mut there, mut line) = pair(Carries::Requests(None)).await;
    line.patience = LEAST_SILENCE;
    line.write_all(&[0]).await.unwrap();
    reads_until(&mut line, |line| line.asking != Asking::No).await;
    assert_eq!(line.asking, Asking::Hurried);
    there.write_all(b"x").await.unwrap();
    line.read_exact(&mut [0]).await.unwrap();
    reads_until(&mut line, |line| line.asking != Asking::Hurried).await;
    assert_eq!((line.asking, timeout(&line), first_question(&line)), (Asking::Calm, Some(CALM), ASK_AFTER));
    assert!(asks(&line));
}

#[tokio::test]
async fn nobody_hurries_where_no_answer_is_waited_for() {
    for (kind, answered) in [(Carries::Bytes, false), (Carries::Shared, false), (Carries::Requests(None), true)] {
        let (mut there, mut line) = pair(kind).await;
        line.patience = EVERY;
        line.write_all(&[0]).await.unwrap();
        if answered {
            there.write_all(b"x").await.unwrap();
            line.read_exact(&mut [0]).await.unwrap();
            line.patience = EVERY;
        }
        reads_until(&mut line, |line| line.asking != Asking::No).await;
        assert_eq!(line.asking, Asking::Calm);
    }
}

#[tokio::test]
async fn a_silent_line_that_carries_much_has_no_other_limit_than_the_number_of_questions() {
    let (_there, mut line) = pair(Carries::Requests(None)).await;
    line.patience = EVERY * 2;
    line.write_all(&[0; ROOM + 1]).await.unwrap();
    reads_until(&mut line, |line| line.asking != Asking::No).await;
    assert!(asks(&line));
    assert_eq!(timeout(&line), None);
}

#[tokio::test]
async fn a_line_that_speaks_or_is_spoken_on_is_not_asked_after() {
    for speaks in [true, false] {
        let (mut there, mut line) = pair(Carries::Requests(None)).await;
        (line.patience, line.silent) = (EVERY * 5, EVERY * 4);
        if speaks {
            there.write_all(b"x").await.unwrap();
            line.read_exact(&mut [0]).await.unwrap();
        } else {
            line.write_all(b"x").await.unwrap();
        }
        let looked = |line: &Line| line.silent != EVERY * 4;
        reads_until(&mut line, looked).await;
        assert!(line.silent.is_zero() && line.asking == Asking::No);
    }
}
