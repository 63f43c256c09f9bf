//! Jobs: pushes that a configuration file describes, with the names of the flags as keys.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::Value;

use crate::cli::flags::{Flag, word};
use crate::cli::push::PushArguments;
use crate::config::Config;
use crate::error::ClientError;
use crate::show::{Show, columns};

/// Keys of a job that are no flags of a push, or have another name than the flag.
const KEYS: [&str; 5] = ["roots", "stdin", "command", "program", "schedule"];

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
    /// The job of this name.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], with the jobs that there are; [`ClientError::Usage`], naming file, job and key, if a
    /// key is unknown or its value cannot be.
    pub fn find(config: &Config, name: &str) -> Result<Self, ClientError> {
        let (file, keys) = config.job(name)?;
        Self::read(name, file, keys)
    }

    /// All jobs by name; one in the user's file hides one of the same name in the machine's.
    ///
    /// # Errors
    /// The errors of [`find`](Self::find), for the first that cannot be used.
    pub fn all(config: &Config) -> Result<Vec<Self>, ClientError> {
        config.job_names().into_iter().map(|name| Self::find(config, name)).collect()
    }

    /// The job `name` that `file` describes with `keys`.
    ///
    /// # Errors
    /// [`ClientError::Usage`], naming file, job and key.
    fn read(name: &str, file: &Path, keys: &toml::Table) -> Result<Self, ClientError> {
        let bad = |why: String| ClientError::Usage(format!("`{}`: job `{name}`: {why}", file.display()));
        let mut push = PushArguments::default();
        let mut schedule = None;
        for (key, value) in keys {
            let set = match key.as_str() {
                "schedule" => Flag::read(value).map(|text| schedule = text),
                key => set(&mut push, key, value),
            };
            set.map_err(|why| bad(format!("`{key}`: {why}")))?;
        }
        check(&mut push).map_err(bad)?;
        let (name, file, keys) = (name.to_owned(), file.to_owned(), keys.clone());
        Ok(Self { name, file, schedule, keys, push })
    }

    /// Its folders, or its stream.
    fn sources(&self) -> String {
        match (&self.push.source.stdin, &self.push.source.command) {
            (Some(name), _) | (None, Some(name)) => format!("stream:{name}"),
            (None, None) => self
                .push
                .source
                .paths
                .iter()
                .map(|root| root.display().to_string())
                .collect::<Vec<_>>()
                .join(","),
        }
    }
}

/// Checks that no single key can make: there is something to push, and of one kind.
fn check(push: &mut PushArguments) -> Result<(), String> {
    match (&push.source.stdin, &push.source.command) {
        (Some(_), Some(_)) => Err("`stdin` and `command` exclude each other".to_owned()),
        (Some(_), None) if !push.source.paths.is_empty() => {
            Err("`stdin` excludes `roots` and `program`".to_owned())
        }
        (Some(_), None) => Ok(()),
        (None, Some(_)) if push.source.paths.is_empty() => {
            Err("`command` needs `program`: a list of words".to_owned())
        }
        (None, Some(_)) => Ok(()),
        (None, None) if push.source.paths.is_empty() => {
            Err("`roots` is missing: a list of folders".to_owned())
        }
        (None, None) => check_paths(push),
    }
}

/// A job runs in whatever folder it is started in.
fn check_paths(push: &mut PushArguments) -> Result<(), String> {
    let roots = push.source.paths.clone();
    let flags = push.groups().into_iter().flat_map(|group| group.flags());
    for (key, paths) in [("roots".to_owned(), &*roots)].into_iter().chain(flags) {
        if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
            return Err(format!("`{key}`: `{}` is not an absolute path", path.display()));
        }
    }
    Ok(())
}

fn set(push: &mut PushArguments, key: &str, value: &Value) -> Result<(), String> {
    match key {
        "roots" | "program" => push.source.paths = Flag::read(value)?,
        "stdin" => push.source.stdin = Some(word(value)?),
        "command" => push.source.command = Some(word(value)?),
        key => {
            let set = push.groups().into_iter().find_map(|group| group.set(key, value));
            return set.unwrap_or_else(|| Err(format!("no such key; keys of a job are: {}", keys())));
        }
    }
    Ok(())
}

/// All keys of a job.
fn keys() -> String {
    let mut push = PushArguments::default();
    let mut keys = KEYS.map(str::to_owned).to_vec();
    for group in push.groups() {
        keys.extend(group.flags().into_iter().map(|(key, _)| key));
    }
    keys.join(", ")
}

impl Show for Vec<Job> {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = ["JOB", "SCHEDULE", "FOLDERS", "SERIES", "FILE"].map(str::to_owned);
        let row = |job: &Job| {
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let series = or_none(job.push.terms.series.as_ref().map(ToString::to_string));
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
    use crate::cli::push::{
        ChoiceArguments, EffortArguments, Freezing, Level, RehashArguments, Share, TermsArguments,
    };
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
        assert_eq!(push.source.paths, [Path::new("/etc"), Path::new("/srv")]);
        assert_eq!((push.effort.level, push.again.rehash_every), (Some(Level(3)), Some(10)));
        assert_eq!(push.keeping.class[0].class, Class::Immutable);
        let switches = [
            push.mounts.one_file_system,
            push.keeping.no_state,
            push.keeping.ignore_device,
            push.keeping.ignore_inode,
        ];
        assert_eq!(switches, [true; 4]);
        assert!(push.choice.exclude_caches && push.choice.exclude_larger_than.is_some());
        let lists = [
            push.choice.exclude_file.len(),
            push.choice.exclude_if_present.len(),
            push.choice.files_from.len(),
            push.choice.files_from0.len(),
        ];
        assert_eq!(lists, [1, 1, 1, 0]);
        assert_eq!([push.keeping.require_freeze, push.keeping.strict, push.background.idle_io], [true; 3]);
        assert_eq!(push.keeping.freeze, Some(Freezing::Hardlink));
        assert!(
            push.effort.jobs.is_some() && push.keeping.freeze_dir.is_some() && push.terms.max_rate.is_some()
        );
        assert!(
            push.background.nice.is_some() && push.terms.note.is_some() && push.keeping.class_set.len() == 1
        );
        assert_eq!(push.terms.series.as_ref().map(|name| name.as_str()), Some("settings"));
        for key in keys().split(", ").filter(|key| !["stdin", "command", "program", "rehash"].contains(key)) {
            assert!(job.keys.contains_key(key), "{key} is not tried here");
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
            effort: EffortArguments { level: Some(Level(9)), jobs: None },
            choice: ChoiceArguments { exclude: vec!["*.log".to_owned()], ..ChoiceArguments::default() },
            terms: TermsArguments { label: vec!["env=test".parse().unwrap()], ..TermsArguments::default() },
            again: RehashArguments { rehash: Some(Share(1.0)), rehash_every: None },
            ..PushArguments::default()
        };

        let both = line.or(&job.push);

        assert_eq!(
            (both.effort.level, both.choice.exclude),
            (Some(Level(9)), vec!["*.tmp".to_owned(), "*.log".to_owned()])
        );
        let labels: Vec<&str> = both.terms.label.iter().map(|label| label.value.as_str()).collect();
        assert_eq!(labels, ["prod", "test"], "the last of a key counts");
        assert_eq!((both.again.rehash, both.again.rehash_every), (Some(Share(1.0)), None));
        assert_eq!(both.terms.series, job.push.terms.series);
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
