//! Checks, told line by line while they run. A check ends when nobody listens to it any more.

use axum::extract::{Request, State};
use format_spec::wire::{VerifyEvent, VerifyRequest};

use super::lines;
use super::respond::{Reply, describe};
use super::{App, body};

pub(super) async fn verify(State(app): State<App>, request: Request) -> Reply {
    let asked: VerifyRequest = body::json(request).await?;
    Ok(lines::answer(async move |teller| {
        let progress = |done, total| teller.progress(&VerifyEvent::Progress { done, total });
        let check = crate::verify::run(&app.repository, asked, &progress);
        // Whoever asked may have gone. What was found and verified until then is written down.
        let report = tokio::select! {
            report = check => report,
            () = teller.nobody_listens() => return,
        };
        let last = match report {
            Ok(report) => VerifyEvent::Report(report),
            Err(error) => VerifyEvent::Failed(describe(&error)),
        };
        teller.end(&last).await;
    }))
}
