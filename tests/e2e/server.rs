//! The server as a program: how it starts, whom it lets in, and how it stops.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use format_spec::wire::{Held, parse_held};
use rustix::process::{Signal, kill_process};
use tests::bodies::{chunk_frame, stream};
use tests::client::{Client, Running, run_to_end, text};
use tests::compare::assert_same;
use tests::corpus;
use tests::gear;
use tests::http::{Length, Request};
use tests::seed::Random;
use tests::server::{CONFIG, Server, over, refused};
use tests::wait;
use tests::world::{Folder, World, objects};

/// Every route but `/healthz`, and one that is none.
const ROUTES: [(&str, &str); 18] = [
    ("POST", "/v1/sessions"),
    ("POST", "/v1/sessions/01890a5d-ac96-774b-bcce-b302099a8057/renew"),
    ("POST", "/v1/sessions/01890a5d-ac96-774b-bcce-b302099a8057/have"),
    ("POST", "/v1/sessions/01890a5d-ac96-774b-bcce-b302099a8057/blobs"),
    ("POST", "/v1/sessions/01890a5d-ac96-774b-bcce-b302099a8057/commit"),
    ("DELETE", "/v1/sessions/01890a5d-ac96-774b-bcce-b302099a8057"),
    ("GET", "/v1/snapshots"),
    ("GET", "/v1/snapshots/01890a5d-ac96-774b-bcce-b302099a8057"),
    ("GET", "/v1/snapshots/01890a5d-ac96-774b-bcce-b302099a8057/key"),
    ("GET", "/v1/snapshots/01890a5d-ac96-774b-bcce-b302099a8057/manifests/n"),
    ("POST", "/v1/snapshots/01890a5d-ac96-774b-bcce-b302099a8057/blobs"),
    ("POST", "/v1/verify"),
    ("GET", "/v1/status"),
    ("GET", "/v1/alarms"),
    ("PUT", "/v1/freshness"),
    ("GET", "/metrics"),
    ("GET", "/"),
    ("GET", "/v1/no/such/route"),
];

#[test]
fn a_health_check_needs_no_token() {
    let world = World::new();
    let request =
        Request { method: "GET", path: "/healthz", authorization: None, body: b"", length: Length::True };

    let answer = world.wire().try_send(&request).unwrap();

    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok\n"[..]));
}

/// Its memory holds the master key.
#[test]
fn no_core_dump_is_written_of_a_server() {
    let world = World::new();

    let limits = fs::read_to_string(format!("/proc/{}/limits", world.server.pid().as_raw_nonzero())).unwrap();

    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}

#[test]
fn every_other_route_wants_the_token() {
    let world = World::new();
    let wire = world.wire();
    let token = world.server.token();
    let wrong = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some("Bearer 0000".to_owned()),
        Some(format!("Basic {token}")),
        Some(token.clone()),
        Some(format!("Bearer {token}0")),
        Some(format!("Bearer {}", &token[..token.len() - 1])),
    ];

    for (method, path) in ROUTES {
        for authorization in &wrong {
            let request = Request {
                method,
                path,
                authorization: authorization.as_deref(),
                body: b"",
                length: Length::True,
            };
            let answer = wire.try_send(&request).unwrap();
            assert_eq!(
                answer.refusal(),
                (401, "unauthorized".to_owned()),
                "{method} {path} {authorization:?}"
            );
        }
        assert_ne!(wire.send(method, path, b"").status, 401, "{method} {path} with the token");
    }
}

