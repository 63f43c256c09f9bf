//! Waiting for a state, with a deadline. The only place that lets time pass.

use std::sync::mpsc;
use std::time::Duration;

/// How long anything that must happen may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until `look` finds something, and returns it.
///
/// # Panics
/// After [`PATIENCE`], naming `what` was waited for.
pub fn for_state<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, look).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// Looks again and again until `look` finds something, but for no longer than about `time`.
pub fn within<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let (_sender, never) = mpsc::channel::<()>();
    let mut left = time;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if left.is_zero() {
            return None;
        }
        // Nothing is ever sent: this is a pause that is too short to notice.
        let _ = never.recv_timeout(PAUSE.min(left));
        left = left.saturating_sub(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_found_when_it_comes_and_missed_when_it_does_not() {
        let mut looks = 0;
        let mut third = || {
            looks += 1;
            (looks == 3).then_some(looks)
        };

        assert_eq!(within(PATIENCE, &mut third), Some(3));
        assert_eq!(within(Duration::from_millis(10), || None::<()>), None);
    }
}
