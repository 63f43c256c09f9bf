//! Answers of the site for code that may block, such as a walk that sorts and counts what it reads.

use std::future::Future;

use futures_util::stream::{self, StreamExt};
use tokio::runtime::Handle;

/// Waits for `future` on a thread that may block ([`Store::blocking`](super::Store::blocking)).
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    Handle::current().block_on(future)
}

/// The answers of `read` for each of `items`, in their order. Up to `at_once` reads are under way at a time, and their
/// answers are all that is in memory. Blocks.
pub(crate) fn read_ahead<I, F>(
    items: I,
    at_once: usize,
    read: impl FnMut(I::Item) -> F,
) -> impl Iterator<Item = F::Output>
where
    I: IntoIterator,
    F: Future,
{
    let mut answers = Box::pin(stream::iter(items).map(read).buffered(at_once));
    std::iter::from_fn(move || wait(answers.next()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

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
            let answers: Vec<u32> = read_ahead(0..10, 3, read).collect();
            (answers, most.get())
        };

        let (answers, most) = tokio::task::spawn_blocking(read_all).await.unwrap();

        assert_eq!(answers, (0..10).collect::<Vec<_>>());
        assert!((2..=4).contains(&most), "{most}");
    }
}
