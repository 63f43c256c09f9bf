//! Names of restored files that are no settled states.

use std::collections::BTreeSet;

use format_spec::EntryPath;

use super::plan::Mixture;

/// How many names of files that are not settled states a report gives; it counts all.
const MAX_NAMED: usize = 1000;

/// The names whose content was written to while it was read.
#[derive(Default)]
pub(super) struct Mixed {
    pub(super) fuzzy: Names,
    pub(super) torn: Names,
}

impl Mixed {
    /// One more.
    pub(super) fn add(&mut self, path: EntryPath, mixture: Mixture) {
        match mixture {
            Mixture::Fuzzy => self.fuzzy.add(path),
            Mixture::Torn => self.torn.add(path),
        }
    }
}

/// The first of many names.
#[derive(Default)]
pub(super) struct Names {
    pub(super) first: BTreeSet<EntryPath>,
    pub(super) count: u64,
}

impl Names {
    fn add(&mut self, path: EntryPath) {
        self.count += 1;
        if self.first.len() < MAX_NAMED {
            self.first.insert(path);
        }
    }

    /// The first of them, in order.
    pub(super) fn text(&self) -> Vec<String> {
        self.first.iter().map(EntryPath::to_string).collect()
    }
}
