//! The compiled program is run by an interpreter and compared with a direct reading of the rules, with libseccomp's
//! program, and with what the kernel does.

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompArgBuilder};
use proptest::prelude::*;

use super::*;
use crate::CapSet;
use crate::seccomp::docker_default;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
struct Data {
    number: u32,
    arch: u32,
    args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            DATA_NUMBER => self.number,
            DATA_ARCH => self.arch,
            _ => {
                let value = self.args[((offset - DATA_ARGS) / 8) as usize];
                if offset.is_multiple_of(8) { value as u32 } else { (value >> 32) as u32 }
            }
        }
    }
}

/// Runs classic BPF as the kernel does; also all that libseccomp emits.
fn run(program: &[Instruction], data: &Data) -> u32 {
    let (mut at, mut a) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            LOAD => a = data.word(k),
            AND => a &= k,
            RETURN => return k,
            JUMP => at += k as usize,
            JUMP_EQUAL => at += branch(a == k),
            JUMP_GREATER => at += branch(a > k),
            JUMP_GREATER_EQUAL => at += branch(a >= k),
            0x45 => at += branch(a & k != 0),
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

/// The verdict read off the rules, one by one.
fn judge(policy: &LinuxSeccomp, data: &Data) -> u32 {
    let lists = |arch| policy.architectures().iter().flatten().any(|listed| *listed == arch);
    let default = action(policy.default_action(), policy.default_errno_ret()).unwrap();
    let abi = match data.arch {
        AUDIT_ARCH_X86_64 if data.number < X32_BIT => Abi::X86_64,
        AUDIT_ARCH_X86_64 if lists(Arch::ScmpArchX32) => Abi::X32,
        AUDIT_ARCH_X86_64 if data.number == u32::MAX => return default,
        AUDIT_ARCH_I386 if lists(Arch::ScmpArchX86) => Abi::I386,
        _ => return RET_KILL_THREAD,
    };
    let number = |name: &String| Syscall::named(name).and_then(|call| call.number(abi));
    let rules = || policy.syscalls().iter().flatten();
    let multiplexer =
        |name: &String| multiplexed(name).filter(|_| abi == Abi::I386).map(|(number, _)| number);
    let highest =
        rules().flat_map(|rule| rule.names()).filter_map(|name| number(name).max(multiplexer(name))).max();
    let permissive =
        matches!(policy.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
    if highest.is_some_and(|highest| data.number > highest) && !permissive {
        return RET_ERRNO | ENOSYS;
    }
    let mut conditional = None;
    for rule in rules() {
        let answer = action(rule.action(), rule.errno_ret()).unwrap();
        if answer == default {
            continue;
        }
        let args = rule.args().clone().unwrap_or_default();
        for name in rule.names() {
            let selected = abi == Abi::I386
                && args.is_empty()
                && multiplexed(name)
                    .is_some_and(|(call, first)| call == data.number && data.args[0] as u32 == first as u32);
            let direct = number(name) == Some(data.number);
            if direct && args.is_empty() {
                return answer;
            }
            let several = (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
            let holds = |arg: &LinuxSeccompArg| holds(arg, data, abi == Abi::I386);
            let hit = direct && if several { args.iter().any(holds) } else { args.iter().all(holds) };
            if hit || selected {
                conditional = conditional.or(Some(answer));
            }
        }
    }
    conditional.unwrap_or(default)
}

fn holds(arg: &LinuxSeccompArg, data: &Data, narrow: bool) -> bool {
    let cut = |value: u64| if narrow { value & 0xffff_ffff } else { value };
    let (actual, value) = (cut(data.args[arg.index()]), cut(arg.value()));
    match arg.op() {
        Operator::ScmpCmpNe => actual != value,
        Operator::ScmpCmpLt => actual < value,
        Operator::ScmpCmpLe => actual <= value,
        Operator::ScmpCmpEq => actual == value,
        Operator::ScmpCmpGe => actual >= value,
        Operator::ScmpCmpGt => actual > value,
        Operator::ScmpCmpMaskedEq => actual & value == cut(arg.value_two().unwrap_or(0)),
    }
}

/// Values around which comparisons of halves go wrong.
fn values() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..4,
        Just(0xffff_ffff),
        Just(0x1_0000_0000),
        Just(0x1_0000_0001),
        Just(0x2_ffff_ffff),
        Just(u64::MAX),
        Just(u64::MAX - 1),
    ]
}

fn conditions() -> impl Strategy<Value = LinuxSeccompArg> {
    let ops = prop_oneof![
        Just(Operator::ScmpCmpNe),
        Just(Operator::ScmpCmpLt),
        Just(Operator::ScmpCmpLe),
        Just(Operator::ScmpCmpEq),
        Just(Operator::ScmpCmpGe),
        Just(Operator::ScmpCmpGt),
        Just(Operator::ScmpCmpMaskedEq),
    ];
    (0usize..3, values(), values(), ops).prop_map(|(index, value, second, op)| {
        let second = if op == Operator::ScmpCmpMaskedEq { value & second } else { second };
        LinuxSeccompArgBuilder::default().index(index).value(value).value_two(second).op(op).build().unwrap()
    })
}

const NAMES: [&str; 14] = [
    "read",
    "write",
    "open",
    "close",
    "execve",
    "socket",
    "accept",
    "semop",
    "socketcall",
    "clone",
    "clone3",
    "chown32",
    "writev",
    "nonsense",
];

fn policies() -> impl Strategy<Value = LinuxSeccomp> {
    let actions = || {
        prop_oneof![
            Just((Action::ScmpActAllow, None)),
            Just((Action::ScmpActErrno, None)),
            Just((Action::ScmpActErrno, Some(38))),
            Just((Action::ScmpActKillThread, None)),
            Just((Action::ScmpActKillProcess, None)),
            Just((Action::ScmpActTrap, None)),
            Just((Action::ScmpActTrace, Some(7))),
            Just((Action::ScmpActLog, None)),
        ]
    };
    let rule = (
        prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4),
        actions(),
        prop::collection::vec(conditions(), 0..4),
    )
        .prop_map(|(names, (action, errno), args)| {
            let mut rule = LinuxSyscall::default();
            rule.set_names(names.into_iter().map(str::to_owned).collect())
                .set_action(action)
                .set_errno_ret(errno)
                .set_args(Some(args));
            rule
        });
    let arches =
        prop::sample::subsequence(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32], 0..=3);
    (actions(), prop::collection::vec(rule, 0..8), arches).prop_map(|((action, errno), rules, arches)| {
        let mut policy = LinuxSeccomp::default();
        policy
            .set_default_action(action)
            .set_default_errno_ret(errno)
            .set_architectures(Some(arches))
            .set_syscalls(Some(rules));
        policy
    })
}

