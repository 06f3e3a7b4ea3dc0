//! A program's `main` without the standard library's preparations.
//!
//! Those read `/proc/self/maps`, install a handler that words stack overflows and a stack for it: twenty system calls that a
//! program that runs for milliseconds, once per container, can do without. What matters of them is done here.

use std::io::Write;

/// Defines `main` (of a `#![no_main]` program) as a call of `$run`, a `fn() -> u8`, whose value is the exit status.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main() -> i32 {
            $crate::start::run($run)
        }
    };
}

/// Runs a program's body as `fn main` would be run: the standard streams are open, SIGPIPE is ignored, what was printed is
/// written at the end.
pub fn run(body: fn() -> u8) -> i32 {
    open_standard_streams();
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let status = body();
    // Nobody is there to be told.
    let _ = std::io::stdout().flush();
    status.into()
}

/// A file must not become a standard stream because that was closed: closed ones become the null device.
fn open_standard_streams() {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: three pollfds; poll(2) only looks.
    let polled = unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) };
    for stream in &streams {
        let closed = match polled {
            // SAFETY: F_GETFD on any number is harmless.
            -1 => unsafe { libc::fcntl(stream.fd, libc::F_GETFD) == -1 },
            _ => stream.revents & libc::POLLNVAL != 0,
        };
        // SAFETY: a NUL-terminated path; the lowest free number is the closed stream's, those below being open.
        if closed && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } != stream.fd {
            std::process::abort();
        }
    }
}
