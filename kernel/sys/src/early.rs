//! The program's entry point before the C library's: moving into the protected image while that is cheap.
//!
//! A runtime must not be the file it was started from while it works in a container ([`crate::image`]), so it has to be
//! executed twice. The C library's start costs more than the rest of the first half (on a virtual machine each of its dozens of
//! CPUID instructions leaves the guest), so the first half is done before it: a program linked with
//! `-Wl,-e,hull_entry` begins here.
//!
//! This is only a shortcut. Whatever does not succeed here is left to the program itself, which must ask
//! [`crate::is_protected_image`] in any case.
//!
//! Nothing of the C library is there yet: no thread-local storage, and `memcpy` and its like are not bound. So nothing
//! here moves more than a register: raw pointers, integers, zeroed statics.

#![allow(static_mut_refs)]

use core::arch::{asm, naked_asm};
use core::ffi::{CStr, c_char};
use libc::c_long;

/// Commands that work in a container's namespaces.
const COMMANDS: [&CStr; 4] = [c"run", c"create", c"exec", c"restore"];
/// Programs of other names in this file, which are executed inside containers.
const OTHER_NAMES: [&CStr; 2] = [c"docker-init", c"hello"];

const FSCONFIG_SET_STRING: c_long = 1;
const FSCONFIG_CMD_CREATE: c_long = 6;
const CLOEXEC: c_long = 1;
const RDONLY_NOSUID_NODEV: c_long = 1 | 2 | 4;
const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
const ST_RDONLY: i64 = 1;
const AT_FDCWD: c_long = -100;

const PATH_SIZE: usize = 4096;
static mut PATH: [u8; PATH_SIZE] = [0; PATH_SIZE];
// Zeroed by the loader; the kernel fills in what is read here.
static mut OWN: core::mem::MaybeUninit<libc::stat> = core::mem::MaybeUninit::zeroed();
static mut SEEN: core::mem::MaybeUninit<libc::stat> = core::mem::MaybeUninit::zeroed();
/// `struct statfs`, of which the C library's declaration hides the flags: 15 words.
static mut FS: [i64; 15] = [0; 15];
const FS_TYPE: usize = 0;
const FS_FLAGS: usize = 10;

unsafe extern "C" {
    /// The C library's entry point (crt1.o).
    fn _start() -> !;
}

/// Where the kernel enters a program linked with `-Wl,-e,hull_entry`: stack and registers as System V's ABI has them.
///
/// # Safety
/// For the kernel only.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hull_entry() -> ! {
    // rdx is the function to call at exit, rsp the arguments: both are handed on as they were found.
    naked_asm!(
        "xor ebp, ebp",
        "mov r12, rdx",
        "mov rbx, rsp",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {early}",
        "mov rsp, rbx",
        "mov rdx, r12",
        "jmp {start}",
        early = sym enter_protected_image,
        start = sym _start,
    )
}

/// Executes this program again from a read-only overlay of itself if its arguments say that it will work in a container and
/// it is not protected yet. Returns when there is nothing to do or it cannot be done.
unsafe extern "C" fn enter_protected_image(stack: *const usize) {
    // SAFETY: the kernel's initial stack: argc, argv, null, envp, null, auxiliary vector; strings end with NUL.
    unsafe {
        let argc = *stack;
        let argv = stack.add(1) as *const *const c_char;
        let envp = argv.add(argc + 1);
        if wants_protection(argc, argv) && !is_second_start(envp) {
            execute_overlay(argv, envp);
        }
    }
}

unsafe fn wants_protection(argc: usize, argv: *const *const c_char) -> bool {
    // SAFETY: argv has argc strings.
    unsafe {
        if argc < 2 || is_one_of(after_last_slash(*argv), OTHER_NAMES.as_ptr(), OTHER_NAMES.len()) {
            return false;
        }
        let mut at = 1;
        while at < argc {
            if is_one_of(*argv.add(at), COMMANDS.as_ptr(), COMMANDS.len()) {
                return true;
            }
            at += 1;
        }
        false
    }
}

/// Executed by descriptor, as the overlay is and a sealed copy: `AT_EXECFN` then names the descriptor.
unsafe fn is_second_start(envp: *const *const c_char) -> bool {
    // SAFETY: behind the environment's null pointer is the auxiliary vector, pairs up to AT_NULL.
    unsafe {
        let mut at = envp;
        while !(*at).is_null() {
            at = at.add(1);
        }
        let mut pair = at.add(1) as *const usize;
        while *pair != libc::AT_NULL as usize {
            if *pair == libc::AT_EXECFN as usize {
                return starts_with(*pair.add(1) as *const c_char, c"/dev/fd/".as_ptr());
            }
            pair = pair.add(2);
        }
        false
    }
}