fn calls() -> impl Strategy<Value = Data> {
    let named = prop::sample::select(&NAMES[..]).prop_flat_map(|name| {
        let numbers: Vec<u32> = [Abi::X86_64, Abi::I386, Abi::X32]
            .into_iter()
            .filter_map(|abi| Syscall::named(name)?.number(abi))
            .chain([u32::MAX])
            .collect();
        prop::sample::select(numbers)
    });
    let number = prop_oneof![4 => named, 1 => 0u32..600, 1 => X32_BIT..X32_BIT + 600];
    let arch = prop_oneof![
        4 => Just(AUDIT_ARCH_X86_64),
        3 => Just(AUDIT_ARCH_I386),
        1 => Just(0xc000_00b7),
    ];
    let args = [values(), values(), values(), values(), values(), values()];
    (number, arch, args).prop_map(|(number, arch, args)| Data { number, arch, args })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn program_and_rules_agree(policy in policies(), calls in prop::collection::vec(calls(), 40)) {
        let program = compile(&policy).unwrap();
        for data in calls {
            let data = narrowed(data);
            prop_assert_eq!(run(program.instructions(), &data), judge(&policy, &data), "{:?}", data);
        }
    }
}

/// The kernel hands a 32-bit ABI's arguments over zero-extended.
fn narrowed(mut data: Data) -> Data {
    if data.arch == AUDIT_ARCH_I386 {
        data.args = data.args.map(|arg| arg & 0xffff_ffff);
    }
    data
}

