//! An old copy of a data folder is put back over a site that has gone on.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use tests::client::{Client, run_to_end, text};
use tests::compare::assert_same;
use tests::corpus;
use tests::http::Wire;
use tests::seed::Random;
use tests::server::{CONFIG, Server, command};
use tests::world::{Folder, bytes_below};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn alarms(node: &Client) -> Vec<String> {
    let alarms = node.status()["alarms"].as_array().cloned().unwrap_or_default();
    alarms.iter().map(|alarm| text(alarm, "code")).collect()
}

/// G12, G11: the site tells that snapshots are missing; what is there is restored, nothing goes, nothing comes, and the
/// documented way out brings all of it back.
#[test]
fn an_old_data_folder_over_a_newer_site_takes_nothing_and_is_mended_by_a_rebuild() {
    let folder = Folder::new();
    let (data, old, site, root) =
        (folder.path("data"), folder.path("old"), folder.dir("site"), folder.path("source"));
    let arguments = [OsStr::new("--site"), site.as_os_str()];
    let mut server = Server::start_as(&data, Path::new(CONFIG), &arguments);
    let mut random = Random::printed();
    corpus::plain(&root, &mut random, 12, 300_000);
    let node_at = |server: &Server| Client::new(server, "c", "n", &folder.path("home"));
    let first = text(&node_at(&server).push(&root), "snapshot");
    let as_first = folder.path("as-first");
    node_at(&server).restore(&first, &as_first, &["--strip-root"]).exits(0);
    corpus::work_on(&root, &mut random);
    let second = text(&node_at(&server).push(&root), "snapshot");
    node_at(&server).admin(&["forget", &first]).exits(0);
    server.stop();
    copy(&data, &old);
    server.start_again();
    corpus::work_on(&root, &mut random);
    let third = text(&node_at(&server).push(&root), "snapshot");
    server.stop();
    fs::remove_dir_all(&data).unwrap();
    rustix::fs::rename(&old, &data).unwrap();
    let before = bytes_below(&site);

    server.start_again();
    server.allow_errors("index_behind");

    let node = node_at(&server);
    assert_eq!(alarms(&node), ["index_behind"]);
    assert_eq!(Wire::to(&server).send("GET", "/readyz", b"").status, 503);
    let asked: [&[&str]; 4] = [
        &["gc", "--now"],
        &["gc", "--dry-run"],
        &["forget", "--even-last", &second],
        &["forget", "--keep-last", "1"],
    ];
    for asked in asked {
        let refused = node.admin(asked).exits(11);
        assert!(refused.stderr.contains("astacus-server rebuild"), "{}", refused.stderr);
    }
    let audit = node.admin(&["verify", "--level", "refs"]).exits(13);
    assert!(audit.stdout.contains(&third), "{}", audit.stdout);
    let refused = node.start_push(&root).wait().exits(14);
    assert!(refused.stderr.contains("index_behind"), "{}", refused.stderr);
    assert_eq!(bytes_below(&site), before);
    node.restore(&first, &folder.path("restored-first"), &["--strip-root"]).exits(0);
    assert_same(&as_first, &folder.path("restored-first"));

    server.stop();
    rustix::fs::rename(data.join("index"), folder.path("index-moved-away")).unwrap();
    let mut rebuild = command();
    rebuild.arg("rebuild").arg("--data-dir").arg(&data).arg("--from-site").arg(&site);
    rebuild.arg("--keyring").arg(data.join("master.key"));
    run_to_end(rebuild).exits(0);
    server.start_again();

    let node = node_at(&server);
    let mut ids = node.snapshot_ids();
    ids.sort();
    let mut all = vec![first.clone(), second, third.clone()];
    all.sort();
    assert_eq!((ids, alarms(&node)), (all, vec![]));
    assert_eq!(Wire::to(&server).send("GET", "/readyz", b"").status, 200);
    node.admin(&["forget", &first]).exits(0);
    node.admin(&["gc", "--now"]).exits(0);
    for level in ["refs", "restore"] {
        node.admin(&["verify", "--level", level]).exits(0);
    }
    node.restore(&third, &folder.path("restored"), &["--strip-root"]).exits(0);
    assert_same(&root, &folder.path("restored"));
    node.push(&root);
}
