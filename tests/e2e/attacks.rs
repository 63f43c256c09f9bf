//! Attacks on a server, each beside a push and a restore of somebody innocent, which must end well meanwhile.
//! Strangers have no token; the others are clients gone wrong.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use format_spec::blob::{BlobInfo, Compressor};
use format_spec::key::{BlobKind, DomainKey};
use format_spec::wire::{FrameHeader, encode_ids};
use format_spec::{ChunkId, SessionId};
use node_client::clock::{Clock, SystemClock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tests::bodies::{chunk_frame, stream};
use tests::corpus;
use tests::http::Wire;
use tests::seed::Random;
use tests::world::World;

const MIB: usize = 1 << 20;

/// Load beside an innocent push and restore. It ends when this is dropped.
#[derive(Default)]
struct Attack {
    streams: Vec<TcpStream>,
    /// Ends a thread that asks again and again.
    _asking: Option<mpsc::Sender<()>>,
}

/// Pushes and restores beside `attack`, and says how long that took.
fn beside(world: &World, what: &str, attack: impl FnOnce(&World) -> Attack) {
    let clock = SystemClock::new();
    let source = world.dir(&format!("source-{what}"));
    corpus::plain(&source, &mut Random::printed(), 20, 50_000);
    let node = world.node(what);
    let held = attack(world);
    let began = clock.elapsed();

    node.push(&source);
    let pushed = clock.elapsed();
    node.restore("latest", &world.path(&format!("restored-{what}")), &["--strip-root"]).exits(0);
    let restored = clock.elapsed();

    let (push, restore) = ((pushed - began).as_secs_f64(), (restored - pushed).as_secs_f64());
    println!("{what:16} {:5} connections   push {push:6.2} s   restore {restore:6.2} s", held.streams.len());
}

/// Connections that send `bytes` and then nothing, and whose answer nobody reads.
fn silent(world: &World, count: usize, bytes: &[u8]) -> Attack {
    let wire = world.wire();
    let open = |_| {
        let mut stream = wire.connect();
        // The server may have closed it to make room for the next.
        let _ = stream.write_all(bytes);
        stream
    };
    Attack { streams: (0..count).map(open).collect(), _asking: None }
}

/// Connections that ask for their health every few seconds, so that none of them is ever idle for long.
fn asking(world: &World, count: usize) -> Attack {
    const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let attack = silent(world, count, REQUEST);
    let mut streams: Vec<TcpStream> =
        attack.streams.iter().map(|stream| stream.try_clone().unwrap()).collect();
    let (asking, ended) = mpsc::channel();
    std::thread::spawn(move || {
        while ended.recv_timeout(Duration::from_secs(3)) == Err(RecvTimeoutError::Timeout) {
            // Those that were closed stay so.
            streams.retain_mut(|stream| stream.write_all(REQUEST).is_ok());
        }
    });
    Attack { _asking: Some(asking), ..attack }
}

fn authorized(world: &World, method: &str, path: &str, body_len: usize) -> Vec<u8> {
    let (wire, host) = (world.wire(), world.server.host().to_owned());
    let authorization = wire.authorization();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n\
         Content-Length: {body_len}\r\n\r\n"
    )
    .into_bytes()
}

/// Connections without the token do not block those that have it, nor the stop of the server.
#[test]
fn strangers_who_only_wait_shut_nobody_out() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut world = World::new();

    beside(&world, "idle", |world| silent(world, 1100, b""));
    beside(&world, "asking", |world| asking(world, 1100));
    beside(&world, "slow-headers", |world| silent(world, 200, b"GET /healthz HTTP/1.1\r\nHos"));
    let held = asking(&world, 1100);

    assert!(world.server.stop().success());
    drop(held);
    assert!(world.server.log().contains("shutting down"), "{}", world.server.log());
}

/// A server whose places are all taken by clients with the token hears that it is to stop, and waits for none of them.
#[test]
fn a_server_without_a_free_place_stops_at_once() {
    const PLACES: usize = 16;
    let mut world = World::with_config(&format!("[limits]\nconnections = {PLACES}\n"));
    let ask = |world: &World| {
        let mut stream = world.wire().connect();
        stream.write_all(&authorized(world, "GET", "/v1/alarms", 0)).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (stream, String::from_utf8(status.to_vec()).unwrap())
    };
    world.server.allow_errors("overloaded");
    let taken: Vec<(TcpStream, String)> = (0..PLACES).map(|_| ask(&world)).collect();
    let (_, one_more) = ask(&world);
    assert!(taken.iter().all(|(_, status)| status == "HTTP/1.1 200"));
    assert_eq!(one_more, "HTTP/1.1 503");

    assert!(world.server.stop().success());

    assert!(world.server.log().contains("shutting down"), "{}", world.server.log());
    assert!(!world.server.log().contains("were aborted"), "{}", world.server.log());
}