#[test]
fn docker_policy_is_short_and_agrees_with_its_rules() {
    for granted in [CapSet::DOCKER_DEFAULT, CapSet::ALL] {
        let policy = docker_default(granted);
        let program = compile(&policy).unwrap();
        assert!(program.instructions().len() < 1000, "{}", program.instructions().len());
        for arch in [AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, 0xc000_00b7] {
            for number in (0..600).chain(X32_BIT - 1..X32_BIT + 600).chain([u32::MAX]) {
                for first in [1, 39, 0x7e02_0000] {
                    let data = narrowed(Data { number, arch, args: [first; 6] });
                    assert_eq!(run(program.instructions(), &data), judge(&policy, &data), "{data:x?}");
                }
            }
        }
    }
}

#[test]
fn any_call_is_decided_in_few_steps() {
    let program = compile(&docker_default(CapSet::DOCKER_DEFAULT)).unwrap();
    let deepest = (0..460).map(|number| steps(program.instructions(), number)).max().unwrap();
    assert!(deepest <= 48, "{deepest}");
    assert!(steps(program.instructions(), 0) <= 16);
}

fn steps(program: &[Instruction], number: u32) -> usize {
    // Each prefix that does not return yet is one step.
    let data = Data { number, arch: AUDIT_ARCH_X86_64, args: [0; 6] };
    let (mut at, mut a, mut count) = (0, 0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        (at, count) = (at + 1, count + 1);
        match code {
            LOAD => a = data.word(k),
            AND => a &= k,
            RETURN => return count,
            JUMP => at += k as usize,
            JUMP_EQUAL => at += usize::from(if a == k { jt } else { jf }),
            JUMP_GREATER => at += usize::from(if a > k { jt } else { jf }),
            _ => at += usize::from(if a >= k { jt } else { jf }),
        }
    }
}

#[test]
fn impossible_policies_are_refused() {
    let policy = |json: &str| serde_json::from_str::<LinuxSeccomp>(json).unwrap();
    for (json, part) in [
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "NOTIFY"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5}"#, "errnoRet"),
        (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 70000}"#, "70000"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
                [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}"#,
            "write",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
                [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
                  "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
            "argument 6",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_LOG"}]}"#,
            "name",
        ),
    ] {
        let error = compile(&policy(json)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn kernel_enforces_a_loaded_filter() {
    // A thread of its own: a filter without TSYNC is the thread's.
    let (unmount, priority) = std::thread::spawn(|| {
        compile(&docker_default(CapSet::DOCKER_DEFAULT)).unwrap().load().unwrap();
        let unmount = rustix::mount::unmount("/no/such/mount", rustix::mount::UnmountFlags::empty());
        let policy = serde_json::from_str(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getpriority"],
                "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_GE"}]}]}"#,
        );
        compile(&policy.unwrap()).unwrap().load().unwrap();
        (unmount, (rustix::process::getpriority_process(None), rustix::process::getpriority_pgrp(None)))
    })
    .join()
    .unwrap();
    assert_eq!(unmount, Err(rustix::io::Errno::PERM));
    assert!(priority.0.is_ok());
    assert_eq!(priority.1, Err(rustix::io::Errno::OPNOTSUPP));
}

