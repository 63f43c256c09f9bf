//! Runs what the command line asks for.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use clap::CommandFactory;
use format_spec::invite::{MAX_INVITE_LEN, ParseInviteError};
use format_spec::snapshot::SnapshotState;
use format_spec::{ClusterName, ErrorClass, Invite};
use rustix::process::Resource;
use tokio::runtime::Runtime;

use crate::api::{Api, Retry, network, wait};
use crate::bar::Bar;
use crate::cancel::Cancel;
use crate::cli::push::PushArguments;
use crate::cli::restore::{RestoreArguments, VerifyArguments};
use crate::cli::{Arguments, Command, EnrollArguments, ListArguments, TidyArguments};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::credentials::Credentials;
use crate::enrol::{self, Enrolment, Existing, Renewal};
use crate::error::{ClientError, EXIT_PARTIAL, chain};
use crate::jobs::Job;
use crate::list::{Listed, Wanted, choose};
use crate::output::{Output, ProgressArguments};
use crate::progress::Phase;
use crate::show::{show, show_aside, write_out};
use crate::signals::{on_interrupt, outlive_user_signals};
use crate::{push, restore};

/// Runs it, and returns the exit code of a command that did its work.
///
/// # Errors
/// [`restore::Ended`]: nothing was shown on standard output then, or not all of it.
pub fn run(arguments: &Arguments) -> Result<u8, restore::Ended> {
    let done = match &arguments.command {
        Command::Restore(wanted) => return Client::new(arguments, config(arguments)?)?.restore(wanted),
        Command::Completion { shell } => {
            let script = completion(*shell, Arguments::command(), "astacus-client");
            write_out(|out| out.write_all(script.as_bytes())).map(|()| 0)
        }
        Command::Man { dir } => manual(dir),
        Command::Tidy(tidy) => tidied(tidy, arguments.output),
        Command::Jobs => listed_jobs(arguments),
        Command::Enroll(enroll) => enrolled(enroll, arguments),
        Command::Push(push) => pushed(push, arguments),
        Command::Verify(verify) => Client::new(arguments, config(arguments)?)?.verify(verify),
        Command::List(list) => Client::new(arguments, config(arguments)?)?.list(list),
    };
    Ok(done?)
}

fn listed_jobs(arguments: &Arguments) -> Result<u8, ClientError> {
    show(&Job::all(&config(arguments)?)?, arguments.output).map(|()| 0)
}

/// Enrols this machine.
fn enrolled(enroll: &EnrollArguments, arguments: &Arguments) -> Result<u8, ClientError> {
    let invite = invitation(enroll)?;
    let named = arguments.connection.node.clone();
    let node = match (named, &invite.node) {
        (Some(node), _) => Some(node),
        (None, Some(_)) => None,
        (None, None) => Some(host().parse().map_err(|error| {
            ClientError::Usage(format!(
                "the host name is not a valid node name: {error}; choose a name with --node"
            ))
        })?),
    };
    let existing = if enroll.force { Existing::Replace } else { Existing::Keep };
    let config = enroll.config.clone().or_else(|| crate::config::own_file(&env)).ok_or_else(|| {
        ClientError::Usage("neither HOME nor XDG_CONFIG_HOME is set: choose a file with --config".to_owned())
    })?;
    let runtime = network()?;
    outlive_user_signals(runtime.handle()).map_err(no_signals)?;
    let retry = Retry { silence: Some(SILENCE), ..Retry::asked(arguments.connection.retry_for) };
    let report = wait(runtime.handle(), enrol::enrol(&Enrolment { invite, node, config, existing }, retry))?;
    let done = || format!("this machine was enrolled as node {}", report.node);
    show(&report, arguments.output).map_err(|error| error.after(done))?;
    Ok(0)
}

/// The invitation from the command line, a file or standard input.
fn invitation(enroll: &EnrollArguments) -> Result<Invite, ClientError> {
    let longest = u64::try_from(MAX_INVITE_LEN).unwrap_or(u64::MAX) + 2;
    let read = |from: &mut dyn Read| {
        let mut text = String::new();
        from.take(longest).read_to_string(&mut text).map(|_| text)
    };
    let usage = |why: String| ClientError::Usage(why);
    let text = match (&enroll.file, enroll.invitation.as_deref()) {
        (Some(file), _) => File::open(file)
            .and_then(|mut file| read(&mut file))
            .map_err(|error| usage(format!("`{}` cannot be read: {error}", file.display())))?,
        (None, Some("-")) => read(&mut std::io::stdin().lock())
            .map_err(|error| usage(format!("the invitation cannot be read from standard input: {error}")))?,
        (None, text) => text.unwrap_or_default().to_owned(),
    };
    text.parse().map_err(|error: ParseInviteError| usage(error.to_string()))
}

