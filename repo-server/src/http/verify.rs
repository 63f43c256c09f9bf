//! Checks, told line by line while they run. A check ends when nobody listens to it any more.

use axum::extract::{Request, State};
use format_spec::wire::{VerifyEvent, VerifyRequest};

use super::lines;
use super::respond::{Reply, describe};
use super::{App, body};
use crate::lease::{Checking, Kind};

const KIND: Kind = Kind("verify");

pub(super) async fn verify(State(app): State<App>, request: Request) -> Reply {
    let asked: VerifyRequest = body::json(request).await?;
    let lease = app.server.leases.try_acquire::<Checking>(KIND)?;
    Ok(lines::answer(async move |teller| {
        let _lease = lease;
        let progress = |done, total| teller.progress(&VerifyEvent::Progress { done, total });
        let check = crate::verify::run(&app.server, asked, &progress);
        // The caller may be gone. Findings and checks so far are stored.
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
