//! `astacus-server`: start, serve, stop.

mod cli;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use format_spec::ErrorClass;
use format_spec::error::EXIT_UNREPORTED;
use repo_server::clock::SystemClock;
use repo_server::config::{Config, ConfigError, TlsFlags, TlsMode};
use repo_server::durable::RealDisk;
use repo_server::error::Chain;
use repo_server::http::{self, Transport};
use repo_server::keys::KeyError;
use repo_server::log::{Format, Log};
use repo_server::rebuild::{self, Plan, RebuildError, RebuildReport};
use repo_server::server::Server;
use repo_server::service;
use repo_server::settings::{Settings, TlsSettings};
use repo_server::site::SiteUrl;
use repo_server::start::{CreateError, check_exists, open_or_create};
use repo_server::store::OnHalt;
use repo_server::tls::{self, Tls, TlsError};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// See ADR 0015.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Serve one deduplicated, encrypted Astacus backup repository over HTTP.
#[derive(Parser)]
#[command(name = "astacus-server", version)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Rebuild the index from the site and the master key.
    Rebuild(Rebuild),
    /// Export, check and restore the master key, and manage the slots that open it.
    #[command(subcommand)]
    Key(cli::KeyAction),
}

#[derive(Args)]
struct Rebuild {
    /// New data folder: empty, missing, or one without an index.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Site to read, as `file:///path` or a plain path.
    #[arg(long, value_name = "URL")]
    from_site: SiteUrl,
    /// File with the master key.
    #[arg(long, value_name = "FILE")]
    keyring: PathBuf,
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the log as `text` or `json` [default: text].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// Print one JSON document on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Serve {
    /// Data folder of the repository; if empty or missing, a new repository is created.
    #[arg(long, value_name = "DIR", required = true)]
    data_dir: Option<PathBuf>,
    /// Exit with code 10 if the folder holds no repository, for example because its disk is not mounted,
    /// instead of creating one.
    #[arg(long)]
    must_exist: bool,
    /// Site, as `file:///path` or a plain path [default: the folder `site` in the data folder].
    #[arg(long, value_name = "URL")]
    site: Option<SiteUrl>,
    /// Address to listen on; port 0 selects a free port [default: 127.0.0.1:5515].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// File with the passphrase of a slot of the keyring, for a data folder without `master.key`.
    #[arg(long, value_name = "FILE", env = "ASTACUS_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
    /// Encrypt connections: `auto` (unless the listen address is a loopback address), `on`, or `off` (loopback
    /// addresses only) [default: auto].
    #[arg(long, value_name = "MODE")]
    tls: Option<TlsMode>,
    /// Host name or IP address by which clients reach the server, for its certificate; repeat for several
    /// [default: the name of this machine, localhost and the listen address].
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Configuration file (TOML). SIGHUP reloads it and the certificates: see docs/configuration.md.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the log as `text` or `json` [default: text].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
}

impl Arguments {
    /// The configuration file given by a flag, or the default configuration.
    fn config(&self) -> Result<Config, ConfigError> {
        let path = match &self.command {
            Some(Command::Rebuild(rebuild)) => &rebuild.config,
            Some(Command::Key(_)) => &None,
            None => &self.serve.config,
        };
        path.as_deref().map(Config::read).transpose().map(Option::unwrap_or_default)
    }

    /// Format of the log: a flag overrides the file.
    fn log_format(&self, config: &Config) -> Format {
        let flag = match &self.command {
            Some(Command::Rebuild(rebuild)) => rebuild.log_format,
            Some(Command::Key(_)) => None,
            None => self.serve.log_format,
        };
        flag.unwrap_or(config.log.format)
    }
}

/// Interval at which expired sessions are ended.
const EXPIRE_EVERY: Duration = Duration::from_secs(30);

/// Longest wait at the end for a thread that is blocked by a site. Nothing acknowledged depends on it.
const END_WITHIN: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Files and folders that the server creates are accessible to its user only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    keep_memory_private();
    let config = match arguments.config() {
        Ok(config) => config,
        Err(error) => return fail(&error.into()),
    };
    let log = Log::start("info,fjall=warn,lsm_tree=warn", arguments.log_format(&config));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let ended = runtime.block_on(run(arguments, config, &log));
        runtime.shutdown_timeout(END_WITHIN);
        ended
    });
    log.flush();
    match ended {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "astacus-server: {error:#}");
    if let Some(hint) = hint(error) {
        let _ = writeln!(std::io::stderr(), "hint: {hint}");
    }
    ExitCode::from(class(error).exit_code())
}

/// Disables core dumps and reads by other processes of the same user, because the memory of the server holds
/// the master key. Errors of the kernel are ignored.
fn keep_memory_private() {
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, nothing);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

