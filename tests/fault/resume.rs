//! Pushes that are cut short: the next one goes on where the last one was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::client::{Client, Done, Running, number};
use tests::compare::assert_same;
use tests::corpus::set_time;
use tests::gear;
use tests::relay::Relay;
use tests::seed::Random;
use tests::wait;
use tests::world::World;

const MIB: u64 = 1 << 20;
const FILE_LEN: usize = 16_000;

/// A world with files that do not compress, and a relay that counts what their pushes send.
struct Setup {
    world: World,
    relay: Relay,
    root: PathBuf,
    random: Random,
    /// Files in the root, and their bytes.
    files: u64,
    bytes: u64,
    /// Bytes that an undisturbed push sends.
    whole: u64,
}

impl Setup {
    fn new(files: u64) -> Self {
        let world = World::new();
        let relay = Relay::to(&world.server);
        let mut random = Random::printed();
        let root = world.path("source");
        for n in 0..files {
            let folder = root.join(format!("folder-{}", n / 100));
            fs::create_dir_all(&folder).unwrap();
            let file = folder.join(format!("file-{n}"));
            fs::write(&file, random.bytes(FILE_LEN)).unwrap();
            // Old enough for its times to be believed.
            set_time(&file, 1_600_000_000, 1);
        }
        let bytes = files * u64::try_from(FILE_LEN).unwrap();
        let mut setup = Self { world, relay, root, random, files, bytes, whole: 0 };
        let reference = setup.node("undisturbed");
        reference.push_with(&setup.root, &["--no-state"]);
        setup.whole = setup.relay.sent();
        setup
    }

    /// The node of a cluster of its own, so that nothing of the root is there yet.
    fn node(&self, cluster: &str) -> Client {
        self.world.node_of(cluster, "n").at(self.relay.address())
    }

    fn start(&self, node: &Client, rate: &str) -> Running {
        node.start_push_of(&[&self.root], &["--max-rate", rate, "--retry-for", "5s"])
    }

    /// Starts a push at `rate`, and ends it with `end` once it has sent this many bytes, unless it came to
    /// its own end before.
    fn cut(&self, node: &Client, rate: &str, bytes: u64, end: impl FnOnce(Running) -> Done) -> Done {
        let before = self.relay.sent();
        let push = self.start(node, rate);
        let ended = wait::for_state("the push to come so far", || match push.within(Duration::ZERO) {
            None => (self.relay.sent() - before >= bytes).then_some(None),
            ended => Some(ended),
        });
        ended.unwrap_or_else(|| end(push))
    }

    /// Bytes that `work` sends.
    fn sent_by<T>(&self, work: impl FnOnce(&Self) -> T) -> (u64, T) {
        let before = self.relay.sent();
        let done = work(self);
        (self.relay.sent() - before, done)
    }

    #[track_caller]
    fn assert_restores(&self, node: &Client) {
        let to = self.world.path("restored");
        node.restore("latest", &to, &["--strip-root"]).exits(0);
        assert_same(&self.root, &to);
        fs::remove_dir_all(&to).unwrap();
    }

    /// Fails unless the push that followed one of which `arrived` bytes came took over what that had done.
    #[track_caller]
    fn assert_resumed(&self, report: &Value, arrived: u64) {
        let resumed = number(report, "resumed");
        assert!(resumed > 0 && resumed + number(report, "new") == self.files, "{report}");
        let rest = self.whole - arrived;
        let sent = number(report, "bytes_sent");
        assert!(
            sent <= rest + self.whole / 20,
            "{sent} bytes were sent again or for the first time, of {rest}"
        );
        // A file that is on a finished page is read again only if the server lacks it.
        let not_done = (self.files - resumed) * u64::try_from(FILE_LEN).unwrap();
        let read = number(report, "bytes_read");
        assert!(
            read <= not_done + sent,
            "{read} bytes were read; {not_done} had not been, {sent} were lacking"
        );
    }
}

/// The second names that a push of `node` has left in any place where it may make them, which none must.
fn left(root: &Path, node: &Client) -> bool {
    let above = root.parent().expect("a root lies in a folder");
    [root, above, &node.home().join("state")].iter().any(|place| place.join(".astacus").exists())
}

