//! Answers of the site for code that may block, such as a run of the collector.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::on_a_thread;
use crate::error::ServerError;

/// Threads that may wait for the site at once. The runtime has many more, so that the site's own work always finds a
/// free one.
pub(super) const WAITING: usize = 64;

thread_local! {
    /// Closed once nobody waits for the work of this thread any more.
    static CALLER: RefCell<Option<watch::Receiver<()>>> = const { RefCell::new(None) };
}

/// Runs `work` on a thread that may block, compute, and [`wait`]. A caller that drops this ends the work at its next
/// wait.
pub(super) async fn on_a_waiting_thread<T: Send + 'static>(
    threads: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, ServerError> + Send + 'static,
) -> Result<T, ServerError> {
    let threads = Arc::clone(threads);
    let turn = threads.acquire_owned().await.expect("the semaphore is never closed");
    let (_here, caller) = watch::channel(());
    on_a_thread(move || {
        let _turn = turn;
        let _called = Called::by(caller);
        work()
    })
    .await
}

/// As long as this is there, somebody waits for the work of this thread, or did.
struct Called;

impl Called {
    fn by(caller: watch::Receiver<()>) -> Self {
        CALLER.set(Some(caller));
        Self
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        CALLER.set(None);
    }
}

/// Does `work` to its end, also if the caller of this thread's work leaves: half of it must not be left.
pub(crate) fn to_its_end<T>(work: impl FnOnce() -> T) -> T {
    let caller = CALLER.take();
    let done = work();
    CALLER.set(caller);
    done
}

/// Waits for `future` on a thread that may block ([`Store::waiting`](super::Store::waiting)).
///
/// # Errors
/// [`ServerError::CallerLeft`]: the future was dropped before its end. Otherwise its own errors.
pub(crate) fn wait<T>(future: impl Future<Output = Result<T, ServerError>>) -> Result<T, ServerError> {
    let caller = CALLER.with_borrow(Clone::clone);
    Handle::current().block_on(async {
        let Some(mut caller) = caller else { return future.await };
        tokio::select! {
            biased;
            // Nothing is ever sent: it changes when the caller drops its end.
            _ = caller.changed() => Err(ServerError::CallerLeft),
            answer = future => answer,
        }
    })
}

/// The answers of `read` for each of `items`, in their order. Up to `at_once` reads are under way at a time, and their
/// answers are all that is in memory. Blocks.
///
/// # Errors
/// [`ServerError::CallerLeft`] in place of an answer, as for [`wait`].
pub(crate) fn read_ahead<I, F>(
    items: I,
    at_once: usize,
    read: impl FnMut(I::Item) -> F,
) -> impl Iterator<Item = Result<F::Output, ServerError>>
where
    I: IntoIterator,
    F: Future,
{
    let mut answers = Box::pin(stream::iter(items).map(read).buffered(at_once));
    std::iter::from_fn(move || wait(async { Ok(answers.next().await) }).transpose())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    /// Reads end in another order than that in which they began, and no more than asked for are under way.
    #[tokio::test]
    async fn answers_come_in_order_and_reads_are_bounded() {
        let read_all = || {
            let (under_way, most) = (Cell::new(0), Cell::new(0));
            let read = |item: u32| {
                under_way.set(under_way.get() + 1);
                most.set(most.get().max(under_way.get()));
                let under_way = &under_way;
                async move {
                    for _ in 0..10 - item {
                        tokio::task::yield_now().await;
                    }
                    under_way.set(under_way.get() - 1);
                    item
                }
            };
            let answers: Result<Vec<u32>, _> = read_ahead(0..10, 3, read).collect();
            (answers.unwrap(), most.get())
        };

        let (answers, most) = tokio::task::spawn_blocking(read_all).await.unwrap();

        assert_eq!(answers, (0..10).collect::<Vec<_>>());
        assert!((2..=4).contains(&most), "{most}");
    }

    /// `to_its_end` finishes its step although the caller left; the operation ends at its next wait.
    #[tokio::test]
    async fn what_is_done_to_its_end_outlives_the_caller() {
        let (has_begun, begun) = oneshot::channel();
        let (go_on, gone) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let work = move || {
            has_begun.send(()).unwrap();
            let whole = to_its_end(|| wait(async { Ok(gone.await.is_ok()) }));
            let behind = wait(async { Ok(()) });
            tell.send((whole.unwrap(), behind)).unwrap();
            Ok(())
        };
        let threads = Arc::new(Semaphore::new(1));
        let caller = tokio::spawn(async move { on_a_waiting_thread(&threads, work).await });
        begun.await.unwrap();

        caller.abort();
        caller.await.unwrap_err();
        go_on.send(()).unwrap();
        let (whole, behind) = told.await.unwrap();

        assert!(whole);
        assert!(matches!(behind, Err(ServerError::CallerLeft)), "{behind:?}");
    }

    /// As a future that is dropped ends where it waits, so does the work behind it; the thread is free again.
    #[tokio::test]
    async fn work_ends_at_its_wait_once_the_caller_has_left() {
        let threads = Arc::new(Semaphore::new(1));
        let (has_begun, begun) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let work = move || {
            has_begun.send(()).unwrap();
            let ended = wait(std::future::pending::<Result<(), ServerError>>());
            tell.send(matches!(ended, Err(ServerError::CallerLeft))).unwrap();
            ended
        };
        let caller = tokio::spawn({
            let threads = Arc::clone(&threads);
            async move { on_a_waiting_thread(&threads, work).await }
        });
        begun.await.unwrap();

        caller.abort();
        caller.await.unwrap_err();
        let next = on_a_waiting_thread(&threads, || wait(async { Ok(7) })).await.unwrap();

        assert!(told.recv().unwrap(), "the wait ended without the caller");
        assert_eq!(next, 7, "its thread waits for the next caller");
    }
}