/// Builds the same filter with libseccomp, through Python's ctypes.
const LIBSECCOMP: &str = r#"
import ctypes, json, os, sys
lib = ctypes.CDLL("libseccomp.so.2")
lib.seccomp_init.restype = ctypes.c_void_p
class Cmp(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]
OPS = {"SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5,
       "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}
def action(name, errno):
    return {"SCMP_ACT_ALLOW": 0x7fff0000, "SCMP_ACT_ERRNO": 0x00050000 | (1 if errno is None else errno)}[name]
policy = json.load(sys.stdin)
default = action(policy["defaultAction"], policy.get("defaultErrnoRet"))
ctx = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(default)))
for arch in (0x40000003, 0x4000003e):
    assert lib.seccomp_arch_add(ctx, ctypes.c_uint32(arch)) == 0
for rule in policy["syscalls"]:
    answer = action(rule["action"], rule.get("errnoRet"))
    if answer == default: continue
    args = rule.get("args") or []
    cmps = (Cmp * len(args))(*[Cmp(a["index"], OPS[a["op"]], a["value"], a.get("valueTwo") or 0) for a in args])
    for name in rule["names"]:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number == -1: continue
        result = lib.seccomp_rule_add_array(ctx, ctypes.c_uint32(answer), number, len(args), cmps)
        assert result == 0, (name, result)
assert lib.seccomp_export_bpf(ctx, 1) == 0
"#;

#[test]
fn libseccomp_decides_the_same() {
    for granted in [CapSet::DOCKER_DEFAULT, CapSet::ALL] {
        let policy = docker_default(granted);
        let theirs = match with_libseccomp(&policy) {
            Ok(program) => program,
            Err(reason) => return println!("skipped: no python3 with libseccomp.so.2 here: {reason}"),
        };
        let ours = compile(&policy).unwrap();
        // Calls that the oldest libseccomp in use knows.
        let numbers = (0..=440).chain(X32_BIT..X32_BIT + 300).chain(X32_BIT + 512..X32_BIT + 546);
        for number in numbers {
            for arch in [AUDIT_ARCH_X86_64, AUDIT_ARCH_I386] {
                // A libseccomp of 2022 does not know uretprobe; x32 numbers mean nothing to i386.
                let skipped = match arch {
                    AUDIT_ARCH_I386 => number > 440,
                    _ => number & !X32_BIT == 335,
                };
                if skipped {
                    continue;
                }
                for first in [0, 1, 8, 37, 38, 39, 40, 41, 0x2_0000, 0x7e02_0000, 0x1000_0000, 0xffff_ffff] {
                    let data = Data { number, arch, args: [first; 6] };
                    let (ours, theirs) = (run(ours.instructions(), &data), run(&theirs, &data));
                    assert_eq!(ours, theirs, "{data:x?}");
                }
            }
        }
        println!("{} instructions, libseccomp {}", ours.instructions().len(), theirs.len());
    }
}

fn with_libseccomp(policy: &LinuxSeccomp) -> Result<Vec<Instruction>, String> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new("python3")
        .args(["-c", LIBSECCOMP])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let json = serde_json::to_vec(policy).unwrap();
    child.stdin.take().unwrap().write_all(&json).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("AssertionError"), "{errors}");
    if !output.status.success() {
        return Err(errors.lines().last().unwrap_or("failed").to_owned());
    }
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    Ok(output
        .stdout
        .chunks_exact(8)
        .map(|raw| Instruction {
            code: u16::from_le_bytes([raw[0], raw[1]]),
            jt: raw[2],
            jf: raw[3],
            k: word(&raw[4..]),
        })
        .collect())
}

#[test]
fn compiles_in_time() {
    let policy = docker_default(CapSet::DOCKER_DEFAULT);
    let rounds = 50;
    let start = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(compile(&policy).unwrap());
    }
    let each = start.elapsed() / rounds;
    println!("{each:?} a compilation");
    // Without optimisation and on a busy machine; optimised it is under 200 µs.
    assert!(each.as_millis() < 20, "{each:?}");
}
