use super::*;

#[test]
fn an_empty_file_is_the_default_and_an_unknown_key_is_an_error() {
    assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    assert!(toml::from_str::<Config>("lisen = '127.0.0.1:1'").is_err());
    assert!(toml::from_str::<Config>("[index]\nengine = 'rocks'").is_err());
    let sled: Config = toml::from_str("[index]\nengine = 'sled'").unwrap();
    assert_eq!(sled.index.engine, Engine::Sled);
}

#[test]
fn chunk_lengths_are_checked() {
    let spec = |min_kib, avg_kib, max_kib| ChunkerConfig { min_kib, avg_kib, max_kib }.spec();

    assert!(spec(64, 256, 1024).is_ok());
    for (min, avg, max) in [(0, 1, 2), (64, 64, 128), (64, 256, 256), (3, 8, 16), (64, 256, 32 << 10)] {
        assert!(spec(min, avg, max).is_err(), "{min} {avg} {max}");
    }
}

fn settings(text: &str) -> Result<Settings, ConfigError> {
    toml::from_str::<Config>(text).unwrap().settings()
}

/// The example in the documentation of every key.
fn documented() -> &'static str {
    let page = include_str!("../../../docs/configuration.md");
    let (_, example) = page.split_once("```toml\n").unwrap();
    example.split_once("```").unwrap().0
}

/// The example with the keys that are commented out, as their default depends on the disk or is nothing.
fn documented_in_full() -> String {
    let shown = |line: &'static str| match line.strip_prefix("# ") {
        Some(key) if key.contains(" = ") || key.starts_with('[') => key,
        _ => line,
    };
    documented().lines().map(shown).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_documented_example_is_the_default() {
    let example: Config = toml::from_str(documented()).unwrap();

    let default = Config { chunker: Some(ChunkerConfig::default()), ..Config::default() };
    assert_eq!(example.settings().unwrap(), default.settings().unwrap());
    assert_eq!(example.listen(None), Config::DEFAULT_LISTEN);
}

/// The error for an unknown key names all that there are.
#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let full = documented_in_full().replace("/etc/astacus/webhook.secret", secret.to_str().unwrap());
    toml::from_str::<Config>(&full).unwrap().settings().unwrap();
    let example: toml::Table = full.parse().unwrap();
    let place = |section: &str| section.split('.').fold(&example, |at, name| at[name].as_table().unwrap());

    let policies = ["retention", "retention.clusters.metrics"];
    for section in ["tls", "index", "chunker", "site", "space", "limits", "gc", "freshness", "notify", "log"]
        .into_iter()
        .chain(policies)
    {
        let keys = if policies.contains(&section) {
            known_keys(&toml::from_str::<RetentionPolicy>("nobody = 1").unwrap_err())
        } else {
            known_keys(&toml::from_str::<Config>(&format!("[{section}]\nnobody = 1")).unwrap_err())
        };
        let shown = place(section);
        // One cluster's example need not repeat every key.
        if section != "retention.clusters.metrics" {
            let missing: Vec<&String> = keys.iter().filter(|key| !shown.contains_key(*key)).collect();
            assert!(missing.is_empty(), "[{section}] lacks {missing:?}");
        }
        assert!(!keys.is_empty() && !shown.is_empty(), "[{section}]");
    }
    let mut expect = example["freshness"]["expect"][0].as_table().unwrap().clone();
    expect.insert("nobody".to_owned(), 1.into());
    let keys = known_keys(&expect.try_into::<ExpectConfig>().unwrap_err());
    assert!(keys.iter().all(|key| example["freshness"]["expect"][0].get(key).is_some()), "{keys:?}");
    let top = known_keys(&toml::from_str::<Config>("nobody = 1").unwrap_err());
    assert!(top.iter().all(|key| example.contains_key(key)), "{top:?}");
}

