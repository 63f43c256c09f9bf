//! Accepted and refused command lines, and texts of the help.

use clap::CommandFactory;
use format_spec::wire::{Delays, ForgetRequest, GcRequest, LargeDelete, LastComplete, RunMode};

use super::*;

const ID: &str = "018bcfe5-6800-7707-8707-070707070707";
const CHUNK: &str = "chunk:114c062e4fcce8b028088484850de36c6fac93446cbbea723523d5f1af40be15";

fn parse(arguments: &[&str]) -> Result<Command, clap::Error> {
    let line = [&["astacus-admin"], arguments].concat();
    Arguments::try_parse_from(line).map(|arguments| arguments.command)
}

fn forget(arguments: &[&str]) -> ForgetRequest {
    match parse(&[&["forget"], arguments].concat()).unwrap() {
        Command::Forget(forget) => ForgetRequest::from(&forget),
        other => panic!("{other:?}"),
    }
}

fn gc(arguments: &[&str]) -> GcRequest {
    match parse(&[&["gc"], arguments].concat()).unwrap() {
        Command::Gc(gc) => GcRequest::from(&gc),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_line_holds_together() {
    Arguments::command().debug_assert();
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for bad in [
        &["show"][..],
        &["show", "newest"],
        &["show", CHUNK],
        &["stats", "--cluster", "a b"],
        &["forget", "not-an-id"],
        &["forget", "--keep-last", "-1"],
        &["forget", "--keep-last", "4294967296"],
        &["forget", "--keep-daily"],
        &["undelete"],
        &["protect", ID],
        &["protect", ID, "--reason", " "],
        &["protect", ID, "--reason", "two\nlines"],
        &["protect", ID, "--reason", "\u{1b}[31mred"],
        &["protect", ID, "--reason", "r", "--off"],
        &["protect", "--off"],
        &["gc", "--max-copy", "-1"],
        &["gc", "--max-copy", "1.5G"],
        &["gc", "--max-copy", "many"],
        &["chunk", "locate", ID],
        &["chunk", "locate", "114c062e"],
        &["rebuild", "--data-dir", "d", "--from-site", "u"],
        &["rebuild", "--data-dir", "d", "--from-site", "u", "--keyring", "k", "--threads", "4"],
    ] {
        assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad:?}");
    }
    let long = "ä".repeat(501);
    assert!(parse(&["protect", ID, "--reason", &long]).is_err());
    assert!(parse(&["protect", ID, "--reason", &long[2..]]).is_ok());
}

#[test]
fn named_snapshots_and_a_policy_exclude_each_other() {
    let rules = [
        "--keep-days",
        "--minimum",
        "--maximum",
        "--keep-last",
        "--keep-hourly",
        "--keep-daily",
        "--keep-weekly",
        "--keep-monthly",
        "--keep-yearly",
    ];
    for rule in rules {
        assert!(parse(&["forget", rule, "0"]).is_ok(), "{rule}");
        assert_eq!(parse(&["forget", ID, rule, "0"]).unwrap_err().exit_code(), 2, "{rule}");
        assert_eq!(parse(&["forget", rule, "0", ID]).unwrap_err().exit_code(), 2, "{rule}");
    }
    assert!(parse(&["forget", ID, "--cluster", "c"]).is_err());
}

#[test]
fn without_a_rule_there_is_no_policy_and_a_rule_of_zero_is_one() {
    let none = forget(&["--cluster", "c"]);
    let zero = forget(&["--minimum", "0"]).policy.unwrap();

    assert_eq!(none.policy, None);
    assert_eq!(serde_json::to_value(&none).unwrap()["cluster"], "c");
    assert_eq!(serde_json::to_string(&zero).unwrap(), r#"{"minimum":0}"#);
}

#[test]
fn each_rule_goes_to_its_own_place() {
    let policy = forget(&[
        "--minimum",
        "1",
        "--maximum",
        "2",
        "--keep-days",
        "3",
        "--keep-last",
        "4",
        "--keep-hourly",
        "5",
        "--keep-daily",
        "6",
        "--keep-weekly",
        "7",
        "--keep-monthly",
        "8",
        "--keep-yearly",
        "9",
    ]);

    let expected = r#"{"minimum":1,"maximum":2,"keep_days":3,"keep_last":4,"keep_hourly":5,"keep_daily":6,"keep_weekly":7,"keep_monthly":8,"keep_yearly":9}"#;
    assert_eq!(serde_json::to_string(&policy.policy.unwrap()).unwrap(), expected);
}

#[test]
fn forgetting_is_done_unless_it_is_planned_and_spares_the_last_unless_told() {
    let plain = forget(&[ID]);
    let all = forget(&["--dry-run", "--even-last", "--accept-clock"]);

    assert_eq!(
        (plain.mode, plain.last_complete, plain.accept_clock),
        (RunMode::Apply, LastComplete::Stays, false)
    );
    assert_eq!((all.mode, all.last_complete, all.accept_clock), (RunMode::Plan, LastComplete::MayGo, true));
}

#[test]
fn collecting_is_done_unless_it_is_planned_or_explained() {
    let plain = gc(&[]);
    let all = gc(&["--dry-run", "--explain", "--now", "--allow-large", "--max-copy", "4GiB"]);

    assert_eq!((plain.mode, plain.delays, plain.large), (RunMode::Apply, Delays::Wait, LargeDelete::Refuse));
    assert_eq!(plain.max_copy_bytes, None);
    assert_eq!((all.mode, all.delays, all.large), (RunMode::Plan, Delays::Skip, LargeDelete::Allow));
    assert_eq!(all.max_copy_bytes, Some(4 << 30));
    assert_eq!([gc(&["--dry-run"]).mode, gc(&["--explain"]).mode], [RunMode::Plan; 2]);
}

#[test]
fn a_size_is_bytes_or_a_number_with_a_suffix_and_may_be_zero() {
    let sizes = ["0", "7", "500MB", "2k"].map(|size| gc(&["--max-copy", size]).max_copy_bytes);

    assert_eq!(sizes, [Some(0), Some(7), Some(500 << 20), Some(2 << 10)]);
}

#[test]
fn what_follows_two_dashes_is_for_the_servers_program() {
    let line = ["rebuild", "--data-dir", "d", "--from-site", "u", "--keyring", "k", "--", "--threads", "4"];

    let Command::Rebuild(rebuild) = parse(&line).unwrap() else { panic!("another command") };

    assert_eq!(rebuild.more, ["--threads", "4"]);
}

/// The help of each command, by its name; commands that only hold others are left out.
fn helps(command: clap::Command, path: &str) -> Vec<(String, String)> {
    let path = format!("{path} {}", command.get_name());
    if command.has_subcommands() {
        return command.get_subcommands().flat_map(|sub| helps(sub.clone(), &path)).collect();
    }
    let help = command.clone().render_long_help().to_string();
    vec![(path, help)]
}

#[test]
fn the_help_of_every_command_tells_of_exit_codes() {
    let helps = helps(Arguments::command(), "");

    assert!(helps.len() >= 14, "{}", helps.len());
    for (command, help) in helps {
        assert!(help.to_lowercase().contains("exit code"), "{command}:\n{help}");
    }
}

/// The words of a command line; those in single quotes are one.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (n, part) in line.split('\'').enumerate() {
        if n % 2 == 1 { words.push(part) } else { words.extend(part.split_whitespace()) }
    }
    words
}

#[test]
fn examples_in_the_help_are_commands_that_can_be_typed() {
    let mut examples = 0;
    for (command, help) in helps(Arguments::command(), "") {
        let Some((_, lines)) = help.split_once("Examples:\n") else { continue };
        for line in lines.lines().map_while(|line| line.strip_prefix("  astacus-admin ")) {
            let line = line.split(['|', '>']).next().unwrap();
            let words = words(line);
            assert!(parse(&words).is_ok(), "{command}: {line}");
            examples += 1;
        }
    }
    assert!(examples >= 20, "{examples} examples: they are no longer found");
}

#[test]
fn numbers_are_refused_in_words_that_say_what_is_expected() {
    for line in [
        &["forget", "--keep-last", "x"][..],
        &["forget", "--keep-days", "5000000000"],
        &["show", ID, "--limit", "1.5"],
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains("expected a whole number, 0 or more"), "{error}");
    }
}
