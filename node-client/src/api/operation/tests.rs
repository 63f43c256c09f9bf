use format_spec::ErrorClass;
use format_spec::wire::VerifyLevel;

use super::*;
use crate::api::tests::asked;

/// Result of a run of the collector with this answer, and its progress.
fn collected(answer: &str) -> (Vec<Step>, Result<GcReport, ClientError>) {
    let mut heard = Vec::new();
    let (_, report) = asked(200, answer, async |api| {
        let hear = |step| heard.push(step);
        api.collect_garbage(&GcRequest::default(), hear).await
    });
    (heard, report)
}

const PROGRESS: &str = "{\"progress\": {\"phase\": \"pages\", \"done\": 3}}\n";

#[test]
fn a_run_of_the_collector_is_heard_of_until_its_report() {
    let report = GcReport { copied_bytes: 4, ..GcReport::default() };
    let report = serde_json::to_string(&OperationEvent::Report(report)).unwrap();

    let (heard, report) = collected(&format!("{PROGRESS}{report}\n"));

    assert_eq!(heard, [Step { phase: Some("pages".to_owned()), done: 3, total: None }]);
    assert_eq!(report.unwrap().copied_bytes, 4);
}

/// C7: a run that did not say how it ended is no success.
#[test]
fn a_run_that_ends_without_a_report_has_failed() {
    let cut = "{\"report\": {\"mode\": \"apply\"";
    for answer in ["", PROGRESS, &format!("{PROGRESS}{cut}"), "<html>\n"] {
        let (_, report) = collected(answer);
        assert!(matches!(report, Err(ClientError::Protocol { .. })), "{answer}: {report:?}");
    }
}

/// C7: a run that failed half-way is told as a refusal, with the server's code.
#[test]
fn a_run_that_fails_half_way_is_a_refusal() {
    let failed = r#"{"failed": {"code": "full", "class": "unavailable", "message": "no space"}}"#;

    let (heard, report) = collected(&format!("{PROGRESS}{failed}\n"));

    assert_eq!(heard.len(), 1);
    let error = report.unwrap_err();
    assert_eq!((error.code(), error.class()), (Some("full"), ErrorClass::Unavailable));
}

#[test]
fn lines_are_the_same_wherever_a_body_is_cut() {
    let body = b"first\n\nthird\nrest";
    for cut in 0..=body.len() {
        let (head, tail) = body.split_at(cut);
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in [head, tail] {
            lines.push(piece);
            found.extend(std::iter::from_fn(|| lines.next_line()));
        }
        assert_eq!(found, [&b"first\n"[..], b"\n", b"third\n"], "{cut}");
        assert_eq!(lines.rest, b"rest", "{cut}");
    }
}

/// C3: a server cannot fill the memory of a client with a line that never ends.
#[test]
fn a_line_without_an_end_is_not_read_further() {
    let endless = "x".repeat(MAX_ANSWER_LEN + (1 << 20));

    let (_, verified) = asked(200, &endless, async |api| api.verify(VerifyLevel::Read, |_| ()).await);
    let (_, audited) = asked(200, &endless, async |api| api.audit(Repair::No, |_| ()).await);

    for error in [verified.unwrap_err(), audited.unwrap_err()] {
        assert!(error.to_string().ends_with("a line is too long"), "{error}");
    }
}
