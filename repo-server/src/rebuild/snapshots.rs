//! Snapshots and manifests: their rows, and which pages they name.

use std::collections::BTreeSet;
use std::sync::Arc;

use format_spec::key::BlobKind;
use format_spec::manifest::Manifest;
use format_spec::object::{self, ObjectKind};
use format_spec::protection::ProtectionRecord;
use format_spec::snapshot::{ManifestRef, Snapshot};
use format_spec::{ChunkId, ClusterName, ManifestId};

use super::fill::{BY_MANIFEST, HEADINGS, IN_FLIGHT, Rebuild};
use super::{Lost, RebuildReport};
use crate::defects::objects::{self, Object};
use crate::error::ServerError;
use crate::index::{Batch, Table};
use crate::pack::unreadable;
use crate::rows::{MarkRow, Protection};
use crate::site::layout::{manifest_named, snapshot_named};
use crate::site::{Area, Listed, ObjectName};
use crate::snapshot::{for_each_manifest, open_manifest, read};
use crate::sort::Sorter;
use crate::store::{Store, read_ahead, wait};

/// Rows that are read at once.
const AT_ONCE: usize = 1000;

impl Rebuild {
    /// Writes the rows of all snapshots that can be read, and of the manifests that they name, also of those
    /// that are lost.
    pub(super) fn read_snapshots(&mut self) -> Result<(), ServerError> {
        let store = Arc::clone(&self.store);
        let read = |name: ObjectName| {
            let store = Arc::clone(&store);
            async move {
                let snapshot = read(&store, &name).await;
                (name, snapshot)
            }
        };
        let mut names = Vec::new();
        for Listed { name, .. } in self.list(Area::Snapshots)? {
            match snapshot_named(&name) {
                Some(_) => names.push(name),
                None => self.report.note(format!("`{name}` is not the name of a snapshot")),
            }
        }
        let mut batch = Batch::new();
        for answer in read_ahead(names, IN_FLIGHT, read) {
            let (name, snapshot) = answer?;
            match snapshot {
                Ok(snapshot) if Some(snapshot.id) == snapshot_named(&name) => {
                    self.report.snapshots += 1;
                    batch.put(Table::Snapshot, *snapshot.id.as_bytes(), snapshot.encode());
                    for of in &snapshot.manifests {
                        batch.put(Table::Manifest, *of.id.as_bytes(), *snapshot.id.as_bytes());
                    }
                }
                Ok(snapshot) => {
                    let problem = format!("it contains snapshot {}", snapshot.id);
                    self.report.find(name, problem, vec![snapshot.id]);
                }
                Err(error) => {
                    let problem = unreadable(&error).ok_or(error)?;
                    self.report.find(&name, problem, snapshot_named(&name).into_iter().collect());
                }
            }
            self.commit_if_heavy(&mut batch)?;
        }
        self.commit(&mut batch)
    }

    /// Writes the marks of snapshots that must stay.
    pub(super) fn read_protections(&mut self) -> Result<(), ServerError> {
        let mut batch = Batch::new();
        for Listed { name, .. } in self.list(Area::Protections)? {
            match wait(read_protection(&self.store, &name)) {
                Ok(record) => {
                    let index = &self.store.parts.index;
                    if index.get(Table::Snapshot, record.snapshot.as_bytes())?.is_none() {
                        self.report.note(format!("`{name}` protects a snapshot that does not exist"));
                        continue;
                    }
                    let object = name.as_str().to_owned();
                    let protection = Some(Protection { reason: record.reason, object });
                    let mark = MarkRow { protection, tombstone: None };
                    batch.put(Table::Mark, *record.snapshot.as_bytes(), mark.encode());
                }
                Err(error) => {
                    let problem = unreadable(&error).ok_or(error)?;
                    self.report.find(&name, problem, Vec::new());
                }
            }
            self.commit_if_heavy(&mut batch)?;
        }
        self.commit(&mut batch)
    }

    /// Counts the pages that manifests name. Answers what is lost of them.
    pub(super) fn count_manifests(
        &self,
        sorter: &mut Sorter<HEADINGS>,
    ) -> Result<RebuildReport, ServerError> {
        let mut lost = RebuildReport::new(self.store.id());
        for_each_manifest(&self.store, |snapshot, of, manifest| match manifest {
            Ok(manifest) => self.manifest(snapshot, of, &manifest, sorter, &mut lost),
            Err(problem) => {
                objects::note(&self.store, Object::Manifest(of.id), &problem)?;
                let problem = format!("the manifest of node `{}`: {problem}", of.node);
                lost.find(of.id, problem, vec![snapshot.id]);
                Ok(())
            }
        })?;
        Ok(lost)
    }

