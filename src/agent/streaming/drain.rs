//! When an output has been read far enough after the end of its process.
//!
//! What the process itself wrote is in the pipe when it ends; whatever comes later is from something that it left
//! running, for which nobody waits.
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long an empty output that something holds open is waited for after the end.
const WAIT: Duration = Duration::from_millis(100);
/// More than any pipe or terminal holds for an unprivileged process (pipe(7)).
const HELD: usize = 1024 * 1024;

/// Tells the readers of outputs that their process has ended.
#[derive(Debug)]
pub(super) struct End {
    moment: watch::Sender<Option<Instant>>,
}

/// What a reader of an output asks.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    end: watch::Receiver<Option<Instant>>,
    read: usize,
}

/// For one process.
pub(super) fn drain() -> (End, Drain) {
    let (moment, end) = watch::channel(None);
    (End { moment }, Drain { end, read: 0 })
}

impl End {
    /// The process has ended.
    pub(super) fn is_now(&self) {
        self.moment.send_replace(Some(Instant::now() + WAIT));
    }
}

impl Drain {
    /// Returns a moment after the end of the process. To be asked only while there is nothing to read.
    pub(super) fn over(&self) -> impl Future<Output = ()> + use<> {
        let mut end = self.end.clone();
        async move {
            // An error says that the sender is gone, and then we are too.
            let moment = end.wait_for(Option::is_some).await.ok().and_then(|moment| *moment);
            sleep_until(moment.unwrap_or_else(Instant::now)).await;
        }
    }

    /// Counts what was read; whether that was more than the process itself can have left, and the wait is over too.
    pub(super) fn enough(&mut self, length: usize) -> bool {
        let Some(moment) = *self.end.borrow() else { return false };
        self.read += length;
        self.read > HELD && Instant::now() >= moment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_writer_without_end_is_left() {
        let (end, mut drain) = drain();
        assert!(!drain.enough(10 * HELD));
        end.is_now();
        assert!(!drain.enough(HELD));
        assert!(!drain.enough(1));
        drain.over().await;
        assert!(drain.enough(1));
    }

    #[tokio::test]
    async fn what_a_process_left_is_read_however_late() {
        let (end, mut drain) = drain();
        let over = drain.over();
        end.is_now();
        over.await;
        tokio::time::sleep(2 * WAIT).await;
        assert!(!drain.enough(64 * 1024));
    }
}
