//! Jobs: pushes that a configuration file describes, with the names of the flags as keys.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use serde::Serialize;
use toml::Value;

use crate::cli::{Freezing, PushArguments, percent};
use crate::error::ClientError;
use crate::show::{Show, columns};

/// Keys of a job.
const KEYS: &str = "roots, stdin, command, program, schedule, exclude, exclude-file, \
                    exclude-if-present, exclude-caches, exclude-larger-than, files-from, files-from0, one-file-system, level, jobs, no-state, freeze, \
                    freeze-dir, ignore-device, ignore-inode, require-freeze, strict, class, class-set, rehash, \
                    rehash-every, max-rate, series, label, note, nice, idle-io";

/// One job.
#[derive(Debug, Serialize)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// The file that describes it.
    pub file: PathBuf,
    /// When it is meant to run, for people and for whatever starts it: nothing here does.
    pub schedule: Option<String>,
    /// All its keys, as they stand in the file.
    pub keys: toml::Table,
    /// The same as flags.
    #[serde(skip)]
    pub push: PushArguments,
}

impl Job {
    /// The job `name` that `file` describes with `keys`.
    ///
    /// # Errors
    /// [`ClientError::Usage`], naming file, job and key.
    pub(crate) fn read(name: &str, file: &Path, keys: &toml::Table) -> Result<Self, ClientError> {
        let bad = |why: String| ClientError::Usage(format!("`{}`: job `{name}`: {why}", file.display()));
        let mut push = PushArguments::default();
        let mut schedule = None;
        for (key, value) in keys {
            let set = match key.as_str() {
                "schedule" => one(value).map(|text| schedule = text),
                key => set(&mut push, key, value),
            };
            set.map_err(|why| bad(format!("`{key}`: {why}")))?;
        }
        check(&push).map_err(bad)?;
        let (name, file, keys) = (name.to_owned(), file.to_owned(), keys.clone());
        Ok(Self { name, file, schedule, keys, push })
    }

    /// Its folders, or its stream.
    fn sources(&self) -> String {
        match (&self.push.stdin, &self.push.command) {
            (Some(name), _) | (None, Some(name)) => format!("stream:{name}"),
            (None, None) => {
                self.push.paths.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(",")
            }
        }
    }
}

/// What no single key can say: there is something to push, and of one kind.
fn check(push: &PushArguments) -> Result<(), String> {
    match (&push.stdin, &push.command) {
        (Some(_), Some(_)) => Err("`stdin` and `command` exclude each other".to_owned()),
        (Some(_), None) if !push.paths.is_empty() => Err("`stdin` excludes `roots` and `program`".to_owned()),
        (Some(_), None) => Ok(()),
        (None, Some(_)) if push.paths.is_empty() => {
            Err("`command` needs `program`: a list of words".to_owned())
        }
        (None, Some(_)) => Ok(()),
        (None, None) if push.paths.is_empty() => Err("`roots` is missing: a list of folders".to_owned()),
        (None, None) => check_paths(push),
    }
}

/// A job runs in whatever folder it is started in.
fn check_paths(push: &PushArguments) -> Result<(), String> {
    let freeze_dir: Vec<PathBuf> = push.freeze_dir.iter().cloned().collect();
    let keys = [
        ("roots", &push.paths),
        ("exclude-file", &push.exclude_file),
        ("files-from", &push.files_from),
        ("files-from0", &push.files_from0),
        ("freeze-dir", &freeze_dir),
    ];
    for (key, paths) in keys {
        if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
            return Err(format!("`{key}`: `{}` is not an absolute path", path.display()));
        }
    }
    Ok(())
}

