//! The tour: push, push again, restore, compare.

use std::io::{self, Write};
use std::path::PathBuf;

use format_spec::Timestamp;
use node_client::api::{Api, Retry, wait};
use node_client::bar::Bar;
use node_client::cancel::Cancel;
use node_client::clock::{Clock, SystemClock};
use node_client::config::{Config, Settings};
use node_client::error::ClientError;
use node_client::named::{Among, SnapshotChoice};
use node_client::output::{Output, ProgressMode};
use node_client::progress::Phase;
use node_client::push::{self, FreezeMode, FreezeOptions, PushOptions, PushReport};
use node_client::restore::{
    self, Durable, Existing, Extra, Foreign, NodeChoice, Owners, Partial, Placement, Progress,
    RestoreOptions, RestoreReport, Setuid, Unset,
};
use node_client::signals::on_interrupt;
use tokio::runtime::{Builder, Runtime};

use crate::compare::{Comparison, Trees};
use crate::error::TourError;
use crate::place::{Places, Scratch};
use crate::report::{self, Address, Step, Verdict};
use crate::server::Server;

/// Fate of the server at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Stop,
    Serve,
}

/// A bar on a terminal, nothing elsewhere.
const OUTPUT: Output = Output { json: false, quiet: false };

/// Runs it and prints what it found.
///
/// # Errors
/// [`TourError`]; the repository is in order then, as far as it got.
pub(crate) fn run(places: &Places, after: After) -> Result<Verdict, TourError> {
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(TourError::Start)?;
    let cancel = Cancel::new();
    on_interrupt(runtime.handle(), cancel.clone()).map_err(TourError::Start)?;
    let scratch = places.scratch()?;
    let server = wait(runtime.handle(), Server::start(&places.data))?;
    let verdict = Tour::new(places, scratch, &server, &runtime, &cancel).and_then(Tour::run);
    if verdict.is_ok() {
        let address = match after {
            After::Serve => Address::Running(server.address),
            After::Stop => Address::Default,
        };
        report::go_on(&mut io::stdout().lock(), places, address)?;
        if after == After::Serve {
            wait(runtime.handle(), cancel.cancelled());
        }
    }
    wait(runtime.handle(), server.stop());
    verdict
}

struct Tour<'a> {
    places: &'a Places,
    scratch: Scratch,
    api: Api,
    runtime: &'a Runtime,
    cancel: &'a Cancel,
    clock: SystemClock,
    options: PushOptions,
}

impl<'a> Tour<'a> {
    fn new(
        places: &'a Places,
        scratch: Scratch,
        server: &Server,
        runtime: &'a Runtime,
        cancel: &'a Cancel,
    ) -> Result<Self, TourError> {
        let address = format!("http://{}", server.address);
        let api = Api::new(&address, &server.token, Retry::default())?;
        let config = Config::load(Settings::default(), &|name| std::env::var(name).ok())?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let node = config.node(&host).or_else(|_| config.node("quickstart"))?;
        let roots = vec![places.source.clone()];
        let state = Some(scratch.join("state"));
        // A demonstration only reads the folder: it makes no links in it.
        let freeze = FreezeOptions { mode: FreezeMode::Off, ..FreezeOptions::default() };
        let defaults = PushOptions::new(config.cluster(), node, host, roots);
        let options = PushOptions { state, freeze, ..defaults };
        Ok(Self { places, scratch, api, runtime, cancel, clock: SystemClock::new(), options })
    }

    fn run(self) -> Result<Verdict, TourError> {
        let mut out = io::stdout().lock();
        let pushed_at = a_second_before(self.clock.now());
        report::head(&mut out)?;
        let first = self.push()?;
        report::step(&mut out, &Step::pushed("push", &first))?;
        let second = self.push()?;
        report::step(&mut out, &Step::pushed("push again", &second))?;
        let restored = self.restore(&first)?;
        report::step(&mut out, &Step::restored("restore", &restored))?;
        let began = self.clock.elapsed();
        let compared = self.compare(pushed_at, &first)?;
        let seconds = self.clock.elapsed().saturating_sub(began).as_secs_f64();
        report::step(&mut out, &Step::compared("compare", &compared, seconds))?;
        let verdict = verdict(&first, &compared);
        report::findings(&mut out, &first, &second, &compared, verdict)?;
        out.flush()?;
        Ok(verdict)
    }

    fn push(&self) -> Result<PushReport, TourError> {
        let bar = Bar::for_push(OUTPUT, ProgressMode::Auto, self.runtime.handle());
        let hooks = push::Hooks { progress: &bar, cancel: self.cancel.clone(), clock: &self.clock };
        Ok(push::run(&self.api, self.runtime.handle(), &self.options, &hooks)?)
    }

    fn restore(&self, pushed: &PushReport) -> Result<RestoreReport, TourError> {
        let options = RestoreOptions {
            snapshot: SnapshotChoice::Id(pushed.snapshot),
            cluster: Some(pushed.cluster.clone()),
            node: NodeChoice::Named(pushed.node.clone()),
            series: None,
            among: Among::default(),
            // The report compares what is there with what the push said.
            partial: Partial::Allow,
            to: self.copy(),
            paths: Vec::new(),
            excludes: Vec::new(),
            placement: Placement::StripRoot,
            existing: Existing::Refuse,
            extra: Extra::Stays,
            foreign: Foreign::Refuse,
            unset: Unset::IsNoted,
            // Other users cannot open the scratch folder.
            setuid: Setuid::Keep,
            owners: Owners::AsPushed,
            max_rate: None,
            durable: Durable::Later,
        };
        let bar = self.bar(Phase::Restoring);
        let progress = &|at| bar.at(at);
        let hooks = restore::Hooks { progress, cancel: self.cancel.clone(), clock: &self.clock };
        Ok(restore::run(&self.api, self.runtime.handle(), &options, &hooks).map_err(ClientError::from)?)
    }

    fn bar(&self, phase: Phase) -> Bar {
        Bar::for_restore(OUTPUT, ProgressMode::Auto, self.runtime.handle(), phase)
    }

    fn compare(&self, pushed_at: Timestamp, pushed: &PushReport) -> Result<Comparison, TourError> {
        let copy = self.copy();
        let trees = Trees { source: &self.places.source, copy: &copy, pushed_at };
        let bar = self.bar(Phase::Verifying);
        let compared = trees.compare(&mut |found| {
            let (files_total, bytes_total) = (pushed.files, pushed.bytes);
            bar.at(Progress { files: found.files, bytes: found.bytes, files_total, bytes_total });
            !self.cancel.is_cancelled()
        });
        if self.cancel.is_cancelled() { Err(ClientError::Interrupted.into()) } else { Ok(compared) }
    }

    fn copy(&self) -> PathBuf {
        self.scratch.join("restored")
    }
}

/// Timestamps of files lag a little behind the clock.
fn a_second_before(now: Timestamp) -> Timestamp {
    Timestamp { seconds: now.seconds - 1, ..now }
}

fn verdict(pushed: &PushReport, compared: &Comparison) -> Verdict {
    if !compared.different.is_empty() {
        Verdict::Different
    } else if pushed.problem_count > 0 || !compared.changed.is_empty() || !compared.unreadable.is_empty() {
        Verdict::Partial
    } else {
        Verdict::Equal
    }
}
