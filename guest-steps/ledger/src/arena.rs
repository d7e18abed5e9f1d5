//! The allocator of the step components.
//!
//! An instance serves one call and is thrown away with all its memory, so giving memory back early is worth little. What costs
//! is asking the host for more: each `memory.grow` changes page tables, which the host's threads then fight over. So memory
//! comes from an arena inside of the instance's initial memory, by moving a mark, and only what doesn't fit there comes
//! from the system's allocator. With small orders, a call never grows its memory.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::{Cell, UnsafeCell},
};

/// Many times what an order of a few items needs. It is all zero, so it adds nothing to the component's size.
const SIZE: usize = 256 * 1024;
/// Of the arena's first byte; what asks for more alignment goes to the system's allocator.
const ALIGN: usize = 16;

#[global_allocator]
static ARENA: Arena = Arena { bytes: UnsafeCell::new([0; SIZE]), mark: Cell::new(0) };

#[repr(C, align(16))]
struct Arena {
    bytes: UnsafeCell<[u8; SIZE]>,
    /// What lies before it is handed out. At most `SIZE`.
    mark: Cell<usize>,
}

// SAFETY: a component for wasm32-wasip2 has one thread.
unsafe impl Sync for Arena {}

impl Arena {
    /// Moves the mark behind `size` bytes at `start`, if they fit.
    fn take(&self, start: usize, size: usize) -> Option<*mut u8> {
        let end = start.checked_add(size).filter(|&end| end <= SIZE)?;
        self.mark.set(end);
        Some(self.first().wrapping_add(start))
    }

    fn first(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    /// Where `block` begins in the arena, if it is from there.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        block.addr().checked_sub(self.first().addr()).filter(|&offset| offset < SIZE)
    }

    fn is_last(&self, offset: usize, layout: Layout) -> bool {
        offset + layout.size() == self.mark.get()
    }
}

// SAFETY: blocks of the arena don't overlap, since the mark moves back only over the last one, when that is given back; they
// are aligned to `ALIGN` at most, which is asked of the arena; all others are the system's, which gets them back.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let fits = layout.align() <= ALIGN;
        let start = self.mark.get().next_multiple_of(layout.align());
        match fits.then(|| self.take(start, layout.size())).flatten() {
            Some(block) => block,
            // SAFETY: the caller keeps the contract of this very function.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            Some(offset) if self.is_last(offset, layout) => self.mark.set(offset),
            Some(_) => {}
            // SAFETY: a block that isn't from the arena is the system's.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(offset) = self.offset(block) else {
            // SAFETY: a block that isn't from the arena is the system's.
            return unsafe { System.realloc(block, layout, new_size) };
        };
        // The last block, such as a text that is being written, grows where it is.
        if self.is_last(offset, layout)
            && let Some(same) = self.take(offset, new_size)
        {
            return same;
        }
        // SAFETY: the caller promises that the new size is a valid one for this alignment; the two blocks don't overlap.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                block.copy_to_nonoverlapping(new, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}