#[test]
fn a_folder_with_something_else_in_it_is_refused_and_untouched() {
    let folder = Folder::new();
    let data = folder.dir("data");
    fs::write(data.join("thesis.tex"), "years of work").unwrap();
    corpus::copy(&data, &folder.path("before"));

    let refused = refused(&["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]).exits(2);

    assert!(refused.stderr.contains("thesis.tex"), "{}", refused.stderr);
    assert_same(&folder.path("before"), &data);
}

#[test]
fn wrong_flags_and_configuration_files_exit_with_2() {
    let folder = Folder::new();
    let data = folder.path("data");
    let data = data.to_str().unwrap();
    let config = folder.path("server.toml");
    fs::write(&config, "lisen = \"127.0.0.1:1\"\n").unwrap();

    refused(&[]).exits(2);
    refused(&["--data-dir", data, "--listen", "here"]).exits(2);
    let unknown = refused(&["--data-dir", data, "--config", config.to_str().unwrap()]).exits(2);

    assert!(unknown.stderr.contains("lisen"), "{}", unknown.stderr);
    fs::write(&config, "[gc]\nrepack_below = 101\n").unwrap();
    let out_of_range = refused(&["--data-dir", data, "--config", config.to_str().unwrap()]).exits(2);
    assert!(out_of_range.stderr.contains("gc.repack_below = 101"), "{}", out_of_range.stderr);
    assert!(!folder.path("data").exists(), "nothing is made by a start that is refused");
}

/// X6: one process at a time.
#[test]
fn a_second_server_over_the_same_folder_is_refused() {
    let world = World::new();
    let data = world.server.data().to_str().unwrap();

    let refused = refused(&["--data-dir", data, "--listen", "127.0.0.1:0"]);

    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(!refused.stdout.contains("listening"), "{refused:?}");
    assert_eq!(world.wire().send("GET", "/healthz", b"").status, 200);
}

#[test]
fn secrets_are_readable_by_their_owner_only() {
    let world = World::new();

    for name in ["master.key", "admin.token"] {
        let mode = fs::metadata(world.server.data().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_lost_or_foreign_master_key_is_told_before_anything_is_served() {
    let folder = Folder::new();
    let data = folder.path("data");
    drop(Server::start(&data));
    let key = data.join("master.key");
    let start = || refused(&["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]);

    fs::copy(&key, folder.path("kept.key")).unwrap();
    fs::remove_file(&key).unwrap();
    let lost = start().exits(10);
    fs::write(&key, format!("{}\n", "ab".repeat(32))).unwrap();
    fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let open = start().exits(2);
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let foreign = start().exits(2);

    assert!(lost.stderr.contains("master.key"), "{}", lost.stderr);
    assert!(open.stderr.contains(&format!("chmod 600 {}", key.display())), "{}", open.stderr);
    assert!(foreign.stderr.contains("another repository"), "{}", foreign.stderr);
    fs::copy(folder.path("kept.key"), &key).unwrap();
    drop(Server::start(&data));
}

#[test]
fn chunk_lengths_that_a_repository_does_not_have_are_told_at_its_start() {
    let folder = Folder::new();
    let (data, config) = (folder.path("data"), folder.path("server.toml"));
    let mut server = Server::start(&data);
    assert!(server.stop().success());

    for (chunker, is_told) in [("[chunker]\navg_kib = 512\n", true), ("", false)] {
        fs::write(&config, chunker).unwrap();
        let mut server = Server::start_with(&data, &config);

        assert!(server.stop().success());
        let log = server.log();
        assert_eq!(log.contains("[chunker]") && log.contains("avg_kib = 256"), is_told, "{log}");
    }
}

#[test]
fn a_lost_token_is_made_again_and_a_short_one_is_refused() {
    let folder = Folder::new();
    let data = folder.path("data");
    let mut server = Server::start(&data);
    server.logged("created a new repository", 1);
    let (token, file) = (server.token(), server.token_file());
    assert!(server.stop().success());

    fs::write(&file, "short\n").unwrap();
    let short = refused(&["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]).exits(2);
    fs::remove_file(&file).unwrap();
    let server = Server::start(&data);

    assert!(short.stderr.contains("delete the file"), "{}", short.stderr);
    assert_ne!(server.token(), token);
    server.logged("a new token was made", 1);
    let mode = fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "the data folder is closed to others");
}

#[test]
fn a_repository_of_a_newer_program_is_not_called_damaged() {
    let folder = Folder::new();
    let data = folder.path("data");
    drop(Server::start(&data));
    let descriptor = data.join("site/keyring/repository");
    let newer =
        fs::read_to_string(&descriptor).unwrap().replace("\"format_version\": 1", "\"format_version\": 2");
    fs::write(&descriptor, newer).unwrap();

    let refused = refused(&["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]).exits(2);

    assert!(refused.stderr.contains("newer program"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("restore it from"), "{}", refused.stderr);
}

#[test]
fn a_port_that_is_taken_leaves_no_repository_behind() {
    let world = World::new();
    let data = world.path("other");

    refused(&["--data-dir", data.to_str().unwrap(), "--listen", world.server.host()]).exits(14);

    assert!(!data.exists());
}

/// P8: what a file system of a network or of a user answers that cannot do it is told in a sentence, and leaves nothing.
#[test]
fn a_file_system_that_lacks_what_is_needed_is_named_at_the_start() {
    if !gear::has("strace") {
        return;
    }
    let folder = Folder::new();
    for (call, error, lack) in [
        ("renameat2", "EINVAL", "rename a file without replacing another"),
        ("renameat2", "ENOSYS", "rename a file without replacing another"),
        ("fsync", "EINVAL", "sync a file"),
    ] {
        let data = folder.path(&format!("data-{call}-{error}"));
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}"));
        let server = over(&data);
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject]);
        command.arg(server.get_program()).args(server.get_args());

        let refused = run_to_end(command).exits(2).stderr;

        let told = format!("the file system of {} cannot {lack}: use one of", data.display());
        assert!(refused.contains(&told), "{refused}");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "{call}");
    }
}

#[test]
fn hang_ups_and_user_signals_stop_no_server() {
    let mut world = World::new();
    for signal in [Signal::USR1, Signal::USR2, Signal::HUP] {
        kill_process(world.server.pid(), signal).unwrap();
        assert_eq!(world.wire().send("GET", "/healthz", b"").status, 200);
    }
    world.server.logged("SIGHUP", 1);
    assert!(world.server.runs());
}

/// A service manager hears when the server takes pushes, and when it begins to stop.
#[test]
fn a_service_manager_is_told_of_the_start_and_the_stop() {
    let folder = Folder::new();
    let path = folder.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let heard = || {
        let mut text = [0; 64];
        let len = manager.recv(&mut text).unwrap();
        String::from_utf8(text[..len].to_vec()).unwrap()
    };
    let mut command = over(&folder.path("data"));
    let running = Running::start({
        command.env("NOTIFY_SOCKET", &path);
        command
    });

    assert_eq!(heard(), "READY=1");
    kill_process(running.pid(), Signal::TERM).unwrap();
    assert_eq!(heard(), "STOPPING=1");
    running.wait().exits(0);
}

/// L3: an operator sees who pushes, and can end it.
#[test]
fn an_operator_lists_the_open_sessions_and_ends_one() {
    let world = World::new();
    let wire = world.wire();
    let (session, domain) = wire.session("c", "n");
    let frames = stream([chunk_frame(&domain, b"content").1.as_slice()].into_iter());
    assert_eq!(wire.send("POST", &format!("/v1/sessions/{session}/blobs"), &frames).status, 200);
    let node = world.node("n");

    let listed = node.admin(&["sessions", "--json"]).exits(0).json();
    let text = node.admin(&["sessions"]).exits(0).stdout;
    node.admin(&["sessions", "end", &session.to_string()]).exits(0);

    let [open] = listed["sessions"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!((open["node"].as_str(), open["sent_bytes"].as_u64()), (Some("n"), Some(7)), "{listed}");
    assert!(text.contains(&session.to_string()), "{text}");
    assert_eq!(wire.status().open_sessions, 0);
}

/// X1: an index that cannot be opened is no loss, and whoever sees it is told the way out.
#[test]
fn a_damaged_or_missing_index_names_the_way_out_and_that_leads_out() {
    let mut world = World::new();
    let root = world.path("source");
    corpus::plain(&root, &mut Random::printed(), 3, 1000);
    let id = text(&world.node("n").push(&root), "snapshot");
    assert!(world.server.stop().success());
    let data = world.server.data().to_owned();
    let start = || refused(&["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]);

    let engine = fs::read(data.join("index/db/engine")).unwrap();
    fs::write(data.join("index/db/engine"), "none of ours\n").unwrap();
    let unknown = start().exits(13);
    fs::write(data.join("index/db/engine"), engine).unwrap();
    fs::write(data.join("index/db/data/version"), [0; 100]).unwrap();
    let damaged = start().exits(13);
    fs::remove_dir_all(data.join("index")).unwrap();
    let missing = start().exits(10);
    let (new, site, key) = (world.path("new"), data.join("site"), data.join("master.key"));
    let [new_dir, site, key] = [&new, &site, &key].map(|path| path.to_str().unwrap());
    refused(&["rebuild", "--data-dir", new_dir, "--from-site", site, "--keyring", key]).exits(0);
    let server = Server::start_as(&new, Path::new(CONFIG), &["--site".as_ref(), site.as_ref()]);

    for told in [unknown, damaged, missing] {
        assert!(
            told.stderr.contains("hint: rebuild the index") && told.stderr.contains("rebuild"),
            "{told:?}"
        );
    }
    let node = Client::new(&server, "c", "n", &world.path("home"));
    assert_eq!(node.snapshot_ids(), [id]);
}

/// S1, X1: everything is there after a start over the same folder, and after a kill.
#[test]
fn a_restart_keeps_everything() {
    let mut world = World::new();
    let root = world.path("source");
    corpus::mixed(&root, &mut Random::printed());
    let id = text(&world.node("n").push(&root), "snapshot");
    let (status, token) = (world.wire().status(), world.server.token());

    assert!(world.server.stop().success());
    world.server.start_again();
    let after_stop = world.wire().status();
    world.server.kill();
    world.server.start_again();

    assert_eq!((&after_stop, world.server.token()), (&status, token));
    assert_eq!(world.wire().status(), status);
    assert_eq!(world.node("n").snapshot_ids(), std::slice::from_ref(&id));
    world.node("n").restore(&id, &world.path("restored"), &["--strip-root"]).exits(0);
    assert_same(&root, &world.path("restored"));
}

/// L3, P3: sessions outlive a stop, and what they were told is stored still is.
#[test]
fn a_stop_keeps_open_sessions_and_the_chunks_that_they_sent() {
    let mut world = World::new();
    let (session, domain) = world.wire().session("c", "n");
    let mut random = Random::printed();
    let sent: Vec<_> = (0..5).map(|_| chunk_frame(&domain, &random.bytes(9000))).collect();
    let ids: Vec<_> = sent.iter().map(|(id, _)| *id).collect();
    let frames = stream(sent.iter().map(|(_, frame)| frame.as_slice()));
    let path = format!("/v1/sessions/{session}");
    assert_eq!(world.wire().send("POST", &format!("{path}/blobs"), &frames).status, 200);

    assert!(world.server.stop().success());
    world.server.start_again();
    let asked = format_spec::wire::encode_ids(&ids);
    let answer = world.wire().send("POST", &format!("{path}/have"), &asked);

    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(parse_held(&answer.body, 5).unwrap(), [Held::Here; 5]);
}

/// P3: after a kill, chunks that lay in no sealed pack are not had, and the server does not say so.
#[test]
fn after_a_kill_the_server_claims_no_chunk_that_it_lost() {
    let mut world = World::new();
    let (session, domain) = world.wire().session("c", "n");
    let (id, frame) = chunk_frame(&domain, &Random::printed().bytes(9000));
    let path = format!("/v1/sessions/{session}");
    let frames = stream([frame.as_slice()].into_iter());
    assert_eq!(world.wire().send("POST", &format!("{path}/blobs"), &frames).status, 200);
    let asked = format_spec::wire::encode_ids(&[id]);
    let have = |world: &World| {
        let answer = world.wire().send("POST", &format!("{path}/have"), &asked);
        parse_held(&answer.body, 1).unwrap()
    };
    assert_eq!(have(&world), [Held::Here]);

    world.server.kill();
    world.server.start_again();

    assert_eq!(have(&world), [Held::Missing]);
}

#[test]
fn a_stop_waits_for_no_idle_connection() {
    let mut world = World::new();
    let _idle = world.wire().connect();

    assert!(world.server.stop().success());
}

/// P9: a pack that is there is never written to again, whatever comes later.
#[test]
fn packs_are_never_written_to_again() {
    let mut world = World::new();
    let root = world.path("source");
    let mut random = Random::printed();
    corpus::plain(&root, &mut random, 5, 300_000);
    world.node("n").push(&root);
    let look = |path: &std::path::PathBuf| {
        let meta = fs::metadata(path).unwrap();
        (meta.ino(), meta.mtime(), meta.mtime_nsec(), fs::read(path).unwrap())
    };
    let packs = objects(world.server.data(), "packs");
    let before: Vec<_> = packs.iter().map(look).collect();
    assert!(packs.len() >= 2);

    for _ in 0..3 {
        corpus::work_on(&root, &mut random);
        world.node("n").push(&root);
        world.server.start_again();
    }

    assert!(before == packs.iter().map(look).collect::<Vec<_>>(), "a pack was changed");
    assert!(objects(world.server.data(), "packs").len() > packs.len());
}
