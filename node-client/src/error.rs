//! Errors of a node, and the action that the caller can take.

use std::fmt;
use std::io;
use std::path::PathBuf;

use format_spec::error::EXIT_UNREPORTED;
use format_spec::path::Printable;
use format_spec::wire::ErrorBody;
use format_spec::{EntryPath, ErrorClass, FormatError, NodeName, SnapshotId};
use indicatif::HumanCount;

use crate::summary::of_files;

/// Exit code after Ctrl-C.
pub const EXIT_INTERRUPTED: u8 = 130;
/// Exit code when the work is done, but some files are missing or torn.
pub const EXIT_PARTIAL: u8 = 3;

/// Hint for finding the extent of damage.
pub(crate) const DAMAGE_HINT: &str =
    "run `astacus-admin verify --level read` to list all stored data that is damaged and the affected files";
const STOPPED_HINT: &str = "after removing the cause, run the command again with --into-existing: it skips files that are already restored";

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Files of a node that are not whole in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// The node.
    pub node: NodeName,
    /// How many files.
    pub files: u64,
    /// The first of them, each with a reason; none if the snapshot does not say which of them was asked for.
    pub first: Vec<(EntryPath, String)>,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, files, first } = self;
        write!(f, "{} missing or torn on node `{node}`", of_files(*files))?;
        if first.is_empty() {
            return f.write_str(", but the snapshot does not name them");
        }
        for (nth, (path, reason)) in first.iter().enumerate() {
            let reason = Printable(reason.as_bytes());
            write!(f, "{} `/{path}` ({reason})", if nth == 0 { ":" } else { "," })?;
        }
        match files.saturating_sub(u64::try_from(first.len()).unwrap_or(u64::MAX)) {
            0 => Ok(()),
            more => write!(f, " and {} more", HumanCount(more)),
        }
    }
}