/// A health check and a refusal end their connection: a stranger keeps no place by asking again.
#[test]
fn a_stranger_gets_one_answer_for_each_connection() {
    let world = World::new();
    for path in ["/healthz", "/v1/status"] {
        let mut stream = world.wire().connect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();

        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();

        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    }
}

#[test]
fn bodies_that_do_not_come_hold_nobody_up() {
    let world = World::new();
    let request =
        |world: &World, path: &str| [authorized(world, "POST", path, 60_000), b"{".to_vec()].concat();

    beside(&world, "slow-bodies", |world| silent(world, 150, &request(world, "/v1/forget")));
    beside(&world, "slow-blobs", |world| {
        let (session, _) = world.wire().session("c", "slow");
        silent(world, 150, &request(world, &format!("/v1/sessions/{session}/blobs")))
    });
}

fn put(wire: &Wire, session: SessionId, body: &[u8]) -> u16 {
    wire.send("POST", &format!("/v1/sessions/{session}/blobs"), body).status
}

/// Eight restores that do not read what they asked for do not stop a ninth.
#[test]
fn answers_that_nobody_reads_hold_up_no_other_restore() {
    let world = World::new();
    let wire = world.wire();
    let (session, domain) = wire.session("c", "big");
    let mut random = Random::printed();
    let chunks: Vec<(ChunkId, Vec<u8>)> = (0..20).map(|_| chunk_frame(&domain, &random.bytes(MIB))).collect();
    assert_eq!(put(&wire, session, &stream(chunks.iter().map(|(_, frame)| frame.as_slice()))), 200);
    let ids: Vec<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();
    let node = world.node("first");
    let source = world.dir("first");
    fs::write(source.join("file"), "of the same cluster").unwrap();
    // Its commit also stores what waits of the cluster.
    let pushed = node.push(&source);
    let snapshot = pushed["snapshot"].as_str().unwrap().to_owned();

    beside(&world, "stalled-readers", |world| {
        let body = encode_ids(&ids);
        let head = authorized(world, "POST", &format!("/v1/snapshots/{snapshot}/blobs"), body.len());
        let mut readers = silent(world, 8, &[head, body].concat());
        // Each of them has begun to get its answer, and takes no more of it.
        for reader in &mut readers.streams {
            reader.read_exact(&mut [0; 15]).unwrap();
        }
        readers
    });
}

/// A frame of a chunk of a number and zeros, which weighs a thousandth of the chunk.
fn bomb(domain: &DomainKey, number: u64) -> Vec<u8> {
    let mut plain = vec![0; MIB];
    plain[..8].copy_from_slice(&number.to_le_bytes());
    let mut compressor = Compressor::new(1).unwrap();
    let (compression, payload) = compressor.compress(&plain).unwrap();
    let (plain_len, payload_len) = (u32::try_from(MIB).unwrap(), u32::try_from(payload.len()).unwrap());
    let id = domain.id_of(BlobKind::Chunk, &plain);
    let info = BlobInfo { kind: BlobKind::Chunk, id, plain_len, compression };
    [FrameHeader { info, payload_len }.encode().as_slice(), payload].concat()
}

/// Limits of bodies apply to their inflated length and to their frames.
#[test]
fn bodies_that_cost_much_more_than_they_weigh_are_refused() {
    let world = World::new();
    let wire = world.wire();
    let (session, domain) = wire.session("c", "bomber");
    let same = bomb(&domain, 0);

    beside(&world, "bombs", |_| {
        let body = stream((0..64).map(|_| same.as_slice()));
        assert_eq!(put(&wire, session, &body), 200, "64 MiB are fine");
        let body = stream((0..65).map(|_| same.as_slice()));
        assert_eq!(put(&wire, session, &body), 400);
        Attack::default()
    });
    beside(&world, "tiny-frames", |_| {
        let tiny: Vec<Vec<u8>> = (0..16_385_u32).map(|n| chunk_frame(&domain, &n.to_le_bytes()).1).collect();
        assert_eq!(put(&wire, session, &stream(tiny.iter().take(16_384).map(Vec::as_slice))), 200);
        assert_eq!(put(&wire, session, &stream(tiny.iter().map(Vec::as_slice))), 400);
        Attack::default()
    });
    let long = vec![7; MIB + 1];
    assert_eq!(put(&wire, session, &stream([chunk_frame(&domain, &long).1.as_slice()].into_iter())), 400);
}