/// C4, C5: of what a killed client had sent, hardly anything is sent again, and what it had noted is not
/// read again.
#[test]
fn a_push_after_a_kill_goes_on_where_the_last_one_was() {
    let setup = Setup::new(3000);
    let node = setup.node("c");

    let (arrived, killed) = setup.sent_by(|setup| setup.cut(&node, "4M", setup.whole / 2, Running::kill));
    let (rest, report) = setup.sent_by(|setup| node.push(&setup.root));

    assert_eq!(killed.code, None, "{killed:?}");
    let again = (arrived + rest).saturating_sub(setup.whole);
    println!("{arrived} bytes, then {rest}: {again} sent again, of {}", setup.whole);
    assert!(again <= setup.whole / 20, "{again} of {} were sent again", setup.whole);
    setup.assert_resumed(&report, arrived);
    assert!(!left(&setup.root, &node));
    assert_eq!(setup.world.wire().status().open_sessions, 0, "the killed push's session lives on");
    setup.assert_restores(&node);
    assert_eq!(number(&node.push(&setup.root), "bytes_read"), 0);
}

/// C4, C5, C7: Ctrl-C ends a push in order, and the next one goes on.
#[test]
fn a_push_after_an_interrupt_goes_on_where_the_last_one_was() {
    let setup = Setup::new(1500);
    let node = setup.node("c");

    let (arrived, interrupted) = setup.sent_by(|setup| {
        setup.cut(&node, "4M", setup.whole / 2, |push| {
            push.interrupt();
            push.wait()
        })
    });
    let is_clean = !left(&setup.root, &node) && setup.world.wire().status().open_sessions == 0;
    let (rest, report) = setup.sent_by(|setup| node.push(&setup.root));

    interrupted.exits(130);
    assert!(is_clean, "the interrupted push has left something");
    println!("{arrived} bytes, then {rest}, of {}", setup.whole);
    // Bodies that were on their way were given up: at most two of a quarter of a second each.
    let sent = number(&report, "bytes_sent");
    assert!(sent <= setup.whole - arrived + 2 * MIB + setup.whole / 20, "{report}");
    assert!(number(&report, "resumed") > 0, "{report}");
    setup.assert_restores(&node);
}

/// C5: a client that was killed again and again comes to its end, with little more to send than there is.
#[test]
#[ignore = "kills at moments of chance: `.ci/nightly fault`"]
fn kills_at_any_moment_cost_little() {
    let mut setup = Setup::new(750);
    let (mut cut, mut round) = (0, 0);
    while gear::goes_on(round, gear::rounds(10, 100), cut > 0) {
        round += 1;
        let node = setup.node(&format!("c{round}"));
        let moment = setup.random.below(setup.whole);

        let (arrived, killed) = setup.sent_by(|setup| setup.cut(&node, "6M", moment, Running::kill));
        let (rest, report) = setup.sent_by(|setup| node.push(&setup.root));

        cut += usize::from(killed.code.is_none());
        let again = (arrived + rest).saturating_sub(setup.whole);
        println!(
            "round {round}: killed after {arrived} bytes of {}, {} files resumed, {rest} sent then, {again} again",
            setup.whole,
            number(&report, "resumed"),
        );
        // Two bodies of a quarter of a second may be on their way, and what is asked again is a little.
        assert!(again <= 3 * MIB + setup.whole / 20, "round {round}: {again} of {}", setup.whole);
        assert!(!left(&setup.root, &node));
        setup.assert_restores(&node);
    }
    assert!(cut > 0, "no push was cut short: the kills come too late");
    assert_eq!(setup.world.wire().status().open_sessions, 0);
}

/// P9, S1: what a killed server had sealed is not sent again by the push that meets the kill.
#[test]
fn a_push_that_meets_a_kill_of_the_server_sends_again_what_was_not_sealed() {
    let mut setup = Setup::new(5000);
    let node = setup.node("c");
    let before = setup.world.wire().status().stored_bytes;

    let push = setup.start(&node, "24M");
    let sealed = until_sealed(&setup, before);
    let unsealed = (setup.relay.sent() - setup.whole).saturating_sub(sealed);
    setup.world.server.start_again();
    setup.relay.point_to(&setup.world.server);
    let report = push.wait().exits(0).json();

    let sent = setup.relay.sent() - setup.whole;
    println!(
        "{sealed} sealed, {unsealed} not, {sent} sent of {} in {} attempts",
        setup.whole, report["attempts"]
    );
    assert!(sent <= setup.whole + unsealed + 32 * MIB, "{sent} bytes for {}", setup.whole);
    assert!(sent < 2 * setup.whole - sealed / 2, "what was sealed was sent again: {sent}");
    assert!(!left(&setup.root, &node));
    setup.assert_restores(&node);
    node.at(setup.world.server.address()).admin(&["verify", "--level", "read"]).exits(0);
}