/// A push, restore, list or verify that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A flag, a path or a configuration value cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The requested object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The snapshot does not hold all that was asked for, and it was not said that this is all right.
    #[error("snapshot {snapshot} is partial, {lack}; --allow-partial restores what is there")]
    Partial {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The files that the snapshot lacks.
        lack: Box<Lack>,
    },
    /// The server could not be reached, or stopped answering, after bounded retries.
    #[error("no answer from {server} after {attempts} attempts")]
    Unreachable {
        /// Address as it was given.
        server: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server and this client could not agree on an encrypted connection.
    #[error("{server} cannot be trusted: {failure}")]
    Tls {
        /// Address as it was given.
        server: String,
        /// Why not.
        failure: TlsFailure,
    },
    /// The server refused the request.
    #[error("{} ({}, says {server})", Printable(body.message.as_bytes()), Printable(body.code.as_bytes()))]
    Refused {
        /// Address as it was given.
        server: String,
        /// Body of the answer.
        body: Box<ErrorBody>,
    },
    /// Another program answers at the address.
    #[error("{server} is not an Astacus server: {why}")]
    Foreign {
        /// Address as it was given.
        server: String,
        /// Reason why it is not an Astacus server.
        why: String,
    },
    /// The server's answer is not what this program understands.
    #[error("{server} sent an invalid answer: {}", Printable(why.as_bytes()))]
    Protocol {
        /// Address as it was given.
        server: String,
        /// Problem with the answer.
        why: String,
    },
    /// Bytes from the server, or a file on disk, are not what they should be.
    #[error("{what}")]
    Format {
        /// The object.
        what: String,
        /// Problem with the object.
        #[source]
        source: FormatError,
    },
    /// A file that was to be sent to standard output is damaged.
    #[error("`{path}` is damaged behind its first {sent} bytes, which were sent: {why}")]
    Damaged {
        /// Its path on the node.
        path: String,
        /// How much of it was sent, in bytes.
        sent: u64,
        /// Kind and id of a damaged object.
        why: String,
    },
    /// A restore ended before its end, and has restored something.
    #[error("the restore stopped early")]
    Stopped {
        /// Cause of the stop.
        #[source]
        source: Box<ClientError>,
    },
    /// A file or folder of this machine could not be used.
    #[error("{action} `{}`", path.display())]
    Disk {
        /// Failed action, such as `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Compression or decompression failed for lack of memory.
    #[error("compression library")]
    Compression(#[source] io::Error),
    /// A file must not be read unless it is frozen, and could not be.
    #[error("`{path}` cannot be frozen: {why}")]
    NotFrozen {
        /// The file.
        path: String,
        /// Why not.
        why: String,
    },
    /// The command whose output was to be pushed did not end with 0.
    #[error("the command `{command}` failed ({status}): no snapshot was made")]
    Command {
        /// The program.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// A component of the path to a folder was replaced during the lookup.
    #[error("`{}` was replaced by something else while it was opened", path.display())]
    Replaced {
        /// The folder, as it was named.
        path: PathBuf,
    },
    /// A thread could not be started.
    #[error("start the thread `{name}`")]
    Thread {
        /// Purpose of the thread.
        name: &'static str,
        /// Why it did not start.
        #[source]
        source: io::Error,
    },
    /// The list of files could not be kept in a temporary file until it was sent.
    #[error("write the list of files to a temporary file in ASTACUS_STATE_DIR or TMPDIR")]
    Spool(#[source] io::Error),
    /// The result could not be written to standard output.
    #[error("write to standard output")]
    Output(#[source] io::Error),
    /// A push or a restore did its work, and its report could not be written.
    #[error("{done}, but the report cannot be written to standard output")]
    Unreported {
        /// Completed change.
        done: String,
        /// Why the report was not written.
        #[source]
        source: io::Error,
    },
    /// The user, or the caller, interrupted it.
    #[error("interrupted")]
    Interrupted,
    /// A worker thread ended too soon.
    #[error("a worker thread ended unexpectedly: {0}")]
    Worker(&'static str),
}

/// Why an encrypted connection failed, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum TlsFailure {
    /// No trusted CA has signed the certificate.
    #[error(
        "no CA that this client trusts signed its certificate: give the CA with --ca FILE (`tls/ca.pem` in the data folder of the server), or its fingerprint, which the server logs when it starts, as `ca_sha256` in client.toml"
    )]
    UnknownCa,
    /// The certificate is for other names.
    #[error(
        "its certificate is not for `{asked}` but for {}: use one of these names, or start the server with `--name {asked}` as well",
        listed(has)
    )]
    WrongName { asked: String, has: Vec<String> },
    /// The certificate has ended.
    #[error("its certificate ended on {end}: renew it on the server, or set the clock of this machine")]
    Expired { end: String },
    /// The certificate begins later.
    #[error(
        "its certificate is valid only from {start}: set the clock of this machine, or that of the server"
    )]
    NotYetValid { start: String },
    /// The other side does not speak TLS.
    #[error(
        "it does not answer with TLS: turn TLS on at the server (`--tls on`), or use http:// if it is on this machine"
    )]
    NoTls,
    /// The other side speaks older versions only.
    #[error("it does not support TLS 1.3, which is required: update it, or the proxy before it")]
    Version,
    /// The server refused the certificate of this client.
    #[error(
        "it refuses the certificate of this machine (alert {alert}): see `identity` in client.toml; a new one is needed if it has expired, was revoked, or is of another server"
    )]
    Refused { alert: String },
    /// Another failure.
    #[error("{why}")]
    Other { why: String },
}

fn listed(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
}

impl TlsFailure {
    /// Its stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownCa => "unknown_ca",
            Self::WrongName { .. } => "wrong_name",
            Self::Expired { .. } => "certificate_expired",
            Self::NotYetValid { .. } => "certificate_not_yet_valid",
            Self::NoTls => "no_tls",
            Self::Version => "tls_version",
            Self::Refused { .. } => "certificate_refused",
            Self::Other { .. } => "tls",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NoTls | Self::Version => ErrorClass::Usage,
            _ => ErrorClass::Denied,
        }
    }
}

/// Class of a file system error: some need a change by the user, others may pass.
fn class_of(kind: io::ErrorKind) -> ErrorClass {
    use io::ErrorKind::{
        AlreadyExists, InvalidFilename, IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem,
    };
    match kind {
        PermissionDenied | ReadOnlyFilesystem => ErrorClass::Denied,
        AlreadyExists | InvalidFilename | IsADirectory | NotADirectory => ErrorClass::Usage,
        _ => ErrorClass::Unavailable,
    }
}

