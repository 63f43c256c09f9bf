use format_spec::blob::Compression;
use format_spec::key::BlobKind;
use format_spec::{ChunkId, PackId, SessionId};

use super::*;
use crate::site::ObjectName;

fn chunk() -> ChunkRow {
    ChunkRow {
        pack: PackNumber(7),
        offset: 64,
        stored_len: 1000,
        plain_len: 3000,
        kind: BlobKind::Page,
        compression: Compression::Zstd,
        health: Health::Damaged,
        references: 1 << 40,
        idle_since: Epoch(1 << 33),
    }
}

#[test]
fn rows_read_back_and_other_lengths_are_refused() {
    let chunk = chunk();
    let pack = PackRow {
        id: PackId::from_bytes([3; 32]),
        len: 1 << 25,
        kind: BlobKind::Page,
        domain: "c".parse().unwrap(),
        blob_bytes: 1 << 35,
        live: Live { blobs: 9, stored_bytes: 900, plain_bytes: 1 << 34 },
        verified_ms: 5,
    };
    let totals = Totals { next_pack: 3, packs: 2, chunks: 900, stored_bytes: 1 << 33 };
    let doomed = DoomedRow { due_ms: 7, bytes: 8, announced_by: None };
    let intended = DoomedRow::announced_by(SessionId::from_bytes([4; 16]));

    assert_eq!(ChunkRow::decode(&chunk.encode()), Some(chunk));
    assert_eq!(PackRow::decode(&pack.encode()), Some(pack.clone()));
    assert_eq!(Totals::decode(&totals.encode()), Some(totals));
    assert_eq!(DoomedRow::decode(&doomed.encode()), Some(doomed));
    assert_eq!(DoomedRow::decode(&intended.encode()), Some(intended));
    assert_eq!(Epoch::decode(&Epoch(9).encode()), Some(Epoch(9)));
    assert_eq!(chunk.encode().len(), 35);
    let (of_doomed, of_intended) = ((1, doomed.encode()), (1, intended.encode()));
    for (cut, value) in
        [(1, chunk.encode()), (2, pack.encode()), (1, totals.encode()), of_doomed, of_intended]
    {
        let short = &value[..value.len() - cut];
        assert_eq!(ChunkRow::decode(short), None);
        assert_eq!(PackRow::decode(short), None);
        assert_eq!(Totals::decode(short), None);
        assert_eq!(DoomedRow::decode(short), None);
    }
    assert_eq!(ChunkRow::decode(&[chunk.encode(), vec![0]].concat()), None);
}

#[test]
fn the_queue_is_ordered_by_kind_and_then_by_age() {
    let row = |kind, since, n| IdleKey::Row { kind, since: Epoch(since), id: ChunkId::from_bytes([n; 32]) };
    let pack = |kind, since, n| IdleKey::Pack { kind, since: Epoch(since), number: PackNumber(n) };
    let in_order = [
        pack(BlobKind::Page, 300, 1),
        row(BlobKind::Page, 2, 9),
        row(BlobKind::Page, 300, 1),
        pack(BlobKind::Chunk, 1, 9),
        row(BlobKind::Chunk, 1, 1),
        row(BlobKind::Chunk, 1, 2),
    ];

    let keys: Vec<Vec<u8>> = in_order.iter().map(IdleKey::encode).collect();

    assert!(keys.is_sorted());
    let decoded: Vec<Option<IdleKey>> = keys.iter().map(|key| IdleKey::decode(key)).collect();
    assert_eq!(decoded, in_order.map(Some));
    assert_eq!(IdleKey::decode(&keys[1][..20]), None);
    assert_eq!(IdleKey::decode(&[9; 41]), None);
}

#[test]
fn snapshots_are_doomed_before_manifests_and_those_before_packs() {
    let key = |kind, name: &str| DoomedKey { kind, name: ObjectName::new(name).unwrap() };
    let in_order = [
        key(DoomedKind::Snapshot, "snapshots/z"),
        key(DoomedKind::Manifest, "manifests/b"),
        key(DoomedKind::Pack, "packs/aa/b"),
        key(DoomedKind::Other, "heads/a"),
    ];

    let keys: Vec<Vec<u8>> = in_order.iter().map(DoomedKey::encode).collect();

    assert!(keys.is_sorted());
    let decoded: Vec<Option<DoomedKey>> = keys.iter().map(|key| DoomedKey::decode(key)).collect();
    assert_eq!(decoded, in_order.map(Some));
    assert_eq!(DoomedKey::decode(b"\x02elsewhere/a"), None);
}

#[test]
fn marks_read_back_and_say_nothing_by_default() {
    let mark = MarkRow {
        tombstone: Some(Tombstone { since_ms: 1, until_ms: 2 }),
        protection: Some(Protection { reason: "audit".to_owned(), object: "protections/x".to_owned() }),
    };

    assert_eq!(MarkRow::decode(&mark.encode()), Some(mark.clone()));
    assert!(!mark.is_empty() && MarkRow::default().is_empty());
    assert_eq!(MarkRow::decode(b"{}"), Some(MarkRow::default()));
    assert_eq!(MarkRow::decode(b"{\"other\":1}"), None);
}

#[test]
fn what_lies_in_a_pack_is_taken_out_as_it_was_added() {
    let mut live = Live::default();
    live.add(&chunk());
    live.add(&chunk());

    let one = live.without(&chunk()).unwrap();

    assert_eq!(one, Live { blobs: 1, stored_bytes: 1000, plain_bytes: 3000 });
    assert_eq!(one.without(&chunk()), Some(Live::default()));
    assert_eq!(Live::default().without(&chunk()), None);
}
