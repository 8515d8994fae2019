//! A container as `state` and `list` show it.
use crate::runtime::state::{State, StateError, Status};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Fields and their order are runc's `containerState`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown<'a> {
    pub(super) oci_version: &'a str,
    pub(super) id: &'a str,
    /// 0 if it is stopped.
    pub(super) pid: i32,
    pub(super) status: Status,
    pub(super) bundle: &'a Path,
    pub(super) rootfs: &'a Path,
    pub(super) created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: &'a BTreeMap<String, String>,
    /// `state` leaves it empty, as runc does.
    pub(super) owner: String,
}

impl<'a> Shown<'a> {
    pub(super) fn new(state: &'a State, root: &Path, owner: String) -> Result<Shown<'a>, StateError> {
        let status = state.status(root)?;
        let pid = state.init.filter(|_| status != Status::Stopped).map_or(0, |init| init.pid);
        Ok(Shown {
            oci_version: &state.oci_version,
            id: &state.id,
            pid,
            status,
            bundle: &state.bundle,
            rootfs: &state.rootfs,
            created: &state.created,
            annotations: &state.annotations,
            owner,
        })
    }
}
