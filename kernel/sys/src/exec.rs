//! `execve(2)` with explicit environment.

use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A vector of C strings ended by a null pointer, as `execve` wants it; built ahead so that nothing is allocated
/// between the last security step and the exec.
pub struct CStrings {
    // Pointers into `owned`; CString's heap buffer does not move when the vector does.
    pointers: Vec<*const libc::c_char>,
    owned: Vec<CString>,
}

impl CStrings {
    /// Takes the strings. Fails with the first that holds a NUL byte.
    pub fn new<S: AsRef<[u8]>>(items: impl IntoIterator<Item = S>) -> Result<Self, Vec<u8>> {
        let mut owned = Vec::new();
        for item in items {
            let bytes = item.as_ref();
            owned.push(CString::new(bytes).map_err(|_| bytes.to_vec())?);
        }
        let mut pointers: Vec<_> = owned.iter().map(|item| item.as_ptr()).collect();
        pointers.push(core::ptr::null());
        Ok(Self { pointers, owned })
    }

    /// The strings.
    pub fn as_slice(&self) -> &[CString] {
        &self.owned
    }
}

/// `execve(2)`: replaces this process; returns only on failure.
pub fn execve(path: &CStr, argv: &CStrings, envp: &CStrings) -> Errno {
    // SAFETY: path is NUL-terminated; both vectors end with a null pointer and their strings live in `owned`.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    crate::last_errno()
}

/// `execveat(2)` of an open file (`AT_EMPTY_PATH`); returns only on failure.
pub fn fexecve(file: BorrowedFd<'_>, argv: &CStrings, envp: &CStrings) -> Errno {
    // SAFETY: as in `execve`; the empty path is a static NUL-terminated string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    crate::last_errno()
}
