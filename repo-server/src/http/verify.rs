//! Checks, told line by line while they run. A check ends when nobody listens to it any more.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use format_spec::wire::{VerifyEvent, VerifyRequest};
use futures_util::stream;
use tokio::sync::mpsc;

use super::respond::{Reply, describe};
use super::{App, body};

/// Lines that may wait for a slow reader; the check goes on without telling it more.
const LINES: usize = 16;

pub(super) async fn verify(State(app): State<App>, request: Request) -> Reply {
    let asked: VerifyRequest = body::json(request).await?;
    let (lines, mut receiver) = mpsc::channel::<Bytes>(LINES);
    tokio::spawn(async move {
        let progress = |done, total| {
            // A full queue loses a progress line, which the next one replaces.
            let _ = lines.try_send(line(&VerifyEvent::Progress { done, total }));
        };
        let check = crate::verify::run(&app.repository, asked, &progress);
        // Whoever asked may have gone. What was found and verified until then is written down.
        let report = tokio::select! {
            report = check => report,
            () = lines.closed() => return,
        };
        let last = match report {
            Ok(report) => VerifyEvent::Report(report),
            Err(error) => VerifyEvent::Failed(describe(&error)),
        };
        let _ = lines.send(line(&last)).await;
    });
    let lines = stream::poll_fn(move |context| receiver.poll_recv(context));
    let lines = futures_util::StreamExt::map(lines, Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(lines));
    let kind = hyper::header::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    Ok(response)
}

fn line(event: &VerifyEvent) -> Bytes {
    let mut text = serde_json::to_vec(event).expect("events are plain JSON");
    text.push(b'\n');
    Bytes::from(text)
}
