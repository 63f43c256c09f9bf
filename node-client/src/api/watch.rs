//! Monitoring of a server: alarms, and age and maximum age of snapshots.

use format_spec::wire;
use hyper::Method;

use super::{Api, Call};
use crate::error::ClientError;

impl Api {
    /// The alarms that are up.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn alarms(&self) -> Result<wire::Alarms, ClientError> {
        self.json(Call::get("/v1/alarms".to_owned())).await
    }

    /// Takes an alarm as known, and returns it. An acknowledgement that was there before is replaced.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session); an alarm that is not active is not found.
    pub async fn acknowledge(&self, asked: &wire::AcknowledgeRequest) -> Result<wire::Alarms, ClientError> {
        self.json(Call::json("/v1/alarms/acknowledge".to_owned(), asked)).await
    }

    /// How old the last good snapshot of each series is, and may be.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn freshness(&self) -> Result<wire::FreshnessReport, ClientError> {
        self.json(Call::get("/v1/freshness".to_owned())).await
    }

    /// Sets a rule of freshness, or takes back the one of the same scope.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn set_freshness(
        &self,
        rule: &wire::FreshnessRule,
    ) -> Result<wire::FreshnessReport, ClientError> {
        let call = Call::json("/v1/freshness".to_owned(), rule);
        self.json(Call { method: Method::PUT, ..call }).await
    }
}
