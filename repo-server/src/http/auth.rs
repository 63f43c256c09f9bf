//! Access control: a credential gives a request its caller.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderValue};

use super::App;
use super::places::Place;
use super::principal::Principal;
use super::respond::Failure;
use crate::error::ServerError;

/// The secret that requests carry as `Authorization: Bearer TOKEN`.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// The token with this text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The caller with this credential.
    fn principal(&self, offered: &[u8]) -> Option<Principal> {
        self.is(offered).then_some(Principal::Administrator)
    }

    /// Compares in a time that does not depend on where a wrong token differs.
    fn is(&self, offered: &[u8]) -> bool {
        let ours = self.0.as_bytes();
        let differing = ours.iter().zip(offered).fold(0, |differing, (a, b)| differing | (a ^ b));
        differing == 0 && ours.len() == offered.len()
    }
}

/// Lets a request pass only with a credential, and notes its caller in it.
pub(super) async fn check(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let offered = request.headers().get(AUTHORIZATION);
    let offered = offered.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let caller = offered.and_then(|offered| app.token.principal(offered)).ok_or(ServerError::Unauthorized);
    let admitted = caller.and_then(|caller| {
        request.extensions().get::<Place>().map_or(Ok(()), Place::welcome)?;
        Ok(caller)
    });
    match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => closing(Failure::from(error).into_response()),
    }
}

/// The last answer of a connection.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_passes() {
        let token = Token::new("secret");

        assert!(token.is(b"secret"));
        for wrong in [&b""[..], b"s", b"secreT", b"secret ", b"secretsecret"] {
            assert!(!token.is(wrong), "{wrong:?}");
        }
    }
}
