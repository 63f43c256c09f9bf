//! Restore: one node's files of a snapshot, back on disk.
//!
//! Promises: every name that appears beneath the target is whole, each of its chunks was checked against its
//! id, and the file against its digest, before it got that name. Nothing is made outside the target, whatever
//! the manifest says and whatever the target holds; existing files that were not chosen are not changed.
//! Damaged files, and files that cannot be made, are listed in the report and do not stop the restore of
//! others. After a failure no temporary name is left. Files are on stable storage only with
//! [`Durable::Synced`].
//!
//! ```text
//! pages ─▶ plan (pure) ─▶ executor: folders, links ─▶ batches ─▶ 4 × fetch, check, write, name
//! ```
//! Memory is bounded: a few pages, and for each worker the chunks of one batch; beyond that only
//! hard links that wait for their file, and the folders around them, are remembered.

mod attributes;
mod batch;
mod compare;
mod delete;
mod direct;
mod dry;
mod executor;
mod failed;
mod fetch;
mod filter;
mod folder;
mod lack;
mod layout;
mod mixed;
mod output;
mod pages;
mod plan;
mod report;
mod select;
mod series;
mod verify;
mod work;
mod write;

use std::path::PathBuf;

use format_spec::assemble::Roots;
use format_spec::key::DomainKey;
use format_spec::manifest::Manifest;
use format_spec::page::Record;
use format_spec::path::Printable;
use format_spec::wire::SnapshotInfo;
use format_spec::{ClusterName, EntryPath, NodeName, SnapshotId};
use tokio::runtime::Handle;

use attributes::Attributes;
use delete::{Pages, Removed, Sweeping};
use failed::Failures;
use fetch::{Fetcher, is_about_blobs};
use filter::{Filter, Selection};
use folder::{FolderJob, Target};
use layout::Layout;
use plan::Planner;
use report::{Flaws, Present};
use select::Latest;
use work::Work;
use write::Writer;

pub use crate::error::Lack;
pub use attributes::{NotSet, Note, Owners, Setuid};
pub use delete::{Extra, NotRemoved};
pub use dry::{DryRun, PlannedKind, PlannedName, dry_run};
pub use failed::{DamagedPage, Failed, FailedFor};
pub use folder::Existing;
pub use output::{Sent, to_output};
pub use report::{RestoreReport, Skipped};
pub use select::{NodeChoice, Partial, PassedOver, PassedOverFor};
pub use series::SeriesChoice;
pub use verify::{Damage, VerifyOptions, VerifyReport, verify};

use crate::api::{Api, wait_for};
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::error::ClientError;
use crate::list::of_cluster;
use crate::named::{Among, SnapshotChoice, by_part};
use crate::pace::Pace;
use crate::rate::Rate;

/// Placement of a pushed root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// To its whole path beneath the target.
    WholePath,
    /// Its content to the target itself.
    StripRoot,
}

/// When the restored files are on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// When the system writes them out.
    Later,
    /// When the restore returns.
    Synced,
}

/// Handling of a restore by root into a folder that others may write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// It is refused.
    Refuse,
    /// The owner is accepted.
    Meant,
}

/// Effect of owners, modes, times or attributes that could not be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// Counted and named.
    IsNoted,
    /// The same, and the exit code says that not all is done.
    IsPartial,
}