fn class(error: &anyhow::Error) -> ErrorClass {
    if error.is::<ConfigError>() {
        return ErrorClass::Usage;
    }
    if let Some(error) = error.downcast_ref::<TlsError>() {
        return error.class();
    }
    if let Some(error) = error.downcast_ref::<RebuildError>() {
        return error.class();
    }
    if let Some(error) = error.downcast_ref::<KeyError>() {
        return error.class();
    }
    error.downcast_ref::<CreateError>().map_or(ErrorClass::Unavailable, CreateError::class)
}

/// A hint for the operator.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let Some(CreateError::Index(error)) = error.downcast_ref::<CreateError>() else { return None };
    let is_lost = matches!(error.class(), ErrorClass::Integrity | ErrorClass::NotFound);
    is_lost.then_some(
        "rebuild the index from the site into another folder with `astacus-server rebuild` (see its --help)",
    )
}

async fn run(arguments: Arguments, config: Config, log: &Log) -> anyhow::Result<ExitCode> {
    for unused in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        // A handler, even when dropped, keeps the signal from ending the process.
        drop(signal(unused)?);
    }
    match arguments.command {
        Some(Command::Rebuild(rebuild)) => self::rebuild(&rebuild, &config, log).await,
        Some(Command::Key(action)) => key(action).await,
        None => serve(arguments.serve, config, log).await.map(|()| ExitCode::SUCCESS),
    }
}

fn on_halt(log: &Log) -> OnHalt {
    let log = log.clone();
    Arc::new(move |error: &dyn std::error::Error| {
        tracing::error!(error = %Chain(error), "continuing would be unsafe: the server aborts now");
        log.flush();
        // No destructor may run, because memory and disk can differ.
        std::process::abort();
    })
}

async fn rebuild(arguments: &Rebuild, config: &Config, log: &Log) -> anyhow::Result<ExitCode> {
    let plan = Plan {
        data_dir: arguments.data_dir.clone(),
        site: arguments.from_site.clone(),
        key_file: arguments.keyring.clone(),
        engine: config.index.engine,
    };
    let report = rebuild::run(&plan, on_halt(log), |index| index).await?;
    let start_with = start_with(&plan);
    let mut out = std::io::stdout().lock();
    let told = if arguments.json {
        let mut document = serde_json::to_value(&report)?;
        if let Some(document) = document.as_object_mut() {
            document.insert("start_with".to_owned(), start_with.as_str().into());
        }
        writeln!(out, "{document}")
    } else {
        tell(&report, &start_with, &mut out)
    };
    if let Err(error) = told.and_then(|()| out.flush()) {
        tracing::error!(%error, start_with, "the index was rebuilt, but the report cannot be written to standard output");
        return Ok(ExitCode::from(EXIT_UNREPORTED));
    }
    let code = if report.is_sound() { 0 } else { ErrorClass::Integrity.exit_code() };
    Ok(ExitCode::from(code))
}

async fn key(action: cli::KeyAction) -> anyhow::Result<ExitCode> {
    let outcome = cli::run(action).await?;
    if let Err(error) = outcome.print() {
        tracing::error!(%error, "the command is done, but its report cannot be written to standard output");
        return Ok(ExitCode::from(EXIT_UNREPORTED));
    }
    let code = if outcome.is_sound { 0 } else { ErrorClass::Integrity.exit_code() };
    Ok(ExitCode::from(code))
}

/// The command line that starts a server on the rebuilt data folder.
fn start_with(plan: &Plan) -> String {
    let mut command = format!("astacus-server --data-dir {}", plan.data_dir.display());
    let site = plan.site.canonical();
    if site != SiteUrl::default_in(&plan.data_dir).canonical() {
        command.push_str(&format!(" --site {site}"));
    }
    command
}

fn tell(report: &RebuildReport, start_with: &str, out: &mut impl Write) -> std::io::Result<()> {
    let RebuildReport { snapshots, chunks, packs, stored_bytes, found, .. } = report;
    writeln!(
        out,
        "rebuilt {snapshots} snapshots, {chunks} chunks and pages in {packs} packs of {stored_bytes} bytes; \
         {} packs read from checkpoints, {} unusable packs",
        report.packs_of_checkpoints, report.dead_packs
    )?;
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    if *found > 0 {
        writeln!(out, "LOST objects: {found}; `astacus-admin verify` lists the affected files:")?;
    }
    for lost in &report.findings {
        let snapshots: Vec<String> = lost.snapshots.iter().map(ToString::to_string).collect();
        writeln!(out, "  {}: {} {}", lost.object, lost.problem, snapshots.join(" "))?;
    }
    writeln!(out, "start the server with: {start_with}")
}