/// P9, S1, C7: and if the server stays away, the push fails in order, and the next one goes on.
#[test]
fn a_push_after_a_kill_of_the_server_goes_on_with_what_was_sealed() {
    let mut setup = Setup::new(5000);
    let node = setup.node("c");
    let before = setup.world.wire().status().stored_bytes;

    let push = setup.start(&node, "24M");
    let sealed = until_sealed(&setup, before);
    setup.world.server.kill();
    let failed = push.wait();
    let is_clean = !left(&setup.root, &node);
    setup.world.server.start_again();
    setup.relay.point_to(&setup.world.server);
    let report = node.push(&setup.root);

    failed.exits(14);
    assert!(is_clean, "the push that failed has left second names");
    println!("{sealed} sealed, {} sent then, of {}", number(&report, "bytes_sent"), setup.whole);
    assert!(number(&report, "bytes_sent") <= setup.whole - sealed + MIB, "{report}");
    assert!(number(&report, "resumed") > 0, "{report}");
    assert!(number(&report, "bytes_read") < setup.bytes, "{report}");
    setup.assert_restores(&node);
}

/// Waits until the server has sealed a pack of the push, and returns what it has sealed.
fn until_sealed(setup: &Setup, before: u64) -> u64 {
    let wire = setup.world.wire();
    wait::for_state("a pack to be sealed", || {
        let stored = wire.status().stored_bytes;
        (stored > before).then_some(stored - before)
    })
}

/// A push that reads faster than it can send has all its memory on the way, and waits for room. It ends all the
/// same, when its server goes for good as when somebody ends it.
#[test]
fn a_push_that_waits_for_room_ends_when_its_server_goes_and_when_it_is_told_to() {
    const FILES: usize = 4;
    const LEN: usize = 40_000_000;
    /// By then the push has read as much as its buffers hold.
    const SENT: u64 = 16_000_000;
    let mut world = World::new();
    let relay = Relay::to(&world.server);
    let (root, mut random) = (world.dir("source"), Random::printed());
    (0..FILES).for_each(|n| fs::write(root.join(n.to_string()), random.bytes(LEN)).unwrap());
    let node = world.node("n").at(relay.address());
    let start = || {
        let before = relay.sent();
        let push = node.start_push_of(&[&root], &["--max-rate", "8M", "--retry-for", "5s"]);
        wait::for_state("the push to send", || (relay.sent() - before >= SENT).then_some(()));
        push
    };

    let told = start();
    told.interrupt();
    told.wait().exits(130);
    let push = start();
    world.server.kill();
    push.wait().exits(14);
}

/// A restore and a verify whose server says no more end when that goes for good, and when they are told to.
#[test]
fn readers_whose_server_says_no_more_end_when_it_goes_and_when_they_are_told_to() {
    const LEN: usize = 80_000_000;
    let mut world = World::new();
    let mut relay = Relay::to(&world.server);
    let (root, mut random) = (world.dir("source"), Random::printed());
    (0..2).for_each(|n| fs::write(root.join(n.to_string()), random.bytes(LEN)).unwrap());
    world.node("n").push(&root);
    let start = |world: &World, relay: &Relay, arguments: &[&str]| {
        let before = relay.answered();
        relay.answer_only(MIB);
        let mut command = world.node("n").at(relay.address()).command();
        command.args(arguments);
        let reader = Running::start(command);
        wait::for_state("some of it to come", || (relay.answered() >= before + MIB).then_some(()));
        assert!(reader.within(Duration::ZERO).is_none(), "{arguments:?} has ended");
        // The machine is asked for signs of life: it may go without a word as well.
        wait::for_state("probes of the connection", || probes(relay.address()).then_some(()));
        reader
    };
    let to = world.path("restored").to_str().unwrap().to_owned();

    for reader in [vec!["restore", "latest", "--to", &to, "--into-existing"], vec!["verify", "latest"]] {
        let reader = [&reader[..], &["--retry-for", "5s"]].concat();
        let told = start(&world, &relay, &reader);
        told.interrupt();
        told.wait().exits(130);

        let left = start(&world, &relay, &reader);
        world.server.kill();
        left.wait().exits(14);
        world.server.start_again();
        relay = Relay::to(&world.server);
    }
}

/// True if the kernel probes every connection to the server at `address`, and there is one.
fn probes(address: &str) -> bool {
    let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
    let (there, established, probing) = (format!(":{port:04X}"), "01", "02:");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let lines: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let mut ours = lines.iter().filter(|line| line[2].ends_with(&there) && line[3] == established).peekable();
    ours.peek().is_some() && ours.all(|line| line[5].starts_with(probing))
}