/// `unknown field `nobody`, expected one of `a`, `b``.
fn known_keys(error: &toml::de::Error) -> Vec<String> {
    let (_, expected) = error.message().split_once("expected ").unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn unknown_keys_are_refused_in_every_section() {
    for text in [
        "[space]\nbalast_mib = 1",
        "[gc]\nevery = 1",
        "[retention]\nkeep_minutely = 1",
        "[retention.clusters.c]\nkeep_minutely = 1",
        "[retention.clusters.\"no name\"]\nkeep_last = 1",
    ] {
        assert!(toml::from_str::<Config>(text).is_err(), "{text}");
    }
}

#[test]
fn amounts_come_with_their_units() {
    let settings = settings(
        "[space]\nballast_mib = 3\nrefuse_below_mib = 0\n\
         [gc]\nevery_minutes = 0\nundelete_hours = 2\ndelete_delay_hours = 0\nmax_copy_mib = 5\ndaily_floor_mib = 7\n",
    )
    .unwrap();

    assert_eq!(settings.space.ballast, Amount::Bytes(3 << 20));
    assert_eq!(settings.space.refuse_below, Amount::Bytes(0));
    let gc = settings.upkeep.gc;
    assert_eq!((gc.every, gc.undelete, gc.delete_delay), (None, Duration::from_secs(7200), Duration::ZERO));
    assert_eq!((gc.max_copy_bytes, gc.daily_floor_bytes), (5 << 20, 7 << 20));
    let default = Upkeep::default().gc;
    assert_eq!(default.every, Some(Duration::from_secs(3600)));
    assert_eq!(default.repack_below.of(200), 100);
}

#[test]
fn a_percentage_over_a_hundred_is_refused_by_name() {
    for key in ["repack_below", "max_daily_percent"] {
        assert!(settings(&format!("[gc]\n{key} = 100")).is_ok());

        let refused = settings(&format!("[gc]\n{key} = 101")).unwrap_err().to_string();

        assert_eq!(refused, format!("gc.{key} = 101: must be a percentage from 0 to 100"));
    }
}

#[test]
fn a_policy_that_contradicts_itself_is_refused_by_its_section() {
    let section = |text: &str| match settings(text) {
        Err(ConfigError::Policy { section, .. }) => section,
        other => panic!("{other:?}"),
    };

    assert_eq!(section("[retention]\nminimum = 4\nmaximum = 3"), "retention");
    assert_eq!(section("[retention.clusters.c]\nmaximum = 2"), "retention.clusters.c");
    let fine = settings("[retention]\nkeep_daily = 7\n[retention.clusters.c]\nmaximum = 5").unwrap();
    let retention = fine.choices.retention;
    assert_eq!(retention.default.keep_daily, Some(7));
    assert_eq!(retention.policy(&"c".parse().unwrap()).maximum, Some(5));
    assert_eq!(retention.policy(&"c".parse().unwrap()).keep_daily, None);
}

#[test]
fn what_cannot_reach_people_is_refused_at_the_start() {
    let refused = |text: &str| settings(text).unwrap_err();
    assert!(matches!(refused("[notify]\ncommand = []"), ConfigError::NoProgram));
    let webhook =
        |url: &str| refused(&format!("[notify]\nwebhook = {{ url = '{url}', secret_file = '/x' }}"));
    for url in ["https://127.0.0.1/", "http://192.0.2.1/", "127.0.0.1:80", "http://127.0.0.1/a b"] {
        assert!(matches!(webhook(url), ConfigError::WebhookUrl { .. }), "{url}");
    }
    assert!(matches!(webhook("http://127.0.0.1/a"), ConfigError::Read { .. }), "there is no secret");
    let no_age = "[[freshness.expect]]\ncluster = 'c'\nmax_age_hours = 0";
    assert!(matches!(refused(no_age), ConfigError::NoAge { .. }));
}

#[test]
fn only_some_sections_may_change_while_the_server_runs() {
    let config = |text: &str| toml::from_str::<Config>(text).unwrap();
    let same = |one: &str, other: &str| config(one).without_choices() == config(other).without_choices();

    let choices = "[retention]\nkeep_last = 9\n[freshness]\nmax_age_hours = 2\n[notify]\ncommand = ['true']";
    assert!(same("", choices));
    assert!(!same("", "[gc]\nevery_minutes = 1") && !same("", "[log]\nformat = 'json'"));
}