/// As [`crate::image::read_only_self`]. What is opened is close-on-exec, so only a failure closes it.
unsafe fn execute_overlay(argv: *const *const c_char, envp: *const *const c_char) {
    let (mut context, mut mount, mut file) = (-1, -1, -1);
    // SAFETY: system calls with NUL-terminated strings and the statics above, which nobody else uses: there is one thread
    // and this runs once.
    unsafe {
        let exe = c"/proc/self/exe".as_ptr() as c_long;
        let own = call(libc::SYS_openat, AT_FDCWD, exe, (libc::O_RDONLY | libc::O_CLOEXEC).into(), 0, 0);
        let name = match is_unprotected(own) {
            true => own_name(exe),
            false => core::ptr::null(),
        };
        if !name.is_null() {
            context = call(libc::SYS_fsopen, c"overlay".as_ptr() as c_long, CLOEXEC, 0, 0, 0);
            mount = overlay(context);
            let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
            file = call(libc::SYS_openat, mount, name as c_long, flags.into(), 0, 0);
            // The path may have been replaced since this process began: then it is another program.
            if call(libc::SYS_fstat, file, SEEN.as_mut_ptr() as c_long, 0, 0, 0) == 0
                && (*SEEN.as_ptr()).st_ino == (*OWN.as_ptr()).st_ino
                && (*SEEN.as_ptr()).st_size == (*OWN.as_ptr()).st_size
            {
                let empty = c"".as_ptr() as c_long;
                let flags = libc::AT_EMPTY_PATH.into();
                call(libc::SYS_execveat, file, empty, argv as c_long, envp as c_long, flags);
            }
        }
        close(file);
        close(mount);
        close(context);
        close(own);
    }
}

/// Whether the file can be looked at and is neither a sealed copy nor on a read-only overlay.
unsafe fn is_unprotected(own: c_long) -> bool {
    // SAFETY: the kernel fills in the statics.
    unsafe {
        if call(libc::SYS_fstat, own, OWN.as_mut_ptr() as c_long, 0, 0, 0) < 0
            || call(libc::SYS_fstatfs, own, &raw mut FS as c_long, 0, 0, 0) < 0
        {
            return false;
        }
        let fs = &raw const FS as *const i64;
        let read_only_overlay =
            *fs.add(FS_TYPE) == OVERLAYFS_SUPER_MAGIC && *fs.add(FS_FLAGS) & ST_RDONLY != 0;
        let seals = call(libc::SYS_fcntl, own, libc::F_GET_SEALS.into(), 0, 0, 0);
        !read_only_overlay && (seals < 0 || seals & c_long::from(libc::F_SEAL_WRITE) == 0)
    }
}

/// Reads the program's path into `PATH` and ends it behind the directory; returns the name, null on a failure.
unsafe fn own_name(exe: c_long) -> *const u8 {
    let path = &raw mut PATH as *mut u8;
    // SAFETY: within PATH: readlink wrote `length` bytes, fewer than there are.
    unsafe {
        let length = call(libc::SYS_readlink, exe, path as c_long, PATH_SIZE as c_long, 0, 0);
        if length < 2 || length >= PATH_SIZE as c_long || *path != b'/' {
            return core::ptr::null();
        }
        *path.offset(length as isize) = 0;
        let mut slash = path.offset(length as isize - 1);
        while *slash != b'/' {
            slash = slash.sub(1);
        }
        *slash = 0;
        slash.add(1)
    }
}

/// Mounts, detached, the directory in `PATH` with nothing over it; negative on a failure.
unsafe fn overlay(context: c_long) -> c_long {
    let layer = c"lowerdir+".as_ptr() as c_long;
    let path = &raw const PATH as *const u8;
    // SAFETY: NUL-terminated strings.
    unsafe {
        let directory = if *path == 0 { c"/".as_ptr() as c_long } else { path as c_long };
        // Two layers are needed when there is no upper one; the second is below the first and never looked at.
        let second = c"/dev".as_ptr() as c_long;
        if call(libc::SYS_fsconfig, context, FSCONFIG_SET_STRING, layer, directory, 0) < 0
            || call(libc::SYS_fsconfig, context, FSCONFIG_SET_STRING, layer, second, 0) < 0
            || call(libc::SYS_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0) < 0
        {
            return -1;
        }
        call(libc::SYS_fsmount, context, CLOEXEC, RDONLY_NOSUID_NODEV, 0, 0)
    }
}

unsafe fn close(fd: c_long) {
    if fd >= 0 {
        // SAFETY: a descriptor made here.
        unsafe { call(libc::SYS_close, fd, 0, 0, 0, 0) };
    }
}

unsafe fn after_last_slash(text: *const c_char) -> *const c_char {
    // SAFETY: up to the NUL of the caller's string.
    unsafe {
        let (mut name, mut at) = (text, text);
        while *at != 0 {
            if *at as u8 == b'/' {
                name = at.add(1);
            }
            at = at.add(1);
        }
        name
    }
}

unsafe fn is_one_of(text: *const c_char, names: *const &CStr, count: usize) -> bool {
    // SAFETY: both end with NUL; `names` are `count`.
    unsafe {
        let mut at = 0;
        while at < count {
            let name = (*names.add(at)).as_ptr();
            if starts_with(text, name) && starts_with(name, text) {
                return true;
            }
            at += 1;
        }
        false
    }
}

unsafe fn starts_with(text: *const c_char, start: *const c_char) -> bool {
    // SAFETY: both end with NUL, and neither is read beyond it.
    unsafe {
        let (mut text, mut start) = (text, start);
        while *start != 0 {
            if *text != *start {
                return false;
            }
            text = text.add(1);
            start = start.add(1);
        }
        true
    }
}

/// A system call; its value, negative errno on failure.
unsafe fn call(number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long) -> c_long {
    let value: c_long;
    // SAFETY: the kernel's calling convention; what the arguments mean is the caller's matter.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => value,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    value
}
