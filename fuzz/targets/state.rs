//! state.json, and the document that `state` prints of it.
#![no_main]
use corten::runtime::state::{State, Status};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(state) = serde_json::from_slice::<State>(bytes) else { return };
    let again = serde_json::to_vec(&state).expect("what was read can be written");
    assert!(serde_json::from_slice::<State>(&again).is_ok(), "what was written can be read");
    let shown = state.oci_json(Status::Stopped);
    assert!(serde_json::from_slice::<serde_json::Value>(&shown).is_ok());
});
