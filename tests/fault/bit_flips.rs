//! Stored bytes that change: every object of a small repository, bit by bit from a seed.

use bytes::Bytes;
use format_spec::wire::VerifyLevel;
use repo_server::site::{Area, ObjectName, Prefix};
use tests::gear;
use tests::seed::Random;

use crate::judge;
use crate::process::{Process, Push, Stores};

fn objects(stores: &Stores, process: &Process, area: Area) -> Vec<ObjectName> {
    let listed = process.wait(stores.site.list(&Prefix::area(area))).unwrap();
    listed.into_iter().map(|object| object.name).collect()
}

fn replace(stores: &Stores, process: &Process, name: &ObjectName, bytes: Vec<u8>) {
    process.wait(stores.site.delete(name)).unwrap();
    process.wait(stores.site.put_new(name, Bytes::from(bytes))).unwrap();
}

/// P2: a flipped bit in a pack or a manifest is found by a check, and is never read as something else.
#[test]
fn a_flipped_bit_in_any_object_is_found_and_no_wrong_byte_comes_out() {
    let mut random = Random::printed();
    let stores = Stores::new();
    let process = stores.serve();
    let push = Push::of(&["one", "two", "three"]);
    let (session, domain) = Push::open(&process).unwrap();
    let snapshot = push.run(&process, session, &domain).unwrap();
    let whole = push.contents.concat();
    let areas = [Area::Packs, Area::Manifests];
    let names: Vec<ObjectName> = areas.iter().flat_map(|area| objects(&stores, &process, *area)).collect();
    assert_eq!(names.len(), 3, "a pack of chunks, a pack of pages and a manifest");

    for name in &names {
        let bytes = process.wait(stores.site.get(name)).unwrap().to_vec();
        for _ in 0..gear::rounds(60, 5000) {
            let bit = random.index(bytes.len() * 8);
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            replace(&stores, &process, name, flipped);

            let report = process.wait(process.api.verify(VerifyLevel::Read, |_| {})).unwrap();
            let hurt = report.findings.iter().any(|finding| finding.snapshots.contains(&snapshot));
            // A bit in a footer or in padding does not keep the blobs from being read.
            let read = judge::content(&process, snapshot);

            assert!(hurt, "bit {bit} of {name}: {report:?}");
            assert!(read.is_err() || read.is_ok_and(|read| read == whole), "bit {bit} of {name}");
        }
        replace(&stores, &process, name, bytes);
    }
    let report = process.wait(process.api.verify(VerifyLevel::Read, |_| {})).unwrap();
    assert_eq!(report.findings, [], "everything is whole again");
}

/// P2: so is every way to cut an object short, and the wrong object under a right name.
#[test]
fn cut_and_exchanged_objects_are_found() {
    let mut random = Random::printed();
    let stores = Stores::new();
    let process = stores.serve();
    for push in [Push::of(&["one"]), Push::of(&["two"])] {
        let (session, domain) = Push::open(&process).unwrap();
        push.run(&process, session, &domain).unwrap();
    }
    let areas = [Area::Packs, Area::Manifests];
    let names: Vec<ObjectName> = areas.iter().flat_map(|area| objects(&stores, &process, *area)).collect();
    let all: Vec<Vec<u8>> =
        names.iter().map(|name| process.wait(stores.site.get(name)).unwrap().to_vec()).collect();

    for (name, bytes) in names.iter().zip(&all) {
        let cut = bytes[..random.index(bytes.len())].to_vec();
        let others = all.iter().filter(|other| *other != bytes).cloned();
        for wrong in others.chain([cut, Vec::new(), [&bytes[..], b"\0"].concat()]) {
            replace(&stores, &process, name, wrong);
            let report = process.wait(process.api.verify(VerifyLevel::Read, |_| {})).unwrap();
            assert_ne!(report.findings, [], "{name}");
        }
        replace(&stores, &process, name, bytes.clone());
    }
}
