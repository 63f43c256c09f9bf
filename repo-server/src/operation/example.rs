//! Counts the rows of the index's table of chunks: an operation as `docs/adding-an-operation.md` shows it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::ServerError;
use crate::index::{KeyRange, Table};
use crate::lease::Kind;
use crate::operation::{Operation, Progress};
use crate::server::Server;

/// Request: the body of `POST /v1/count-rows`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CountRows {}

/// The last line of the answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Counted {
    rows: u64,
}

impl Operation for CountRows {
    const KIND: Kind = Kind("row count");
    type Needs = ();
    type Report = Counted;

    async fn run(self, server: &Arc<Server>, (): &(), progress: &Progress) -> Result<Counted, ServerError> {
        let progress = progress.clone();
        let count = move |server: &Arc<Server>| {
            let mut rows = 0;
            server.store.for_each_row(Table::Chunk, &KeyRange::all(), |_, _| {
                rows += 1;
                progress.phase("rows", rows);
                Ok(())
            })?;
            Ok(Counted { rows })
        };
        server.waiting(count).await
    }
}
