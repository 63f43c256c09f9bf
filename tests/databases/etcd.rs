//! etcd: its own snapshot in a file, and the live folder of a member. One member, and three.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::client::{Done, number, text};
use tests::loop_image::FileSystem;
use tests::{gear, wait};

use crate::ledger::{Rows, Writer};
use crate::process::{Daemon, Endings, free_port, output};
use crate::scene::{Database, Ground, Method, Push, Scene, as_restored};

/// A snapshot in a data folder that has nothing else: it is restored to a new cluster.
const SNAPSHOT: &str = "snapshot.db";

/// A cluster, with the folders of its members in one folder.
struct Etcd<const MEMBERS: usize> {
    daemons: Vec<Daemon>,
    endpoints: Vec<String>,
}

/// Name and peer address of a member.
struct Member {
    name: String,
    peer: String,
    client: String,
}

impl Member {
    fn new(number: usize) -> Self {
        let address = || format!("http://127.0.0.1:{}", free_port());
        Self { name: format!("m{number}"), peer: address(), client: address() }
    }

    fn as_initial(&self) -> String {
        format!("{}={}", self.name, self.peer)
    }
}

impl<const MEMBERS: usize> Etcd<MEMBERS> {
    fn ctl(&self, words: &[&str]) -> Result<String, String> {
        ctl(&self.endpoints, words)
    }
}

fn ctl(endpoints: &[String], words: &[&str]) -> Result<String, String> {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").arg("--endpoints").arg(endpoints.join(",")).args(words);
    output(command)
}

/// Restores a snapshot to the folder of a member.
fn restore_member(data: &Path, member: &Member, cluster: &str) -> Result<(), String> {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(data.join(SNAPSHOT));
    command.args(["--name", &member.name, "--initial-advertise-peer-urls", &member.peer]);
    command.args(["--initial-cluster", cluster, "--data-dir"]).arg(data.join(&member.name));
    output(command).map(drop)
}

fn server(data: &Path, member: &Member, cluster: &str) -> Command {
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(data.join(&member.name)).args(["--name", &member.name]);
    command.args(["--listen-client-urls", &member.client, "--advertise-client-urls", &member.client]);
    command.args(["--listen-peer-urls", &member.peer, "--initial-advertise-peer-urls", &member.peer]);
    command.args(["--initial-cluster", cluster]);
    // Its own snapshots are often made, and segments of its log often deleted.
    command.args(["--snapshot-count", "200", "--max-snapshots", "2", "--max-wals", "2", "--logger", "zap"]);
    command
}

impl<const MEMBERS: usize> Database for Etcd<MEMBERS> {
    const NAME: &'static str = if MEMBERS == 1 { "etcd" } else { "etcd, three" };

    fn start(data: &Path) -> Result<Self, String> {
        let members: Vec<Member> = (1..=MEMBERS).map(Member::new).collect();
        let cluster = members.iter().map(Member::as_initial).collect::<Vec<_>>().join(",");
        if data.join(SNAPSHOT).exists() {
            members.iter().try_for_each(|member| restore_member(data, member, &cluster))?;
        }
        let endpoints: Vec<String> = members.iter().map(|member| member.client.clone()).collect();
        let start = |(n, member): (usize, &Member)| {
            // Only all of them together answer.
            let answers = || n + 1 < MEMBERS || ctl(&endpoints, &["endpoint", "health"]).is_ok();
            let log = data.with_extension(format!("{}.log", member.name));
            Daemon::start(server(data, member, &cluster), &log, Endings::default(), answers)
        };
        let daemons = members.iter().enumerate().map(start).collect::<Result<_, _>>()?;
        Ok(Self { daemons, endpoints })
    }

    fn writer(&self) -> Result<Writer, String> {
        let endpoint = self.endpoints.first().expect("a cluster has a member");
        let mut gateway = Gateway::connect(endpoint.strip_prefix("http://").expect("no TLS"))?;
        Ok(Box::new(move |commit| {
            // Keys and values are Base64 already, as the gateway wants them.
            let put = |(key, value)| json!({ "requestPut": { "key": format!("{key:012}"), "value": value } });
            let answer = gateway.post("/v3/kv/txn", &json!({ "success": commit.puts().map(put) }))?;
            if answer["succeeded"] == true { Ok(()) } else { Err(answer.to_string()) }
        }))
    }

