//! NUMA memory policy of the calling thread: set_mempolicy(2).
use super::SysError;
use nix::errno::Errno;

/// Nodes that a [`NodeMask`] can hold: as many as the largest kernel knows (NODES_SHIFT is at most 10).
pub const MAX_NODES: usize = 1024;

/// A set of memory nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeMask([u64; MAX_NODES / 64]);

impl NodeMask {
    /// Adds a node; false if it is beyond [`MAX_NODES`].
    pub fn insert(&mut self, node: usize) -> bool {
        let Some(word) = self.0.get_mut(node / 64) else { return false };
        *word |= 1 << (node % 64);
        true
    }

    /// Whether it has no node.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// Sets the policy: `mode` is an `MPOL_*` number with `MPOL_F_*` bits (linux/mempolicy.h).
pub fn set_memory_policy(mode: i32, nodes: &NodeMask) -> Result<(), SysError> {
    // The kernel takes one bit less than it is told (mm/mempolicy.c, get_nodes).
    let length: libc::c_ulong = if nodes.is_empty() { 0 } else { MAX_NODES as libc::c_ulong + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.0.as_ptr() };
    // SAFETY: the kernel reads at most `length` - 1 bits through `mask`, which has that many; with 0 it
    // reads nothing through the null pointer.
    let rc = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, length) };
    Errno::result(rc).map(drop).map_err(SysError::on("set_mempolicy", format!("mode {mode:#x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_beyond_the_mask_are_refused() {
        let mut mask = NodeMask::default();
        assert!(mask.is_empty() && mask.insert(0) && mask.insert(MAX_NODES - 1) && !mask.insert(MAX_NODES));
        assert!(!mask.is_empty());
    }

    #[test]
    fn a_mode_that_is_none_is_named_with_its_number() {
        let error = set_memory_policy(0xff, &NodeMask::default()).expect_err("no such mode");
        assert_eq!((error.call, error.errno), ("set_mempolicy", Errno::EINVAL));
    }
}
