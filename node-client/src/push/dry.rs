//! Plan of a push, without reading files: a walk that is compared with the saved state.
//!
//! It sends nothing, changes nothing and needs no server. What the server has lost meanwhile, and what a push that was
//! cut short has read already, does not show.

use std::collections::HashSet;

use format_spec::manifest::MAX_PROBLEMS;
use format_spec::snapshot::SnapshotState;
use format_spec::{ClusterName, EntryKind, EntryPath, NodeName, Timestamp};
use rustix::fs::{Access, AtFlags};
use serde::Serialize;

use super::chosen::Chosen;
use super::class::Classes;
use super::find::links::{InodeKey, key};
use super::find::list::Step;
use super::find::lister::why_unseen;
use super::find::walk;
use super::find::walk::{Row, Visitor};
use super::freeze::Held;
use super::options::PushOptions;
use super::report::ProblemReport;
use super::select::left_out::LeftOutBy;
use super::stat::Stat;
use super::stop::Stopped;
use super::verdict::{Judged, Verdict};
use crate::clock::Clock;
use crate::error::{ClientError, EXIT_PARTIAL};
use crate::leftover::is_temporary;
use crate::progress::{Fate, Progress};
use crate::state::{Damaged, Known, Likeness, Memory, Place, Remembered};

/// Files of one fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Planned {
    /// How many.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Bytes of it that would be read.
    pub bytes_to_read: u64,
}

/// Plan of a push.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DryPush {
    /// Always true: there is no snapshot.
    pub dry_run: bool,
    /// Cluster of the node.
    pub cluster: ClusterName,
    /// Node that would be pushed.
    pub node: NodeName,
    /// Partial if the snapshot would lack something, as far as that shows without reading.
    pub state: SnapshotState,
    /// True if a saved state of a push of these folders exists.
    pub is_remembered: bool,
    /// Regular files, each hard link counted.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of file content, each inode once.
    pub bytes: u64,
    /// Sockets, devices and pipes that would be skipped.
    pub skipped: u64,
    /// Files that are not known.
    pub new: Planned,
    /// Known files that would be read whole.
    pub changed: Planned,
    /// Files that grew: of one that is known to be appended to, only the end would be read.
    pub appended: Planned,
    /// Files of which only samples would be read, and the chunks of `--rehash` and its rounds.
    pub unchanged: Planned,
    /// Further names of files that came already.
    pub linked: u64,
    /// Files of the last push that are no longer there, or left out.
    pub gone: u64,
    /// Bytes that would be read in all.
    pub bytes_to_read: u64,
    /// Exclusions, for each pattern that has some.
    pub left_out: Vec<LeftOutBy>,
    /// Patterns of excludes that matched nothing, each behind its flag, or its file and line.
    pub unmatched: Vec<String>,
    /// Warnings before the push.
    pub warnings: Vec<String>,
    /// How many files would be missing.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<ProblemReport>,
}

impl DryPush {
    /// The exit code of a program that ends with this, as that of the push.
    pub fn exit_code(&self) -> u8 {
        match self.state {
            SnapshotState::Complete => 0,
            SnapshotState::Partial => EXIT_PARTIAL,
        }
    }
}

/// Finds out what a push with these options would read. Reads folders and metadata, and no file.
///
/// # Errors
/// [`ClientError`]: the usage errors of a push.
pub fn dry_run(
    options: &PushOptions,
    progress: &dyn Progress,
    clock: &dyn Clock,
) -> Result<DryPush, ClientError> {
    let chosen = Chosen::new(options)?;
    let place = chosen.place(options);
    for memory in [recall(place.as_ref(), options), Memory::default()] {
        let mut planner = Planner::new(options, memory, &chosen.classes, progress, clock);
        let walked = walk::walk(&chosen.roots, &chosen.selection, options.mounts, &mut planner);
        if walked.is_ok() && planner.count_gone().is_ok() {
            return Ok(DryPush {
                left_out: chosen.selection.left_out(),
                unmatched: chosen.unmatched(),
                warnings: chosen.selection.warnings().into_iter().collect(),
                ..planner.plan
            });
        }
        tracing::warn!("the push state is damaged: all files would be read");
    }
    Err(ClientError::Worker("state read without being open"))
}