/// Options of a restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Which snapshot.
    pub snapshot: SnapshotChoice,
    /// Cluster that the snapshot is of; `None` for any.
    pub cluster: Option<ClusterName>,
    /// Node of the files.
    pub node: NodeChoice,
    /// Which series of the node `latest` is of; without it, the only one that can be meant.
    pub series: Option<SeriesChoice>,
    /// Which snapshots `latest` may be.
    pub among: Among,
    /// Permission for files to be missing or torn.
    pub partial: Partial,
    /// The target: a folder that is made if it is missing.
    pub to: PathBuf,
    /// Patterns of files to choose; none for all. `*` stays within a name, `**` does not; a pattern without
    /// `/` matches in every folder; a folder includes its content.
    pub paths: Vec<String>,
    /// Patterns of what is not wanted, with all in it, in the same form.
    pub excludes: Vec<String>,
    /// Placement of roots.
    pub placement: Placement,
    /// Permission for the target to have content.
    pub existing: Existing,
    /// Handling of names in restored folders that the snapshot does not have.
    pub extra: Extra,
    /// Permission for others to be able to write to the target.
    pub foreign: Foreign,
    /// Effect of attributes that could not be set.
    pub unset: Unset,
    /// Owner of the restored files.
    pub owners: Owners,
    /// Restoring of setuid, setgid and capabilities.
    pub setuid: Setuid,
    /// Most bytes to receive per second.
    pub max_rate: Option<Rate>,
    /// Syncing to the disk.
    pub durable: Durable,
}

impl RestoreOptions {
    fn pace(&self) -> Pace {
        self.max_rate.map_or_else(Pace::unlimited, |rate| Pace::at_most(rate.bytes_per_second()))
    }
}

/// How far a restore or a check is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files done.
    pub files: u64,
    /// Bytes of file content done.
    pub bytes: u64,
    /// Files of the whole node; patterns may choose fewer.
    pub files_total: u64,
    /// Bytes of the whole node.
    pub bytes_total: u64,
}

/// Hears of progress, from several threads.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);

/// Callbacks and sources that a restore or a check needs.
pub struct Hooks<'a> {
    /// Hears how far it is, often: it must be quick.
    pub progress: OnProgress<'a>,
    /// Ends it early, with [`ClientError::Interrupted`].
    pub cancel: Cancel,
    /// Measures how long it takes.
    pub clock: &'a dyn Clock,
}

/// Restores. Blocks; must not be called on a thread of `runtime`.
///
/// Damaged files, and files that cannot be made in the target, are listed in the report, which determines the
/// exit code.
///
/// # Errors
/// - [`ClientError::Usage`]: the options do not fit each other, the snapshot or the target.
/// - [`ClientError::NotFound`], or a refusal of that class: no such snapshot or node, no complete one, or
///   nothing in it matches.
/// - [`ClientError::Partial`]: something that is wanted is not whole in the snapshot. Nothing was written.
/// - [`ClientError::Format`]: the manifest is not what it should be.
/// - [`ClientError::Disk`]: the target could not be opened.
/// - [`ClientError::Stopped`]: an error ended the restore after it had begun to write, such as a full disk, a
///   lost server or Ctrl-C. It has a report; a restore into the same target continues from there.
pub fn run(
    api: &Api,
    runtime: &Handle,
    options: &RestoreOptions,
    hooks: &Hooks<'_>,
) -> Result<RestoreReport, Ended> {
    let start = hooks.clock.elapsed();
    let pace = options.pace();
    let prepared = Prepared::new(api, runtime, options, hooks, &pace)?;
    let mut target = Target::open(&options.to, options.existing)?;
    check_owner(&target, options)?;
    let top = target.top()?;
    let writer = Writer::new(target, Attributes::new(options.setuid, options.owners))?;
    let total = total(&prepared.manifest);
    let work = Work::new(prepared.fetcher, &prepared.domain, writer, total, hooks.progress);
    let mut flaws = Flaws::default();
    let restored = restore(&work, top, &prepared, &mut flaws);
    let restored = restored.and_then(|()| {
        flaws.removed = removed(&work, &prepared, options)?;
        Ok(())
    });
    let restored = restored.and_then(|()| match options.durable {
        Durable::Synced => work.writer.sync(),
        Durable::Later => Ok(()),
    });
    let seconds = hooks.clock.elapsed().saturating_sub(start).as_secs_f64();
    let report = RestoreReport::new(&prepared, &work, flaws, seconds);
    match restored {
        Err(error) if report.is_empty() => Err(error.into()),
        Err(source) => {
            let error = ClientError::Stopped { source: Box::new(source) };
            Err(Ended { error, report: Some(Box::new(report)) })
        }
        Ok(()) if report.is_empty() && !options.paths.is_empty() => Err(nothing_matches(options).into()),
        Ok(()) => Ok(report),
    }
}