/// Replaces the certificate of this node in time. A failure is a warning, as long as the present one works.
async fn renew_if_due(api: &Api, credentials: &Credentials) -> Result<(), ClientError> {
    let Some(identity) = credentials.identity.as_deref().filter(|_| credentials.token.is_none()) else {
        return Ok(());
    };
    match enrol::renew_if_due(api, identity).await {
        Ok(()) => Ok(()),
        Err(Renewal::NotAsked(error)) => Err(error),
        Err(Renewal::Failed(error)) => {
            tracing::warn!("the certificate of this node could not be renewed: {}", chain(&error));
            Ok(())
        }
    }
}

fn pushed(push: &PushArguments, arguments: &Arguments) -> Result<u8, ClientError> {
    let config = config(arguments)?;
    let job = push.source.job.as_ref().map(|name| Job::find(&config, name)).transpose()?;
    let push = push.clone().or(&job.map(|job| job.push).unwrap_or_default());
    if push.dry_run {
        return planned(&push, &config, arguments.output);
    }
    // Before any thread is started: each has its own priority, from the one that started it.
    for warning in push.priority().apply() {
        tracing::warn!("{warning}");
    }
    Client::new(arguments, config)?.push(&push)
}

/// A completion script for a program of ours.
///
/// clap_complete 4.6 gives the commands of a program with a hyphen in its name two names in the script for bash, so that
/// nothing behind a command would be completed (clap-rs/clap#6386).
pub fn completion(shell: clap_complete::Shell, mut command: clap::Command, program: &str) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut script);
    let script = String::from_utf8_lossy(&script);
    let (wrong, right) = (program.replace('-', "__subcmd__"), program.replace('-', "__"));
    script.replace(&format!("{wrong}__subcmd__"), &format!("{right}__subcmd__"))
}

/// Removes what killed pushes left. Needs no server.
fn tidied(arguments: &TidyArguments, output: Output) -> Result<u8, ClientError> {
    let state = crate::state::default_folder(&env);
    let roots = match arguments.paths.as_slice() {
        [] => state.as_deref().map(crate::state::remembered_roots).unwrap_or_default(),
        paths => push::existing(paths)?,
    };
    let tidied = push::tidy(&roots, arguments.freeze_dir.as_deref(), state.as_deref());
    show(&tidied, output)?;
    Ok(if tidied.left.is_empty() { 0 } else { EXIT_PARTIAL })
}

/// Tells what a push would do. Needs no server.
fn planned(push: &PushArguments, config: &Config, output: Output) -> Result<u8, ClientError> {
    let options = push.options(config, &host(), &env)?;
    raise_file_limit();
    let runtime = network()?;
    outlive_user_signals(runtime.handle()).map_err(no_signals)?;
    let bar = Bar::for_push(output, push.progress.mode, runtime.handle()).naming(push.naming(output));
    let planned = push::dry_run(&options, &bar, &SystemClock::new())?;
    drop(bar);
    show(&planned, output)?;
    Ok(planned.exit_code())
}

/// The name of this machine.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn manual(dir: &Path) -> Result<u8, ClientError> {
    clap_mangen::generate_to(Arguments::command(), dir).map(|()| 0).map_err(|source| ClientError::Disk {
        action: "write the manual to",
        path: dir.to_owned(),
        source,
    })
}

/// No request of this program keeps a server busy for so long without a word.
const SILENCE: Duration = Duration::from_secs(5 * 60);

/// Parts that every command with a server needs.
struct Client {
    api: Api,
    runtime: Runtime,
    config: Config,
    host: String,
    clock: SystemClock,
    output: Output,
}

impl Client {
    fn new(arguments: &Arguments, config: Config) -> Result<Self, ClientError> {
        let credentials = config.credentials()?;
        let api = Api::with(
            &config.server(),
            &credentials,
            Retry { silence: Some(SILENCE), ..Retry::asked(arguments.connection.retry_for) },
        )?;
        let runtime = network()?;
        outlive_user_signals(runtime.handle()).map_err(no_signals)?;
        wait(runtime.handle(), renew_if_due(&api, &credentials))?;
        Ok(Self { api, runtime, config, host: host(), clock: SystemClock::new(), output: arguments.output })
    }

    /// A switch that Ctrl-C sets. Also makes room for many open folders.
    fn interruptible(&self) -> Result<Cancel, ClientError> {
        raise_file_limit();
        let cancel = Cancel::new();
        on_interrupt(self.runtime.handle(), cancel.clone()).map_err(no_signals)?;
        Ok(cancel)
    }

