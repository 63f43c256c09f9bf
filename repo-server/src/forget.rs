//! Forgetting: the snapshots to delete, by id or by policy, and the reasons.
//!
//! A policy is applied to each series separately: see [`snapshot::series`].
//!
//! A request plans or applies; a plan and its application look at the same things, so `--dry-run` tells what
//! would be done. Forgetting takes nothing away: it makes tombstones, and the collector does the rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use format_spec::snapshot::{Snapshot, SnapshotState};
use format_spec::wire::{
    ForgetLine, ForgetReport, ForgetRequest, LastComplete, RetentionPolicy, RunMode, Verdict,
};
use format_spec::{About, ClusterName, SnapshotId};

use crate::catalog::ledger::Counts;
use crate::defects::objects::{self, Known};
use crate::error::{Chain, ServerError};
use crate::health::clock::ClockState;
use crate::health::gate;
use crate::lease::{Kind, Retention};
use crate::operation::{self, InTurn, Operation, Progress};
use crate::rows::MarkRow;
use crate::server::Server;
use crate::settings::{PolicyError, check_policy};
use crate::snapshot::retention::{self, Candidate, Condition, Policy, Protection, Standing};
use crate::snapshot::series::{by_series, nodes, note_origins, title, title_of_folders, watch_suspects};
use crate::snapshot::{self, reach};
use crate::time::{later, rfc3339};
use crate::verify;

type Marks = HashMap<SnapshotId, MarkRow>;

/// Decision about each snapshot, and its reasons.
type Fates = BTreeMap<SnapshotId, (Verdict, Vec<String>)>;

/// Forgets snapshots, or plans it. One run after the other, so that each sees the deletions of the one before.
///
/// Errors: [`ServerError::Refused`] if a named snapshot is protected, or the last complete one of its nodes; if the
/// server's clock jumped and a policy was to decide; while the index is older than the site (G12); if there is
/// neither a name nor a policy. Nothing changed.
impl Operation for ForgetRequest {
    const KIND: Kind = Kind("forget");
    type Needs = InTurn<Retention>;
    type Report = ForgetReport;

    fn weakens(&self) -> Option<&'static str> {
        match (self.last_complete, self.accept_clock) {
            (LastComplete::MayGo, _) => Some("delete the last complete snapshot of a series"),
            (_, true) => Some("accept the clock after a jump"),
            _ => None,
        }
    }

    async fn run(
        self,
        server: &Arc<Server>,
        _: &Self::Needs,
        _: &Progress,
    ) -> Result<ForgetReport, ServerError> {
        server.waiting(move |server| forget(server, &self)).await
    }
}

fn forget(server: &Arc<Server>, request: &ForgetRequest) -> Result<ForgetReport, ServerError> {
    let store = &server.store;
    // A policy decides by series, so it must know the folders of snapshots of earlier builds, too.
    note_origins(store)?;
    if request.snapshots.is_empty() {
        // A policy counts on what is sound.
        verify::name_the_hurt(server)?;
    }
    gate::check(store)?;
    if request.accept_clock {
        server.clock_watch.accept(store)?;
    }
    let marks = snapshot::marks(store)?;
    let snapshots = wanted(snapshot::list(store, request.cluster.as_ref())?, request)?;
    let fates = decide(server, request, &snapshots, &marks)?;
    let report = report(server, request, &snapshots, &marks, &fates)?;
    if request.mode == RunMode::Apply {
        let goes =
            |(id, (verdict, _)): (&SnapshotId, &(Verdict, _))| (*verdict == Verdict::Forget).then_some(*id);
        let going: Vec<SnapshotId> = fates.iter().filter_map(goes).collect();
        snapshot::forget(store, &going)?;
        watch_suspects(store)?;
        log(&snapshots, &fates);
    }
    Ok(report)
}

/// Tells the log which snapshots were forgotten, and by which rule.
fn log(snapshots: &[Snapshot], fates: &Fates) {
    for snapshot in snapshots {
        if let Some((Verdict::Forget, reasons)) = fates.get(&snapshot.id) {
            let (cluster, node, series) = (&snapshot.cluster, nodes(snapshot), title_of_folders(snapshot));
            let (created, why) = (rfc3339(snapshot.created_ms), reasons.join(", "));
            tracing::info!(snapshot = %snapshot.id, %cluster, node, series, created, why, "snapshot deleted");
        }
    }
}

