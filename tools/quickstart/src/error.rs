//! Errors that end the tour early.

use std::io;
use std::path::PathBuf;

use format_spec::ErrorClass;
use format_spec::error::EXIT_UNREPORTED;
use node_client::error::ClientError;
use repo_server::config::ConfigError;
use repo_server::start::CreateError;

/// A tour that did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TourError {
    /// The data folder and the folder to push contain each other.
    #[error("`{}` is inside `{}`: choose another data folder with --data-dir", inner.display(), outer.display())]
    Nested { inner: PathBuf, outer: PathBuf },
    /// A push, the restore, or a path.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The repository could not be opened or made.
    #[error("open the data folder")]
    Create(#[from] CreateError),
    /// The server's settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine gave no thread, port or signal.
    #[error("start the server")]
    Start(#[source] io::Error),
    /// Standard output could not be written.
    #[error("write to standard output")]
    Output(#[from] io::Error),
}

impl TourError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Nested { .. } | Self::Config(_) => ErrorClass::Usage.exit_code(),
            Self::Client(error) => error.exit_code(),
            Self::Create(error) => error.class().exit_code(),
            Self::Start(_) => ErrorClass::Unavailable.exit_code(),
            Self::Output(_) => EXIT_UNREPORTED,
        }
    }

    /// The error and its causes on one line.
    pub(crate) fn chain(&self) -> String {
        let first: &dyn std::error::Error = self;
        let causes = std::iter::successors(Some(first), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}
