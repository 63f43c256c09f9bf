//! The server in this process: the same library as `astacus-server`, on a free port of this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use node_client::cancel::Cancel;
use repo_server::config::{Config, LimitsConfig, SpaceConfig};
use repo_server::error::Chain;
use repo_server::http::{self, Token};
use repo_server::start::open_or_create;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::error::TourError;

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    inner: Arc<repo_server::server::Server>,
    stop: Cancel,
    serving: JoinHandle<()>,
}

impl Server {
    /// Opens or makes the repository in `data`, and serves it.
    ///
    /// # Errors
    /// [`TourError::Create`], [`TourError::Config`], [`TourError::Start`].
    pub(crate) async fn start(data: &Path) -> Result<Self, TourError> {
        // A trial holds no room that its user did not ask for, and runs wherever its files fit.
        let space = SpaceConfig { ballast_mib: Some(0), refuse_below_mib: Some(0) };
        let settings = Config { space, ..Config::default() }.settings()?;
        let on_halt = Arc::new(|error: &dyn std::error::Error| {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "a disk error makes it unsafe to go on: {}", Chain(error));
            // No destructor may run: what memory holds and what the disk holds can differ.
            std::process::abort();
        });
        let opened = open_or_create(data, None, settings, on_halt).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(TourError::Start)?;
        let address = listener.local_addr().map_err(TourError::Start)?;
        let limits = http::Limits::within_descriptors(LimitsConfig::default().connections());
        let routes = http::routes(Arc::clone(&opened.server), Token::new(&opened.token));
        let (stop, done) = (Cancel::new(), opened.server.done());
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            http::serve(listener, http::Transport::Plain, routes, limits, done, stopped.cancelled()).await
        });
        Ok(Self { address, token: opened.token, inner: opened.server, stop, serving })
    }

    /// Lets requests in flight finish, and stores what is still in memory.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // It can only fail by a panic, which has been printed.
        let _ = self.serving.await;
        repo_server::background::settle(&self.inner).await;
    }
}
