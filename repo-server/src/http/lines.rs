//! Answers that are sent line by line during the work: newline-delimited JSON.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use tokio::sync::mpsc;

/// Lines that may wait for a slow reader; further lines are dropped.
const LINES: usize = 16;

/// Tells of work in progress.
#[derive(Clone)]
pub(super) struct Teller(mpsc::Sender<Bytes>);

impl Teller {
    /// Tells how far it is. A full queue loses the line, which the next one replaces.
    pub(super) fn progress(&self, event: &impl Serialize) {
        let _ = self.0.try_send(line(event));
    }

    /// Returns once the reader is gone.
    pub(super) async fn nobody_listens(&self) {
        self.0.closed().await;
    }

    /// Tells the end.
    pub(super) async fn end(&self, event: &impl Serialize) {
        // The reader may be gone; nobody else needs the line.
        let _ = self.0.send(line(event)).await;
    }
}

/// An answer whose lines `work` sends. The work is completed even if the reader leaves.
pub(super) fn answer<W: Future<Output = ()> + Send + 'static>(work: impl FnOnce(Teller) -> W) -> Response {
    let (lines, mut receiver) = mpsc::channel::<Bytes>(LINES);
    tokio::spawn(work(Teller(lines)));
    let lines = stream::poll_fn(move |context| receiver.poll_recv(context));
    let lines = futures_util::StreamExt::map(lines, Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

fn line(event: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(event).expect("events are plain JSON");
    text.push(b'\n');
    Bytes::from(text)
}
