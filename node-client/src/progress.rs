//! Who wants to know how far a push is. The bar itself is drawn by the program, not by the library.

/// Hears of progress, often and from several threads: it must be quick.
pub trait Progress: Send + Sync {
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

    /// This many bytes went to the server.
    fn sent(&self, bytes: u64) {
        let _ = bytes;
    }
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
