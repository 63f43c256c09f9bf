//! The keys of a repository as an operator handles them, with the real programs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::binaries::program;
use tests::client::{Done, run_to_end};
use tests::server::{CONFIG, Server, refused};
use tests::world::Folder;

const WORDS: &str = "a passphrase that nobody guesses";

/// Runs `astacus-admin key` with these words and the data folder, and with the file `typed` as its standard input.
fn key(data: &Path, words: &[&str], typed: Option<&Path>) -> Done {
    let admin = program("astacus-admin");
    let mut key = match typed {
        None => Command::new(admin),
        Some(typed) => {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", r#"exec "$@" <"$0""#]).arg(typed).arg(admin);
            shell
        }
    };
    key.env_clear().arg("key").args(words).arg("--data-dir").arg(data);
    run_to_end(key)
}

fn secret(folder: &Folder, name: &str, text: &str) -> PathBuf {
    let path = folder.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// K3: the recovery drill of docs/keys.md.
#[test]
fn a_repository_comes_back_from_a_typed_sheet() {
    let folder = Folder::new();
    let data = folder.path("data");
    drop(Server::start(&data));
    let sheet = key(&data, &["export", "--paper"], None).exits(0).stdout;
    let lines: Vec<&str> = sheet.lines().filter(|line| line.get(1..3) == Some(": ")).collect();
    assert_eq!(lines.len(), 8, "{sheet}");
    let typed = secret(&folder, "typed", &lines.join("\n").to_lowercase().replace('0', "o"));
    let kept = fs::read(data.join("master.key")).unwrap();
    fs::remove_file(data.join("master.key")).unwrap();

    let lost = refused(&["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]).exits(10);
    assert!(lost.stderr.contains("astacus-admin key restore"), "{}", lost.stderr);
    let checked = key(&data, &["check", "--paper", "-", "--json"], Some(&typed)).exits(0).stdout;
    assert!(checked.contains(r#""state":"opens""#) && !data.join("master.key").exists(), "{checked}");
    fs::remove_file(data.join("repository.json")).unwrap();
    key(&data, &["restore", "--paper", typed.to_str().unwrap()], None).exits(0);

    assert_eq!(fs::read(data.join("master.key")).unwrap(), kept);
    drop(Server::start(&data));
    let wrong = secret(&folder, "wrong", &lines.join("\n").replacen(": ", ": Z", 1));
    let told = key(&data, &["check", "--paper", "-"], Some(&wrong)).exits(2).stderr;
    assert!(told.contains("line 1"), "{told}");
}

/// K1, K2: a server starts from a passphrase, and neither its command line, its log nor its folder shows a secret.
#[test]
fn a_server_without_its_key_file_shows_no_secret_anywhere() {
    let folder = Folder::new();
    let data = folder.path("data");
    drop(Server::start(&data));
    let master = fs::read_to_string(data.join("master.key")).unwrap().trim().to_owned();
    let words = secret(&folder, "words", WORDS);
    let path = words.to_str().unwrap();
    let add = ["add", "passphrase", "--memory-mib", "19", "--passes", "2", "--new-passphrase-file", path];
    let mut told = key(&data, &add, None).exits(0).told();
    key(&data, &["remove", "file"], None).exits(11);
    told += &key(&data, &["remove", "file", "--passphrase-file", path], None).exits(0).told();
    told += &key(&data, &["list", "--json"], None).exits(0).told();
    told += &key(&data, &["check", "--passphrase-file", path], None).exits(0).told();

    let arguments = [OsStr::new("--passphrase-file"), words.as_os_str()];
    let server = Server::start_as(&data, Path::new(CONFIG), &arguments);

    told += &fs::read_to_string(format!("/proc/{}/cmdline", server.pid().as_raw_nonzero())).unwrap();
    told += &server.log();
    let found = holders(&data, &[WORDS.as_bytes(), master.as_bytes(), &bytes(&master)]);
    assert_eq!(found, Vec::<PathBuf>::new());
    assert!(!told.contains(WORDS) && !told.contains(&master), "{told}");
    let wrong = secret(&folder, "wrong", "another passphrase");
    let arguments = ["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--passphrase-file"];
    drop(server);
    let denied = refused(&[&arguments[..], &[wrong.to_str().unwrap()]].concat()).exits(12);
    assert!(!denied.stderr.contains("another passphrase"), "{}", denied.stderr);
}

trait Told {
    /// All that a program printed.
    fn told(&self) -> String;
}

impl Told for Done {
    fn told(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Files below `dir` that hold one of `secrets`.
fn holders(dir: &Path, secrets: &[&[u8]]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(holders(&entry, secrets));
        } else if entry.file_name() != Some(OsStr::new("ballast")) {
            let content = fs::read(&entry).unwrap();
            let has = |secret: &&[u8]| content.windows(secret.len()).any(|window| window == *secret);
            if secrets.iter().any(has) {
                found.push(entry);
            }
        }
    }
    found
}
