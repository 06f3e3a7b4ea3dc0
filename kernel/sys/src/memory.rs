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

/// Lets go of the program's own code and constants that were used so far; what is used again is read from the file again,
/// which is in memory for all processes. For programs whose parts are used one after the other.
pub fn let_go_of_code() {
    unsafe extern "C" {
        // The linker's: end(3), and ld's manual for the first.
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE: usize = 4096;
    let start = (&raw const __executable_start as usize).next_multiple_of(PAGE);
    let end = &raw const etext as usize / PAGE * PAGE;
    // SAFETY: headers, constants and code lie between the two, mapped from the file and never written: a program linked to
    // fixed addresses has nothing to relocate there. A page that is gone comes back as it was. Where this program was linked
    // otherwise and the range has holes, the kernel does what it can and says so, which changes nothing.
    unsafe { libc::madvise(start as *mut libc::c_void, end.saturating_sub(start), libc::MADV_DONTNEED) };
}
