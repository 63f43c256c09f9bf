//! From results to answers: the one place where an error's class becomes an HTTP status.

use axum::Json;
use axum::response::{IntoResponse, Response};
use format_spec::ErrorClass;
use format_spec::wire::ErrorBody;
use hyper::StatusCode;

use crate::error::{Chain, ServerError};

/// A JSON answer, or why there is none.
pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// An answer of any kind, or why there is none.
pub(super) type Reply = Result<Response, Failure>;

/// A failed request on its way out.
pub(super) struct Failure(ServerError);

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self(error)
    }
}

pub(super) fn json<T>(body: T) -> Answer<T> {
    Ok(Json(body))
}

/// Body of the answer about an error.
pub(super) fn describe(error: &ServerError) -> ErrorBody {
    ErrorBody {
        code: error.code().to_owned(),
        class: error.class(),
        message: Chain(error).to_string(),
        missing: error.missing().to_vec(),
    }
}

fn status(error: &ServerError) -> StatusCode {
    match (error, error.class()) {
        (ServerError::TooLarge { .. }, _) => StatusCode::PAYLOAD_TOO_LARGE,
        (ServerError::Full { .. }, _) => StatusCode::INSUFFICIENT_STORAGE,
        (_, ErrorClass::Usage) => StatusCode::BAD_REQUEST,
        (_, ErrorClass::NotFound) => StatusCode::NOT_FOUND,
        (_, ErrorClass::Denied) => StatusCode::UNAUTHORIZED,
        (_, ErrorClass::Conflict) => StatusCode::CONFLICT,
        (_, ErrorClass::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
        (_, ErrorClass::Integrity | ErrorClass::Bug) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = status(&self.0);
        if status.is_server_error() && !self.0.is_damage() {
            tracing::error!(code = self.0.code(), error = %Chain(&self.0), "request failed");
        } else {
            tracing::debug!(code = self.0.code(), error = %Chain(&self.0), "request refused");
        }
        (status, Json(describe(&self.0))).into_response()
    }
}

pub(super) fn no_such_route() -> Response {
    refusal(StatusCode::NOT_FOUND, "no_such_route", ErrorClass::NotFound, "no such path")
}

pub(super) fn wrong_method() -> Response {
    refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong_method",
        ErrorClass::Usage,
        "this path does not support the method",
    )
}

/// The whole answer to a client that speaks plain HTTP where TLS is spoken.
pub(super) fn needs_tls() -> Vec<u8> {
    let body = ErrorBody {
        code: "needs_tls".to_owned(),
        class: ErrorClass::Usage,
        message: "this server is reached by TLS only: use https:// in its address".to_owned(),
        missing: Vec::new(),
    };
    let body = serde_json::to_string(&body).expect("a wire document is plain JSON");
    let (status, len) = (StatusCode::BAD_REQUEST, body.len());
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

fn refusal(status: StatusCode, code: &str, class: ErrorClass, message: &str) -> Response {
    let body = ErrorBody { code: code.to_owned(), class, message: message.to_owned(), missing: Vec::new() };
    (status, Json(body)).into_response()
}
