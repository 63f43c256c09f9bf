//! Audits, reported line by line while they run. Repairs are kept even if the client is gone.

use std::sync::Arc;

use axum::extract::{Request, State};
use format_spec::wire::{AuditEvent, AuditRequest};

use super::lines;
use super::principal::{Principal, Right};
use super::respond::{Reply, describe};
use super::{App, body};

pub(super) async fn audit(State(app): State<App>, caller: Principal, request: Request) -> Reply {
    caller.may(Right::Operate)?;
    let asked: AuditRequest = body::json(request).await?;
    Ok(lines::answer(async move |teller| {
        let told = teller.clone();
        let progress = Arc::new(move |done, total| told.progress(&AuditEvent::Progress { done, total }));
        let last = match crate::audit::run(&app.server, asked.repair, progress).await {
            Ok(report) => AuditEvent::Report(report),
            Err(error) => AuditEvent::Failed(describe(&error)),
        };
        teller.end(&last).await;
    }))
}