/// Those with the labels that are asked for, and with a share of the node, if one is named.
fn wanted(mut snapshots: Vec<Snapshot>, asked: &ForgetRequest) -> Result<Vec<Snapshot>, ServerError> {
    let none = About::default();
    snapshots.retain(|snapshot| snapshot.about.as_ref().unwrap_or(&none).fits(&asked.labels));
    if snapshots.is_empty() && !asked.labels.is_empty() {
        let labels: Vec<String> = asked.labels.iter().map(ToString::to_string).collect();
        let why = format!("no snapshot has the label {}", labels.join(" and "));
        return Err(ServerError::BadRequest { code: "no_such_label", why });
    }
    let Some(node) = &asked.node else { return Ok(snapshots) };
    let all = snapshots.into_iter();
    let of_node: Vec<Snapshot> = all.filter(|snapshot| snapshot.manifest_of(node).is_some()).collect();
    if of_node.is_empty() {
        let why = format!("no snapshot of node `{node}`");
        return Err(ServerError::BadRequest { code: "no_such_node", why });
    }
    Ok(of_node)
}

/// Applies the configured policies, each cluster's by itself. Clusters without one keep everything.
///
/// # Errors
/// [`ServerError`] if the clusters cannot be listed. What fails for one of them is logged.
pub(crate) async fn by_policy(server: &Arc<Server>) -> Result<u64, ServerError> {
    let with_policy = |server: &Arc<Server>| {
        let listed = snapshot::list(&server.store, None)?;
        let clusters: BTreeSet<ClusterName> = listed.into_iter().map(|snapshot| snapshot.cluster).collect();
        let choices = server.choices();
        let retention = &choices.retention;
        let has_policy = |cluster: &ClusterName| *retention.policy(cluster) != RetentionPolicy::default();
        Ok(clusters.into_iter().filter(has_policy).collect::<Vec<_>>())
    };
    let mut forgotten = 0;
    for cluster in server.blocking(with_policy).await? {
        let (mode, of) = (RunMode::Apply, Some(cluster.clone()));
        let request = ForgetRequest { mode, cluster: of, ..ForgetRequest::default() };
        let report = match operation::run_unheard(server, request).await {
            Ok(report) => report,
            Err(error) => {
                tracing::error!(%cluster, error = %Chain(&error), "the retention policy could not be applied");
                continue;
            }
        };
        let going = report.snapshots.iter().filter(|line| line.verdict == Verdict::Forget).count();
        forgotten += u64::try_from(going).unwrap_or(u64::MAX);
    }
    Ok(forgotten)
}

fn decide(
    server: &Server,
    request: &ForgetRequest,
    snapshots: &[Snapshot],
    marks: &Marks,
) -> Result<Fates, ServerError> {
    let damaged = objects::all(&server.store)?;
    if !request.snapshots.is_empty() {
        return by_name(request, snapshots, marks, &damaged);
    }
    if server.clock_watch.look(&server.store)? == ClockState::Jumped {
        let why = "the server's clock jumped, so policies are suspended: see `astacus-admin status`, correct the clock, then add --accept-clock";
        return Err(ServerError::Refused { code: "clock_jumped", why: why.to_owned() });
    }
    let now_ms = server.store.parts.clock.unix_ms();
    let mut fates = Fates::new();
    for series in by_series(snapshots).into_values() {
        let Some(first) = series.first() else { continue };
        let policy = policy_of(server, request, &first.cluster)?;
        let candidates: Vec<Candidate> =
            series.iter().map(|snapshot| candidate(snapshot, marks, &damaged)).collect();
        for decision in retention::decide(&Policy::from(&policy), &candidates, now_ms, request.last_complete)
        {
            let reasons = decision.reasons.iter().map(ToString::to_string).collect();
            fates.insert(decision.id, (decision.verdict, reasons));
        }
    }
    Ok(fates)
}

fn policy_of(
    server: &Server,
    request: &ForgetRequest,
    cluster: &ClusterName,
) -> Result<RetentionPolicy, ServerError> {
    let choices = server.choices();
    let policy = request.policy.as_ref().unwrap_or_else(|| choices.retention.policy(cluster));
    if *policy == RetentionPolicy::default() {
        let why = format!(
            "no policy for cluster `{cluster}`: name snapshots, give rules such as --keep-daily 7, or \
             configure [retention]"
        );
        return Err(ServerError::BadRequest { code: "no_policy", why });
    }
    let bad = |error: PolicyError| ServerError::BadRequest { code: "bad_policy", why: error.to_string() };
    check_policy(policy).map_err(bad)?;
    Ok(policy.clone())
}

/// Deletes the named ones.
fn by_name(
    request: &ForgetRequest,
    snapshots: &[Snapshot],
    marks: &Marks,
    damaged: &Known,
) -> Result<Fates, ServerError> {
    let mut fates = Fates::new();
    for id in &request.snapshots {
        let found = snapshots.iter().find(|snapshot| snapshot.id == *id);
        let snapshot = found.ok_or(ServerError::NoSnapshot(*id))?;
        let mark = marks.get(id).cloned().unwrap_or_default();
        if let Some(protection) = &mark.protection {
            let why = format!(
                "snapshot {id} is protected ({}): `astacus-admin protect --off {id}`",
                protection.reason
            );
            return Err(ServerError::Refused { code: "protected", why });
        }
        let verdict = if mark.tombstone.is_some() { Verdict::Going } else { Verdict::Forget };
        fates.insert(snapshot.id, (verdict, vec!["it was named".to_owned()]));
    }
    if request.last_complete == LastComplete::Stays {
        check_last_complete_stays(&fates, snapshots, marks, damaged)?;
    }
    Ok(fates)
}