/// State of the last push, without authentication, because the server has the key for that. A journal is not
/// moved.
fn recall(place: Option<&Place>, options: &PushOptions) -> Memory {
    let last = place.and_then(|place| Some((place, place.newest()?)));
    let Some((place, last)) = last else { return Memory::default() };
    let likeness = Likeness::new(options.recognition.alike, last.devices(), &place.devices());
    Memory::new(Known::open_unchecked(last).ok(), None, likeness)
}

/// A walk that only counts.
struct Planner<'a> {
    plan: DryPush,
    memory: Memory,
    classes: &'a Classes,
    progress: &'a dyn Progress,
    clock: &'a dyn Clock,
    /// Inodes with several names that came already. Memory: one row for each.
    linked: HashSet<InodeKey>,
}

impl<'a> Planner<'a> {
    fn new(
        options: &PushOptions,
        memory: Memory,
        classes: &'a Classes,
        progress: &'a dyn Progress,
        clock: &'a dyn Clock,
    ) -> Self {
        let plan = DryPush {
            dry_run: true,
            cluster: options.origin.cluster.clone(),
            node: options.origin.node.clone(),
            state: SnapshotState::Complete,
            is_remembered: memory.last.is_some(),
            files: 0,
            folders: 0,
            symlinks: 0,
            bytes: 0,
            skipped: 0,
            new: Planned::default(),
            changed: Planned::default(),
            appended: Planned::default(),
            unchanged: Planned::default(),
            linked: 0,
            gone: 0,
            bytes_to_read: 0,
            left_out: Vec::new(),
            unmatched: Vec::new(),
            warnings: Vec::new(),
            problem_count: 0,
            problems: Vec::new(),
        };
        Self { plan, memory, classes, progress, clock, linked: HashSet::new() }
    }

    /// How the push would deal with a file, and how much of it would be read.
    fn fate(&mut self, path: &EntryPath, stat: &Stat) -> Result<(Fate, u64), Damaged> {
        let now = stat.identity;
        let Some(remembered) = self.memory.find(path, &now)? else { return Ok((Fate::New, now.size)) };
        let Remembered { slot: Some(slot), .. } = remembered else {
            return Ok((Fate::Changed, now.size));
        };
        Ok(match Judged::of(self.classes.of(path), &slot, &remembered, stat).verdict {
            Verdict::Reuse | Verdict::Check => (Fate::Unchanged, 0),
            // All of it is compared, unless so many files are affected that samples must do.
            Verdict::Compare => (Fate::Unchanged, now.size),
            Verdict::Append => (Fate::Appended, now.size.saturating_sub(slot.identity.size)),
            // All old content is compared.
            Verdict::Prove => (Fate::Appended, now.size),
            Verdict::Whole => (Fate::Changed, now.size),
        })
    }

    fn count(&mut self, fate: Fate, bytes: u64, bytes_to_read: u64) {
        let planned = match fate {
            Fate::New => &mut self.plan.new,
            Fate::Appended => &mut self.plan.appended,
            Fate::Unchanged => &mut self.plan.unchanged,
            _ => &mut self.plan.changed,
        };
        planned.files += 1;
        planned.bytes += bytes;
        planned.bytes_to_read += bytes_to_read;
        self.plan.bytes += bytes;
        self.plan.bytes_to_read += bytes_to_read;
    }

    fn problem(&mut self, path: &EntryPath, reason: String) {
        self.progress.named(Fate::Unreadable, path);
        self.plan.state = SnapshotState::Partial;
        self.plan.problem_count += 1;
        if self.plan.problems.len() < MAX_PROBLEMS {
            self.plan.problems.push(ProblemReport { path: format!("/{path}"), reason });
        }
    }

    fn count_gone(&mut self) -> Result<(), Damaged> {
        self.plan.gone = self.memory.count_gone()?;
        Ok(())
    }
}

