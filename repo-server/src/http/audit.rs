//! Audits, told line by line while they run.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use format_spec::wire::{AuditEvent, AuditRequest};
use futures_util::stream;
use tokio::sync::mpsc;

use super::respond::{Reply, describe};
use super::{App, body};

/// Lines that may wait for a slow reader; the audit goes on without telling it more.
const LINES: usize = 16;

pub(super) async fn audit(State(app): State<App>, request: Request) -> Reply {
    let asked: AuditRequest = body::json(request).await?;
    let (lines, mut receiver) = mpsc::channel::<Bytes>(LINES);
    tokio::spawn(async move {
        let told = lines.clone();
        let progress = Arc::new(move |done, total| {
            // A full queue loses a progress line, which the next one replaces.
            let _ = told.try_send(line(&AuditEvent::Progress { done, total }));
        });
        let last = match crate::audit::run(&app.repository, asked.repair, progress).await {
            Ok(report) => AuditEvent::Report(report),
            Err(error) => AuditEvent::Failed(describe(&error)),
        };
        // The reader may be gone; what was mended is right all the same.
        let _ = lines.send(line(&last)).await;
    });
    let lines = stream::poll_fn(move |context| receiver.poll_recv(context));
    let lines = futures_util::StreamExt::map(lines, Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(lines));
    let kind = hyper::header::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    Ok(response)
}

fn line(event: &AuditEvent) -> Bytes {
    let mut text = serde_json::to_vec(event).expect("events are plain JSON");
    text.push(b'\n');
    Bytes::from(text)
}