/// Names that the snapshot lacks are removed from restored folders, on request.
fn removed(
    work: &Work<'_>,
    prepared: &Prepared<'_>,
    options: &RestoreOptions,
) -> Result<Removed, ClientError> {
    if options.extra == Extra::Stays {
        return Ok(Removed::default());
    }
    let pages = if work.failures.has_damaged_pages() { Pages::Damaged } else { Pages::Sound };
    match delete::refusal(prepared, options, pages) {
        Some(refused) => Ok(refused),
        None => delete::remove_extra(prepared, options, work.writer.target.handle(), Sweeping::Done),
    }
}

/// A restore that did not come to its end.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub error: ClientError,
    /// Report of the work so far, if there was any.
    pub report: Option<Box<RestoreReport>>,
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Self { error, report: None }
    }
}

impl From<Ended> for ClientError {
    fn from(ended: Ended) -> Self {
        ended.error
    }
}

fn nothing_matches(options: &RestoreOptions) -> ClientError {
    let patterns = options.paths.join("`, `");
    ClientError::NotFound(format!(
        "nothing in the snapshot matches `{patterns}`{}{}",
        links_on_the_way(&options.paths),
        names_with_brackets(&options.paths)
    ))
}

/// How brackets that belong to a name are written.
fn names_with_brackets(patterns: &[String]) -> String {
    let is_escaped =
        |pattern: &str, at: usize| pattern.get(..at).is_some_and(|before| before.ends_with('\\'));
    let has_brackets = |pattern: &&String| pattern.find('[').is_some_and(|at| !is_escaped(pattern, at));
    let Some(pattern) = patterns.iter().find(has_brackets) else { return String::new() };
    let escaped = pattern.replace('[', "\\[").replace(']', "\\]");
    format!(
        "; `[` and `]` stand for one of the letters between them: if they belong to the name, write `{escaped}`"
    )
}

/// Targets of patterns that use symbolic links of this machine: a snapshot knows files by their paths without
/// links.
fn links_on_the_way(patterns: &[String]) -> String {
    let absolute = patterns.iter().filter(|pattern| pattern.starts_with('/'));
    let led = absolute.filter_map(|pattern| {
        let pattern = pattern.trim_end_matches('/');
        let real = crate::globs::without_links(pattern)?;
        (real != pattern)
            .then(|| format!("; through symbolic links of this machine, `{pattern}` is `{real}`"))
    });
    led.collect()
}

/// State that is known before anything is written.
struct Prepared<'a> {
    snapshot: SnapshotId,
    node: NodeName,
    passed_over: Option<PassedOver>,
    fetcher: Fetcher<'a>,
    domain: DomainKey,
    manifest: Manifest,
    filter: Filter,
    layout: Layout,
}

impl<'a> Prepared<'a> {
    fn new(
        api: &'a Api,
        runtime: &'a Handle,
        options: &RestoreOptions,
        hooks: &'a Hooks<'_>,
        pace: &'a Pace,
    ) -> Result<Self, ClientError> {
        let filter = Filter::new(&options.paths, &options.excludes)?;
        let Found { snapshot, node, passed_over } = find(api, (runtime, &hooks.cancel), options, &filter)?;
        let fetcher = Fetcher { api, runtime, snapshot, cancel: &hooks.cancel, pace, clock: hooks.clock };
        let manifest = fetcher.wait_for(api.manifest(snapshot, &node))?;
        let domain = domain_key(fetcher)?;
        lack::check(options.partial, fetcher, &domain, &manifest, &filter)?;
        let layout = layout(options.placement, fetcher, &domain, &manifest, &filter)?;
        Ok(Self { snapshot, node, passed_over, fetcher, domain, manifest, filter, layout })
    }

