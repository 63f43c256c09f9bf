//! Bodies and headers of the HTTP interface: what server and clients must agree on.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/sessions` | [`OpenSession`] | [`SessionOpened`] |
//! | `POST /v1/sessions/{id}/renew` | – | [`SessionRenewed`] |
//! | `POST /v1/sessions/{id}/have[?coming=wait]` | ids, 32 bytes each | a byte each: [`Held`] |
//! | `POST /v1/sessions/{id}/blobs` | frames | [`BlobsStored`] |
//! | `POST /v1/sessions/{id}/commit` | a manifest (CBOR) | [`Committed`] |
//! | `DELETE /v1/sessions/{id}` | – | 204 |
//! | `GET /v1/snapshots[?cluster=NAME][&after=NEXT][&limit=N]` | – | [`SnapshotList`] |
//! | `GET /v1/snapshots/{id}` | – | [`SnapshotInfo`] |
//! | `GET /v1/snapshots/{id}/manifests/{node}` | – | a manifest (CBOR) |
//! | `GET /v1/snapshots/{id}/key` | – | [`SnapshotKey`] |
//! | `POST /v1/snapshots/{id}/blobs` | ids, 32 bytes each | frames |
//! | `GET /v1/snapshots/{id}/detail` | – | [`SnapshotDetail`] |
//! | `GET /v1/snapshots/{id}/problems?node=NAME[&after=NEXT][&limit=N]` | – | [`FileProblems`] |
//! | `PUT /v1/snapshots/{id}/protection` | [`ProtectRequest`] | [`SnapshotInfo`] |
//! | `DELETE /v1/snapshots/{id}/protection` | – | [`SnapshotInfo`] |
//! | `POST /v1/snapshots/{id}/undelete` | – | [`SnapshotInfo`] |
//! | `POST /v1/forget` | [`ForgetRequest`] | [`ForgetReport`] |
//! | `POST /v1/gc` | [`GcRequest`] | lines of [`OperationEvent`] of [`GcReport`] |
//! | `GET /v1/stats` | – | [`StatsReport`] |
//! | `GET /v1/chunks/{id}` | – | [`ChunkLocation`] |
//! | `POST /v1/verify` | [`VerifyRequest`] | lines of [`OperationEvent`] of [`VerifyReport`] |
//! | `POST /v1/audit` | [`AuditRequest`] | lines of [`OperationEvent`] of [`AuditReport`] |
//! | `GET /v1/status` | – | [`Status`] |
//! | `GET /v1/alarms` | – | [`Alarms`] |
//! | `POST /v1/alarms/acknowledge` | [`AcknowledgeRequest`] | [`Alarms`] |
//! | `GET /v1/freshness` | – | [`FreshnessReport`] |
//! | `PUT /v1/freshness` | [`FreshnessRule`] | [`FreshnessReport`] |
//! | `GET /v1/tokens` | – | [`Tokens`] |
//! | `POST /v1/tokens` | [`NewToken`] | [`TokenCreated`] |
//! | `DELETE /v1/tokens/{name}` | – | 204 |
//! | `POST /v1/enroll` | [`EnrolRequest`] | [`Enrolled`] |
//! | `GET /v1/nodes` | – | [`Nodes`] |
//! | `GET /v1/nodes/invites` | – | [`Invites`] |
//! | `POST /v1/nodes/invites` | [`NewInvite`] | [`InviteCreated`] |
//! | `DELETE /v1/nodes/invites/{id}` | – | 204 |
//! | `GET /v1/nodes/self` | – | [`NodeSelf`] |
//! | `POST /v1/nodes/self/certificate` | [`RenewRequest`] | [`NodeCertificate`] |
//! | `POST /v1/nodes/{id}/revoke` | – | [`NodeInfo`] |
//! | `POST /v1/nodes/{id}/rotate` | [`RotateRequest`] | [`NodeInfo`] |
//! | `POST /v1/nodes/{id}/rename` | [`RenameRequest`] | [`NodeInfo`] |
//! | `GET /healthz` | – | `ok` |
//!
//! With `coming=wait`, an id that is answered [`Held::Missing`] is promised: its session will send it, and
//! another session that asks with `coming=wait` gets [`Held::Coming`]. A promise ends when the chunk arrives,
//! when its session ends, or when its time is over. Without `coming=wait` no promise is made, and the answer
//! is never `Coming`.
//!
//! Bodies are JSON where nothing else is said. Every request but `/healthz` and `/v1/enroll` carries
//! `Authorization: Bearer TOKEN`. A failed request answers with an [`ErrorBody`].

mod access;
mod audit;
mod enrolment;
mod frame;
mod json;
mod operation;
mod problems;
mod upkeep;
mod verify;
mod watch;

pub use access::*;
pub use audit::*;
pub use enrolment::*;
pub use frame::{
    FRAME_HEADER_LEN, Frame, FrameHeader, FrameReader, Held, encode_end, encode_held, encode_ids, parse_held,
    parse_ids,
};
pub use json::*;
pub use operation::*;
pub use problems::*;
pub use upkeep::*;
pub use verify::*;
pub use watch::*;

/// Most ids in one `have` request, and in one request for blobs.
pub const MAX_IDS: usize = 16_384;

/// Longest body of ids that is read before it is refused: one id over the limit.
pub const MAX_ID_LIST_LEN: usize = 32 * (MAX_IDS + 1);

/// Most plaintext bytes that one request for blobs may name.
pub const MAX_READ_LEN: u64 = 64 << 20;

/// Longest body of frames in one request.
pub const MAX_BLOBS_LEN: u64 = 64 << 20;

/// Longest JSON body.
pub const MAX_JSON_LEN: u64 = 64 << 10;
