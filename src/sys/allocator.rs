//! The allocator of the executable with musl.
use std::alloc::{GlobalAlloc, Layout, System};

use dlmalloc::GlobalDlmalloc;

/// What is smaller comes from dlmalloc, which keeps pages that were given back: musl's allocator unmaps each at once and
/// maps it again, 40 times in a run. What is larger is musl's, which lets it grow in its place (mremap(2)) and gives it
/// back to the kernel.
const LARGE: usize = 64 * 1024;

/// dlmalloc for what is small, musl for what is large.
#[derive(Debug)]
pub struct Allocator;

// SAFETY: each layout always goes to the same one of two allocators, which keep the contract themselves; a block that
// becomes small or large is moved from one to the other.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is theirs.
        unsafe { if layout.size() < LARGE { GlobalDlmalloc.alloc(layout) } else { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            if layout.size() < LARGE {
                GlobalDlmalloc.alloc_zeroed(layout)
            } else {
                System.alloc_zeroed(layout)
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from where its layout says.
        unsafe {
            if layout.size() < LARGE {
                GlobalDlmalloc.dealloc(block, layout);
            } else {
                System.dealloc(block, layout);
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the block came from where its layout says. For the move: `size` with the old alignment is a layout,
        // which the caller promises, and both blocks have the smaller of the two sizes.
        unsafe {
            match (layout.size() < LARGE, size < LARGE) {
                (true, true) => GlobalDlmalloc.realloc(block, layout, size),
                (false, false) => System.realloc(block, layout, size),
                _ => {
                    let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                    if !moved.is_null() {
                        block.copy_to_nonoverlapping(moved, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}
