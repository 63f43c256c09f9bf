//! Errors of the program, and their output.

use std::io::{self, Write};
use std::path::PathBuf;

use format_spec::path::Printable;
use format_spec::{ErrorClass, FormatError};
use node_client::error::ClientError;
use node_client::output::Output;

/// A command that found nothing out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AdminError {
    /// The server, the settings or a folder.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file could not be read.
    #[error("read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file that should be a pack is none, or is damaged.
    #[error("`{}` is damaged, or not a pack", path.display())]
    Pack {
        path: PathBuf,
        #[source]
        source: FormatError,
    },
    /// A file that should be a key is none.
    #[error("`{}` is not a master key: expected 64 hex digits", path.display())]
    Key { path: PathBuf },
    /// The pack is whole, and this key does not open it.
    #[error("`{}` is the master key of another repository", path.display())]
    OtherKey { path: PathBuf },
    /// A program of ours is not installed.
    #[error("`{name}` was not found beside this program or in PATH")]
    NoProgram { name: &'static str },
    /// A program of ours cannot be started.
    #[error("start `{name}`")]
    Start {
        name: &'static str,
        #[source]
        source: io::Error,
    },
}

impl AdminError {
    /// Action that the operator can take.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Client(error) => error.class(),
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorClass::NotFound,
            Self::NoProgram { .. } => ErrorClass::NotFound,
            Self::Read { .. } | Self::Start { .. } => ErrorClass::Unavailable,
            Self::Pack { .. } => ErrorClass::Integrity,
            Self::Key { .. } | Self::OtherKey { .. } => ErrorClass::Usage,
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) => error.exit_code(),
            error => error.class().exit_code(),
        }
    }

    fn code(&self) -> Option<&str> {
        match self {
            Self::Client(error) => error.code(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            error if error.class() == ErrorClass::Usage => Some("see `astacus-admin --help`"),
            Self::NoProgram { .. } => Some("install astacus-server, or add its folder to PATH"),
            // The message of the server names the obstacle, and a retry would not remove it.
            Self::Client(ClientError::Refused { body, .. }) if body.class == ErrorClass::Conflict => None,
            Self::Client(error) => error.hint(),
            _ => None,
        }
    }

    /// Tells people on standard error and, if asked for, programs with the one document.
    pub(crate) fn show(&self, output: Output) {
        let message = chain(self);
        if output.json {
            // The same document as `astacus-client` prints.
            let document = serde_json::json!({ "error": {
                "class": self.class(),
                "code": self.code(),
                "message": message,
                "hint": self.hint(),
                "exit_code": self.exit_code(),
            }});
            let _ = writeln!(io::stdout(), "{document}");
        }
        // A closed standard error is ignored: the exit code still reports the failure.
        let _ = writeln!(io::stderr(), "astacus-admin: {}", Printable(message.as_bytes()));
        if let Some(hint) = self.hint() {
            let _ = writeln!(io::stderr(), "hint: {hint}");
        }
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
