//! The one place where a thread waits for the server: requests are async, and the threads that read files, compute and
//! write are not.

use tokio::runtime::{Builder, Handle, Runtime};

use crate::cancel::Cancel;
use crate::error::ClientError;

/// The threads that speak with the server.
///
/// # Errors
/// [`ClientError::Thread`] if the system does not grant them.
pub fn network() -> Result<Runtime, ClientError> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|source| ClientError::Thread { name: "network", source })
}

/// The result of `future`, for which this thread waits. It must not be a thread of `network`.
pub fn wait<F: Future>(network: &Handle, future: F) -> F::Output {
    network.block_on(future)
}

/// The result of `request`, for which this thread waits; `None` if `stopped` ends before.
pub(crate) fn wait_until<T>(
    network: &Handle,
    stopped: impl Future<Output = ()>,
    request: impl Future<Output = T>,
) -> Option<T> {
    wait(network, async {
        tokio::select! {
            answer = request => Some(answer),
            () = stopped => None,
        }
    })
}

/// Like [`wait`], unless the user ends the program.
///
/// # Errors
/// [`ClientError::Interrupted`] once `interrupt` is set; otherwise the error of the request.
pub(crate) fn wait_for<T>(
    network: &Handle,
    interrupt: &Cancel,
    request: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    wait_until(network, interrupt.cancelled(), request).unwrap_or(Err(ClientError::Interrupted))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that does not answer keeps no program that the user ends.
    #[test]
    fn an_interrupt_ends_a_wait_and_an_answer_does_too() {
        let network = network().unwrap();
        let interrupt = Cancel::new();
        let answered = wait_for(network.handle(), &interrupt, async { Ok(7) });
        assert_eq!(answered.unwrap(), 7);

        interrupt.cancel();
        let silent = std::future::pending::<Result<u32, ClientError>>();
        let ended = wait_for(network.handle(), &interrupt, silent);

        assert!(matches!(ended, Err(ClientError::Interrupted)), "{ended:?}");
    }
}
