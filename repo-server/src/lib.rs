//! The repository server: one deduplicated store, its index, and the HTTP interface to both.
//!
//! The rooms of the house, from the top floor to the ground. A room uses only rooms below it; `cargo xtask layers`
//! checks that.
//!
//! | room | what it owns |
//! |---|---|
//! | [`http`] | routes, limits, authentication; the only user of axum and the hyper server |
//! | [`background`] | work beside the requests: sessions that expire, upkeep, alarms to people |
//! | [`rebuild`] | an index made again from site and key |
//! | `gc`, `audit`, `forget` | garbage; counts compared with manifests and pages; which snapshots go |
//! | [`start`] | a data folder made or opened, its index compared with the site, interrupted commits finished |
//! | [`tls`] | the CA of the repository, certificates of the server, handshakes |
//! | `verify`, `stats`, `freshness` | is all there and as it was written; what it takes; how old snapshots may be |
//! | [`checkpoint`], `notify` | what packs hold, collected for a rebuild; alarms on their way to people |
//! | `snapshot` | the commit, and finding what was committed |
//! | `operation` | work that ends with a report: one trait, its lease, its progress |
//! | [`server`] | what a running server holds in memory: sessions, open packs, names in flight, leases |
//! | `session` | who pushes: leases with fencing tokens |
//! | `pack` | blobs into packs, packs to the site, blobs back |
//! | `defects` | what any read proves wrong: damaged blobs and objects, packs to write again, packs that are gone |
//! | `catalog` | the ledger, the only writer of rows of chunks, pages and packs; objects announced before they are put |
//! | [`health`] | alarms, the clock, room on the disks, and what rests meanwhile |
//! | [`access`] | the credentials that the server knows, and the principal that each one stands for |
//! | `lease` | one task at a time: who has what, and until when |
//! | [`store`] | the ground of all features: index, site, keys, clock, lock of writers |
//! | [`keys`] | slots that open the master key, and the work of an operator on them |
//! | [`site_lock`], [`space`] | one server at a time over a site; disks and the ballast on them |
//! | [`config`], [`settings`] | what an operator has decided, as written and as it is used |
//! | [`rows`] | type and bytes of every row, and every kind of row in the meta table |
//! | [`index`] | rows behind the engine trait; the only user of fjall and sled |
//! | [`site`] | objects behind the site trait, and where each lies; the only user of `object_store` |
//! | [`durable`] | the one way a durable file comes to be |
//! | [`log`], [`service`] | lines on standard error that hold nobody up; words to the service manager |
//!
//! # What runs beside what
//!
//! Rows of chunks and packs change in batches that run one after the other ([`store::Store`]'s
//! `account`). Nothing holds up anything else for longer than one of them.
//!
//! | | push | commit | forget | collector | verify, audit | restore |
//! |---|---|---|---|---|---|---|
//! | **push** | open packs are shared under `OpenDomain::open`; the same chunk from two nodes is appended once, and sent once if both wait for what others have promised (L5); a session that is adopted is over, its row deleted in the batch that grants the new one (L4) | a commit waits for the packs of its domain; what comes later goes into new ones | nothing: a tombstone changes no count | what a session was told is here stays by the epoch of its start (G2, G3); packs on their way are let be (G6) | an audit exempts rows that change meanwhile | nothing: packs never change |
//! | **commit** | | the session's row is the fence (L2), also against its adoption: whichever batch comes first wins | a policy sees it or not | finds its pages in the batch that announces its objects and in the one that counts them; packs go after the commits under way (G5) | a snapshot appears whole, in one batch | a snapshot appears whole, in one batch |
//! | **forget** | | | one after the other (lease `retention`) | a purge requires the tombstone that it read | nothing | reads on until the purge |
//! | **collector** | | | | one run, audit or checkpoint at a time (lease `upkeep`) | a pack or row that goes meanwhile is looked at again before it is reported | a blob that moved is looked for again |
//! | **verify, audit** | | | | | what is found of a blob or a pack is written to the row as it is then, if that still names the place that was read | a restore writes only what it finds damaged, as a check does |

pub mod access;
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
pub mod keys;
mod lease;
pub mod log;
mod notify;
mod operation;
mod pack;
pub mod rebuild;
pub mod rows;
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
pub mod tls;
mod verify;
#[cfg(test)]
mod world;

/// Name and version of this program.
const SERVER: &str = concat!("astacus-server ", env!("CARGO_PKG_VERSION"));
