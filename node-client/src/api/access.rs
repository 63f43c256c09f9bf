//! Requests of administrators about tokens.

use format_spec::{TokenName, wire};
use hyper::Method;

use super::{Api, Call};
use crate::error::ClientError;

impl Api {
    /// Makes a token. Its secret is in this answer alone. If the first answer was lost, the second request is refused,
    /// because the name is taken.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn create_token(&self, asked: &wire::NewToken) -> Result<wire::TokenCreated, ClientError> {
        self.json(Call::json("/v1/tokens".to_owned(), asked)).await
    }

    /// All tokens but the first, sorted by name.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn tokens(&self) -> Result<wire::Tokens, ClientError> {
        self.json(Call::get("/v1/tokens".to_owned())).await
    }

    /// Revokes a token: the server refuses it from its next request on.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn revoke_token(&self, name: &TokenName) -> Result<(), ClientError> {
        let call = Call { method: Method::DELETE, ..Call::get(format!("/v1/tokens/{name}")) };
        self.bytes(call).await.map(|_| ())
    }
}
