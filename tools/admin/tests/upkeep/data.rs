//! Answers of the stand-in server.

use format_spec::key::BlobKind;
use format_spec::manifest::{Fallback, PushStats};
use format_spec::snapshot::SnapshotState;
use format_spec::wire::{
    Amount, ChunkLocation, ClusterStats, ForgetLine, ForgetReport, GcReport, NodeOrigin, NodePush, NodeStats,
    Pinning, RunMode, SnapshotInfo, SnapshotStats, Space, StatsReport, Verdict, Waiting,
};
use format_spec::{ChunkId, ClusterName, NodeName, PackId, SessionId, SnapshotId};

/// The id of the snapshot that was made on this day of a month.
pub(crate) fn id(day: u8) -> SnapshotId {
    SnapshotId::new(1_700_000_000_000 + u64::from(day) * 86_400_000, [day; 10])
}

fn created(day: u8) -> String {
    format!("2023-12-{day:02}T22:13:20Z")
}

pub(crate) fn cluster(name: &str) -> ClusterName {
    name.parse().unwrap()
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub(crate) fn info(day: u8) -> SnapshotInfo {
    SnapshotInfo {
        id: id(day),
        cluster: cluster("orders"),
        nodes: vec![node("db-1"), node("db-2")],
        created: created(day),
        state: SnapshotState::Complete,
        files: 12_345,
        bytes: 6 << 30,
        problems: 0,
        pushes: Vec::new(),
        going_until: None,
        protected: None,
        damaged: None,
        series: None,
        origins: vec![origin()],
        number: 0,
        ahead_of_clock: false,
        suspect: None,
        about: format_spec::About::default(),
    }
}

fn origin() -> NodeOrigin {
    let roots = vec!["/etc".to_owned(), "/var/lib/db".to_owned()];
    NodeOrigin { node: node("db-1"), series: None, roots, folders: 3 }
}

pub(crate) fn push(name: &str) -> NodePush {
    let stats = PushStats {
        unchanged: 12_000,
        appended: 5,
        whole: 3,
        new: 337,
        gone: 20,
        resumed: 0,
        bytes_read: 50 << 20,
        bytes_hashed: 48 << 20,
        bytes_sent: 20 << 20,
        bytes_stored: 19 << 20,
        fallbacks: vec![Fallback { reason: "no second name could be made".to_owned(), files: 2 }],
        moment: None,
    };
    NodePush { node: node(name), stats }
}

fn line(day: u8, verdict: Verdict, reasons: &[&str]) -> ForgetLine {
    let until = (verdict != Verdict::Keep).then(|| format!("2024-01-{day:02}T22:13:20Z"));
    ForgetLine {
        id: id(day),
        cluster: cluster("orders"),
        nodes: vec![node("db-1")],
        series: None,
        origins: vec![origin()],
        created: created(day),
        state: SnapshotState::Complete,
        verdict,
        reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
        frees_bytes: Some(u64::from(day) << 20),
        until,
    }
}

pub(crate) fn forget(mode: RunMode) -> ForgetReport {
    ForgetReport {
        mode,
        snapshots: vec![
            line(1, Verdict::Going, &["forgotten before"]),
            line(2, Verdict::Forget, &["no rule keeps it"]),
            line(3, Verdict::Keep, &["daily 1 of 7", "protected: law"]),
        ],
        frees_bytes: Some(5 << 20),
    }
}

fn amount(count: u64, bytes: u64) -> Amount {
    Amount { count, bytes }
}

/// A run with 7 objects that wait, of 9 in all.
pub(crate) fn gc(mode: RunMode) -> GcReport {
    let pinning = |byte: u8, name: &str, holds| Pinning {
        session: SessionId::from_bytes([byte; 16]),
        cluster: cluster("orders"),
        node: node(name),
        holds,
    };
    let waiting = |byte: u8| Waiting {
        object: format!("pack:{}", format!("{byte:02x}").repeat(32)),
        bytes: 64 << 20,
        until: created(byte),
    };
    GcReport {
        mode,
        purged: vec![id(1), id(2)],
        pages: amount(12, 40 << 10),
        chunks: amount(3_400, 1_200 << 20),
        dead_packs: amount(10, 640 << 20),
        repacked: amount(3, 192 << 20),
        copied_bytes: 50 << 20,
        deleted: amount(14, 833 << 20),
        pinned: vec![pinning(1, "db-1", amount(30, 7 << 20)), pinning(2, "db-2", amount(10, 2 << 20))],
        waiting: (1..=7).map(waiting).collect(),
        waiting_total: amount(9, 576 << 20),
        stopped: None,
        problems: Vec::new(),
    }
}

fn space(logical_bytes: u64) -> Space {
    Space { logical_bytes, unique_bytes: logical_bytes / 10, stored_bytes: logical_bytes / 20 }
}

pub(crate) fn stats() -> StatsReport {
    let of_cluster =
        |name, snapshots, bytes| ClusterStats { cluster: cluster(name), snapshots, space: space(bytes) };
    let of_node = |of, name, snapshots, bytes| NodeStats {
        cluster: cluster(of),
        node: node(name),
        snapshots,
        space: space(bytes),
    };
    let of_snapshot = |of, day, bytes| SnapshotStats {
        id: id(day),
        cluster: cluster(of),
        origins: vec![origin()],
        created: created(day),
        space: space(bytes),
        alone_bytes: bytes / 1_000,
    };
    StatsReport {
        clusters: vec![of_cluster("logs", 1, 1 << 30), of_cluster("orders", 2, 20 << 30)],
        nodes: vec![of_node("logs", "l-1", 1, 1 << 30), of_node("orders", "db-1", 2, 20 << 30)],
        snapshots: vec![
            of_snapshot("orders", 1, 9 << 30),
            of_snapshot("logs", 2, 1 << 30),
            of_snapshot("orders", 3, 11 << 30),
        ],
        not_counted: vec![],
        packs: amount(20, 1_200 << 20),
        dead_bytes: 100 << 20,
    }
}

pub(crate) fn location(kind: BlobKind) -> ChunkLocation {
    ChunkLocation {
        id: ChunkId::from_bytes([0xab; 32]),
        kind,
        cluster: cluster("orders"),
        pack: PackId::from_bytes([0xcd; 32]),
        object: format!("packs/cd/{}", "cd".repeat(32)),
        offset: 64,
        stored_bytes: 4_096,
        plain_bytes: 65_536,
        references: 1_234,
        idle_since: None,
        damaged: None,
    }
}