fn set(push: &mut PushArguments, key: &str, value: &Value) -> Result<(), String> {
    match key {
        "roots" | "program" => push.paths = list(value)?,
        "stdin" => push.stdin = one(value)?,
        "command" => push.command = one(value)?,
        "exclude" => push.exclude = list(value)?,
        "exclude-file" => push.exclude_file = list(value)?,
        "exclude-if-present" => push.exclude_if_present = list(value)?,
        "exclude-caches" => push.exclude_caches = switch(value)?,
        "exclude-larger-than" => push.exclude_larger_than = one(value)?,
        "files-from" => push.files_from = list(value)?,
        "files-from0" => push.files_from0 = list(value)?,
        "one-file-system" => push.one_file_system = switch(value)?,
        "level" => push.level = one(value)?.map(level).transpose()?,
        "jobs" => push.jobs = one(value)?,
        "no-state" => push.no_state = switch(value)?,
        "freeze" => {
            push.freeze = one::<String>(value)?.map(|mode| Freezing::from_str(&mode, false)).transpose()?
        }
        "freeze-dir" => push.freeze_dir = one(value)?,
        "ignore-device" => push.ignore_device = switch(value)?,
        "ignore-inode" => push.ignore_inode = switch(value)?,
        "require-freeze" => push.require_freeze = switch(value)?,
        "strict" => push.strict = switch(value)?,
        "class" => push.classes = list(value)?,
        "class-set" => push.class_sets = list(value)?,
        "rehash" => push.rehash = one::<String>(value)?.map(|share| percent(&share)).transpose()?,
        "rehash-every" => push.rehash_every = one(value)?,
        "max-rate" => push.max_rate = one(value)?,
        "series" => push.series = one(value)?,
        "label" => push.labels = list(value)?,
        "note" => push.note = one(value)?,
        "nice" => push.nice = one(value)?,
        "idle-io" => push.idle_io = switch(value)?,
        _ => return Err(format!("no such key; keys of a job are: {KEYS}")),
    }
    Ok(())
}

fn level(level: i32) -> Result<i32, String> {
    if (1..=19).contains(&level) { Ok(level) } else { Err("expected a number from 1 to 19".to_owned()) }
}

/// The value of a text or of a number.
fn one<T: FromStr<Err: ToString>>(value: &Value) -> Result<Option<T>, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        _ => return Err("expected a text or a number".to_owned()),
    };
    text.parse().map(Some).map_err(|error: T::Err| error.to_string())
}

/// The values of a list of texts, or of one text.
fn list<T: FromStr<Err: ToString>>(value: &Value) -> Result<Vec<T>, String> {
    let texts = match value {
        Value::String(_) => std::slice::from_ref(value),
        Value::Array(texts) if texts.iter().all(Value::is_str) => texts,
        _ => return Err("expected a list of texts".to_owned()),
    };
    texts.iter().filter_map(|text| one(text).transpose()).collect()
}

fn switch(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "expected true or false".to_owned())
}

