//! What the records of tasks and containers keep for this door.
use super::api::{
    ContainerMetadata, ImageSpec, LinuxContainerResources, Mount, NamespaceOption, PodSandboxMetadata,
};
use super::error::{CriError, Result};
use crate::engine::names;
use crate::engine::record::Record;
use crate::engine::task::{Door, TaskRecord};
use crate::engine::timestamp::Timestamp;
use crate::image::digest::Digest;
use prost::Message;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::time::Duration;

/// The key in a record's data under which this door's things are.
const KEY: &str = "cri";
/// Names of tasks and containers are at most this long; see [`names::validate`].
const MAX_NAME: usize = 128;

/// Of a pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sandbox {
    /// As it was given.
    pub metadata: PodSandboxMetadata,
    /// As they were given.
    pub labels: BTreeMap<String, String>,
    /// As they were given.
    pub annotations: BTreeMap<String, String>,
    /// Where logs of its containers go; empty if nowhere in particular.
    pub log_directory: String,
    /// As it was given.
    pub namespaces: NamespaceOption,
    /// Whether its containers may be privileged.
    pub privileged: bool,
    /// As it was given.
    pub runtime_handler: String,
    /// SHA-256 of the request.
    pub request: String,
}

/// Of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// As it was given.
    pub metadata: ContainerMetadata,
    /// As they were given.
    pub labels: BTreeMap<String, String>,
    /// As they were given.
    pub annotations: BTreeMap<String, String>,
    /// As it was given.
    pub image: ImageSpec,
    /// `repository@digest` of the image, or its id.
    pub image_ref: String,
    /// As they were given.
    pub mounts: Vec<Mount>,
    /// As they were given when it was made; see [`super::resources`] for what changed since.
    pub resources: Option<LinuxContainerResources>,
    /// CRI's number of the stop signal that was asked for.
    pub stop_signal: i32,
    /// SHA-256 of the request.
    pub request: String,
}

fn write<T: Serialize>(id: &str, kept: &T) -> Result<serde_json::Value> {
    let value = serde_json::to_value(kept).map_err(|source| CriError::Kept { id: id.to_owned(), source })?;
    Ok(serde_json::json!({ KEY: value }))
}

fn read<T: DeserializeOwned>(id: &str, data: &serde_json::Value) -> Result<Option<T>> {
    data.get(KEY)
        .map(|value| T::deserialize(value).map_err(|source| CriError::Kept { id: id.to_owned(), source }))
        .transpose()
}

impl Sandbox {
    /// For [`crate::engine::task::TaskSpec::data`].
    pub fn to_data(&self) -> Result<serde_json::Value> {
        write(&self.metadata.name, self)
    }

    /// `None` for a task that came through another door.
    pub fn of(record: &TaskRecord) -> Result<Option<Self>> {
        if record.spec.door == Door::Cri { read(&record.id, &record.spec.data) } else { Ok(None) }
    }
}

impl Container {
    /// For [`crate::engine::task::ContainerRequest::data`].
    pub fn to_data(&self) -> Result<serde_json::Value> {
        write(&self.metadata.name, self)
    }

    /// `None` for a container that came through another door.
    pub fn of(record: &Record) -> Result<Option<Self>> {
        if record.task.is_some() { read(&record.id, &record.data) } else { Ok(None) }
    }
}

/// SHA-256 of a request, by which a retry of it is known: maps are in order, so its bytes are always the same.
pub fn digest(request: &impl Message) -> String {
    Digest::of(&request.encode_to_vec()).hex()
}

/// Name of a pod's task: `k8s_POD_NAMESPACE_UID_ATTEMPT`.
pub fn sandbox_name(metadata: &PodSandboxMetadata) -> String {
    let PodSandboxMetadata { name, namespace, uid, attempt } = metadata;
    safe(&format!("k8s_{name}_{namespace}_{uid}_{attempt}"))
}

/// Name of a pod's container: `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`, or with the pod's own attempt in the hash
/// where it does not fit.
pub fn container_name(container: &ContainerMetadata, pod: &PodSandboxMetadata, sandbox: &str) -> String {
    let PodSandboxMetadata { name, namespace, uid, .. } = pod;
    // A pod that was made again has other containers of the same names for a while.
    let short = sandbox.get(..names::SHORT_LENGTH).unwrap_or(sandbox);
    safe(&format!("k8s_{}_{name}_{namespace}_{uid}_{}_{short}", container.name, container.attempt))
}

/// The text itself if it can be a name, else its beginning and its hash.
fn safe(text: &str) -> String {
    if names::validate(text).is_ok() {
        return text.to_owned();
    }
    let hash = &Digest::of(text.as_bytes()).hex()[..32];
    let fit = |byte: char| byte.is_ascii_alphanumeric() || "_.-".contains(byte);
    let beginning: String =
        text.chars().map(|byte| if fit(byte) { byte } else { '-' }).take(MAX_NAME - 33).collect();
    format!("{beginning}_{hash}")
}

/// Nanoseconds since 1970, as all times of CRI.
pub fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.since(Timestamp::from_unix(Duration::ZERO)).as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, uid: &str) -> PodSandboxMetadata {
        PodSandboxMetadata { name: name.into(), uid: uid.into(), namespace: "default".into(), attempt: 1 }
    }

    #[test]
    fn names_are_readable_where_they_fit() {
        assert_eq!(sandbox_name(&pod("web", "u1")), "k8s_web_default_u1_1");
        let container = ContainerMetadata { name: "c".into(), attempt: 2 };
        let name = container_name(&container, &pod("web", "u1"), &"ab".repeat(32));
        assert_eq!(name, "k8s_c_web_default_u1_2_abababababab");
    }

    #[test]
    fn long_and_odd_names_are_valid_and_differ() {
        let long = |uid: &str| sandbox_name(&pod(&"x".repeat(200), uid));
        for name in [long("a"), long("b"), sandbox_name(&pod("ä/..", "u"))] {
            names::validate(&name).unwrap();
        }
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn what_is_kept_comes_back() {
        let kept = Container {
            metadata: ContainerMetadata { name: "c".into(), attempt: 2 },
            labels: BTreeMap::from([("a".into(), "b".into())]),
            annotations: BTreeMap::new(),
            image: ImageSpec { image: "busybox".into(), ..ImageSpec::default() },
            image_ref: "x".into(),
            mounts: vec![Mount { container_path: "/m".into(), readonly: true, ..Mount::default() }],
            resources: Some(LinuxContainerResources { cpu_shares: 7, ..LinuxContainerResources::default() }),
            stop_signal: 3,
            request: "r".into(),
        };
        let data = kept.to_data().unwrap();
        let back: Container = read("id", &data).unwrap().unwrap();
        assert_eq!(format!("{back:?}"), format!("{kept:?}"));
        assert!(read::<Container>("id", &serde_json::Value::Null).unwrap().is_none());
    }

    #[test]
    fn times_are_nanoseconds() {
        assert_eq!(nanos(Timestamp::from_unix(Duration::new(1, 5))), 1_000_000_005);
    }
}
