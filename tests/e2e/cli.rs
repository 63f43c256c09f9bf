//! Exit codes and words: what a person or a script sees when something is not as it should be.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use serde_json::json;
use tests::client::{Client, Done, Running, run_to_end};
use tests::corpus;
use tests::gear;
use tests::seed::Random;
use tests::world::World;

fn node_with_tree(world: &World) -> Client {
    corpus::plain(&world.path("source"), &mut Random::printed(), 3, 1000);
    world.node("n")
}

#[track_caller]
fn hints(done: Done, code: i32, word: &str) {
    let done = done.exits(code);
    assert!(done.stderr.contains(word), "no `{word}` in: {}", done.stderr);
}

#[test]
fn wrong_usage_exits_with_2_and_a_hint() {
    let world = World::new();
    let node = node_with_tree(&world);

    hints(node.run(["psuh"]), 2, "push");
    hints(node.run(["push", "--exlude", "x", "/"]), 2, "--exclude");
    hints(node.run(["push"]), 2, "<PATH>");
    hints(node.run(["restore", "latest"]), 2, "--to");
    hints(node.run(["restore", "not-an-id", "--to", "/nowhere"]), 2, "not-an-id");
    hints(node.run(["push", "/", "--cluster", "a/b"]), 2, "a/b");
    hints(node.admin(&["verify", "--level", "deep"]), 2, "exists");
    hints(node.admin(&["stauts"]), 2, "status");
}

#[test]
fn a_folder_that_is_not_there_exits_with_10_and_leaves_no_snapshot() {
    let world = World::new();
    let node = node_with_tree(&world);

    hints(node.run(["push", "/no/such/folder"]), 10, "/no/such/folder");

    assert_eq!(node.snapshot_ids(), Vec::<String>::new());
}

#[test]
fn an_unknown_snapshot_exits_with_10() {
    let world = World::new();
    let node = node_with_tree(&world);
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";

    node.restore("latest", &world.path("restored"), &[]).exits(10);
    node.restore(id, &world.path("restored"), &[]).exits(10);
    node.run(["verify", id]).exits(10);

    assert!(!world.path("restored").exists(), "nothing was restored, so nothing is made");
}

/// C7: a wrong token is told as such, whatever is asked for.
#[test]
fn a_wrong_token_exits_with_12() {
    let world = World::new();
    let wrong = world.path("wrong.token");
    fs::write(&wrong, "0123456789abcdef\n").unwrap();
    let node = node_with_tree(&world).with_token_file(&wrong);

    node.run(["list"]).exits(12);
    node.start_push(&world.path("source")).wait().exits(12);
    node.restore("latest", &world.path("restored"), &[]).exits(12);
    node.admin(&["status"]).exits(12);
}

#[test]
fn a_missing_token_file_is_wrong_usage_and_is_named() {
    let world = World::new();
    let node = node_with_tree(&world).with_token_file(&world.path("no.token"));

    hints(node.run(["list"]), 2, "no.token");
}

/// A caller that asks for a document gets one, also about a wrong command line.
#[test]
fn wrong_usage_is_told_as_a_document_where_one_is_asked_for() {
    let world = World::new();
    let node = node_with_tree(&world);
    let admin = |arguments: &[&str]| {
        let mut command = node.program("astacus-admin");
        command.args(arguments);
        run_to_end(command)
    };
    for (done, what) in [
        (node.run(["restore", "--json"]), "--to"),
        (node.run(["push", "x", "--jobs", "0", "--json"]), "0"),
        (admin(&["--json", "verify", "--level", "deep"]), "deep"),
    ] {
        let error = &done.json()["error"];
        assert_eq!((done.code, &error["class"], &error["exit_code"]), (Some(2), &json!("usage"), &json!(2)));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(what) && !message.contains("Usage:"), "{message}");
        assert!(done.stderr.contains("Usage:") || done.stderr.contains("--help"), "{done:?}");
    }
    let plain = admin(&["verify", "--level", "deep"]);
    assert_eq!((plain.code, plain.stdout.as_str()), (Some(2), ""));
    let help = admin(&["gc", "--json", "--help"]);
    assert!(help.code == Some(0) && help.stdout.contains("Usage:"), "{help:?}");
}

/// C7: a server that does not answer is given up on after a while, by its address.
#[test]
fn an_unreachable_server_exits_with_14_and_is_named() {
    let world = World::new();
    let node = node_with_tree(&world);
    // Bound and not listening any more: nobody else gets this port meanwhile, and nobody answers.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("http://127.0.0.1:{port}");
    let node = node.at(&address);

    let start = |mut command: std::process::Command, argument: &str| {
        command.arg(argument);
        Running::start(command)
    };
    // Side by side: each of them tries for a few seconds.
    let all = [
        start(node.command(), "list"),
        node.start_push(&world.path("source")),
        start(node.program("astacus-admin"), "status"),
    ];

    for running in all {
        hints(running.wait(), 14, &address);
    }
}

