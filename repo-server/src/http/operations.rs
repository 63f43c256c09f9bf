//! Operations over HTTP: one handler for all whose progress is reported line by line, one for those that answer with
//! their report alone.

use axum::extract::{Request, State};
use format_spec::ClusterName;
use format_spec::wire::{OperationEvent, StatsReport};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::extract::Query;
use super::lines;
use super::respond::{self, Answer, Reply, describe};
use super::{App, body, parse};
use crate::access::Principal;
use crate::error::ServerError;
use crate::operation::{self, Operation, Progress, Step, Unheard};
use crate::stats::Stats;

/// Runs the operation in the body of the request. Each line of the answer is an [`OperationEvent`], the last one the
/// report or the failure. A run that cannot have the lease that it needs is refused before the answer begins.
pub(super) async fn streamed<O: Operation + DeserializeOwned>(
    State(app): State<App>,
    caller: Principal,
    request: Request,
) -> Reply {
    let asked: O = body::json(request).await?;
    caller.may_weaken(asked.weakens())?;
    let needs = operation::claim::<O>(&app.server).await?;
    Ok(lines::answer(async move |teller| {
        let told = teller.clone();
        let progress = Progress::to(move |step| told.progress(&event::<O>(step)));
        // The client may be gone. What was done until then is stored.
        let done = tokio::select! {
            done = asked.run(&app.server, &needs, &progress) => done,
            () = teller.nobody_listens(), if O::UNHEARD == Unheard::Ends => return,
        };
        let last = match done {
            Ok(report) => OperationEvent::Report(report),
            Err(error) => OperationEvent::Failed(describe(&error)),
        };
        drop(needs);
        teller.end(&last).await;
    }))
}

fn event<O: Operation>(step: Step) -> OperationEvent<O::Report> {
    let Step { phase, done, total } = step;
    OperationEvent::Progress { phase: phase.map(str::to_owned), done, total }
}

/// Runs the operation in the body of the request, and answers with its report.
pub(super) async fn answered<O: Operation + DeserializeOwned>(
    State(app): State<App>,
    caller: Principal,
    request: Request,
) -> Answer<O::Report> {
    let asked: O = body::json(request).await?;
    caller.may_weaken(asked.weakens())?;
    // A task of its own: a client that leaves must not end the lease while the work goes on.
    let run = tokio::spawn(async move { operation::run_unheard(&app.server, asked).await });
    respond::json(run.await.map_err(|_| ServerError::Bug("an operation ended without a result"))??)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfCluster {
    cluster: Option<String>,
}

pub(super) async fn stats(State(app): State<App>, Query(of): Query<OfCluster>) -> Answer<StatsReport> {
    let cluster: Option<ClusterName> = of.cluster.as_deref().map(parse).transpose()?;
    respond::json(operation::run_unheard(&app.server, Stats { cluster }).await?)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::IntoResponse;
    use format_spec::wire::{AuditRequest, GcRequest, VerifyRequest};
    use hyper::StatusCode;

    use super::*;
    use crate::lease::{Checking, TEST, Upkeep};
    use crate::store::Parts;

    /// Status of the answer to a request with this body.
    async fn ask<O: Operation + DeserializeOwned>(app: &App, body: &'static str) -> StatusCode {
        let reply =
            streamed::<O>(State(app.clone()), Principal::FIRST_TOKEN, Request::new(Body::from(body))).await;
        reply.into_response().status()
    }

    #[tokio::test]
    async fn a_run_beside_another_is_refused_before_its_answer() {
        let app = App::over(Parts::default().serve());
        let checking = app.server.leases.try_acquire::<Checking>(TEST).unwrap();
        let upkeep = app.server.leases.try_acquire::<Upkeep>(TEST).unwrap();

        assert_eq!(ask::<VerifyRequest>(&app, r#"{"level":"index"}"#).await, StatusCode::CONFLICT);
        assert_eq!(ask::<AuditRequest>(&app, r#"{"repair":"no"}"#).await, StatusCode::CONFLICT);
        assert_eq!(ask::<GcRequest>(&app, r#"{"mode":"plan"}"#).await, StatusCode::CONFLICT);

        drop((checking, upkeep));
        assert_eq!(ask::<VerifyRequest>(&app, r#"{"level":"index"}"#).await, StatusCode::OK);
        assert_eq!(ask::<GcRequest>(&app, r#"{"mode":"plan"}"#).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn an_operation_that_is_new_answers_by_lines() {
        let app = App::over(Parts::default().serve());
        let request = Request::new(Body::from("{}"));

        let reply =
            streamed::<crate::operation::CountRows>(State(app), Principal::FIRST_TOKEN, request).await;

        let body = axum::body::to_bytes(reply.into_response().into_body(), 1000).await.unwrap();
        assert_eq!(body, "{\"report\":{\"rows\":0}}\n");
    }

    /// `docs/adding-an-operation.md` shows the operation that the test above runs.
    #[test]
    fn the_page_about_operations_shows_one_that_runs() {
        let page = include_str!("../../../docs/adding-an-operation.md");

        assert!(page.contains(include_str!("../operation/example.rs")));
    }
}
