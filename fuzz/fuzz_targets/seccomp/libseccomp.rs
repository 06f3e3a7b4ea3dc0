//! libseccomp, asked as runc asks it: an architecture after another, one rule for each name; two conditions on one argument
//! make a rule each; and before the filter a check that answers ENOSYS beyond the highest call that is named.

use super::bpf::{Call, I386, Instruction, X86_64, verdict};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompOperator, LinuxSyscall};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;

const ENOSYS: u32 = 0x0005_0000 | 38;
const X32_BIT: u32 = 0x4000_0000;
/// `SCMP_ARCH_X32`: the architecture of x86-64 with narrow pointers.
const X32: u32 = 0x4000_003e;

#[repr(C)]
#[derive(Clone, Copy)]
struct Comparison {
    arg: c_uint,
    op: c_int,
    a: u64,
    b: u64,
}

#[link(name = "seccomp")]
unsafe extern "C" {
    fn seccomp_init(default: u32) -> *mut c_void;
    fn seccomp_release(context: *mut c_void);
    fn seccomp_arch_add(context: *mut c_void, arch: u32) -> c_int;
    fn seccomp_rule_add_array(context: *mut c_void, action: u32, call: c_int, count: c_uint, args: *const Comparison) -> c_int;
    fn seccomp_export_bpf(context: *const c_void, fd: c_int) -> c_int;
    fn seccomp_syscall_resolve_name(name: *const c_char) -> c_int;
    fn seccomp_syscall_resolve_name_arch(arch: u32, name: *const c_char) -> c_int;
}

struct Context(*mut c_void);

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by seccomp_init and released once.
        unsafe { seccomp_release(self.0) }
    }
}

/// A filter of libseccomp's and what runc puts before it.
pub(crate) struct Oracle {
    program: Vec<Instruction>,
    /// For each ABI of the policy the highest number that is named; `None` when the policy names none there.
    highest: Vec<(u32, Option<u32>)>,
    beyond: bool,
}

fn resolve(arch: u32, name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a string that ends with NUL.
    let number = unsafe { seccomp_syscall_resolve_name_arch(arch, name.as_ptr()) };
    // Below zero are libseccomp's own numbers for what the architecture lacks.
    u32::try_from(number).ok()
}

/// The architecture word and the number of a call in each ABI that has it.
pub(crate) fn numbers(name: &str) -> Vec<(u32, u32)> {
    let abis = [(X86_64, X86_64), (I386, I386), (X32, X86_64)];
    abis.iter().filter_map(|(abi, arch)| Some((*arch, resolve(*abi, name)?))).collect()
}

fn operator(operator: LinuxSeccompOperator) -> c_int {
    match operator {
        LinuxSeccompOperator::ScmpCmpNe => 1,
        LinuxSeccompOperator::ScmpCmpLt => 2,
        LinuxSeccompOperator::ScmpCmpLe => 3,
        LinuxSeccompOperator::ScmpCmpEq => 4,
        LinuxSeccompOperator::ScmpCmpGe => 5,
        LinuxSeccompOperator::ScmpCmpGt => 6,
        LinuxSeccompOperator::ScmpCmpMaskedEq => 7,
    }
}

impl Oracle {
    /// The filter for `policy`; `None` when libseccomp refuses it.
    pub(crate) fn new(policy: &LinuxSeccomp) -> Option<Self> {
        let errno = |action: Action| action.as_u32(matches!(action, Action::ScmpActErrno).then_some(1));
        // SAFETY: any number may be asked for; a null pointer is checked.
        let context = Context(unsafe { seccomp_init(errno(policy.default_action())) });
        if context.0.is_null() {
            return None;
        }
        let archs: Vec<u32> = policy
            .architectures()
            .iter()
            .flatten()
            .map(|arch| match arch {
                Arch::ScmpArchX86 => I386,
                Arch::ScmpArchX32 => X32,
                _ => X86_64,
            })
            .collect();
        for arch in archs.iter().filter(|arch| **arch != X86_64) {
            // SAFETY: a valid context.
            if unsafe { seccomp_arch_add(context.0, *arch) } != 0 {
                return None;
            }
        }
        for rule in policy.syscalls().iter().flatten() {
            add(&context, rule, errno(rule.action()))?;
        }
        let names = || policy.syscalls().iter().flatten().flat_map(|rule| rule.names());
        let highest = archs.iter().map(|arch| (*arch, names().filter_map(|name| resolve(*arch, name)).max()));
        let beyond = !matches!(policy.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
        Some(Self { program: export(&context)?, highest: highest.collect(), beyond })
    }

    pub(crate) fn verdict(&self, call: &Call) -> u32 {
        let abi = if call.arch == X86_64 && call.number & X32_BIT != 0 { X32 } else { call.arch };
        let highest = self.highest.iter().find(|(arch, _)| *arch == abi).and_then(|(_, highest)| *highest);
        match highest {
            Some(highest) if self.beyond && call.number > highest && call.number != u32::MAX => ENOSYS,
            _ => verdict(&self.program, call),
        }
    }
}

fn add(context: &Context, rule: &LinuxSyscall, action: u32) -> Option<()> {
    let args: Vec<Comparison> = rule
        .args()
        .iter()
        .flatten()
        .map(|arg| Comparison {
            arg: arg.index() as c_uint,
            op: operator(arg.op()),
            a: arg.value(),
            b: arg.value_two().unwrap_or(0),
        })
        .collect();
    let twice = args.iter().enumerate().any(|(at, arg)| args[..at].iter().any(|other| other.arg == arg.arg));
    let rules: Vec<&[Comparison]> = if twice { args.chunks(1).collect() } else { vec![&args] };
    for name in rule.names() {
        let name = CString::new(name.as_str()).ok()?;
        // SAFETY: a string that ends with NUL.
        let number = unsafe { seccomp_syscall_resolve_name(name.as_ptr()) };
        if number == -1 {
            continue;
        }
        for args in &rules {
            // SAFETY: a valid context and as many comparisons as are said to be there.
            let done = unsafe {
                seccomp_rule_add_array(context.0, action, number, args.len() as c_uint, args.as_ptr())
            };
            if done != 0 {
                return None;
            }
        }
    }
    Some(())
}

fn export(context: &Context) -> Option<Vec<Instruction>> {
    let mut file = tempfile::tempfile().expect("temporary file");
    // SAFETY: a valid context and an open descriptor.
    if unsafe { seccomp_export_bpf(context.0, file.as_raw_fd()) } != 0 {
        return None;
    }
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    let instruction = |word: &[u8]| Instruction {
        code: u16::from_ne_bytes([word[0], word[1]]),
        jt: word[2],
        jf: word[3],
        k: u32::from_ne_bytes([word[4], word[5], word[6], word[7]]),
    };
    Some(bytes.chunks_exact(8).map(instruction).collect())
}
