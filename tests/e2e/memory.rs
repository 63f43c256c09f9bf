//! Memory does not depend on how much there is to push or to restore.

use std::fs;
use std::io::Write;
use std::time::Duration;

use rustix::process::Pid;
use tests::client::{Running, number};
use tests::corpus::set_time;
use tests::gear;
use tests::seed::Random;
use tests::wait;
use tests::world::World;

const MIB: u64 = 1 << 20;
/// How long a push of a million files may take.
const LONG: Duration = Duration::from_secs(1800);

/// Most memory that a process has had so far, in bytes; `None` once it is gone.
fn peak(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

/// Runs a program to its end, and returns the most memory that it was seen to have.
fn peak_of(running: Running) -> u64 {
    let mut most = 0;
    let done = wait::within(LONG, || {
        most = peak(running.pid()).unwrap_or(0).max(most);
        running.within(Duration::ZERO)
    });
    done.expect("a program ends").exits(0);
    most
}

/// C6: a file larger than the limits goes through client and server, and neither comes near its size.
#[test]
fn a_file_larger_than_the_memory_limit_is_pushed_and_restored_within_it() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    let mut file = fs::File::create(root.join("large")).unwrap();
    for _ in 0..40 {
        file.write_all(&random.bytes(8 << 20)).unwrap();
    }
    drop(file);
    let node = world.node("n");

    let push = peak_of(node.start_push(&root));
    let mut command = node.command();
    command.args(["restore", "latest", "--strip-root", "--to"]).arg(world.path("restored"));
    let restore = peak_of(Running::start(command));
    let server = peak(world.server.pid()).unwrap();

    let size = fs::metadata(root.join("large")).unwrap().len();
    assert_eq!(fs::metadata(world.path("restored/large")).unwrap().len(), size);
    println!("push {} MiB, restore {} MiB, server {} MiB", push / MIB, restore / MIB, server / MIB);
    assert!(number(&node.status(), "stored_bytes") > size, "everything was sent and stored");
    assert!(push < 256 * MIB, "the push took {} MiB", push / MIB);
    assert!(restore < 256 * MIB, "the restore took {} MiB", restore / MIB);
    assert!(server < 512 * MIB, "the server took {} MiB", server / MIB);
}

/// C6, S12: a stream has no length before its end, and is not kept until then.
#[test]
fn a_stream_larger_than_the_memory_limit_is_pushed_within_it() {
    let world = World::new();
    let node = world.node("n");
    let len = 256 * MIB;
    let mut command = node.command();
    command.args(["push", "--json", "--jobs", "1", "--command", "large", "--", "head", "-c"]);
    command.args([&len.to_string(), "/dev/urandom"]);

    let push = peak_of(Running::start(command));

    println!("push {} MiB", push / MIB);
    assert_eq!(number(&node.snapshots()[0], "bytes"), len);
    assert!(push < 128 * MIB, "the push took {} MiB", push / MIB);
}

/// C6: what a push remembers of many files is read and written as it goes, and so is the list of them.
#[test]
fn a_second_push_of_many_small_files_takes_no_memory_for_each() {
    let (files, limit) = (gear::rounds(20_000, 1_000_000), gear::rounds(128, 160));
    let world = World::new();
    let root = world.dir("source");
    for n in 0..files {
        let folder = root.join(format!("folder-{}", n / 1000));
        if n % 1000 == 0 {
            fs::create_dir(&folder).unwrap();
        }
        let file = folder.join(format!("file-{n}"));
        fs::write(&file, n.to_string()).unwrap();
        set_time(&file, 1_600_000_000, 1);
    }
    let node = world.node("n");
    // One job compresses them all, so that more of them wait for one body than a body may hold.
    let first = peak_of(node.start_push_of(&[&root], &["--jobs", "1"]));

    let second = peak_of(node.start_push(&root));

    println!("{files} files: first push {} MiB, second {} MiB", first / MIB, second / MIB);
    assert!(second / MIB < u64::try_from(limit).unwrap(), "the second push took {} MiB", second / MIB);
    let last = node.snapshots().pop().unwrap();
    assert_eq!(number(&last["pushes"][0], "unchanged"), u64::try_from(files).unwrap());
}
