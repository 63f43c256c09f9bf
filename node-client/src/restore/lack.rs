//! Chosen files that a snapshot lacks, determined before anything is written.
//!
//! A manifest counts all problems and names the first of them; the pages say how the content of each file ends.
//! Only both together tell whether everything that patterns choose is whole. Where they do not account for each
//! problem, it is not known, and a restore without [`Partial::Allow`] is refused.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use format_spec::assemble::{Assembler, Depth, Ending, Part, Roots};
use format_spec::key::DomainKey;
use format_spec::manifest::Manifest;
use format_spec::{Entry, EntryKind, EntryPath};

use super::fetch::{Fetcher, is_about_blobs};
use super::filter::{Filter, Selection};
use super::pages;
use super::plan::cannot_be_restored;
use super::select::Partial;
use crate::error::{ClientError, Lack};

/// How many names an error gives.
const NAMED: usize = 3;

/// Refuses a restore that could not bring back all that `filter` chooses. Reads the pages only if the snapshot
/// lacks something and `filter` chooses a part.
///
/// # Errors
/// [`ClientError::Partial`] unless everything is whole or `partial` allows it; whatever a page answers.
pub(super) fn check(
    partial: Partial,
    fetcher: Fetcher<'_>,
    domain: &DomainKey,
    manifest: &Manifest,
    filter: &Filter,
) -> Result<(), ClientError> {
    let files = problems_of(manifest);
    if partial == Partial::Allow || files == 0 {
        return Ok(());
    }
    let lack = if filter.is_everything() {
        let named = manifest.problems.iter().map(|problem| (problem.path.clone(), problem.reason.clone()));
        Some(Lack { node: manifest.node.clone(), files, first: named.take(NAMED).collect() })
    } else {
        let mut survey = Survey::new(manifest, filter);
        let mut assembler = Assembler::new(domain.clone(), Roots::new(&manifest.roots), Depth::Tree);
        pages::for_each_page(fetcher, domain, manifest, |(page, records)| match records {
            // It may hide what is not whole: then that is not accounted for.
            Err(error) if is_about_blobs(&error) => assembler.missing_page(|part| survey.part(part)),
            records => assembler.page(page.id, records?, |part| survey.part(part)).map(drop),
        })?;
        assembler.finish(|part| survey.part(part))?;
        survey.finish()
    };
    match lack {
        None => Ok(()),
        Some(lack) => Err(ClientError::Partial { snapshot: fetcher.snapshot, lack: Box::new(lack) }),
    }
}

fn problems_of(manifest: &Manifest) -> u64 {
    let named = u64::try_from(manifest.problems.len()).unwrap_or(u64::MAX);
    let torn = manifest.push.as_ref().and_then(|push| push.moment).map_or(0, |moment| moment.torn);
    manifest.totals.problems.max(named).max(torn)
}

/// A look through all pages of a manifest. Memory: the problems that it names.
struct Survey<'a> {
    manifest: &'a Manifest,
    filter: &'a Filter,
    selection: Selection,
    reasons: BTreeMap<&'a EntryPath, &'a str>,
    /// Named problems whose file has no content of its own, or all of it.
    elsewhere: BTreeSet<&'a EntryPath>,
    /// Named problems without content: not a folder, and not of unknown kind.
    leaves: HashSet<&'a EntryPath>,
    file: Option<OpenFile>,
    broken: u64,
    wanted: BTreeMap<EntryPath, String>,
    wanted_count: u64,
}

struct OpenFile {
    path: EntryPath,
    wanted: bool,
}

impl<'a> Survey<'a> {
    fn new(manifest: &'a Manifest, filter: &'a Filter) -> Self {
        let reasons: BTreeMap<_, _> =
            manifest.problems.iter().map(|problem| (&problem.path, problem.reason.as_str())).collect();
        Self {
            manifest,
            filter,
            selection: Selection::new(filter.clone()),
            elsewhere: reasons.keys().copied().collect(),
            reasons,
            leaves: HashSet::new(),
            file: None,
            broken: 0,
            wanted: BTreeMap::new(),
            wanted_count: 0,
        }
    }

    /// # Errors
    /// Class Integrity for a record that breaks a rule: no restore would take it.
    fn part(&mut self, part: Part<'_>) -> Result<(), ClientError> {
        match part {
            Part::Entry(entry) => {
                let wanted = self.come_to(&entry);
                self.file = (entry.kind == EntryKind::File).then_some(OpenFile { path: entry.path, wanted });
            }
            Part::Link { entry, first } => {
                let wanted = self.come_to(&entry);
                if wanted && matches!(first, Ending::Unreadable | Ending::Torn) {
                    self.lacks(&entry.path, "another name of such a file");
                }
            }
            Part::End(ending) => self.end(ending),
            Part::Content { .. } | Part::Nameless(_) => {}
            Part::Fault(fault) => return Err(cannot_be_restored(&fault)),
        }
        Ok(())
    }

    /// True if the entry is wanted.
    fn come_to(&mut self, entry: &Entry) -> bool {
        if entry.kind != EntryKind::Folder
            && let Some((path, _)) = self.reasons.get_key_value(&entry.path)
        {
            self.leaves.insert(path);
        }
        self.selection.wants(&entry.path)
    }

    fn end(&mut self, ending: Ending) {
        let Some(OpenFile { path, wanted }) = self.file.take() else { return };
        let why = match ending {
            Ending::Whole | Ending::Fuzzy => return,
            // It is on a page that is damaged: then it is not accounted for.
            Ending::Lost | Ending::Broken => return,
            Ending::Unreadable => "it was unreadable when it was pushed",
            Ending::Torn => "it is a mixture of states",
        };
        self.broken += 1;
        self.elsewhere.remove(&path);
        if wanted {
            let why = self.reasons.get(&path).copied().unwrap_or(why);
            self.lacks(&path, why);
        }
    }

    fn lacks(&mut self, path: &EntryPath, why: &str) {
        self.wanted_count += 1;
        if self.wanted.len() < NAMED {
            self.wanted.insert(path.clone(), why.to_owned());
        }
    }

    fn finish(mut self) -> Option<Lack> {
        let elsewhere = std::mem::take(&mut self.elsewhere);
        let accounted = self.broken + u64::try_from(elsewhere.len()).unwrap_or(u64::MAX);
        for path in elsewhere {
            let why = self.reasons.get(path).copied().unwrap_or_default();
            if self.filter.covers(path) {
                self.lacks(path, why);
            } else if !self.leaves.contains(path) && self.filter.may_reach_into(path) {
                self.lacks(path, &format!("{why}; the chosen files may have been in it"));
            }
        }
        let node = self.manifest.node.clone();
        let all = problems_of(self.manifest);
        match self.wanted_count {
            0 if accounted >= all => None,
            0 => Some(Lack { node, files: all, first: Vec::new() }),
            files => Some(Lack { node, files, first: self.wanted.into_iter().collect() }),
        }
    }
}

#[cfg(test)]
#[path = "lack/tests.rs"]
mod tests;
