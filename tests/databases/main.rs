//! Servers of databases under load: pushed, restored, started on what came back, and judged by what they had
//! acknowledged.
//!
//! | module | what it promises |
//! |---|---|
//! | [`ledger`] | commits that follow from their number, a log of those acknowledged, and the judge of what is found |
//! | [`process`] | servers of databases, and sessions with them, as processes with deadlines |
//! | [`pages`] | the pages of `docs/databases`, every command of them run |
//! | [`scene`] | pushes beside the load, and what became of each, counted in a table |
#![cfg(test)]

mod ledger;
mod process;
mod scene;

mod cassandra;
mod etcd;
mod mariadb;
mod pages;
mod postgresql;
mod redis;
mod rocksdb;
mod sqlite;
