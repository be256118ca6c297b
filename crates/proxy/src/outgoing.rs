//! A body on its way into an HTTP/2 stream, piece by piece as the other end makes room.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

/// A body and the stream it goes to.
pub(crate) struct Outgoing<B> {
    send: SendStream<Bytes>,
    pub(crate) body: B,
    /// How the stream is reset when the body breaks off.
    broken: Reason,
    /// What waits for room, and whether it is the last.
    piece: Option<(Bytes, bool)>,
    /// Since when it does.
    blocked: Option<Instant>,
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    pub(crate) fn new(send: SendStream<Bytes>, body: B, broken: Reason) -> Self {
        Self { send, body, broken, piece: None, blocked: None }
    }

    /// Since when a piece has been waiting for room; `None`: the body itself is waited for.
    pub(crate) fn blocked(&self) -> Option<Instant> {
        self.blocked
    }

    /// Ready when there is nothing more to do: all is handed over, or (`false`) nobody will take the rest, or there is none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            if self.piece.is_some() && !ready!(self.poll_room(cx)) {
                return Poll::Ready(false);
            }
            if let Some((data, last)) = self.piece.take() {
                let taken = self.send.send_data(data, last).is_ok();
                if last || !taken {
                    return Poll::Ready(taken);
                }
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                // Asked for last: whoever waits for room hears of a reset there.
                return self.send.poll_reset(cx).map(|_| false);
            };
            if let Some(whole) = self.give(frame) {
                return Poll::Ready(whole);
            }
        }
    }

    /// The next frame of the body. If it was the last: whether the body is whole.
    fn give(&mut self, frame: Option<Result<Frame<Bytes>, B::Error>>) -> Option<bool> {
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                if !data.is_empty() {
                    // One byte is asked for, not all of them: a claim that waits takes nothing from the window that others
                    // share, and `send_data` asks for the rest.
                    self.send.reserve_capacity(1);
                }
                self.piece = Some((data, self.body.is_end_stream()));
                None
            }
            Some(Ok(Err(other))) => match other.into_trailers() {
                // Refused only where the other end has reset the stream, as everywhere here.
                Ok(trailers) => Some(self.send.send_trailers(trailers).is_ok()),
                Err(_) => None,
            },
            Some(Err(_)) => {
                self.send.send_reset(self.broken);
                Some(false)
            }
            None => Some(self.send.send_data(Bytes::new(), true).is_ok()),
        }
    }

    /// Ready when the piece can be given, or (`false`) when it never will be: the stream was reset.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let empty = self.piece.as_ref().is_none_or(|(data, _)| data.is_empty());
        while !empty && self.send.capacity() == 0 {
            match self.send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        self.blocked = None;
        Poll::Ready(true)
    }
}
