//! What is to be done when a container has ended, or could not be started.
use crate::engine::Engine;
use crate::engine::error::{EngineError, Failure};
use crate::engine::names::Id;
use crate::engine::options::{Options, VolumeSource};
use crate::engine::record::{Durability, Ended, Record, write_json};
use crate::engine::timestamp::Timestamp;
use crate::image::store::Store;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::delete::delete;
use crate::runtime::state::State;

/// What has to be known of a container for its end. Whoever has it has the container's lock too.
#[derive(Debug)]
pub struct Watch {
    pub(super) engine: Engine,
    pub(super) store: Store,
    pub(super) id: Id,
    name: String,
    auto_remove: bool,
    keep_failed: bool,
    durability: Durability,
    anonymous: Vec<String>,
    /// How often it was started again.
    pub(super) restarts: u32,
}

/// The volumes that go away with the container.
pub fn anonymous_volumes(options: &Options) -> Vec<String> {
    let name = |source: &VolumeSource| match source {
        VolumeSource::Anonymous(name) => name.clone(),
        _ => None,
    };
    options.volumes.iter().filter_map(|volume| name(&volume.source)).collect()
}

impl Watch {
    /// Of a container; `keep_failed` as in [`super::Job`].
    pub fn new(engine: Engine, store: Store, id: Id, record: &Record, keep_failed: bool) -> Self {
        Self {
            engine,
            store,
            id,
            name: record.name.clone(),
            auto_remove: record.options.auto_remove,
            keep_failed,
            durability: record.durability(),
            anonymous: anonymous_volumes(&record.options),
            restarts: 0,
        }
    }

    /// The container could not be started: nothing of the attempt stays, but its error is recorded.
    pub fn give_up(mut self, failure: Failure) -> Ended {
        self.auto_remove |= !self.keep_failed;
        let ended = Ended {
            code: failure.exit_code,
            oom_killed: false,
            started: None,
            finished: Timestamp::now(),
            error: Some(failure.chain),
            restarts: self.restarts,
        };
        // The failure itself is what is told; what cannot be removed now is found by the next delete.
        let _ = delete(&self.engine.runtime_root(), self.id.as_str(), true);
        let _ = self.close(&ended);
        ended
    }

    /// Init has ended: ends and removes everything else that runs in the container. Tells whether the kernel killed
    /// one of its processes for want of memory.
    pub fn make_quiet(&self) -> bool {
        // Asked before the cgroup is removed.
        let oom_killed = State::load(&self.engine.runtime_root(), self.id.as_str())
            .ok()
            .and_then(|state| Cgroup::open(&state.cgroup).ok())
            .and_then(|cgroup| cgroup.oom_kills().ok())
            .is_some_and(|kills| kills > 0);
        // What cannot be removed is kept in the runtime's record, where delete finds it.
        let _ = delete(&self.engine.runtime_root(), self.id.as_str(), true);
        oom_killed
    }

    /// Records the end, or removes the container if it was to go away.
    pub fn close(&self, ended: &Ended) -> Result<(), EngineError> {
        if self.auto_remove {
            let volumes = self.anonymous.iter().try_for_each(|name| self.engine.remove_volume(name));
            let files = self.engine.discard(&self.id, &self.name);
            // Last: while its files are there, its image is in use.
            let lease = self.store.release(self.id.as_str()).map_err(EngineError::from);
            volumes.and(files).and(lease)
        } else {
            // Before the run's record goes, so that the end is never unknown.
            let path = self.engine.directory(&self.id).join("exit.json");
            write_json(&path, ended, self.durability).and_then(|()| self.engine.discard_run(&self.id))
        }
    }
}

/// What is said of output that was lost.
pub(super) fn lost(dropped: u64) -> Option<String> {
    (dropped > 0).then(|| format!("{dropped} bytes of output could not be written to the log"))
}
