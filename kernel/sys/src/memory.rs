//! The C library's allocator, told to keep a small process small.

/// Makes the allocator give freed memory back at once: blocks from 64 KiB on are mappings of their own, and the top
/// of the heap is returned above 32 KiB. For processes of which there are many.
pub fn stay_small() {
    for (option, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, 64 * 1024),
        (libc::M_TRIM_THRESHOLD, 32 * 1024),
        (libc::M_TOP_PAD, 0),
    ] {
        // SAFETY: mallopt(3) takes plain numbers; a value it does not like changes nothing.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Gives all free memory back to the kernel.
pub fn trim() {
    // SAFETY: malloc_trim(3) touches only memory that is free.
    unsafe { libc::malloc_trim(0) };
}

/// Makes the heap grow in large steps and never shrink. For processes that live for milliseconds: each step is a system
/// call.
pub fn grow_in_steps_of(bytes: i32) {
    for (option, value) in [(libc::M_TOP_PAD, bytes), (libc::M_TRIM_THRESHOLD, i32::MAX)] {
        // SAFETY: as in `stay_small`.
        unsafe { libc::mallopt(option, value) };
    }
}
