//! Support for all suites: the real programs as processes, made-up trees, and a judge of trees.
//!
//! | module | what it promises |
//! |---|---|
//! | [`bodies`] | bodies of requests made by hand |
//! | [`binaries`] | the programs of this workspace, built as the suite was built |
//! | [`server`] | a server process on a free port, which may log no error that a test did not allow |
//! | [`client`] | client and admin processes with nothing of the user's environment |
//! | [`http`] | a client that sends any bytes, right or wrong |
//! | [`relay`] | what clients send to a server, counted on its way |
//! | [`world`] | one temporary folder with all of it |
//! | [`corpus`] | trees of files from a seed, with everything that a file system can hold |
//! | [`compare`] | are two trees the same? ours, and `rsync` |
//! | [`schema`] | an answer fits what `docs/openapi.json` says of it |
//! | [`seed`] | randomness that a failed test prints and that replays |
//! | [`wait`] | waiting for a state, with a deadline |
//! | [`gear`] | tools that a machine may lack, and the visible skip |
//! | [`loop_image`] | file systems in image files, and what a power cut would leave of them |
//! | [`targets`] | a function for each decoder of strangers' bytes, for fuzzers and for the suite `fuzz` |
//! | [`mount`] | small file systems in memory, where a test may mount them |

pub mod binaries;
pub mod bodies;
pub mod client;
pub mod compare;
pub mod corpus;
pub mod gear;
pub mod http;
pub mod loop_image;
pub mod mount;
pub mod relay;
pub mod schema;
pub mod seed;
pub mod server;
#[path = "../fuzz/targets/mod.rs"]
pub mod targets;
pub mod wait;
pub mod world;
