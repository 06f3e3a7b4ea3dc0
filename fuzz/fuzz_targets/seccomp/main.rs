//! Random policies and calls: the filter that Hull compiles gives the verdicts of the one that libseccomp makes of the
//! same policy in the way runc asks it to.
//!
//! All rules of a policy have one answer: of rules that overlap and differ Hull takes the first listed, libseccomp the one
//! its tree of comparisons comes to.
#![no_main]

mod bpf;
mod libseccomp;

use bpf::{Call, verdict};
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};
use libseccomp::Oracle;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArgBuilder, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};

/// Calls of one, two and three ABIs, with and without a multiplexer on i386.
const NAMES: [&str; 24] = [
    "read", "write", "openat", "clone", "socket", "connect", "accept4", "shmget", "semop", "ioctl", "personality",
    "ptrace", "mmap", "mmap2", "stat64", "ugetrlimit", "chown32", "kexec_load", "keyctl", "clone3", "io_uring_setup",
    "futex", "_llseek", "nosuchcall",
];
const OPERATORS: [Operator; 7] = [
    Operator::ScmpCmpNe,
    Operator::ScmpCmpLt,
    Operator::ScmpCmpLe,
    Operator::ScmpCmpEq,
    Operator::ScmpCmpGe,
    Operator::ScmpCmpGt,
    Operator::ScmpCmpMaskedEq,
];
const ACTIONS: [Action; 5] = [
    Action::ScmpActAllow,
    Action::ScmpActErrno,
    Action::ScmpActKillProcess,
    Action::ScmpActTrap,
    Action::ScmpActLog,
];

#[derive(Arbitrary, Debug)]
struct Input {
    default: u8,
    answer: u8,
    x86: bool,
    x32: bool,
    rules: Vec<Rule>,
    calls: Vec<Asked>,
}

#[derive(Arbitrary, Debug)]
struct Rule {
    names: [u8; 2],
    args: Vec<Condition>,
}

#[derive(Arbitrary, Debug)]
struct Condition {
    index: u8,
    operator: u8,
    value: Value,
    second: Value,
}

/// Numbers near those that matter, and any.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    Small(u8),
    High(u8),
    Both(u8, u8),
    Any(u64),
}

impl Value {
    fn get(self) -> u64 {
        match self {
            Self::Small(low) => low.into(),
            Self::High(high) => u64::from(high) << 32,
            Self::Both(high, low) => u64::from(high) << 32 | u64::from(low),
            Self::Any(value) => value,
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Asked {
    name: u8,
    number: Option<u32>,
    abi: u8,
    args: [Value; 6],
}

fn pick<T: Copy>(list: &[T], index: u8) -> T {
    list[usize::from(index) % list.len()]
}

/// The policy of an input, or nothing when it is not one that means the same to both.
fn policy(input: &Input) -> Option<LinuxSeccomp> {
    let (default, answer) = (pick(&ACTIONS, input.default), pick(&ACTIONS, input.answer));
    if default == answer || input.rules.len() > 8 {
        return None;
    }
    let mut archs = vec![Arch::ScmpArchX86_64];
    archs.extend(input.x86.then_some(Arch::ScmpArchX86));
    archs.extend(input.x32.then_some(Arch::ScmpArchX32));
    let rules = input.rules.iter().map(|rule| rule_of(rule, answer)).collect::<Option<Vec<_>>>()?;
    let mut policy = LinuxSeccomp::default();
    policy.set_default_action(default).set_architectures(Some(archs)).set_syscalls(Some(rules));
    Some(policy)
}

fn rule_of(rule: &Rule, answer: Action) -> Option<LinuxSyscall> {
    if rule.args.len() > 3 {
        return None;
    }
    let args = rule.args.iter().map(|arg| {
        let mut built = LinuxSeccompArgBuilder::default()
            .index(usize::from(arg.index % 6))
            .op(pick(&OPERATORS, arg.operator))
            .value(arg.value.get());
        built = built.value_two(arg.second.get());
        built.build().expect("every field is set")
    });
    let mut syscall = LinuxSyscall::default();
    syscall
        .set_names(rule.names.iter().map(|name| pick(&NAMES, *name).to_owned()).collect())
        .set_action(answer)
        .set_args(Some(args.collect()));
    Some(syscall)
}

fuzz_target!(|input: Input| {
    let Some(policy) = policy(&input) else { return };
    let Ok(ours) = hull_confine::seccomp::compile(&policy) else { return };
    // libseccomp refuses a few policies that can be had (a rule that can never hold).
    let Some(oracle) = Oracle::new(&policy) else { return };
    let ours: Vec<_> = ours.instructions().iter().map(|i| bpf::Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    for asked in &input.calls {
        for call in calls(asked) {
            let (got, wanted) = (verdict(&ours, &call), oracle.verdict(&call));
            assert_eq!(got, wanted, "{got:#x} for {wanted:#x}: {call:x?} under {policy:#?}");
        }
    }
});

/// The call of a name in each ABI, or of a number in one.
fn calls(asked: &Asked) -> Vec<Call> {
    const ARCHS: [u32; 3] = [bpf::X86_64, bpf::I386, 0xc000_00b7];
    let of = |arch: u32, number: u32| {
        // What an i386 program passes has no upper halves.
        let mask = if arch == bpf::I386 { u64::from(u32::MAX) } else { u64::MAX };
        Call { arch, number, args: asked.args.map(|value| value.get() & mask) }
    };
    if let Some(number) = asked.number {
        return vec![of(pick(&ARCHS, asked.abi), number)];
    }
    let name = pick(&NAMES, asked.name);
    libseccomp::numbers(name).into_iter().map(|(arch, number)| of(arch, number)).collect()
}
