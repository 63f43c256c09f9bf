//! Receiver of the progress of a push. The bar itself is drawn by the program, not by the library.

use format_spec::EntryPath;

/// Phase of a push.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The server is asked for a session.
    #[default]
    Starting,
    /// Files are listed and frozen.
    Listing,
    /// Content is read and sent.
    Sending,
    /// The list of files is sent, and the snapshot committed.
    Committing,
    /// Files are restored.
    Restoring,
    /// A snapshot is checked.
    Verifying,
}

/// How a push deals with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was not known, and is read.
    New,
    /// It is known, and read whole.
    Changed,
    /// It is known, and only its end is read.
    Appended,
    /// Its content is that of the last push.
    Unchanged,
    /// Content was already read by an interrupted push.
    Resumed,
    /// It is one more name of a file that came already.
    Linked,
    /// An option leaves it out.
    Excluded,
    /// It is missing from the snapshot, or not as it should be.
    Unreadable,
}

/// Hears of progress, often and from several threads: it must be quick.
pub trait Progress: Send + Sync {
    /// Another phase has begun.
    fn phase(&self, phase: Phase) {
        let _ = phase;
    }

    /// One more file was listed; it has `bytes` bytes of content. All are listed before any is dealt with.
    fn listed(&self, bytes: u64) {
        let _ = bytes;
    }

    /// One more file, folder or link was dealt with; it has `bytes` bytes of content.
    fn scanned(&self, bytes: u64) {
        let _ = bytes;
    }

    /// This many bytes of files were read.
    fn read(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Reports how the push processes the file at `path`; for folders, links and pipes only exclusions and
    /// losses are reported. A push that starts again reports it again.
    fn named(&self, fate: Fate, path: &EntryPath) {
        let _ = (fate, path);
    }

    /// This many bytes went to the server.
    fn sent(&self, bytes: u64) {
        let _ = bytes;
    }
}

/// A receiver that ignores progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
