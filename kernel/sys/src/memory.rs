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

/// `set_mempolicy(2)` of this thread, inherited by what it executes: mode and flags as the kernel numbers them, nodes as a mask
/// of bits. An empty mask is none at all.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> crate::Result<()> {
    let (mask, bits) = match nodes {
        [] => (core::ptr::null(), 0),
        // The kernel reads one bit less than it is told.
        nodes => (nodes.as_ptr(), nodes.len() as u64 * u64::from(u64::BITS) + 1),
    };
    // SAFETY: the kernel reads bits - 1 bits from `mask`, which is all of `nodes`.
    crate::check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}
