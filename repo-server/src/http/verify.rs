//! Checks, reported line by line while they run. A check ends when its client is gone.

use axum::extract::{Request, State};
use format_spec::wire::{VerifyEvent, VerifyRequest};

use super::lines;
use super::principal::{Principal, Right};
use super::respond::{Reply, describe};
use super::{App, body};
use crate::lease::{Checking, Kind};

const KIND: Kind = Kind("verify");

pub(super) async fn verify(State(app): State<App>, caller: Principal, request: Request) -> Reply {
    caller.may(Right::Operate)?;
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::IntoResponse;
    use hyper::StatusCode;

    use super::*;
    use crate::http::Token;
    use crate::lease::TEST;
    use crate::store::Parts;

    /// Each check takes memory for all that it knows.
    #[tokio::test]
    async fn one_check_runs_at_a_time() {
        let server = Parts::default().serve();
        let app = App { server, token: Token::new("t") };
        let ask = || {
            verify(
                State(app.clone()),
                Principal::Administrator,
                Request::new(Body::from(r#"{"level":"index"}"#)),
            )
        };
        let status = |reply: Reply| reply.into_response().status();
        let running = app.server.leases.try_acquire::<Checking>(TEST).unwrap();

        assert_eq!(status(ask().await), StatusCode::CONFLICT);

        drop(running);
        assert_eq!(status(ask().await), StatusCode::OK);
    }
}
