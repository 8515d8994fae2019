//! Images that a task needs: pulled once, however many ask for the same at the same time.
use super::Node;
use crate::error::{ErrorKind, Kind};
use crate::image::pull::{self, Options, PullError};
use crate::image::reference::Reference;
use crate::image::registry::credentials::{Environment, Keyring};
use crate::image::registry::registries::Files;
use crate::image::registry::{Access, Credentials, Mirror, Registries, RegistriesError, UrlError};
use crate::image::store::Image;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{Semaphore, watch};

/// Images that are pulled at the same time; each takes a few threads.
const AT_ONCE: usize = 3;

/// Why an image was not pulled; all who waited for it get the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullFailure {
    /// The pull itself.
    #[error(transparent)]
    Pull(Arc<PullError>),
    /// The host's registries.conf.
    #[error(transparent)]
    Registries(Arc<RegistriesError>),
    /// The configured mirror.
    #[error("mirror {url:?} of {registry}")]
    Mirror {
        /// Whose.
        registry: String,
        /// As configured.
        url: String,
        /// Why.
        #[source]
        source: UrlError,
    },
    /// The thread that pulled it ended without a word.
    #[error("the pull of {reference} was broken off")]
    Lost {
        /// Of which image.
        reference: Box<Reference>,
    },
}

impl Kind for PullFailure {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Pull(error) => error.kind(),
            Self::Registries(_) | Self::Mirror { .. } => ErrorKind::InvalidInput,
            Self::Lost { .. } => ErrorKind::System,
        }
    }
}

type Outcome = Result<Arc<Image>, PullFailure>;
/// What is pulled, and with whose rights: one client's credentials are not another's.
type Key = (Reference, Option<Credentials>);

/// Images on their way.
#[derive(Debug)]
pub struct Pulls {
    running: Mutex<HashMap<Key, watch::Receiver<Option<Outcome>>>>,
    slots: Arc<Semaphore>,
}

impl Default for Pulls {
    fn default() -> Self {
        Self { running: Mutex::default(), slots: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Node {
    /// Pulls an image, from the configured mirror of its registry if there is one; joins a pull of the same that is
    /// under way. It goes on when the caller no longer waits. Without `auth`, the host's files of credentials are
    /// looked at.
    ///
    /// # Errors
    /// The first failure of the pull.
    pub async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        auth: Option<Credentials>,
    ) -> Result<Arc<Image>, PullFailure> {
        let mut outcome = self.begin(reference, auth);
        let lost = || PullFailure::Lost { reference: Box::new(reference.clone()) };
        let seen = outcome.wait_for(Option::is_some).await.map_err(|_| lost())?;
        seen.clone().unwrap_or_else(|| Err(lost()))
    }

    /// The image if it is in the store, else pulls it.
    ///
    /// # Errors
    /// As of [`Node::pull`].
    pub async fn pull_missing(self: &Arc<Self>, reference: &Reference) -> Result<Arc<Image>, PullFailure> {
        let name = reference.to_string();
        let present = self.blocking(move |node| node.store.resolve(&name)).await;
        match present {
            Ok(image) => Ok(Arc::new(image)),
            Err(_) => self.pull(reference, None).await,
        }
    }

    fn begin(
        self: &Arc<Self>,
        reference: &Reference,
        auth: Option<Credentials>,
    ) -> watch::Receiver<Option<Outcome>> {
        let key = (reference.clone(), auth.clone());
        let mut running = self.pulls.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = running.get(&key) {
            return outcome.clone();
        }
        let (tell, outcome) = watch::channel(None);
        running.insert(key.clone(), outcome.clone());
        let node = Arc::clone(self);
        tokio::spawn(async move {
            // Never closed.
            let _slot = Arc::clone(&node.pulls.slots).acquire_owned().await;
            let reference = key.0.clone();
            let began = Instant::now();
            let result = node.blocking(move |node| now(node, &reference, auth)).await;
            node.metrics.pulled(if result.is_ok() { "ok" } else { "failed" }, began.elapsed());
            node.pulls.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            // That nobody waits any more is no error.
            let _ = tell.send(Some(result));
        });
        outcome
    }
}

fn now(node: &Node, reference: &Reference, auth: Option<Credentials>) -> Outcome {
    let access = access(node, auth)?;
    pull::pull(&node.store, reference, Options { access, ..Options::default() })
        .map(|pulled| Arc::new(pulled.image))
        .map_err(|error| PullFailure::Pull(Arc::new(error)))
}

/// How the node reaches registries: by the host's registries.conf, over which its own mirrors go.
fn access(node: &Node, auth: Option<Credentials>) -> Result<Access, PullFailure> {
    let config = &node.config.registries;
    let read = Registries::read(&Files::of_process());
    let mut registries = read.map_err(|error| PullFailure::Registries(Arc::new(error)))?;
    for (registry, url) in &config.mirrors {
        let mirror = Mirror::parse(url).map_err(|source| PullFailure::Mirror {
            registry: registry.clone(),
            url: url.clone(),
            source,
        })?;
        registries = registries.replaced(registry, &mirror);
    }
    let keyring = match auth {
        Some(credentials) => Keyring::Given(credentials),
        None => {
            let mut environment = Environment::of_process();
            environment.auth_file = config.auth_file.clone().or(environment.auth_file);
            Keyring::Files(environment)
        }
    };
    Ok(Access { registries: Arc::new(registries), keyring, ..Access::default() })
}
