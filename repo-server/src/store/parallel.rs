//! Blocking work on all processors: look-ups and scans of an index whose blocks the system has in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that one piece of work takes at most: others work at the same time.
const MOST_THREADS: usize = 8;

/// Does `work` on each of `parts`, on as many threads as given, as there are parts, and as the system grants;
/// answers in their order. Each thread takes part after part, so none waits for long for one that is slow. Blocks.
///
/// # Errors
/// An error of `work`. Other parts may have been worked on.
///
/// # Panics
/// If `work` does.
pub(crate) fn share_out<P: Sync, T: Send, E: Send>(
    threads: usize,
    parts: &[P],
    work: impl Fn(&P) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let take_turns = || -> Result<Vec<(usize, T)>, E> {
        let turns = std::iter::from_fn(|| {
            let at = next.fetch_add(1, Ordering::Relaxed);
            parts.get(at).map(|part| (at, part))
        });
        turns.map(|(at, part)| Ok((at, work(part)?))).collect()
    };
    std::thread::scope(|scope| {
        let threads = threads.min(parts.len()).min(MOST_THREADS);
        let other = |_| std::thread::Builder::new().spawn_scoped(scope, take_turns).ok();
        let others: Vec<_> = (1..threads).filter_map(other).collect();
        let mut done = take_turns()?;
        for other in others {
            done.extend(other.join().expect("work on a part does not panic")?);
        }
        done.sort_unstable_by_key(|(at, _)| *at);
        Ok(done.into_iter().map(|(_, done)| done).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_the_parts_whatever_the_threads() {
        let parts: Vec<u32> = (0..1000).collect();
        for threads in [0, 1, 2, 7, 5000] {
            let done = share_out(threads, &parts, |part| Ok::<u32, ()>(part * 2)).unwrap();
            assert_eq!(done, parts.iter().map(|part| part * 2).collect::<Vec<_>>());
        }
        assert_eq!(share_out(4, &[], |part: &u32| Ok::<u32, ()>(*part)).unwrap(), Vec::<u32>::new());
    }

    #[test]
    fn an_error_of_any_part_is_the_answer() {
        let parts: Vec<u32> = (0..100).collect();
        let work = |part: &u32| if *part == 57 { Err(*part) } else { Ok(()) };
        for threads in [1, 3] {
            assert_eq!(share_out(threads, &parts, work), Err(57));
        }
    }
}
