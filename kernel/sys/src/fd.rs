//! Descriptors: `close_range(2)`, `dup2` onto the standard streams.

use crate::{Result, check};
use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

/// Marks every descriptor from `first` on close-on-exec (`close_range(2)`, `CLOSE_RANGE_CLOEXEC`).
pub fn cloexec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: only a flag of descriptors changes, no descriptor is closed under an owner.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes, in a child made by [`crate::clone3`] that never returns to its caller's code, every descriptor from `first` on
/// but those of `keep`: what the parent or the parent's caller has open is none of its business.
pub fn close_all_but(first: u32, keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).filter(|fd| *fd >= first).collect();
    kept.sort_unstable();
    let mut from = first;
    for last in kept.into_iter().map(Some).chain([None]) {
        let to = last.map_or(u32::MAX, |last| last.saturating_sub(1));
        if from <= to && last != Some(from) {
            // SAFETY: plain integers. Values of the parent's that own what is closed are never dropped in such a child, which
            // only executes or exits.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) })?;
        }
        from = last.map_or(from, |last| last + 1);
    }
    Ok(())
}

/// Has the kernel begin to write a range of a file to the disk, so that a later flush finds little to do
/// (`sync_file_range(2)`, `SYNC_FILE_RANGE_WRITE`). A hint: nothing is known of the outcome.
pub fn start_writeback(file: impl AsFd, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
    // SAFETY: plain numbers; the descriptor is open for the call.
    unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Makes `number` a copy of `fd`, without close-on-exec; what `number` was is closed (`dup2(2)`).
/// For the standard streams (0, 1, 2) only, which nobody owns as a value.
pub fn set_standard_stream(fd: impl AsFd, number: i32) -> Result<()> {
    if !(0..=2).contains(&number) {
        return Err(rustix::io::Errno::INVAL);
    }
    let fd = fd.as_fd().as_raw_fd();
    if fd == number {
        // dup2 onto itself leaves close-on-exec set.
        // SAFETY: F_SETFD takes a plain integer.
        return check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: 0 to 2 are not owned by any value (std only borrows them), so no owner loses its descriptor.
    check(unsafe { libc::dup2(fd, number) }.into()).map(drop)
}

/// Takes ownership of a descriptor number inherited at exec (announced by a flag or a variable).
/// Fails with `EBADF` when it is not open, and for the standard streams. The caller must be the only taker;
/// taking twice is prevented by marking what was taken close-on-exec: an inherited one is not.
pub fn take_inherited(number: i32) -> Result<OwnedFd> {
    if number <= 2 {
        return Err(rustix::io::Errno::BADF);
    }
    // SAFETY: F_GETFD on any number is harmless.
    let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) }.into())?;
    if flags & libc::c_long::from(libc::FD_CLOEXEC) != 0 {
        // Everything this process opens itself is close-on-exec, so this one has an owner already.
        return Err(rustix::io::Errno::BUSY);
    }
    // SAFETY: plain integers.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: open, and inherited: Rust code here opens descriptors close-on-exec, so no value owns this one.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A copy of `fd` (`F_DUPFD_CLOEXEC`) whose number is at least `min`.
pub fn dup_from(fd: impl AsFd, min: i32) -> Result<OwnedFd> {
    // SAFETY: plain integers.
    let new = check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, min) }.into())?;
    // SAFETY: just made by the kernel, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(new as i32) })
}

/// Keeps `fd` open through exec.
pub fn keep_on_exec(fd: impl AsFd) -> Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFD, 0) }.into()).map(drop)
}

/// Closes, in a child made by [`crate::clone3`], the child's copy of a descriptor whose owner lives on in the parent. The number
/// stays owned by the child's `OwnedFd`, so it becomes a copy of `instead`, close-on-exec.
pub fn close_copy(fd: &OwnedFd, instead: &OwnedFd) -> Result<()> {
    // SAFETY: dup3 onto an owned number closes what it was and leaves the number open and owned as before.
    check(unsafe { libc::dup3(instead.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) }.into()).map(drop)
}

/// Descriptors that nobody needs any more, closed together: `close_range(2)` takes neighbouring numbers in one call. What is
/// left is closed with the value.
#[derive(Debug, Default)]
pub struct Spent(RefCell<Vec<OwnedFd>>);

impl Spent {
    /// How many are kept before they are closed: far fewer than a process may have.
    const MANY: usize = 128;

    /// Takes a descriptor to close later.
    pub fn add(&self, fd: OwnedFd) {
        self.0.borrow_mut().push(fd);
        if self.0.borrow().len() >= Self::MANY {
            self.close();
        }
    }

    /// Closes what was taken.
    pub fn close(&self) {
        let mut numbers: Vec<u32> = self.0.take().into_iter().map(|fd| fd.into_raw_fd() as u32).collect();
        numbers.sort_unstable();
        for run in numbers.chunk_by(|one, next| one + 1 == *next) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                // SAFETY: every number of the run was owned here and no value holds it any more.
                unsafe { libc::syscall(libc::SYS_close_range, *first, *last, 0) };
            }
        }
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spent_descriptors_are_closed_and_no_others() {
        let open = || std::fs::File::open("/dev/null").expect("open");
        let is_open = |number: i32| std::path::Path::new(&format!("/proc/self/fd/{number}")).exists();
        // High numbers, which no other test takes meanwhile.
        let at = |number| dup_from(open(), number).expect("dup");
        let fds = [600, 601, 602, 603, 700].map(at);
        let numbers = fds.each_ref().map(AsRawFd::as_raw_fd);
        assert_eq!(numbers, [600, 601, 602, 603, 700]);
        let [a, b, kept, c, d] = fds;
        let spent = Spent::default();
        [a, b, c, d].into_iter().for_each(|fd| spent.add(fd));
        assert!(numbers.iter().all(|number| is_open(*number)));
        drop(spent);
        assert_eq!(numbers.map(is_open), [false, false, true, false, false]);
        drop(kept);
    }
}
