//! What is attached to which network, written down before it is made.
//!
//! ```text
//! attach: record {request} -> addresses, ports claimed -> record {+ what} -> links, rules -> record {+ attachment}
//! detach: rules, links -> claims given up -> record removed
//! ```
//! Whatever step a crash comes after, the record leads [`detach`] to all that may be there.
use super::bridge::{self, Checked, Holding};
use super::cni;
use super::firewall::Published;
use super::state::{self, State};
use super::{Attachment, NetworkError, Request, Which};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// `<state>/net/attached/<id>.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// Version of the format.
    version: u32,
    request: Request,
    /// What it has of a bridge, once that is reserved.
    #[serde(default)]
    holding: Option<Holding>,
    /// What came of the request, once all is made.
    #[serde(default)]
    attachment: Option<Attachment>,
}

const VERSION: u32 = 1;

/// Attaches a network namespace to a network. On an error nothing is left of it. Calls for the same id follow each
/// other; those for others may run at the same time.
///
/// # Errors
/// [`NetworkError::AlreadyAttached`] if the id has a record: it must be detached first.
pub fn attach(state: &Path, request: &Request) -> Result<Attachment, NetworkError> {
    check_id(&request.id)?;
    let directory = state;
    let state = State::new(state)?;
    let path = state.record(&request.id);
    if path.exists() {
        return Err(NetworkError::AlreadyAttached { id: request.id.clone() });
    }
    let mut record = Record { version: VERSION, request: request.clone(), holding: None, attachment: None };
    // Checked before anything is written: a malformed request leaves no trace.
    if let Which::Bridge(bridge) = &request.network {
        Checked::new(bridge)?;
    }
    state::write_json(&path, &record)?;
    let result = make(&state, &path, &mut record);
    if result.is_err() {
        // The first error counts; what this leaves, the record still leads to.
        let _ = detach(directory, &request.id);
    }
    result
}

fn make(state: &State, path: &Path, record: &mut Record) -> Result<Attachment, NetworkError> {
    let request = record.request.clone();
    let attachment = match &request.network {
        Which::Bridge(bridge) => {
            let bridge = Checked::new(bridge)?;
            let (holding, attachment) = bridge::reserve(state, &bridge, &request.id, &request.ports)?;
            record.holding = Some(holding.clone());
            state::write_json(path, record)?;
            bridge::make(state, &bridge, &request.id, &request.netns, &holding, &attachment)?;
            attachment
        }
        Which::Cni(plugins) => cni::add(state, &request, plugins)?,
    };
    record.attachment = Some(attachment.clone());
    state::write_json(path, record)?;
    Ok(attachment)
}

/// Removes all that was made for an id; that there is nothing is no error. If it fails it can be called again.
pub fn detach(state: &Path, id: &str) -> Result<(), NetworkError> {
    check_id(id)?;
    let Some(state) = State::existing(state) else { return Ok(()) };
    let path = state.record(id);
    let Some(record) = state::read_json::<Record>(&path)? else { return Ok(()) };
    match &record.request.network {
        Which::Bridge(bridge) => bridge::undo(&state, &bridge.link, id, record.holding.as_ref())?,
        Which::Cni(plugins) => cni::delete(&state, &record.request, plugins)?,
    }
    state::remove(&path)
}

/// What an id is attached to; `None` if it is not, or not wholly.
pub fn attachment(state: &Path, id: &str) -> Result<Option<Attachment>, NetworkError> {
    check_id(id)?;
    let Some(state) = State::existing(state) else { return Ok(None) };
    Ok(state::read_json::<Record>(&state.record(id))?.and_then(|record| record.attachment))
}

/// Detaches every id that is not among `live`; gives the ids that were. One that fails does not keep others from it:
/// the first error is told at the end.
pub fn sweep(state: &Path, live: &BTreeSet<String>) -> Result<Vec<String>, NetworkError> {
    let directory = state;
    let Some(state) = State::existing(state) else { return Ok(Vec::new()) };
    let (mut swept, mut result) = (Vec::new(), Ok(()));
    for id in ids(&state)? {
        if !live.contains(&id) {
            match detach(directory, &id) {
                Ok(()) => swept.push(id),
                Err(error) => result = result.and(Err(error)),
            }
        }
    }
    result.map(|()| swept)
}

/// Published ports of all that is attached to a bridge, for rules that are made anew.
pub(super) fn published(state: &State, link: &str) -> Result<Vec<Published>, NetworkError> {
    let mut all = Vec::new();
    for id in ids(state)? {
        // One that goes away meanwhile has no ports.
        let record = state::read_json::<Record>(&state.record(&id))?;
        let done = record.filter(|record| record.attachment.is_some()).and_then(|record| record.holding);
        all.extend(
            done.filter(|holding| holding.link == link).into_iter().flat_map(|holding| holding.published),
        );
    }
    Ok(all)
}

fn ids(state: &State) -> Result<Vec<String>, NetworkError> {
    let directory = state.attached();
    let failed = || crate::sys::SysError::io("readdir", directory.display().to_string());
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        if let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json"))
            && check_id(id).is_ok()
        {
            ids.push(id.to_owned());
        }
    }
    Ok(ids)
}

/// Ids are parts of paths and of names of links.
fn check_id(id: &str) -> Result<(), NetworkError> {
    let hex = id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !hex || !(13..=64).contains(&id.len()) {
        let reason = "it must be 13 to 64 hexadecimal digits in lower case";
        return Err(NetworkError::Invalid { what: "id", value: id.to_owned(), reason });
    }
    Ok(())
}