    fn manifest(
        &self,
        snapshot: &Snapshot,
        of: &ManifestRef,
        manifest: &Manifest,
        sorter: &mut Sorter<HEADINGS>,
        lost: &mut RebuildReport,
    ) -> Result<(), ServerError> {
        if manifest.cluster != snapshot.cluster || manifest.node != of.node || manifest.totals != of.totals {
            lost.find(of.id, "does not belong to this snapshot", vec![snapshot.id]);
        }
        let mut pages = BTreeSet::new();
        for page in &manifest.pages {
            sorter.add(*page.id.as_bytes(), BY_MANIFEST)?;
            pages.insert(page.id);
        }
        let rows = self.store.chunk_rows(&pages)?;
        let is_page =
            |row: &Option<_>| row.is_some_and(|row: crate::rows::ChunkRow| row.kind == BlobKind::Page);
        let missing: Vec<&ChunkId> =
            pages.iter().zip(&rows).filter(|(_, row)| !is_page(row)).map(|(id, _)| id).collect();
        if let Some(first) = missing.first() {
            let problem = format!(
                "{} of its {} pages are in no pack or lack chunks, such as {first}",
                missing.len(),
                pages.len()
            );
            lost.find(of.id, problem, vec![snapshot.id]);
        }
        Ok(())
    }

    /// Notes manifests that no snapshot names: a push that was cut short leaves one.
    pub(super) fn look_for_strangers(&mut self) -> Result<(), ServerError> {
        let listed = self.list(Area::Manifests)?;
        let clusters = self.clusters()?;
        for some in listed.chunks(AT_ONCE) {
            let ids: Vec<Option<ManifestId>> =
                some.iter().map(|listed| manifest_named(&listed.name)).collect();
            let keys: Vec<&[u8]> = ids.iter().flatten().map(|id| id.as_bytes().as_slice()).collect();
            let mut rows = self.store.parts.index.multi_get(Table::Manifest, &keys)?.into_iter();
            for (listed, id) in some.iter().zip(&ids) {
                match id.map(|id| (id, rows.next().flatten())) {
                    None => self.report.note(format!("`{}` is not the name of a manifest", listed.name)),
                    Some((id, None)) => self.stranger(id, &clusters)?,
                    Some((_, Some(_))) => {}
                }
            }
        }
        Ok(())
    }

    /// The clusters that have snapshots.
    fn clusters(&self) -> Result<BTreeSet<ClusterName>, ServerError> {
        let listed = crate::snapshot::list(&self.store, None)?;
        Ok(listed.into_iter().map(|snapshot| snapshot.cluster).collect())
    }

    /// A manifest that no snapshot names: of a push that was cut short, if its cluster has snapshots; if it has none,
    /// all of them are lost.
    fn stranger(&mut self, id: ManifestId, clusters: &BTreeSet<ClusterName>) -> Result<(), ServerError> {
        match wait(open_manifest(&self.store, id)) {
            Ok((_, manifest)) if !clusters.contains(&manifest.cluster) => {
                let problem = format!(
                    "no snapshot names it, and the site has no snapshot of cluster `{}`: its snapshots are lost, or its first push was interrupted",
                    manifest.cluster
                );
                self.report.find(id, problem, Vec::new());
            }
            Ok(_) => self.report.note(format!("no snapshot names {id}")),
            Err(error) => {
                let problem = unreadable(&error).ok_or(error)?;
                self.report.note(format!("no snapshot names {id}: {problem}"));
            }
        }
        Ok(())
    }

    /// Takes over what was found to be lost.
    pub(super) fn take_over(&mut self, lost: RebuildReport) {
        self.report.found += lost.found;
        let room = super::LISTED.saturating_sub(self.report.findings.len());
        let listed: Vec<Lost> = lost.findings.into_iter().take(room).collect();
        self.report.findings.extend(listed);
    }
}

/// The longest object of a protection: a reason is one line.
const MAX_PROTECTION_LEN: usize = 16 << 10;

async fn read_protection(store: &Arc<Store>, name: &ObjectName) -> Result<ProtectionRecord, ServerError> {
    let sealed = store.get_at_most(name, MAX_PROTECTION_LEN).await?;
    let damaged = |source| ServerError::Damaged { object: name.to_string(), source };
    let payload = object::open(ObjectKind::Protection, &store.keys, store.id(), &sealed);
    ProtectionRecord::decode(&payload.map_err(damaged)?).map_err(damaged)
}
