//! Looks at a whole repository: do rows, counts and objects fit together, and is nothing left over?

use std::collections::{BTreeMap, BTreeSet};

use format_spec::ChunkId;
use format_spec::key::BlobKind;

use crate::catalog::ledger::Counts;
use crate::index::{KeyRange, Table};
use crate::pack;
use crate::rows::{ChunkRow, IdleKey, Live, PackNumber, PackRow};
use crate::site::layout::pack_object;
use crate::snapshot;
use crate::testing::World;

/// Problems of the repository; empty if there are none.
pub(super) fn faults(world: &World) -> Vec<String> {
    let mut faults = Vec::new();
    let rows = chunk_rows(world);
    let packs = pack_rows(world);
    let queue = queue(world);
    let mut expected = Counts::new();
    for snapshot in snapshot::list(&world.store, None).unwrap() {
        for manifest in &snapshot.manifests {
            match world.wait(snapshot::open_manifest(&world.store, manifest.id)) {
                Ok((_, opened)) => {
                    for page in &opened.pages {
                        *expected.entry(page.id).or_default() += 1;
                    }
                }
                Err(error) => faults.push(format!("{}: {error}", manifest.id)),
            }
        }
    }
    let mut live: BTreeMap<PackNumber, Live> = BTreeMap::new();
    for (number, pack) in &packs {
        let directory = match world.wait(pack::read_directory(&world.store, &pack.id, pack.len)) {
            Ok(directory) => directory,
            Err(error) => {
                faults.push(format!("{}: {error}", pack.id));
                continue;
            }
        };
        for entry in directory.entries {
            let row = rows.get(&entry.id);
            if !row.is_some_and(|row| row.pack == *number && row.range() == entry.range()) {
                continue;
            }
            live.entry(*number).or_default().add(row.unwrap());
            for id in entry.references {
                *expected.entry(id).or_default() += 1;
            }
        }
    }
    for (id, row) in &rows {
        let count = expected.get(id).copied().unwrap_or(0);
        if row.references != count {
            faults.push(format!("{id} counts {} and has {count}", row.references));
        }
        if row.is_idle() && !is_queued(id, row, &queue) {
            faults.push(format!("{id} is idle, and the collector will never look at it"));
        }
    }
    for id in expected.keys().filter(|id| !rows.contains_key(id)) {
        faults.push(format!("{id} is needed, and has no row"));
    }
    for (number, pack) in &packs {
        if live.get(number).copied().unwrap_or_default() != pack.live {
            faults.push(format!("{} does not know what is left of it", pack.id));
        }
    }
    let totals = world.store.totals().unwrap();
    if usize::try_from(totals.chunks).unwrap() != rows.len()
        || usize::try_from(totals.packs).unwrap() != packs.len()
        || totals.stored_bytes != packs.values().map(|pack| pack.len).sum::<u64>()
    {
        faults.push(format!("totals are wrong: {totals:?}"));
    }
    faults
}

/// Objects on the site that no row names.
pub(super) fn leftovers(world: &World) -> Vec<String> {
    let mut needed = BTreeSet::new();
    for snapshot in snapshot::list(&world.store, None).unwrap() {
        needed.extend(snapshot::objects(&snapshot).into_iter().map(|key| key.name.as_str().to_owned()));
    }
    needed.extend(pack_rows(world).values().map(|row| pack_object(&row.id).as_str().to_owned()));
    let areas = ["packs", "manifests", "snapshots"];
    let found = areas.into_iter().flat_map(|area| world.objects(area));
    found.filter(|name| !needed.contains(name)).collect()
}

fn is_queued(id: &ChunkId, row: &ChunkRow, queue: &[IdleKey]) -> bool {
    let item = IdleKey::Row { kind: row.kind, since: row.idle_since, id: *id };
    let pack = IdleKey::Pack { kind: row.kind, since: row.idle_since, number: row.pack };
    queue.iter().any(|queued| *queued == item || *queued == pack)
}

fn chunk_rows(world: &World) -> BTreeMap<ChunkId, ChunkRow> {
    let ids = world.rows();
    let rows = world.store.chunk_rows(&ids).unwrap();
    ids.into_iter().zip(rows).map(|(id, row)| (id, row.unwrap())).collect()
}

fn pack_rows(world: &World) -> BTreeMap<PackNumber, PackRow> {
    let mut packs = BTreeMap::new();
    world
        .store
        .for_each_row(Table::Pack, &KeyRange::all(), |key, value| {
            packs.insert(PackNumber::from_key(key).unwrap(), PackRow::decode(value).unwrap());
            Ok(())
        })
        .unwrap();
    packs
}

fn queue(world: &World) -> Vec<IdleKey> {
    let mut queue = Vec::new();
    world
        .store
        .for_each_row(Table::Idle, &KeyRange::all(), |key, _| {
            queue.push(IdleKey::decode(key).unwrap());
            Ok(())
        })
        .unwrap();
    queue
}

/// The ids of kind that have rows.
pub(super) fn count(world: &World, kind: BlobKind) -> usize {
    chunk_rows(world).values().filter(|row| row.kind == kind).count()
}