fn open_tls(data_dir: &Path, settings: TlsSettings) -> Result<Arc<Tls>, TlsError> {
    let random = |bytes: &mut [u8]| getrandom::fill(bytes).expect("the operating system gives random bytes");
    Tls::open(Arc::new(RealDisk), data_dir, settings, Arc::new(SystemClock::new()), random)
}

/// Prints the listen address on standard output, and logs the fingerprint of the CA. A write error is logged, and the
/// server continues.
fn tell_address(address: SocketAddr, tls: Option<&Tls>) {
    if let Some(authority) = tls.map(Tls::authority) {
        let (ca_sha256, file) = (authority.fingerprint(), authority.path().display());
        tracing::info!(%ca_sha256, %file, "TLS: the CA of this repository");
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "listening on {scheme}://{address}").and_then(|()| out.flush()) {
        tracing::warn!(%address, %error, "listening, but standard output cannot be written");
    }
}

async fn serve(arguments: Serve, config: Config, log: &Log) -> anyhow::Result<()> {
    let address = config.listen(arguments.listen);
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    let flags = TlsFlags { mode: arguments.tls, names: arguments.name };
    let secured = config.tls.settings(&flags, address, &host)?;
    let data_dir = arguments.data_dir.expect("clap requires it");
    let site = arguments.site.as_ref().or(config.site.url.as_ref());
    if arguments.must_exist {
        check_exists(&data_dir)?;
    }
    let settings = Settings { passphrase_file: arguments.passphrase_file.clone(), ..config.settings()? };
    // Binding comes before a repository is created, so that no unreachable repository is left behind.
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| anyhow::Error::from(error).context(format!("listen on {address}")))?;
    let opened = open_or_create(&data_dir, site, settings, on_halt(log)).await?;
    let tls = secured.map(|settings| open_tls(&data_dir, settings)).transpose()?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tell_address(listener.local_addr()?, tls.as_deref());
    service::tell("READY=1");
    let expiry =
        tokio::spawn(repo_server::background::expire_sessions(Arc::clone(&opened.server), EXPIRE_EVERY));
    let upkeep = tokio::spawn(repo_server::background::look_after(Arc::clone(&opened.server)));
    let damage = tokio::spawn(repo_server::background::name_damage(Arc::clone(&opened.server)));
    let people = tokio::spawn(repo_server::background::tell_people(Arc::clone(&opened.server)));
    let certificates = tokio::spawn(repo_server::background::keep_certificates(
        Arc::clone(&opened.server),
        tls.clone(),
        EXPIRE_EVERY,
    ));
    let limits = http::Limits::within_descriptors(config.limits.connections());
    let routes = http::routes(Arc::clone(&opened.server), Arc::clone(&opened.access), tls.clone());
    let stopped = async {
        loop {
            tokio::select! {
                _ = stop.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    reload(arguments.config.as_deref(), &config, &opened.server);
                    if let Some(tls) = &tls {
                        tls::reload(opened.server.store(), tls);
                    }
                }
            }
        }
        service::tell("STOPPING=1");
        tracing::info!("shutting down, waiting for open requests");
    };
    let access = Arc::clone(&opened.access);
    let transport = tls.clone().map_or(Transport::Plain, |tls| Transport::Tls(tls, access));
    http::serve(listener, transport, routes, limits, opened.server.done(), stopped).await;
    for task in [expiry, upkeep, damage, people, certificates] {
        task.abort();
        // After this wait the task starts no more work that the end of the runtime could interrupt.
        let _ = task.await;
    }
    repo_server::background::settle(&opened.server).await;
    repo_server::background::release(&opened.server).await;
    tracing::info!("stopped");
    Ok(())
}

/// Reloads the configuration, and applies the sections that may change while the server runs. An invalid
/// configuration changes nothing.
fn reload(path: Option<&Path>, at_start: &Config, server: &Server) {
    let Some(path) = path else {
        tracing::info!(
            "SIGHUP: the server was started without a configuration file, so there is nothing to reload"
        );
        return;
    };
    let read = Config::read(path).and_then(|config| Ok((config.settings()?, config)));
    let (settings, config) = match read {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "SIGHUP: the configuration is invalid, the previous one stays in effect");
            return;
        }
    };
    server.choose(settings.choices);
    tracing::info!("SIGHUP: reloaded [retention], [freshness] and [notify]");
    if config.without_choices() != at_start.without_choices() {
        tracing::warn!(
            "SIGHUP: other sections of the configuration have changed and take effect at the next start"
        );
    }
}
