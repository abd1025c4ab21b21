//! The memory that a test holds.

#![expect(unsafe_code, reason = "an allocator that counts is one")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

/// Counts the bytes that each thread holds. A test on a runtime of one thread sees its own alone.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that this thread has allocated and not freed.
pub(super) fn held() -> isize {
    LIVE.get()
}

fn note(bytes: usize, sign: isize) {
    // A thread that ends has no cell any more, and no reader.
    let _ = LIVE.try_with(|live| live.set(live.get() + sign * isize::try_from(bytes).unwrap_or(0)));
}

// SAFETY: the system's allocator does everything; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 1);
        // SAFETY: what the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(layout.size(), -1);
        // SAFETY: what the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}
