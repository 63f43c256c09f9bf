use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use format_spec::RepositoryId;
use format_spec::notice::signature;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::settings::{NotifyCommand, Secret, Webhook};
use crate::testing::World;

const HOUR: Duration = Duration::from_secs(60 * 60);
/// How long the kernel may take to end a process.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

fn alarm_of(code: &str, acknowledged: Option<&str>) -> Alarm {
    let word = |reason: &str| format_spec::wire::Acknowledged {
        reason: reason.to_owned(),
        since: String::new(),
        until: None,
    };
    Alarm {
        code: code.to_owned(),
        severity: Severity::Warning,
        subject: None,
        message: "text".to_owned(),
        since: "then".to_owned(),
        acknowledged: acknowledged.map(word),
    }
}

/// Notices for `up`, and the record after all of them were delivered.
fn tell_all(up: &[Alarm], told: &mut BTreeMap<Key, Told>, now_ms: u64) -> Vec<(Event, String)> {
    let news = news(up, told, Some(HOUR), now_ms);
    let mut said = Vec::new();
    for News { event, told: one } in news {
        said.push((event, one.code.clone()));
        let key = (one.code.clone(), one.subject.clone());
        if event == Event::Cleared {
            told.remove(&key)
        } else {
            told.insert(key, one)
        };
    }
    said
}

/// A4: once when it is up, again after a while, once when it is over.
#[test]
fn an_alarm_is_told_once_then_repeated_and_once_more_when_it_is_over() {
    let (up, mut told) = ([alarm_of("a", None)], BTreeMap::new());
    let hour = 3_600_000;
    let said = |event| vec![(event, "a".to_owned())];

    assert_eq!(tell_all(&up, &mut told, 0), said(Event::Raised));
    assert_eq!(tell_all(&up, &mut told, hour - 1), []);
    assert_eq!(tell_all(&up, &mut told, hour), said(Event::Repeated));
    assert_eq!(tell_all(&up, &mut told, hour + 1), []);
    assert_eq!(tell_all(&[], &mut told, hour + 2), said(Event::Cleared));
    assert_eq!(tell_all(&[], &mut told, 9 * hour), []);
}

/// A4: nobody is told again of what somebody knows, but of its end.
#[test]
fn an_acknowledged_alarm_is_not_repeated_and_its_end_is_told() {
    let mut told = BTreeMap::new();
    tell_all(&[alarm_of("a", None)], &mut told, 0);
    let known = [alarm_of("a", Some("known")), alarm_of("b", Some("known at once"))];

    assert_eq!(tell_all(&known, &mut told, 100 * 3_600_000), []);
    assert_eq!(tell_all(&[], &mut told, 100 * 3_600_000), [(Event::Cleared, "a".to_owned())]);
}

fn notice_of(message: &str) -> Notice {
    Notice {
        event: Event::Raised,
        code: "low_space".to_owned(),
        severity: Severity::Critical,
        subject: Some("here".to_owned()),
        message: message.to_owned(),
        since: "then".to_owned(),
        at: "now".to_owned(),
        repository: RepositoryId::from_bytes([1; 16]),
    }
}

fn shell(script: &str) -> NotifyCommand {
    NotifyCommand { program: "sh".to_owned(), arguments: vec!["-c".to_owned(), script.to_owned()] }
}

#[tokio::test]
async fn a_command_gets_the_alarm_on_standard_input_and_in_its_environment() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let script =
        format!("cat > {0}; echo $ASTACUS_EVENT $ASTACUS_ALARM $ASTACUS_SEVERITY >> {0}", out.display());

    command::run(&shell(&script), LONG, &notice_of("text")).await.unwrap();

    let text = std::fs::read_to_string(&out).unwrap();
    let (json, words) = text.split_once('\n').unwrap();
    assert_eq!(serde_json::from_str::<Notice>(json).unwrap(), notice_of("text"));
    assert_eq!(words, "raised low_space critical\n");
}

#[tokio::test]
async fn a_command_that_fails_or_is_not_there_has_not_delivered() {
    let failed = command::run(&shell("echo why >&2; exit 3"), LONG, &notice_of("text")).await.unwrap_err();
    assert!(failed.to_string().contains("why"), "{failed}");
    let missing = NotifyCommand { program: "/no/such/program".to_owned(), arguments: Vec::new() };
    let failed = command::run(&missing, LONG, &notice_of("text")).await.unwrap_err();
    assert!(matches!(failed, Undelivered::Io { .. }), "{failed}");
}