impl ClientError {
    /// Action that the caller can take.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Usage(_) | Self::Partial { .. } | Self::NotFrozen { .. } | Self::Foreign { .. } => {
                ErrorClass::Usage
            }
            Self::NotFound(_) => ErrorClass::NotFound,
            Self::Tls { failure, .. } => failure.class(),
            Self::Disk { source, .. } => class_of(source.kind()),
            Self::Replaced { .. } => ErrorClass::Conflict,
            Self::Unreachable { .. }
            | Self::Compression(_)
            | Self::Command { .. }
            | Self::Thread { .. }
            | Self::Spool(_)
            | Self::Output(_)
            | Self::Unreported { .. }
            | Self::Interrupted => ErrorClass::Unavailable,
            Self::Refused { body, .. } => body.class,
            Self::Stopped { source, .. } => source.class(),
            Self::Protocol { .. } | Self::Format { .. } | Self::Damaged { .. } => ErrorClass::Integrity,
            Self::Worker(_) => ErrorClass::Bug,
        }
    }

    /// The exit code of a program that ends with this.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted => EXIT_INTERRUPTED,
            Self::Stopped { source, .. } => source.exit_code(),
            Self::Output(_) | Self::Unreported { .. } => EXIT_UNREPORTED,
            error => error.class().exit_code(),
        }
    }

    /// A hint for people.
    pub fn hint(&self) -> Option<&'static str> {
        let hint = match self {
            Self::Unreachable { .. } => {
                "check that astacus-server is running there, or choose another address with --server"
            }
            Self::Partial { .. } => {
                "restore the intact files with --path, or a complete snapshot with `latest`; neither needs --allow-partial"
            }
            Self::Foreign { .. } => {
                "another program answers at that address: choose another address with --server"
            }
            Self::Interrupted | Self::Tls { .. } => return None,
            Self::Stopped { .. } => STOPPED_HINT,
            Self::Output(_) | Self::Unreported { .. } => {
                "the changes of the command are kept; make standard output writable to see its report"
            }
            Self::Command { .. } => {
                "see the standard error of the command for the cause, and run it again after removing that"
            }
            Self::Disk { .. } if self.class() == ErrorClass::Denied => {
                "the current user lacks the permission: grant it, or run the command as another user"
            }
            Self::NotFrozen { .. } => {
                "choose a folder with --freeze-dir, push a snapshot of the volume, or leave out --require-freeze"
            }
            error => match error.class() {
                ErrorClass::Usage => "see `astacus-client --help`",
                ErrorClass::NotFound => return None,
                ErrorClass::Denied => "check the token: --token-file, ASTACUS_TOKEN_FILE or ASTACUS_TOKEN",
                ErrorClass::Conflict => "run the command again",
                ErrorClass::Unavailable => "remove the cause, then run the command again",
                ErrorClass::Integrity => DAMAGE_HINT,
                ErrorClass::Bug => "this is a bug in Astacus: please report it",
            },
        };
        Some(hint)
    }

    /// The same, with what was `done` before the report could not be written.
    pub(crate) fn after(self, done: impl FnOnce() -> String) -> Self {
        match self {
            Self::Output(source) => Self::Unreported { done: done(), source },
            other => other,
        }
    }

    /// The stable code of a refusal, by the server or because of what a snapshot lacks.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { body, .. } => Some(&body.code),
            Self::Tls { failure, .. } => Some(failure.code()),
            Self::Partial { .. } => Some("partial_snapshot"),
            Self::Command { .. } => Some("command_failed"),
            Self::Stopped { source, .. } => source.code(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_waiting_mends_is_not_told_to_be_tried_again() {
        for (kind, code) in [
            (io::ErrorKind::PermissionDenied, 12),
            (io::ErrorKind::ReadOnlyFilesystem, 12),
            (io::ErrorKind::NotADirectory, 2),
            (io::ErrorKind::AlreadyExists, 2),
            (io::ErrorKind::StorageFull, 14),
            (io::ErrorKind::Interrupted, 14),
        ] {
            let error =
                ClientError::Disk { action: "open", path: PathBuf::from("/target"), source: kind.into() };

            assert_eq!(error.exit_code(), code, "{kind:?}");
            assert_eq!(error.hint() == Some("remove the cause, then run the command again"), code == 14);
        }
    }
}