/// Nodes that have a complete snapshot keep one: a sound one, as long as there is any.
fn check_last_complete_stays(
    fates: &Fates,
    snapshots: &[Snapshot],
    marks: &Marks,
    damaged: &Known,
) -> Result<(), ServerError> {
    for series in by_series(snapshots).into_values() {
        let is_going =
            |snapshot: &&&Snapshot| marks.get(&snapshot.id).is_some_and(|mark| mark.tombstone.is_some());
        let mut complete: Vec<_> = series
            .iter()
            .filter(|snapshot| snapshot.state == SnapshotState::Complete && !is_going(snapshot))
            .collect();
        let is_sound = |snapshot: &Snapshot| condition(snapshot, damaged) == Condition::Sound;
        if complete.iter().any(|snapshot| is_sound(snapshot)) {
            complete.retain(|snapshot| is_sound(snapshot));
        }
        let all_go = complete.iter().all(|snapshot| fates.contains_key(&snapshot.id));
        if let Some(last) = complete.last().filter(|_| all_go) {
            let (cluster, title) = (&last.cluster, title(last));
            let why = format!(
                "this would delete the last complete snapshot of {title} in cluster `{cluster}`: add --even-last to allow that"
            );
            return Err(ServerError::Refused { code: "last_complete", why });
        }
    }
    Ok(())
}

fn candidate(snapshot: &Snapshot, marks: &Marks, damaged: &Known) -> Candidate {
    let mark = marks.get(&snapshot.id).cloned().unwrap_or_default();
    Candidate {
        id: snapshot.id,
        number: snapshot.number.unwrap_or(0),
        created_ms: snapshot.created_ms,
        state: snapshot.state,
        protection: if mark.protection.is_some() { Protection::Protected } else { Protection::Unprotected },
        standing: if mark.tombstone.is_some() { Standing::Tombstoned } else { Standing::Listed },
        condition: condition(snapshot, damaged),
    }
}

fn condition(snapshot: &Snapshot, damaged: &Known) -> Condition {
    match (damaged.against(snapshot), snapshot.shrunk) {
        (Some(_), _) => Condition::Damaged,
        (None, Some(_)) => Condition::Suspect,
        (None, None) => Condition::Sound,
    }
}

fn report(
    server: &Arc<Server>,
    request: &ForgetRequest,
    snapshots: &[Snapshot],
    marks: &Marks,
    fates: &Fates,
) -> Result<ForgetReport, ServerError> {
    let gone = match reach::references_of_idle_pages(&server.store) {
        Err(ServerError::Damaged { .. } | ServerError::Lost { .. } | ServerError::Site(_)) => Counts::new(),
        gone => gone?,
    };
    let mut lines = Vec::new();
    let mut going = Vec::new();
    let mut frees_bytes = Some(0);
    let undelete = server.store.parts.upkeep.gc.undelete;
    for snapshot in snapshots {
        let Some((verdict, reasons)) = fates.get(&snapshot.id) else { continue };
        let until_ms = match verdict {
            Verdict::Keep => None,
            Verdict::Forget => Some(later(server.store.parts.clock.unix_ms(), undelete)),
            Verdict::Going => {
                marks.get(&snapshot.id).and_then(|mark| mark.tombstone.as_ref()).map(|going| going.until_ms)
            }
        };
        let frees_alone = frees(server, &[snapshot], &gone)?;
        if *verdict == Verdict::Forget {
            going.push(snapshot);
            frees_bytes = frees_alone;
        }
        lines.push(ForgetLine {
            id: snapshot.id,
            cluster: snapshot.cluster.clone(),
            nodes: snapshot.manifests.iter().map(|share| share.node.clone()).collect(),
            series: Some(snapshot.series()),
            origins: snapshot::origins(snapshot),
            created: rfc3339(snapshot.created_ms),
            state: snapshot.state,
            verdict: *verdict,
            reasons: reasons.clone(),
            frees_bytes: frees_alone,
            until: until_ms.map(rfc3339),
        });
    }
    if going.len() > 1 {
        frees_bytes = frees(server, &going, &gone)?;
    }
    Ok(ForgetReport { mode: request.mode, snapshots: lines, frees_bytes })
}

/// Bytes that are freed with the snapshots, unless they cannot be determined: a damaged snapshot can still be
/// deleted.
fn frees(server: &Arc<Server>, snapshots: &[&Snapshot], gone: &Counts) -> Result<Option<u64>, ServerError> {
    match reach::freed(&server.store, snapshots, gone) {
        Ok(freed) => Ok(Some(freed.bytes())),
        Err(ServerError::Damaged { .. } | ServerError::Lost { .. } | ServerError::Site(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
