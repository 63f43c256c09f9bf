//! Snapshots as a command line names them: by an id, by how an id begins or ends, or as `latest`.

use format_spec::SnapshotId;
use node_client::api::Api;
use node_client::error::ClientError;
use node_client::named::{SnapshotChoice, by_part, latest_of_one_series};

/// The snapshot that `choice` stands for.
///
/// # Errors
/// [`ClientError::NotFound`] if there is none, [`ClientError::Usage`] if there are several.
pub(crate) async fn one(api: &Api, choice: &SnapshotChoice) -> Result<SnapshotId, ClientError> {
    match choice {
        SnapshotChoice::Id(id) => Ok(*id),
        SnapshotChoice::Part(part) => by_part(&api.snapshots(None).await?, part),
        SnapshotChoice::Latest => latest_of_one_series(&api.snapshots(None).await?),
    }
}

/// The snapshot that `choice` stands for, which is to change.
///
/// # Errors
/// The errors of [`one`]. [`ClientError::Usage`] for `latest`: another snapshot could be the latest by the
/// time of the change.
pub(crate) async fn to_change(api: &Api, choice: &SnapshotChoice) -> Result<SnapshotId, ClientError> {
    if *choice == SnapshotChoice::Latest {
        let why = "`latest` is not accepted here, because it may have changed: give the id of the snapshot";
        return Err(ClientError::Usage(why.to_owned()));
    }
    one(api, choice).await
}

/// The snapshots that `choices` stand for, which are to change: all of them are known before any changes.
///
/// # Errors
/// The errors of [`to_change`].
pub(crate) async fn all_to_change(
    api: &Api,
    choices: &[SnapshotChoice],
) -> Result<Vec<SnapshotId>, ClientError> {
    let mut ids = Vec::with_capacity(choices.len());
    for choice in choices {
        ids.push(to_change(api, choice).await?);
    }
    Ok(ids)
}
