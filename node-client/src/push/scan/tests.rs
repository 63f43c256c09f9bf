//! Both passes of a push over real folders. In place of the server there is a map of chunks.

#[path = "tests/appended.rs"]
mod appended;
#[path = "tests/frozen.rs"]
mod frozen;
#[path = "tests/histories.rs"]
mod histories;
#[path = "tests/identity.rs"]
mod identity;
#[path = "tests/moved.rs"]
mod moved;
#[path = "tests/moving.rs"]
mod moving;
#[path = "tests/outcome.rs"]
mod outcome;
#[path = "tests/push.rs"]
mod push;
#[path = "tests/rehash.rs"]
mod rehash;
#[path = "tests/resume.rs"]
mod resume;
#[path = "tests/rewind.rs"]
mod rewind;
#[path = "tests/rows.rs"]
mod rows;
#[path = "tests/tree.rs"]
mod tree;
#[path = "tests/whole.rs"]
mod whole;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use format_spec::{ChunkId, RepositoryId, Timestamp};

use crate::clock::Clock;
use tree::Tree;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([1; 16]);
/// Shortest and longest chunk but the last of a file.
const MIN_CHUNK: usize = 64;
const MAX_CHUNK: usize = 1024;
/// Why a file is read whole that does not hold what is known of it.
const DIFFERS: &str = "a sample of the old content had changed: the file was read in full";

/// Why a file is in the snapshot in a later state than the others.
const MOVED_ON: &str = "changed between freeze and read: stored in its state at opening";
const CUT: &str = "was truncated between freeze and read: the removed end is not in the snapshot";

/// The chunks that a server has.
type Server = Mutex<HashMap<ChunkId, Vec<u8>>>;
/// Something that the owner of a tree does to it, and what it is called.
type Deed = (&'static str, fn(&Tree));

/// A clock that always shows the same time.
#[derive(Clone, Copy)]
struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Long after every change that a test makes.
const LATER: At = At(Timestamp { seconds: i64::MAX, nanos: 0 });

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap()
}