    fn planner(&self) -> Planner {
        let (roots, layout) = (Roots::new(&self.manifest.roots), self.layout.clone());
        Planner::new(self.domain.clone(), roots, layout, self.filter.clone())
    }

    /// One pass over all pages: the steps of their records to `sink`. What follows a damaged one comes too.
    ///
    /// # Errors
    /// As [`Planner::page`]; those of the server that concern more than one page.
    fn pass(
        &self,
        mut planner: Planner,
        mut number: PassNumber<'_>,
        sink: plan::Sink<'_>,
    ) -> Result<Option<Planner>, ClientError> {
        pages::for_each_page(self.fetcher, &self.domain, &self.manifest, |(page, records)| {
            let records = match records {
                Err(error) if is_about_blobs(&error) => {
                    if let PassNumber::First(_, failures) = &number {
                        failures.add_page(page.id, &error);
                    }
                    return planner.missing_page(sink);
                }
                records => records?,
            };
            if let PassNumber::First(entries, _) = &mut number {
                let count = records.iter().filter(|record| matches!(record, Record::Entry(_))).count();
                **entries += u64::try_from(count).unwrap_or(0);
            }
            planner.page(page.id, records, sink)
        })?;
        planner.finish(sink)
    }
}

/// Runs the steps that the planner makes of the manifest's pages.
fn restore(
    work: &Work<'_>,
    top: FolderJob,
    prepared: &Prepared<'_>,
    flaws: &mut Flaws,
) -> Result<(), ClientError> {
    let mut present = Present::of(&prepared.manifest);
    let done = work.run(top, |executor| {
        let mut flow = || -> Result<(), ClientError> {
            let mut sink = |step| {
                present.step(&step);
                executor.step(step)
            };
            let first = PassNumber::First(&mut flaws.entries, &work.failures);
            match prepared.pass(prepared.planner(), first, &mut sink)? {
                Some(second) => prepared.pass(second, PassNumber::Second, &mut sink).map(drop),
                None => Ok(()),
            }
        };
        let ended = flow();
        flaws.skipped = executor.take_skipped();
        flaws.mixed = executor.take_mixed();
        ended
    });
    flaws.there = present.there();
    done
}

/// Number of the pass through the pages.
enum PassNumber<'a> {
    /// Entries are counted, and damage is new.
    First(&'a mut u64, &'a Failures),
    /// Only for content under names that are not chosen.
    Second,
}