/// A5: a program that does not end, and all that it started, is killed.
#[tokio::test]
async fn a_command_that_does_not_end_is_killed_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pids.display());

    let started = async {
        while !pids.exists() {
            tokio::task::yield_now().await;
        }
    };
    let (command, notice) = (shell(&script), notice_of("x"));
    let failed = command::run_until(&command, HOUR, started, &notice).await.unwrap_err();

    assert!(matches!(failed, Undelivered::TooLong { .. }), "{failed}");
    let started = std::fs::read_to_string(&pids).unwrap();
    let is_gone = || {
        let stat = std::fs::read_to_string(Path::new("/proc").join(started.trim()).join("stat"));
        stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
    };
    let gone = async {
        while !is_gone() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

/// Reads one request whole, and answers it.
async fn answer(listener: &TcpListener, line: &str) -> (String, String) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut text = Vec::new();
    loop {
        stream.read_buf(&mut text).await.unwrap();
        let request = String::from_utf8(text.clone()).unwrap();
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if body.len() == len.parse::<usize>().unwrap() {
            stream
                .write_all(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").as_bytes())
                .await
                .unwrap();
            return (head.to_owned(), body.to_owned());
        }
    }
}

async fn listener() -> (TcpListener, Webhook) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let secret = Secret(b"a secret of sixteen".to_vec());
    (listener, Webhook { authority, path: "/hook?to=me".to_owned(), secret })
}

#[tokio::test]
async fn a_webhook_is_signed_and_delivered_by_an_answer_of_success() {
    let (listener, webhook) = listener().await;
    let sent = notice_of("text \u{e9}");
    let post = webhook::post(&webhook, LONG, &sent, 1_700_000_000);

    let (posted, (head, body)) = tokio::join!(post, answer(&listener, "204 No Content"));

    posted.unwrap();
    assert_eq!(serde_json::from_str::<Notice>(&body).unwrap(), sent);
    let expected = signature(b"a secret of sixteen", 1_700_000_000, body.as_bytes());
    assert!(head.starts_with("POST /hook?to=me HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nAstacus-Timestamp: 1700000000\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nAstacus-Signature: {expected}\r\n")), "{head}");
}

#[tokio::test]
async fn a_webhook_that_refuses_or_says_nothing_has_not_delivered() {
    let (listener, webhook) = listener().await;
    let sent = notice_of("text");
    let (refused, _) =
        tokio::join!(webhook::post(&webhook, LONG, &sent, 0), answer(&listener, "503 Service Unavailable"));
    assert!(refused.unwrap_err().to_string().contains("503"));

    let silent = webhook::post(&webhook, Duration::from_millis(50), &sent, 0).await.unwrap_err();
    assert!(matches!(silent, Undelivered::TooLong { .. }), "{silent}");
    drop(listener);
    let away = webhook::post(&webhook, LONG, &sent, 0).await.unwrap_err();
    assert!(matches!(away, Undelivered::Io { .. }), "{away}");
}

fn configure(world: &World, script: &Path) {
    let command = NotifyCommand { program: script.to_str().unwrap().to_owned(), arguments: Vec::new() };
    let notify = Notify { command: Some(command), within: LONG, ..Notify::default() };
    world.server.choose(Choices { notify, ..Choices::default() });
}

fn write_script(path: &Path, text: &str) {
    // Written under another name and renamed, because a file that is open for writing cannot be run.
    let new = path.with_extension("new");
    std::fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o700)).unwrap();
    rustix::fs::rename(&new, path).unwrap();
}

/// A4: what was raised before a crash is told after it, what was told is not, and a failure is paused after, shown, and
/// over with the next delivery.
#[test]
fn a_failing_channel_is_shown_and_paused_and_a_restart_tells_what_was_not_told() {
    let mut world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (script, log) = (folder.path().join("tell"), folder.path().join("log"));
    write_script(&script, &format!("echo $ASTACUS_EVENT $ASTACUS_ALARM >> {}; exit 1", log.display()));
    configure(&world, &script);
    alarm::raise(&world.store, AlarmCode::LargeDelete, "much").unwrap();
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    let codes = |world: &World| {
        let alarms = crate::health::alarms(&world.store).unwrap();
        alarms.into_iter().map(|alarm| alarm.code).collect::<Vec<_>>()
    };
    let mut teller = Teller::new(Channel::Command);
    let round = |world: &World, teller: &mut Teller| {
        world.wait(teller.round(&world.server)).unwrap();
    };

    for _ in 0..3 {
        round(&world, &mut teller);
    }
    assert_eq!(told(), "raised large_delete\n", "it is tried once, and then paused");
    assert_eq!(codes(&world), ["large_delete", "notify_failing"]);
    world.clock.advance(FIRST_PAUSE);
    round(&world, &mut teller);
    world.clock.advance(FIRST_PAUSE);
    round(&world, &mut teller);
    assert_eq!(told().lines().count(), 2, "the second pause is longer");

    world.crash();
    configure(&world, &script);
    write_script(&script, &format!("echo $ASTACUS_EVENT $ASTACUS_ALARM >> {}", log.display()));
    std::fs::remove_file(&log).unwrap();
    let mut teller = Teller::new(Channel::Command);
    for _ in 0..2 {
        round(&world, &mut teller);
    }
    assert_eq!(told(), "raised large_delete\n");
    assert_eq!(codes(&world), ["large_delete"]);

    world.crash();
    configure(&world, &script);
    alarm::clear(&world.store, AlarmCode::LargeDelete).unwrap();
    let mut teller = Teller::new(Channel::Command);
    for _ in 0..2 {
        round(&world, &mut teller);
    }
    assert_eq!(told(), "raised large_delete\ncleared large_delete\n");
}
