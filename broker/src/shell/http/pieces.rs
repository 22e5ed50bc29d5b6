//! A body that is made piece by piece, as fast as its client takes it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// It could not be made to its end: the client sees its stream break off, and never takes it for the end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it cannot be read on")]
pub(in crate::shell) struct Broken;

/// Where pieces go.
pub(in crate::shell) type Pieces = mpsc::Sender<Result<Bytes, Broken>>;

/// A body, and where its pieces go. So many wait for a slow client; past that whoever makes them waits.
pub(in crate::shell) fn body(pieces_max: usize) -> (Pieces, Body) {
    let (pieces, received) = mpsc::channel(pieces_max);
    (pieces, Body::new(Received(received)))
}

struct Received(mpsc::Receiver<Result<Bytes, Broken>>);

impl hyper::body::Body for Received {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
