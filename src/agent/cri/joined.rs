//! Requests that are made again while they are under way: a client that lost its patience gets the same answer.
use super::error::{CriError, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

type Outcome = std::result::Result<String, Arc<CriError>>;
type Running = HashMap<String, watch::Receiver<Option<Outcome>>>;

/// What is under way, by what was asked for.
#[derive(Debug, Default, Clone)]
pub struct Joined(Arc<Mutex<Running>>);

impl Joined {
    /// Does `work`, or waits for the same work that somebody else asked for. It goes on when nobody waits any more:
    /// half of it undone would be what a retry finds.
    pub async fn run<F>(&self, key: String, work: F) -> Result<String>
    where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let mut outcome = self.begin(key, work);
        let seen = match outcome.wait_for(Option::is_some).await {
            Ok(seen) => seen.clone(),
            // The sender is dropped unsent only when the work panics.
            Err(_) => None,
        };
        match seen {
            Some(Ok(id)) => Ok(id),
            Some(Err(error)) => Err(CriError::Shared(error)),
            None => Err(CriError::Lost),
        }
    }

    fn begin<F>(&self, key: String, work: F) -> watch::Receiver<Option<Outcome>>
    where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let mut running = self.running();
        // One whose work panicked is there, but tells nothing.
        if let Some(outcome) = running.get(&key).filter(|outcome| outcome.has_changed().is_ok()) {
            return outcome.clone();
        }
        let (tell, outcome) = watch::channel(None);
        running.insert(key.clone(), outcome.clone());
        let joined = self.clone();
        tokio::spawn(async move {
            let result = work.await.map_err(Arc::new);
            joined.running().remove(&key);
            // That nobody waits any more is no error.
            let _ = tell.send(Some(result));
        });
        outcome
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // Each change of the map is one call, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn one_answer_for_all_who_ask_meanwhile() {
        let joined = Joined::default();
        let (count, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let ask = || {
            let (count, go) = (Arc::clone(&count), Arc::clone(&go));
            joined.run("a".into(), async move {
                go.notified().await;
                Ok(format!("{}", count.fetch_add(1, Ordering::SeqCst)))
            })
        };
        let (first, second, ()) = tokio::join!(ask(), ask(), async { go.notify_one() });
        assert_eq!((first.unwrap(), second.unwrap()), ("0".into(), "0".into()));
        go.notify_one();
        assert_eq!(ask().await.unwrap(), "1");
    }

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits() {
        let joined = Joined::default();
        let (done, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, wait) = (Arc::clone(&done), Arc::clone(&go));
        let ask = joined.run("a".into(), async move {
            wait.notified().await;
            tell.notify_one();
            Ok(String::new())
        });
        tokio::select! { biased; _ = ask => panic!("it waits"), () = std::future::ready(()) => {} }
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn all_get_the_same_error() {
        let joined = Joined::default();
        let ask = || joined.run("a".into(), async { Err(CriError::Missing { field: "x" }) });
        let (first, second) = tokio::join!(ask(), ask());
        assert_eq!(first.unwrap_err().to_string(), "the request has no x");
        second.unwrap_err();
        assert!(joined.running().is_empty());
    }
}
