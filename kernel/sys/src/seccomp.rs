//! Loading seccomp filters.

use crate::{Result, check};
use std::os::fd::{FromRawFd, OwnedFd};

/// One classic BPF instruction (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `SECCOMP_FILTER_FLAG_TSYNC`
pub const FLAG_TSYNC: u32 = 1;
/// `SECCOMP_FILTER_FLAG_LOG`
pub const FLAG_LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Whether the kernel knows a flag: it looks at flags before it looks at the filter, of which there is none.
pub fn knows_flag(flag: u32) -> bool {
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    let none = core::ptr::null::<libc::sock_fprog>();
    // SAFETY: without a filter the call fails and changes nothing.
    let result = check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flag, none) });
    result == Err(rustix::io::Errno::FAULT)
}

/// `seccomp(2)`, `SECCOMP_SET_MODE_FILTER`: adds the filter to this thread. With [`FLAG_NEW_LISTENER`] the
/// notification descriptor is returned. Needs `no_new_privs` or CAP_SYS_ADMIN.
pub fn set_mode_filter(program: &[SockFilter], flags: u32) -> Result<Option<OwnedFd>> {
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    let length = u16::try_from(program.len()).map_err(|_| rustix::io::Errno::INVAL)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: SockFilter is laid out as struct sock_filter, the kernel only reads `len` of them.
    let value = check(unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const filter)
    })?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return if value == 0 { Ok(None) } else { Err(rustix::io::Errno::SRCH) };
    }
    // SAFETY: with this flag the value is a new descriptor owned by nobody else.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(value as i32) }))
}
