//! The repository server: one deduplicated store, its index, and the HTTP interface to both.
//!
//! | module | what it owns |
//! |---|---|
//! | [`http`] | routes, limits, authentication; the only user of axum and the hyper server |
//! | `session` | who pushes: leases with fencing tokens |
//! | `snapshot` | the commit, and finding what was committed |
//! | `pack` | blobs into packs, packs to the site, blobs back |
//! | `audit` | are the counts what manifests and pages name? |
//! | [`checkpoint`] | what packs hold, collected, for who makes the index anew |
//! | `owed` | references to pages that are lost |
//! | [`rebuild`] | the index anew, from site and key |
//! | `ledger` | the one place where rows of chunks and packs, and their counts, change |
//! | `forget`, `gc` | which snapshots go; what nothing needs goes after them |
//! | `freshness` | how old the last good snapshot of each series is, and may be |
//! | `notify` | alarms on their way to people |
//! | [`log`] | lines on standard error that hold nobody up |
//! | [`service`] | words to the service manager |
//! | `stats` | what clusters, nodes and snapshots take |
//! | `verify` | is everything there, and as it was written? |
//! | [`space`] | room on the disk: who is refused, and the ballast |
//! | `clock_watch`, `alarm` | a clock that jumped; what an operator must look at |
//! | [`config`], [`settings`] | what an operator has decided, as written and as it is used |
//! | `witness` | an index that is older than the site |
//! | `census` | are the packs that the index names on the site at all? |
//! | `defects` | what any read proves wrong, written down at that moment |
//! | `quarantine`, `damaged` | blobs, and all other objects, that are known to be damaged |
//! | [`repository`] | keys, domains, open packs; opening and making a data folder |
//! | [`index`] | rows behind the engine trait; the only user of fjall and sled |
//! | [`site`] | objects behind the site trait; the only user of `object_store` |
//! | [`site_lock`] | one server at a time over a site |
//! | [`durable`] | the one way a durable file comes to be |
//!
//! # What runs beside what
//!
//! Rows of chunks and packs change in batches that run one after the other ([`repository::Repository`]'s
//! `account`). Nothing holds up anything else for longer than one of them.
//!
//! | | push | commit | forget | collector | verify, audit | restore |
//! |---|---|---|---|---|---|---|
//! | **push** | open packs are shared under `Domain::open`; the same chunk from two nodes is appended once, and sent once if both wait for what others have promised (L5); a session that is adopted is over, its row deleted in the batch that grants the new one (L4) | a commit waits for the packs of its domain; what comes later goes into new ones | nothing: a tombstone changes no count | what a session was told is here stays by the epoch of its start (G2, G3); packs on their way are let be (G6) | an audit exempts rows that change meanwhile | nothing: packs never change |
//! | **commit** | | the session's row is the fence (L2), also against its adoption: whichever batch comes first wins | a policy sees it or not | finds its pages in the batch that announces its objects and in the one that counts them; packs go after the commits under way (G5) | a snapshot appears whole, in one batch | a snapshot appears whole, in one batch |
//! | **forget** | | | one after the other (`Store::forgetting`) | a purge requires the tombstone that it read | nothing | reads on until the purge |
//! | **collector** | | | | one run, audit or checkpoint at a time (`Store::turn`) | a pack or row that goes meanwhile is looked at again before it is reported | a blob that moved is looked for again |
//! | **verify, audit** | | | | | what is found of a blob or a pack is written to the row as it is then, if that still names the place that was read | a restore writes only what it finds damaged, as a check does |

mod audit;
pub mod background;
mod catalog;
pub mod checkpoint;
pub mod clock;
pub mod config;
mod defects;
pub mod durable;
pub mod error;
mod forget;
mod freshness;
mod gc;
pub mod health;
pub mod http;
pub mod index;
pub mod log;
mod notify;
mod pack;
pub mod rebuild;
mod rules;
pub mod server;
pub mod service;
mod session;
pub mod settings;
pub mod site;
pub mod site_lock;
mod snapshot;
mod sort;
pub mod space;
pub mod start;
mod stats;
pub mod store;
mod sync;
#[cfg(test)]
mod testing;
mod time;
mod verify;
#[cfg(test)]
mod world;

/// Name and version of this program.
const SERVER: &str = concat!("astacus-server ", env!("CARGO_PKG_VERSION"));