#[test]
fn an_address_that_is_none_is_wrong_usage() {
    let world = World::new();
    let node = node_with_tree(&world);

    for address in ["ftp://127.0.0.1:1", "127.0.0.1", "http://", "http://h:1/path"] {
        hints(node.at(address).run(["list"]), 2, "http://");
    }
}

/// The token is in each request, and a request to another machine can be read on its way.
#[test]
fn the_token_does_not_leave_this_machine() {
    let world = World::new();
    let node = node_with_tree(&world);

    for address in ["http://192.0.2.2:5515", "http://backup.example:5515", "http://[2001:db8::1]:5515"] {
        hints(node.at(address).run(["list"]), 2, "https://");
    }
    let port = node.at(&world.server.address().replace("127.0.0.1", "localhost"));
    port.run(["list"]).exits(0);
}

/// An error that no retry can fix is not answered with `try again`.
#[test]
fn a_target_that_is_a_file_is_wrong_usage_and_is_named() {
    let world = World::new();
    let node = node_with_tree(&world);
    node.push(&world.path("source"));
    let target = world.path("file");
    fs::write(&target, "content").unwrap();

    hints(node.restore("latest", &target, &[]), 2, target.to_str().unwrap());
    hints(node.restore("latest", &target.join("below"), &[]), 2, target.to_str().unwrap());
    assert_eq!(fs::read_to_string(target).unwrap(), "content");
}

#[test]
fn settings_come_from_a_file_in_the_home_folder_when_nothing_else_gives_them() {
    let world = World::new();
    let node = node_with_tree(&world);
    let folder = node.home().join(".config/astacus");
    fs::create_dir_all(&folder).unwrap();
    let file = |server: &str| {
        let token = world.server.token_file();
        format!(
            "server = \"{server}\"\ntoken_file = \"{}\"\ncluster = \"c\"\nnode = \"n\"\n",
            token.display()
        )
    };
    fs::write(folder.join("client.toml"), file(world.server.address())).unwrap();
    let bare = |arguments: &[&str]| {
        let mut command = node.command();
        for variable in ["SERVER", "TOKEN_FILE", "CLUSTER", "NODE"] {
            command.env_remove(format!("ASTACUS_{variable}"));
        }
        command.args(arguments);
        run_to_end(command)
    };

    bare(&["push", world.path("source").to_str().unwrap()]).exits(0);
    fs::write(folder.join("client.toml"), file("http://127.0.0.1:1")).unwrap();
    let flag = ["list", "--json", "--server", world.server.address()];
    let listed = bare(&flag).exits(0).json();

    assert_eq!(listed[0]["nodes"], serde_json::json!(["n"]), "{listed}");
}

/// Each program tells of all its commands, flags and exit codes.
#[test]
fn help_names_every_command_flag_and_exit_code() {
    let world = World::new();
    let node = world.node("n");
    let server = |arguments: &[&str]| {
        let mut command = tests::server::command();
        command.args(arguments);
        run_to_end(command).exits(0).stdout
    };
    let client = |arguments: &[&str]| node.run(arguments).exits(0).stdout;

    let texts = [
        (client(&["--help"]), &["push", "list", "restore", "verify", "ASTACUS_SERVER", "130", "13 "][..]),
        (
            client(&["push", "--help"]),
            &["PATH", "--exclude", "--json", "--cluster", "--node", "--token-file"],
        ),
        (client(&["restore", "--help"]), &["--to", "--node", "--path", "--strip-root", "latest"]),
        (node.admin(&["--help"]).exits(0).stdout, &["status", "snapshots", "verify", "pack", "13 "]),
        (node.admin(&["verify", "--help"]).exits(0).stdout, &["index", "exists", "read"]),
        (server(&["--help"]), &["--data-dir", "--listen", "--config", "127.0.0.1:5515"]),
    ];

    for (help, words) in texts {
        for word in words {
            assert!(help.contains(word), "no `{word}` in:\n{help}");
        }
    }
    for version in [client(&["--version"]), node.admin(&["--version"]).stdout, server(&["--version"])] {
        assert!(version.trim_end().ends_with(env!("CARGO_PKG_VERSION")), "{version}");
    }
}

