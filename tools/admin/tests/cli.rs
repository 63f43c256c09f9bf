//! The program as its user meets it: texts, documents and exit codes that may not change unseen.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in what tests share as well")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SHAPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../format-spec/tests/golden/v1");

fn golden(name: &str) -> PathBuf {
    Path::new(GOLDEN).join(name)
}

/// Runs the program in the folder of the golden files, so that no path of this machine shows.
fn admin(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_astacus-admin"));
    command.args(arguments).current_dir(GOLDEN).env_clear();
    command.output().expect("the program was built for this test")
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// Compares with the text in the file `shape`. When a change is meant, copy the new text there.
fn assert_shape(text: &str, shape: &str) {
    let expected = fs::read_to_string(Path::new(SHAPES).join(shape)).unwrap_or_default();
    assert!(text == expected, "{shape} no longer fits what is printed:\n{text}");
}

/// Damage to the bytes of a pack.
type Change = fn(&mut Vec<u8>);

/// A copy of the golden pack in a folder of its own, changed by `change`, under the name `name`.
fn pack(name: &str, change: impl Fn(&mut Vec<u8>)) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(golden("blobs.pack")).unwrap();
    change(&mut bytes);
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

/// The name that the golden pack has on a site.
fn pack_name() -> String {
    let derived = fs::read_to_string(golden("derived.txt")).unwrap();
    let line = derived.lines().find_map(|line| line.strip_prefix("pack id = pack:"));
    line.expect("the golden files tell the pack's id").to_owned()
}

#[test]
fn help_has_its_shape() {
    for (arguments, shape) in [
        (&["--help"][..], "help.txt"),
        (&["verify", "--help"], "help-verify.txt"),
        (&["forget", "--help"], "help-forget.txt"),
        (&["gc", "--help"], "help-gc.txt"),
        (&["scrub", "--help"], "help-scrub.txt"),
        (&["pack", "inspect", "--help"], "help-pack-inspect.txt"),
    ] {
        let output = admin(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert_shape(stdout(&output), shape);
    }
}

#[test]
fn a_pack_is_told_without_a_key_and_listed_with_it() {
    for (arguments, shape) in [
        (&["pack", "inspect", "blobs.pack"][..], "inspect.txt"),
        (&["pack", "inspect", "blobs.pack", "--json"], "inspect.json"),
        (&["pack", "inspect", "blobs.pack", "--key-file", "master.key"], "inspect-key.txt"),
        (&["pack", "inspect", "blobs.pack", "--key-file", "master.key", "--json"], "inspect-key.json"),
    ] {
        let output = admin(arguments);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
        assert_shape(stdout(&output), shape);
    }
}

/// P2: a pack under its own name is distinguished from one whose bytes have changed.
#[test]
fn a_pack_whose_bytes_no_longer_fit_its_name_is_damaged() {
    let whole = pack(&pack_name(), |_| {});
    let flipped = pack(&pack_name(), |bytes| bytes[100] ^= 1);

    let [sound, damaged] = [&whole.1, &flipped.1].map(|path| admin(&["pack", "inspect", path]));

    assert_eq!(sound.status.code(), Some(0), "{}", stderr(&sound));
    assert!(stdout(&sound).contains("matches"));
    assert_eq!(damaged.status.code(), Some(13));
    assert!(stdout(&damaged).contains("DIFFERS"));
}

/// P2: with the master key a damaged blob is named, whatever the file is called.
#[test]
fn a_damaged_blob_is_named() {
    let (_folder, path) = pack("copy", |bytes| bytes[100] ^= 1);

    let key = golden("master.key");
    let output = admin(&["pack", "inspect", &path, "--key-file", key.to_str().unwrap()]);

    assert_eq!(output.status.code(), Some(13));
    assert_eq!(stdout(&output).matches("DAMAGED chunk:").count(), 1, "{}", stdout(&output));
}

/// P4: whatever is called a pack, there is an answer and no panic.
#[test]
fn what_is_no_pack_is_refused_with_a_reason() {
    let last_of_footer = |bytes: &mut Vec<u8>| {
        let place = bytes.len() - 65;
        bytes[place] ^= 1;
    };
    let bad: [(&str, Change); 5] = [
        ("empty", Vec::clear),
        ("short", |bytes| bytes.truncate(70)),
        ("cut", |bytes| bytes.truncate(60_000)),
        ("zeros", |bytes| bytes.fill(0)),
        ("footer", last_of_footer),
    ];
    let key = golden("master.key");
    for (name, change) in bad {
        let (_folder, path) = pack(name, change);
        for key in [&[][..], &["--key-file", key.to_str().unwrap()]] {
            let output = admin(&[&["pack", "inspect", &path][..], key].concat());

            assert_eq!(output.status.code(), Some(13), "{name}: {}", stderr(&output));
            assert!(stderr(&output).contains("is damaged, or not a pack"), "{name}: {}", stderr(&output));
            assert!(!stderr(&output).contains("panic"), "{name}");
        }
    }
}

#[test]
fn a_key_that_does_not_do_is_a_matter_of_usage() {
    let (folder, path) = pack(&pack_name(), |_| {});
    let key = |name: &str, text: &str| {
        let key = folder.path().join(name);
        fs::write(&key, text).unwrap();
        key.to_str().unwrap().to_owned()
    };

    let other = admin(&["pack", "inspect", &path, "--key-file", &key("other", &"ab".repeat(32))]);
    let none = admin(&["pack", "inspect", &path, "--key-file", &key("none", "no key")]);
    let missing = admin(&["pack", "inspect", &path, "--key-file", "missing.key"]);

    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("another repository"), "{}", stderr(&other));
    assert_eq!(none.status.code(), Some(2));
    assert_eq!(missing.status.code(), Some(10));
}

#[test]
fn a_failure_is_one_document_for_programs() {
    let output = admin(&["status", "--json", "--token-file", "missing.token"]);

    assert_eq!(output.status.code(), Some(2));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["error"]["class"], "usage");
    assert_eq!(document["error"]["exit_code"], 2);
}

#[test]
fn flags_that_make_no_sense_are_refused_with_a_hint() {
    let output = admin(&["verify", "--level", "deep"]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("index, exists, read, restore, refs"), "{}", stderr(&output));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let folder = tempfile::tempdir().unwrap();

    let script = admin(&["completion", "bash"]);
    let manual = admin(&["man", folder.path().to_str().unwrap()]);

    assert_eq!((script.status.code(), manual.status.code()), (Some(0), Some(0)));
    for command in [
        "status",
        "snapshots",
        "show",
        "stats",
        "forget",
        "undelete",
        "protect",
        "gc",
        "verify",
        "chunk-locate",
        "pack-inspect",
        "rebuild",
        "key",
    ] {
        let page = folder.path().join(format!("astacus-admin-{command}.1"));
        assert!(page.is_file(), "{command} has no page");
        let word = format!("astacus__admin__subcmd__{}", command.replace('-', "__subcmd__"));
        assert!(stdout(&script).contains(&word), "{command} is not completed");
    }
    assert!(stdout(&script).contains("--keep-yearly"));
}
