//! The machine's budget: how many layers all processes together fetch and unpack at once.
use super::{Result, Store};
use crate::sys::range_lock;
use std::fs::File;

/// One of the machine's slots; given back when it is dropped, or its process killed.
#[derive(Debug)]
pub struct MachineSlot {
    _lock: File,
}

impl Store {
    /// Takes one of the first `budget` slots; nothing if they are all taken. Nobody who has one waits for another
    /// process, so that one is free in the end.
    pub fn machine_slot(&self, budget: usize) -> Result<Option<MachineSlot>> {
        // A description of its own: its locks are no other thread's.
        let lock = self.lock_file("slots.lock")?;
        for slot in 0..budget {
            if range_lock::try_lock_byte(&lock, slot as u64)? {
                return Ok(Some(MachineSlot { _lock: lock }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let first = store.machine_slot(2).unwrap();
        let second = store.machine_slot(2).unwrap();
        assert!(first.is_some() && second.is_some());
        assert!(store.machine_slot(2).unwrap().is_none());
        assert!(store.machine_slot(3).unwrap().is_some());
        drop(first);
        assert!(store.machine_slot(2).unwrap().is_some());
    }
}