/// An answer that could not be written is no success, unless the reader closed the pipe early.
#[test]
fn an_answer_that_cannot_be_written_exits_with_15_and_half_of_one_is_no_failure() {
    let world = World::new();
    let node = node_with_tree(&world);
    node.push(&world.path("source"));
    let through = |script: &str| node.wrapped(&["sh", "-c", script, "sh"]);
    let (full, head) = (through("exec \"$@\" > /dev/full"), through("\"$@\" | head -c 1 > /dev/null"));

    hints(full.run(["list", "--json"]), 15, "standard output");
    hints(full.run(["completion", "bash"]), 15, "standard output");
    for arguments in [&["status"][..], &["snapshots", "--json"], &["gc", "--explain"], &["completion", "zsh"]]
    {
        hints(full.admin(arguments), 15, "standard output");
    }

    assert_eq!(head.admin(&["completion", "zsh"]).exits(0).stderr, "");
}

/// Words that bash offers to complete the last of these words.
fn offered(node: &Client, words: &[&str]) -> Vec<String> {
    let program = words[0];
    let mut made = node.program(program);
    made.args(["completion", "bash"]);
    let script = run_to_end(made).exits(0).stdout;
    let (last, before) = (words.len() - 1, words[words.len() - 2]);
    let function = format!("_{}", program.replace('-', "__"));
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let ask = format!(
        "{script}\nCOMP_WORDS=({}); COMP_CWORD={last}; {function} {program} '{}' '{before}'\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        quoted.join(" "),
        words[last],
    );
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-c", &ask]);
    run_to_end(bash).exits(0).stdout.lines().map(str::to_owned).collect()
}

/// Command lines to complete, and the only possible completion.
const COMPLETED: [(&[&str], &str); 5] = [
    (&["astacus-client", "res"], "restore"),
    (&["astacus-client", "push", "--freeze-"], "--freeze-dir"),
    (&["astacus-client", "push", "--freeze", "re"], "reflink"),
    (&["astacus-client", "restore", "--into-e"], "--into-existing"),
    (&["astacus-admin", "forget", "--keep-la"], "--keep-last"),
];

/// In a real shell, and behind a command, too.
#[test]
fn bash_completes_commands_flags_and_values() {
    let world = World::new();
    let node = world.node("n");
    for (words, expected) in COMPLETED {
        assert_eq!(offered(&node, words), [expected], "{words:?}");
    }
}

/// Writes the completion script for a shell to a file of its own.
fn script_for(world: &World, shell: &str, program: &str, name: &str) -> PathBuf {
    let node = world.node("n");
    let mut made = node.program(program);
    made.args(["completion", shell]);
    let file = world.dir(shell).join(name);
    fs::write(&file, run_to_end(made).exits(0).stdout).unwrap();
    file
}

#[test]
fn fish_completes_commands_flags_and_values() {
    if !gear::has("fish") {
        return;
    }
    let world = World::new();
    for (words, expected) in COMPLETED {
        let script = script_for(&world, "fish", words[0], words[0]);
        let mut fish = std::process::Command::new("fish");
        fish.env("HOME", world.path("fish")).args(["--no-config", "-c"]);
        fish.arg(format!("source {}; complete -C '{}'", script.display(), words.join(" ")));

        let offered = run_to_end(fish).exits(0).stdout;

        let offered: Vec<&str> = offered.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert_eq!(offered, [expected], "{words:?}");
    }
}

/// Script for a zsh that believes to have a terminal: it completes a line, and prints the result.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty line zsh -f -i
zpty -w line 'PS1=; unsetopt zle_bracketed_paste 2>/dev/null; fpath=('$1' $fpath); autoload -Uz compinit; compinit -u -D'
zpty -w line 'said () { print -r -- "<<<$BUFFER>>>"; exit }; zle -N said; bindkey "^X" said; bindkey "^I" complete-word'
zpty -w line 'print -r -- re""ady'
zpty -r line heard '*ready*'
zpty -w -n line "$2"$'\t\x18'
zpty -r line heard '*<<<*>>>*'
print -r -- "$heard"
"#;

#[test]
fn zsh_completes_commands_flags_and_values() {
    if !gear::has("zsh") {
        return;
    }
    let world = World::new();
    for (words, expected) in COMPLETED {
        let script = script_for(&world, "zsh", words[0], &format!("_{}", words[0]));
        let mut zsh = std::process::Command::new("zsh");
        zsh.env("HOME", world.path("zsh")).env("TERM", "dumb").args(["-f", "-c", ZSH, "zsh"]);
        zsh.arg(script.parent().unwrap()).arg(words.join(" "));

        let heard = run_to_end(zsh).exits(0).stdout;

        let line = heard.split("<<<").nth(1).and_then(|rest| rest.split(">>>").next()).unwrap();
        let (_, before) = words.split_last().unwrap();
        assert_eq!(line.trim_end_matches([' ', '=']), [before, &[expected]].concat().join(" "), "{heard}");
    }
}