    fn push(&self, arguments: &PushArguments) -> Result<u8, ClientError> {
        let options = arguments.options(&self.config, &self.host, &env)?;
        let cancel = self.interruptible()?;
        let bar = Bar::for_push(self.output, arguments.progress.mode, self.runtime.handle())
            .naming(arguments.naming(self.output));
        let hooks = push::Hooks { progress: &bar, cancel, clock: &self.clock };
        let report = match arguments.stream() {
            Some(stream) => push::run_stream(&self.api, self.runtime.handle(), &options, &stream, &hooks)?,
            None => push::run(&self.api, self.runtime.handle(), &options, &hooks)?,
        };
        drop(bar);
        let done = || match report.state {
            SnapshotState::Complete => format!("snapshot {} was committed", report.snapshot),
            SnapshotState::Partial => format!("partial snapshot {} was committed", report.snapshot),
        };
        show(&report, self.output).map_err(|error| error.after(done))?;
        Ok(if report.suspect.is_some() { EXIT_PARTIAL } else { partial(report.state) })
    }

    fn list(&self, arguments: &ListArguments) -> Result<u8, ClientError> {
        let wanted = Wanted {
            cluster: self.config.chosen_cluster(),
            named_cluster: self.config.named_cluster(),
            named_node: self.config.named_node(),
            labels: arguments.labels.clone(),
        };
        let ask = |cluster: Option<&ClusterName>| wait(self.runtime.handle(), self.api.snapshots(cluster));
        let found = match ask(wanted.cluster.as_ref())? {
            // A name that fits nothing is answered with those that would.
            none if none.is_empty() && wanted.named_cluster.is_some() => ask(None)?,
            found => found,
        };
        let (snapshots, columns) = (choose(found, &wanted)?, arguments.columns.clone());
        show(&Listed { snapshots, columns }, self.output)?;
        Ok(0)
    }

    fn restore(&self, arguments: &RestoreArguments) -> Result<u8, restore::Ended> {
        let options = arguments.options(&self.config, &self.host)?;
        let cancel = self.interruptible()?;
        let bar = self.bar(arguments.progress, Phase::Restoring);
        let hooks = restore::Hooks { progress: &|at| bar.at(at), cancel, clock: &self.clock };
        if arguments.dry_run {
            let planned = restore::dry_run(&self.api, self.runtime.handle(), &options, &hooks)?;
            drop(bar);
            show(&planned, self.output)?;
            return Ok(planned.exit_code());
        }
        if arguments.is_to_output() {
            let mut out = self.standard_output()?;
            let sent = restore::to_output(&self.api, self.runtime.handle(), &options, &hooks, &mut out)?;
            drop(bar);
            show_aside(&sent, self.output);
            return Ok(sent.exit_code());
        }
        let report = restore::run(&self.api, self.runtime.handle(), &options, &hooks)?;
        drop(bar);
        let done = || format!("{} files of snapshot {} were restored", report.files, report.snapshot);
        show(&report, self.output).map_err(|error| error.after(done))?;
        Ok(report.exit_code_of(&options))
    }

    /// Standard output for the content of a file, past the buffer that is meant for lines.
    fn standard_output(&self) -> Result<File, ClientError> {
        if self.output.json {
            return Err(ClientError::Usage(
                "`--to -` sends the content of a file to standard output, where --json would print its document"
                    .to_owned(),
            ));
        }
        let out = std::io::stdout().as_fd().try_clone_to_owned().map_err(ClientError::Output)?;
        Ok(File::from(out))
    }

    fn bar(&self, progress: ProgressArguments, phase: Phase) -> Bar {
        Bar::for_restore(self.output, progress.mode, self.runtime.handle(), phase)
    }

    fn verify(&self, arguments: &VerifyArguments) -> Result<u8, ClientError> {
        let options = arguments.options(&self.config, &self.host)?;
        let cancel = self.interruptible()?;
        let bar = self.bar(arguments.progress, Phase::Verifying);
        let hooks = restore::Hooks { progress: &|at| bar.at(at), cancel, clock: &self.clock };
        let report = restore::verify(&self.api, self.runtime.handle(), &options, &hooks)?;
        drop(bar);
        show(&report, self.output)?;
        Ok(if report.is_sound() { 0 } else { ErrorClass::Integrity.exit_code() })
    }
}

fn config(arguments: &Arguments) -> Result<Config, ClientError> {
    Config::load(arguments.connection.settings(), &env)
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn partial(state: SnapshotState) -> u8 {
    match state {
        SnapshotState::Complete => 0,
        SnapshotState::Partial => EXIT_PARTIAL,
    }
}

fn no_signals(source: std::io::Error) -> ClientError {
    ClientError::Thread { name: "signals", source }
}

/// Deep trees need a handle for each level. Where this fails, a folder too deep is a problem of its own.
fn raise_file_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
}
