//! `astacus-server`: start, serve, stop.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use format_spec::ErrorClass;
use repo_server::config::{Config, ConfigError};
use repo_server::error::Chain;
use repo_server::http::{self, Token};
use repo_server::repository::{CreateError, open_or_create};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The repository server of Astacus: one deduplicated, encrypted backup repository over HTTP.
#[derive(Parser)]
#[command(name = "astacus-server", version)]
struct Arguments {
    /// Folder of the repository; an empty or missing one becomes a new repository.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:5515].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Sessions whose time is over are ended this often.
const EXPIRE_EVERY: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "astacus-server: {error:#}");
            ExitCode::from(class(&error).exit_code())
        }
    }
}

/// Logs to standard error; `ASTACUS_LOG` chooses what, in the syntax of `tracing_subscriber::EnvFilter`.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ASTACUS_LOG");
    let filter = filter.unwrap_or_else(|_| "info,fjall=warn,lsm_tree=warn".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}

fn class(error: &anyhow::Error) -> ErrorClass {
    if error.is::<ConfigError>() {
        return ErrorClass::Usage;
    }
    error.downcast_ref::<CreateError>().map_or(ErrorClass::Unavailable, CreateError::class)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = arguments.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    let address = config.listen(arguments.listen)?;
    let on_halt = Arc::new(|error: &dyn std::error::Error| {
        tracing::error!(error = %Chain(error), "a disk error makes it unsafe to go on: the server ends now");
        // No destructor may run: what memory holds and what the disk holds can differ.
        std::process::abort();
    });
    let opened = open_or_create(&arguments.data_dir, config.settings()?, on_halt).await?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| anyhow::Error::from(error).context(format!("listen on {address}")))?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
    let expiry = tokio::spawn(repo_server::expire_sessions(Arc::clone(&opened.repository), EXPIRE_EVERY));
    let upkeep = tokio::spawn(repo_server::look_after(Arc::clone(&opened.repository)));
    let routes = http::routes(Arc::clone(&opened.repository), Token::new(&opened.token));
    let stopped = async {
        tokio::select! {
            _ = stop.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: requests in flight may finish");
    };
    http::serve(listener, routes, stopped).await;
    expiry.abort();
    upkeep.abort();
    repo_server::settle(&opened.repository).await;
    tracing::info!("stopped");
    Ok(())
}