impl Show for Vec<Job> {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = ["JOB", "SCHEDULE", "FOLDERS", "SERIES", "FILE"].map(str::to_owned);
        let row = |job: &Job| {
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let series = or_none(job.push.series.as_ref().map(ToString::to_string));
            let file = job.file.display().to_string();
            [job.name.clone(), or_none(job.schedule.clone()), job.sources(), series, file]
        };
        columns(out, &std::iter::once(head).chain(self.iter().map(row)).collect::<Vec<_>>())
    }

    fn is_news(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::Class;

    fn job(text: &str) -> Result<Job, ClientError> {
        Job::read("etc", Path::new("/etc/astacus/client.toml"), &text.parse().unwrap())
    }

    /// Each key of a job has a value here that differs from the default.
    const FULL: &str = r#"
        roots = ["/etc", "/srv"]
        schedule = "each night at 2"
        exclude = ["*.tmp"]
        exclude-file = "/etc/astacus/excludes"
        exclude-if-present = [".nobackup"]
        exclude-caches = true
        exclude-larger-than = "1G"
        files-from = "/etc/astacus/files"
        files-from0 = []
        one-file-system = true
        level = 3
        jobs = 2
        no-state = true
        freeze = "hardlink"
        freeze-dir = "/srv/frozen"
        ignore-device = true
        ignore-inode = true
        require-freeze = true
        strict = true
        class = ["immutable=*.sst"]
        class-set = ["logs"]
        rehash-every = 10
        max-rate = "10M"
        series = "settings"
        label = ["env=prod"]
        note = "by cron"
        nice = 5
        idle-io = true
    "#;

    #[test]
    fn a_job_sets_what_the_flags_of_its_keys_set() {
        let job = job(FULL).unwrap();

        let push = &job.push;
        assert_eq!(job.schedule.as_deref(), Some("each night at 2"));
        assert_eq!(push.paths, [Path::new("/etc"), Path::new("/srv")]);
        assert_eq!((push.level, push.rehash_every), (Some(3), Some(10)));
        assert_eq!(push.classes[0].class, Class::Immutable);
        let switches = [push.one_file_system, push.no_state, push.ignore_device, push.ignore_inode];
        assert_eq!(switches, [true; 4]);
        assert!(push.exclude_caches && push.exclude_larger_than.is_some() && push.files_from0.is_empty());
        let lists = [push.exclude_file.len(), push.exclude_if_present.len(), push.files_from.len()];
        assert_eq!(lists, [1; 3]);
        assert_eq!([push.require_freeze, push.strict, push.idle_io], [true; 3]);
        assert_eq!(push.freeze, Some(Freezing::Hardlink));
        assert!(push.jobs.is_some() && push.freeze_dir.is_some() && push.max_rate.is_some());
        assert!(push.nice.is_some() && push.note.is_some() && push.class_sets.len() == 1);
        assert_eq!(push.series.as_ref().map(|name| name.as_str()), Some("settings"));
        for key in job.keys.keys() {
            assert!(KEYS.contains(key.as_str()), "{key} is not in the list of keys");
        }
    }

    #[test]
    fn what_a_job_cannot_mean_is_refused_with_file_job_and_key() {
        for (text, named) in [
            ("roots = ['/etc']\nexcludes = ['a']", "`excludes`: no such key"),
            ("roots = ['etc']", "`etc` is not an absolute path"),
            ("roots = ['/etc']\nfiles-from = '-'", "`files-from`: `-` is not an absolute path"),
            ("exclude = ['a']", "`roots` is missing"),
            ("roots = ['/etc']\nlevel = 20", "`level`: expected a number from 1 to 19"),
            ("roots = ['/etc']\nlevel = 'fast'", "`level`"),
            ("roots = ['/etc']\nclass = ['new=*']", "`class`"),
            ("roots = ['/etc']\nclass-set = ['oracle']", "`class-set`"),
            ("roots = ['/etc']\nstrict = 1", "`strict`: expected true or false"),
            ("roots = ['/etc']\nlabel = ['release']", "`label`"),
            ("roots = [1]", "`roots`: expected a list of texts"),
            ("command = 'dump.sql'", "`command` needs `program`"),
            ("stdin = 'a'\ncommand = 'b'", "`stdin` and `command`"),
            ("stdin = 'a/b'", "`stdin`: expected the name of one file"),
        ] {
            let error = job(text).unwrap_err();

            assert_eq!(error.exit_code(), 2, "{text}");
            for part in ["/etc/astacus/client.toml", "job `etc`", named] {
                assert!(error.to_string().contains(part), "{text}: {error}");
            }
        }
    }

    #[test]
    fn the_command_line_is_stronger_than_a_job_and_adds_to_its_lists() {
        let job = job(FULL).unwrap();
        let line = PushArguments {
            level: Some(9),
            exclude: vec!["*.log".to_owned()],
            labels: vec!["env=test".parse().unwrap()],
            rehash: Some(1.0),
            ..PushArguments::default()
        };

        let both = line.or(&job.push);

        assert_eq!((both.level, both.exclude), (Some(9), vec!["*.tmp".to_owned(), "*.log".to_owned()]));
        let labels: Vec<&str> = both.labels.iter().map(|label| label.value.as_str()).collect();
        assert_eq!(labels, ["prod", "test"], "the last of a key counts");
        assert_eq!((both.rehash, both.rehash_every), (Some(1.0), None));
        assert_eq!(both.series, job.push.series);
    }

    #[test]
    fn jobs_are_listed_with_their_schedule_and_folders() {
        let jobs = vec![job(FULL).unwrap(), job("command = 'db.sql'\nprogram = ['pg_dump', 'db']").unwrap()];
        let mut text = Vec::new();

        jobs.text(&mut text).unwrap();

        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("each night at 2  /etc,/srv      settings"), "{text}");
        assert!(lines[2].contains("stream:db.sql"), "{text}");
        let json = serde_json::to_value(&jobs).unwrap();
        assert_eq!(
            (&json[0]["keys"]["level"], &json[1]["keys"]["program"][0]),
            (&3.into(), &"pg_dump".into())
        );
    }
}