    fn rows(&self) -> Result<Rows, String> {
        wait::within(wait::PATIENCE, || self.hashes().is_ok_and(|hashes| all_same(&hashes)).then_some(()))
            .ok_or_else(|| format!("the members differ: {:?}", self.hashes()))?;
        let all = self.ctl(&["get", "", "--from-key", "-w", "json"])?;
        let all: Value = serde_json::from_str(&all).map_err(|error| error.to_string())?;
        let row = |pair: &Value| {
            let key = text(pair, "key");
            Ok((key.parse::<u64>().map_err(|error| format!("key {key}: {error}"))?, text(pair, "value")))
        };
        all["kvs"].as_array().into_iter().flatten().map(row).collect()
    }

    fn stop(self) {
        for daemon in self.daemons {
            daemon.stop();
        }
    }
}

impl<const MEMBERS: usize> Etcd<MEMBERS> {
    /// The hash of all keys at each member, with the revision that it is of.
    fn hashes(&self) -> Result<Vec<(u64, u64)>, String> {
        let said = self.ctl(&["endpoint", "hashkv", "-w", "json"])?;
        let said: Vec<Value> = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        let hash = |member: &Value| {
            let member = &member["HashKV"];
            (number(&member["header"], "revision"), number(member, "hash"))
        };
        Ok(said.iter().map(hash).collect())
    }
}

fn all_same(hashes: &[(u64, u64)]) -> bool {
    hashes.iter().all(|hash| Some(hash) == hashes.first())
}

/// One connection to the gateway that takes JSON over HTTP.
struct Gateway {
    host: String,
    stream: BufReader<TcpStream>,
}

impl Gateway {
    fn connect(host: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(host).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(wait::PATIENCE)).map_err(|error| error.to_string())?;
        Ok(Self { host: host.to_owned(), stream: BufReader::new(stream) })
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<Value, String> {
        self.exchange(path, &body.to_string()).map_err(|error| error.to_string())
    }

    fn exchange(&mut self, path: &str, body: &str) -> std::io::Result<Value> {
        let (host, len) = (&self.host, body.len());
        let request = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len}\r\n\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut len = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(said) = line.strip_prefix("content-length:") {
                len = said.trim().parse().map_err(std::io::Error::other)?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; len];
        self.stream.read_exact(&mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

const LIVE: &[&str] = &["--class-set", "etcd"];

/// `etcdctl snapshot save`, and a push of its file.
fn save_and_push<const MEMBERS: usize>(push: &Push<'_, Etcd<MEMBERS>>) -> Done {
    let saved = push.scene.dir("saved");
    let file = saved.join(SNAPSHOT);
    let first = push.database().endpoints.get(..1).expect("a cluster has a member");
    ctl(first, &["snapshot", "save", file.to_str().expect("a plain path")]).expect("a snapshot");
    push.node.start_push_of(&[&saved], &[]).wait()
}

fn scene(ground: Ground) -> Option<Scene> {
    ["etcd", "etcdctl"].into_iter().all(gear::has).then(|| Scene::on(ground)).flatten()
}

#[test]
fn a_snapshot_of_one_member_has_all_before_it() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let method = Method { name: "snapshot save", push: save_and_push::<1>, ready: as_restored };
    scene.under_load(&method, gear::rounds(2, 40)).is_always_right();
}

#[test]
fn a_snapshot_makes_a_new_cluster_of_three() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let method =
        Method { name: "snapshot save, restored on all", push: save_and_push::<3>, ready: as_restored };
    scene.under_load(&method, gear::rounds(1, 40)).is_always_right();
}

#[test]
fn a_live_member_is_right_or_partial_with_second_names() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let push = |push: &Push<'_, Etcd<1>>| push.run(&[LIVE, &["--freeze", "hardlink"]].concat());
    let method = Method { name: "live member, second names", push, ready: as_restored };
    scene.under_load(&method, gear::rounds(2, 40)).is_never_wrong();
}

#[test]
fn a_live_member_is_right_with_shared_blocks() {
    let Some(scene) = scene(Ground::Image(FileSystem::Xfs)) else { return };
    let push = |push: &Push<'_, Etcd<1>>| push.run(&[LIVE, &["--freeze", "reflink"]].concat());
    let method = Method { name: "live member, reflink", push, ready: as_restored };
    scene.under_load(&method, gear::rounds(2, 40)).is_never_wrong();
}

/// The judge of a cluster bites: members that went apart are not one.
#[test]
fn members_that_differ_are_seen() {
    assert!(all_same(&[(5, 1), (5, 1), (5, 1)]));
    assert!(!all_same(&[(5, 1), (5, 2), (5, 1)]));
    assert!(!all_same(&[(5, 1), (4, 1)]));
}