/// Others who may write to the target can change files while they are restored, though nothing outside of it.
fn check_owner(target: &Target, options: &RestoreOptions) -> Result<(), ClientError> {
    let to = options.to.display();
    match (target.other_writer(), options.foreign) {
        (Some(writer), Foreign::Refuse) if folder::is_root() => Err(ClientError::Usage(format!(
            "`{to}` {writer}, who can change its content during the restore: choose a folder of root and move the result, or use --into-foreign"
        ))),
        (Some(writer), _) if folder::is_root() => {
            tracing::warn!("`{to}` {writer}, who can change its content during the restore");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Snapshot to restore.
struct Found {
    snapshot: SnapshotId,
    node: NodeName,
    passed_over: Option<PassedOver>,
}

fn find(
    api: &Api,
    (runtime, interrupt): (&Handle, &Cancel),
    options: &RestoreOptions,
    filter: &Filter,
) -> Result<Found, ClientError> {
    let id = match &options.snapshot {
        SnapshotChoice::Latest => {
            let all = wait_for(runtime, interrupt, of_cluster(api, options.cluster.as_ref()))?;
            let all = options.among.choose(all)?;
            let RestoreOptions { node, series, partial, .. } = options;
            let (Latest { id, passed_over }, node) =
                select::latest(&all, node, series.as_ref(), filter, *partial)?;
            all.iter().filter(|snapshot| snapshot.id == id).for_each(warn_of_damage);
            passed_over.iter().for_each(|newer| warn_of_newer(id, newer));
            return Ok(Found { snapshot: id, node, passed_over });
        }
        SnapshotChoice::Id(id) => *id,
        SnapshotChoice::Part(part) => by_part(&wait_for(runtime, interrupt, api.snapshots(None))?, part)?,
    };
    let snapshot = wait_for(runtime, interrupt, api.snapshot(id))?;
    if options.cluster.as_ref().is_some_and(|cluster| *cluster != snapshot.cluster) {
        return Err(ClientError::NotFound(format!("snapshot {id} is of cluster `{}`", snapshot.cluster)));
    }
    warn_of_damage(&snapshot);
    let node = select::node_of(&snapshot, &options.node)?;
    Ok(Found { snapshot: id, node, passed_over: None })
}

/// Before the work begins, which may take hours; the report repeats it.
fn warn_of_newer(taken: SnapshotId, newer: &PassedOver) {
    tracing::warn!("`latest` is snapshot {taken}: {newer}");
}

/// Its sound files can still be restored.
fn warn_of_damage(snapshot: &SnapshotInfo) {
    if let Some(damage) = &snapshot.damaged {
        tracing::warn!(
            snapshot = %snapshot.id,
            damage = %Printable(damage.as_bytes()),
            "this snapshot is known to be damaged; see `astacus-client list` for others"
        );
    }
}

fn domain_key(fetcher: Fetcher<'_>) -> Result<DomainKey, ClientError> {
    let key = fetcher.wait_for(fetcher.api.snapshot_key(fetcher.snapshot))?;
    DomainKey::parse(&key.domain_key).ok_or_else(|| ClientError::Protocol {
        server: fetcher.api.server().to_owned(),
        why: "the domain key is not 64 hex digits".to_owned(),
    })
}

fn total(manifest: &Manifest) -> Progress {
    let totals = &manifest.totals;
    Progress { files: 0, bytes: 0, files_total: totals.files, bytes_total: totals.bytes }
}

/// Where everything goes. With several roots, only one may be stripped, so it must be the only one
/// that anything wanted lies in: the pages are read once more to find out.
fn layout(
    placement: Placement,
    fetcher: Fetcher<'_>,
    domain: &DomainKey,
    manifest: &Manifest,
    filter: &Filter,
) -> Result<Layout, ClientError> {
    let mut used = match (placement, manifest.roots.as_slice()) {
        (Placement::WholePath, _) => return Ok(Layout::WholePath),
        (Placement::StripRoot, [root]) => return Ok(Layout::Strip(root.clone())),
        (Placement::StripRoot, roots) => RootUse::new(roots, filter),
    };
    if !filter.is_everything() {
        pages::for_each_page(fetcher, domain, manifest, |(_, records)| {
            match records {
                // It names nothing that could be restored.
                Err(error) if is_about_blobs(&error) => {}
                records => records?.iter().for_each(|record| used.see(record)),
            }
            Ok(())
        })?;
    }
    match used.used.as_slice() {
        [root] => Ok(Layout::Strip(root.clone())),
        _ => {
            let list: Vec<String> = manifest.roots.iter().map(|root| format!("/{root}")).collect();
            let list = list.join(", ");
            Err(ClientError::Usage(format!(
                "--strip-root needs a single root; choose one with --path: {list}"
            )))
        }
    }
}

/// Roots that contain chosen entries.
struct RootUse<'a> {
    roots: &'a [EntryPath],
    selection: Selection,
    used: Vec<EntryPath>,
}

impl<'a> RootUse<'a> {
    fn new(roots: &'a [EntryPath], filter: &Filter) -> Self {
        Self { roots, selection: Selection::new(filter.clone()), used: Vec::new() }
    }

    fn see(&mut self, record: &Record) {
        let Record::Entry(entry) = record else { return };
        let within = |root: &&EntryPath| entry.path.below(root).is_some();
        if self.selection.wants(&entry.path)
            && let Some(root) = self.roots.iter().find(within)
            && self.used.last() != Some(root)
        {
            self.used.push(root.clone());
        }
    }
}

#[cfg(test)]
mod tests;