impl Visitor for Planner<'_> {
    fn file(&mut self, at: walk::Place<'_>, stat: Stat) -> Result<Row, Stopped> {
        self.plan.files += 1;
        if stat.links > 1 && !self.linked.insert(key(&stat)) {
            self.plan.linked += 1;
            self.progress.named(Fate::Linked, at.path);
            return Ok(Row::Written);
        }
        let (fate, bytes_to_read) = self.fate(at.path, &stat).map_err(|Damaged| Stopped)?;
        let is_readable = rustix::fs::accessat(at.folder, at.name, Access::READ_OK, AtFlags::EACCESS);
        match is_readable {
            Err(error) if bytes_to_read > 0 => {
                self.problem(at.path, walk::reason("cannot be opened", error));
            }
            _ => {
                self.count(fate, stat.identity.size, bytes_to_read);
                self.progress.named(fate, at.path);
            }
        }
        self.progress.scanned(stat.identity.size);
        Ok(Row::Written)
    }

    fn hold(&mut self, _: walk::Place<'_>, stat: Stat) -> Result<Option<Held>, Stopped> {
        Ok(Some(Held::as_is(stat)))
    }

    fn held(&mut self, _: u64, _: EntryPath, _: Option<Held>) -> Result<(), Stopped> {
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), Stopped> {
        match step {
            Step::Plain(entry) if entry.kind == EntryKind::Symlink => self.plan.symlinks += 1,
            Step::Plain(_) => self.plan.folders += 1,
            Step::Skipped(path) if path.components().last().is_some_and(is_temporary) => {}
            Step::Skipped(_) => self.plan.skipped += 1,
            Step::Problem(path, reason) => self.problem(&path, reason),
            // These steps have no waiting row.
            Step::File(_) | Step::Waiting(..) => {}
        }
        Ok(())
    }

    fn take_back(&mut self, _: &EntryPath) {}

    fn insert(&mut self, step: Step) -> Result<(), Stopped> {
        self.step(step)
    }

    fn restless(&mut self, _: &EntryPath) -> Result<(), Stopped> {
        Ok(())
    }

    fn left_out(&mut self, path: &EntryPath) {
        self.progress.named(Fate::Excluded, path);
    }

    fn unseen(&mut self, path: &EntryPath) -> Result<(), Stopped> {
        if let Some(why) = why_unseen(path) {
            self.problem(path, why);
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn needs_one_moment(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::clock::SystemClock;
    use crate::progress::Silent;
    use crate::push::SelectOptions;

    fn options(root: &std::path::Path) -> PushOptions {
        let (cluster, node) = ("c".parse().unwrap(), "n".parse().unwrap());
        PushOptions::new(cluster, node, "h".to_owned(), vec![root.to_owned()])
    }

    fn dry(options: &PushOptions) -> DryPush {
        dry_run(options, &Silent, &SystemClock::new()).unwrap()
    }

    #[test]
    fn without_a_push_before_every_file_is_new_and_each_inode_is_read_once() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("a"), "1234").unwrap();
        fs::hard_link(root.join("a"), root.join("b")).unwrap();
        fs::write(root.join("sub/c.tmp"), "1").unwrap();
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        let excludes = vec!["*.tmp".to_owned(), "*.bak".to_owned()];
        let options = PushOptions {
            select: SelectOptions { excludes, ..SelectOptions::default() },
            state: Some(temp.path().join("state")),
            ..options(&root)
        };

        let planned = dry(&options);

        assert_eq!((planned.files, planned.folders, planned.symlinks, planned.linked), (2, 2, 1, 1));
        assert_eq!(planned.new, Planned { files: 1, bytes: 4, bytes_to_read: 4 });
        assert_eq!((planned.bytes, planned.bytes_to_read, planned.is_remembered), (4, 4, false));
        assert_eq!(planned.left_out.len(), 1);
        assert_eq!(planned.unmatched, ["--exclude *.bak"]);
        assert_eq!(planned.exit_code(), 0);
        assert!(!temp.path().join("state").exists(), "nothing is remembered");
    }

    #[test]
    fn a_path_of_a_list_that_is_not_there_makes_it_partial() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a"), "").unwrap();
        let list = temp.path().join("list");
        fs::write(&list, format!("{0}/a\n{0}/gone\n", root.display())).unwrap();
        let lists = vec![crate::push::PathList { file: list, separator: crate::push::Separator::NewLine }];
        let options =
            PushOptions { select: SelectOptions { lists, ..SelectOptions::default() }, ..options(&root) };

        let planned = dry(&options);

        assert_eq!((planned.files, planned.problem_count, planned.exit_code()), (1, 1, 3));
        assert!(planned.problems[0].path.ends_with("/root/gone"), "{:?}", planned.problems);
    }
}
