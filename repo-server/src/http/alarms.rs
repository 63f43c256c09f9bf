//! Alarms that are up, an operator's word on them, and how old snapshots may be.

use axum::extract::{Request, State};
use format_spec::wire::{AcknowledgeRequest, Alarms, FreshnessReport, FreshnessRule};

use super::respond::{self, Answer};
use super::{App, body, sight};
use crate::access::Principal;
use crate::freshness;
use crate::health::alarm;

pub(super) async fn list(State(app): State<App>, caller: Principal) -> Answer<Alarms> {
    let alarms = app.server.blocking(|server| crate::health::alarms(&server.store)).await?;
    respond::json(Alarms { alarms: sight::alarms(&caller, alarms) })
}

pub(super) async fn acknowledge(State(app): State<App>, request: Request) -> Answer<Alarms> {
    let asked: AcknowledgeRequest = body::json(request).await?;
    let known = app.server.blocking(move |server| alarm::acknowledge(&server.store, &asked)).await?;
    respond::json(Alarms { alarms: vec![known] })
}

pub(super) async fn freshness(State(app): State<App>, caller: Principal) -> Answer<FreshnessReport> {
    let report = app.server.blocking(|server| freshness::report(server)).await?;
    respond::json(sight::freshness(&caller, report))
}

pub(super) async fn set_freshness(State(app): State<App>, request: Request) -> Answer<FreshnessReport> {
    let rule: FreshnessRule = body::json(request).await?;
    let set = move |server: &std::sync::Arc<crate::server::Server>| {
        freshness::set(server, &rule)?;
        freshness::report(server)
    };
    respond::json(app.server.blocking(set).await?)
}
