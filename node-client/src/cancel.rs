//! One switch that stops a push or a restore: set once, by Ctrl-C or by a caller, never taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The switch. Clones are the same switch.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    set: AtomicBool,
    wake: Notify,
}

impl Cancel {
    /// A switch that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it. Whoever waits wakes up.
    pub fn cancel(&self) {
        self.shared.set.store(true, Ordering::SeqCst);
        self.shared.wake.notify_waiters();
    }

    /// True if it is set.
    pub fn is_cancelled(&self) -> bool {
        self.shared.set.load(Ordering::Relaxed)
    }

    /// Waits until it is set.
    pub async fn cancelled(&self) {
        let woken = self.shared.wake.notified();
        if !self.shared.set.load(Ordering::SeqCst) {
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_wakes_up_whether_early_or_late() {
        let cancel = Cancel::new();
        let waiting = cancel.clone();
        let early = tokio::spawn(async move { waiting.cancelled().await });
        tokio::task::yield_now().await;

        cancel.cancel();

        early.await.unwrap();
        cancel.cancelled().await;
        assert!(cancel.is_cancelled());
    }
}
