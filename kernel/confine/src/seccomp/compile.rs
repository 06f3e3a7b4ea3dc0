//! From OCI seccomp rules to a BPF program.
//!
//! Rules mean what they mean to runc with libseccomp:
//! - a rule equal to the default action has no effect; a name an ABI lacks is skipped there;
//! - the first rule without arguments decides for its call, whatever other rules say of that call; else the first
//!   listed rule whose arguments all match; else the default action;
//! - two conditions on one argument within a rule are alternatives, so are then all conditions of that rule;
//! - numbers above every call the policy names answer ENOSYS when the default is a refusal, so that programs newer
//!   than the policy fall back to older calls;
//! - an ABI the policy does not list is answered by killing the thread.
//!
//! The program tests the architecture, then finds the call by binary search over ranges of numbers with the same
//! answer: about eight comparisons for any call. x32 numbers are a range of x86-64's.

use hull_sys::seccomp::{
    FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_TSYNC, FLAG_WAIT_KILLABLE_RECV,
    SockFilter as Instruction,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use super::Program;
use super::syscalls::{Abi, Syscall, X32_BIT, multiplexed};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The kernel's limit (`BPF_MAXINSNS`).
const MOST_INSTRUCTIONS: usize = 4096;

// linux/audit.h
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;

// linux/filter.h
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

// Offsets in struct seccomp_data, linux/seccomp.h
const DATA_NUMBER: u32 = 0;
const DATA_ARCH: u32 = 4;
const DATA_ARGS: u32 = 16;

const RET_KILL_THREAD: u32 = 0;
const RET_ERRNO: u32 = 0x0005_0000;

/// A policy cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// An errno for an action that has none.
    #[error("seccomp action {0} takes no errnoRet")]
    ErrnoUnsupported(Action),
    /// An errno the kernel would cut off.
    #[error("seccomp errnoRet {0} is no error number")]
    ErrnoRange(u32),
    /// The supervisor could never be told where to listen.
    #[error("SCMP_ACT_NOTIFY cannot be used for the {0}")]
    Notify(&'static str),
    /// An argument number above 5.
    #[error("seccomp rule for {name:?} compares argument {index}; a system call has arguments 0 to 5")]
    Argument {
        /// First name of the rule.
        name: String,
        /// The argument.
        index: usize,
    },
    /// A rule without a name.
    #[error("seccomp rule without a system call name")]
    NoName,
    /// More than the kernel takes.
    #[error("seccomp policy compiles to {0} instructions, the kernel takes {MOST_INSTRUCTIONS}")]
    TooLong(usize),
}

/// Compiles `policy` for this machine.
///
/// # Errors
/// [`CompileError`].
pub fn compile(policy: &LinuxSeccomp) -> Result<Program, CompileError> {
    let default = action(policy.default_action(), policy.default_errno_ret())?;
    if policy.default_action() == Action::ScmpActNotify {
        return Err(CompileError::Notify("default action"));
    }
    let rules = rules(policy)?;
    let abis = Abis::of(policy);
    let beyond = match policy.default_action() {
        Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace => default,
        _ => RET_ERRNO | ENOSYS,
    };
    let answers = Answers { default, beyond };

    let mut native = Vec::new();
    ranges(&mut native, &rules, Abi::X86_64, 0, answers);
    if abis.x32 {
        ranges(&mut native, &rules, Abi::X32, X32_BIT, answers);
    } else {
        native.push((X32_BIT, Leaf::Return(RET_KILL_THREAD)));
        // A tracer skips a call by making its number -1.
        native.push((u32::MAX, Leaf::Return(default)));
    }
    let mut compat = Vec::new();
    if abis.i386 {
        ranges(&mut compat, &rules, Abi::I386, 0, answers);
    }

    let instructions = assemble(&rules, &merged(native), &merged(compat), default);
    if instructions.len() > MOST_INSTRUCTIONS {
        return Err(CompileError::TooLong(instructions.len()));
    }
    Ok(Program { instructions, flags: flags(policy) })
}

/// The ABIs besides the native one, which every filter has.
struct Abis {
    i386: bool,
    x32: bool,
}

impl Abis {
    fn of(policy: &LinuxSeccomp) -> Self {
        let lists = |arch| policy.architectures().iter().flatten().any(|listed| *listed == arch);
        Self { i386: lists(Arch::ScmpArchX86), x32: lists(Arch::ScmpArchX32) }
    }
}

/// Without flags asked for, speculation mitigations stay as they are: they cost much and a container is not a
/// sandbox for untrusted just-in-time code within one process (runc does the same).
fn flags(policy: &LinuxSeccomp) -> u32 {
    // SECCOMP_FILTER_FLAG_TSYNC_ESRCH, needed where a descriptor and a thread that cannot follow would be confused.
    const FLAG_TSYNC_ESRCH: u32 = 1 << 4;
    let asked = match policy.flags() {
        None => FLAG_SPEC_ALLOW,
        Some(flags) => flags.iter().fold(0, |all, flag| {
            all | match flag {
                Flag::SeccompFilterFlagLog => FLAG_LOG,
                Flag::SeccompFilterFlagTsync => FLAG_TSYNC,
                Flag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
                Flag::SeccompFilterFlagWaitKillableRecv => FLAG_WAIT_KILLABLE_RECV,
            }
        }),
    };
    let notifies = policy.syscalls().iter().flatten().any(|rule| rule.action() == Action::ScmpActNotify);
    match (notifies, asked & FLAG_TSYNC != 0) {
        (false, _) => asked,
        (true, false) => asked | FLAG_NEW_LISTENER,
        (true, true) => asked | FLAG_NEW_LISTENER | FLAG_TSYNC_ESRCH,
    }
}

fn action(action: Action, errno: Option<u32>) -> Result<u32, CompileError> {
    match (action, errno) {
        (Action::ScmpActErrno | Action::ScmpActTrace, errno) => {
            let errno = errno.unwrap_or(EPERM);
            if errno > 0xfff {
                return Err(CompileError::ErrnoRange(errno));
            }
            Ok(action.as_u32(Some(errno)))
        }
        // Docker's own profile says "errnoRet": 0 nowhere, and runc refuses any.
        (_, Some(_)) => Err(CompileError::ErrnoUnsupported(action)),
        (_, None) => Ok(action.as_u32(None)),
    }
}

/// A comparison of one argument.
#[derive(Clone, Copy)]
struct Condition {
    index: u8,
    op: Operator,
    /// What is compared with; the mask of [`Operator::ScmpCmpMaskedEq`].
    value: u64,
    /// What the masked argument is compared with.
    second: u64,
}

/// A name of a rule, looked up once for all ABIs.
#[derive(Clone, Copy)]
struct Call {
    direct: Option<Syscall>,
    /// How i386 multiplexes it.
    multiplexed: Option<(u32, u64)>,
}

/// A rule with its action resolved.
struct Rule {
    calls: Vec<Call>,
    answer: u32,
    /// Whether it can change any verdict.
    effective: bool,
    conditions: Vec<Condition>,
    /// The conditions are alternatives.
    any: bool,
}

fn rules(policy: &LinuxSeccomp) -> Result<Vec<Rule>, CompileError> {
    let default = action(policy.default_action(), policy.default_errno_ret())?;
    policy.syscalls().iter().flatten().map(|syscall| resolve(syscall, default)).collect()
}

fn resolve(syscall: &LinuxSyscall, default: u32) -> Result<Rule, CompileError> {
    let names = syscall.names();
    let first = names.first().ok_or(CompileError::NoName)?;
    if syscall.action() == Action::ScmpActNotify && names.iter().any(|name| name == "write") {
        return Err(CompileError::Notify("write syscall"));
    }
    let mut compared = [0; 6];
    let mut conditions = Vec::new();
    for arg in syscall.args().iter().flatten() {
        let index = arg.index();
        let count =
            compared.get_mut(index).ok_or_else(|| CompileError::Argument { name: first.clone(), index })?;
        *count += 1;
        conditions.push(Condition {
            index: index as u8,
            op: arg.op(),
            value: arg.value(),
            second: arg.value_two().unwrap_or(0),
        });
    }
    let answer = action(syscall.action(), syscall.errno_ret())?;
    let mut previous = None;
    let call = |name: &String| {
        let direct = Syscall::named_after(previous, name);
        previous = direct.or(previous);
        Call { direct, multiplexed: multiplexed(name) }
    };
    let calls = names.iter().map(call).collect();
    Ok(Rule { calls, answer, effective: answer != default, conditions, any: compared.iter().any(|n| *n > 1) })
}

#[derive(Clone, Copy)]
struct Answers {
    default: u32,
    /// For numbers above all that are named.
    beyond: u32,
}

/// What is done with a range of call numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Leaf {
    Return(u32),
    /// Conditional rules, in order, by index; each with the value of the multiplexer's first argument, if it is a
    /// rule about a multiplexed call.
    Test(Vec<(u16, Option<u64>)>),
}

/// One rule applied to one call number.
#[derive(Clone, Copy)]
struct Use {
    number: u32,
    rule: u16,
    selector: Option<u64>,
}

/// Appends the ranges of `abi`: each entry is the first number of a range, which ends where the next begins.
fn ranges(out: &mut Vec<(u32, Leaf)>, rules: &[Rule], abi: Abi, first: u32, answers: Answers) {
    let (mut uses, last) = uses(rules, abi);
    uses.sort_unstable_by_key(|used| (used.number, used.rule));
    let mut next = first;
    let mut rest = &uses[..];
    while let Some(used) = rest.first() {
        let number = used.number;
        let of_call = rest.iter().take_while(|used| used.number == number).count();
        let (these, others) = rest.split_at(of_call);
        rest = others;
        if number > next {
            out.push((next, Leaf::Return(answers.default)));
        }
        out.push((number, leaf(rules, these)));
        next = number + 1;
    }
    match last {
        Some(last) if last >= next => {
            out.push((next, Leaf::Return(answers.default)));
            out.push((last + 1, Leaf::Return(answers.beyond)));
        }
        Some(_) => out.push((next, Leaf::Return(answers.beyond))),
        // A policy that names no call says nothing about which calls are newer than it.
        None => out.push((next, Leaf::Return(answers.default))),
    }
}

/// The effective uses in `abi`, and the highest number any rule names.
fn uses(rules: &[Rule], abi: Abi) -> (Vec<Use>, Option<u32>) {
    let mut uses = Vec::with_capacity(512);
    let mut last = None;
    for (index, rule) in rules.iter().enumerate() {
        let rule_index = index as u16;
        for call in &rule.calls {
            if let Some(number) = call.direct.and_then(|direct| direct.number(abi)) {
                last = last.max(Some(number));
                if rule.effective {
                    uses.push(Use { number, rule: rule_index, selector: None });
                }
            }
            // A multiplexer's further arguments are in memory: a rule that compares them cannot be expressed.
            if abi == Abi::I386
                && let Some((number, selector)) = call.multiplexed
            {
                last = last.max(Some(number));
                if rule.effective && rule.conditions.is_empty() {
                    uses.push(Use { number, rule: rule_index, selector: Some(selector) });
                }
            }
        }
    }
    (uses, last)
}

fn leaf(rules: &[Rule], uses: &[Use]) -> Leaf {
    let unconditional =
        |used: &&Use| used.selector.is_none() && rules[usize::from(used.rule)].conditions.is_empty();
    match uses.iter().find(unconditional) {
        Some(used) => Leaf::Return(rules[usize::from(used.rule)].answer),
        None => Leaf::Test(uses.iter().map(|used| (used.rule, used.selector)).collect()),
    }
}

/// Neighbours with the same answer become one range.
fn merged(mut ranges: Vec<(u32, Leaf)>) -> Vec<(u32, Leaf)> {
    ranges.dedup_by(|next, kept| next.1 == kept.1 && matches!(kept.1, Leaf::Return(_)));
    ranges
}

fn assemble(
    rules: &[Rule],
    native: &[(u32, Leaf)],
    compat: &[(u32, Leaf)],
    default: u32,
) -> Vec<Instruction> {
    let mut out = Backward { rules, default, ..Backward::default() };
    let mut other = out.answer(RET_KILL_THREAD);
    if !compat.is_empty() {
        let compat = out.section(compat, true);
        other = out.branch(JUMP_EQUAL, AUDIT_ARCH_I386, compat, other);
    }
    let native = out.section(native, false);
    let first = out.branch(JUMP_EQUAL, AUDIT_ARCH_X86_64, native, other);
    out.before(first, statement(LOAD, DATA_ARCH));
    out.code.reverse();
    out.code
}

/// A place in a program: how many instructions there are from it to the end.
type Place = usize;

/// A program written from its end, so that what a jump leads to is there when the jump is written, and an answer is there
/// once for all near it that give it: half the instructions, which the kernel compiles for each container.
#[derive(Default)]
struct Backward<'r> {
    rules: &'r [Rule],
    default: u32,
    /// The last instruction first.
    code: Vec<Instruction>,
    /// Each answer with the place where it was last given.
    answers: Vec<(u32, Place)>,
}

impl Backward<'_> {
    /// How far short jumps reach.
    const NEAR: usize = 255;

    fn here(&self) -> Place {
        self.code.len()
    }

    /// What a jump written now skips to get to `place`.
    fn distance(&self, place: Place) -> usize {
        self.here() - place
    }

    fn push(&mut self, instruction: Instruction) -> Place {
        self.code.push(instruction);
        self.here()
    }

    /// An instruction after which the program goes on at `place`.
    fn before(&mut self, place: Place, instruction: Instruction) -> Place {
        if place != self.here() {
            self.push(statement(JUMP, self.distance(place) as u32));
        }
        self.push(instruction)
    }

    /// A place that ends the program with this answer.
    fn answer(&mut self, answer: u32) -> Place {
        // Half of what a jump reaches: there will be instructions between.
        let near = self.here().saturating_sub(Self::NEAR / 2);
        match self.answers.iter().find(|(known, _)| *known == answer) {
            Some((_, place)) if *place >= near => *place,
            _ => self.new_answer(answer),
        }
    }

    fn new_answer(&mut self, answer: u32) -> Place {
        let place = self.push(statement(RETURN, answer));
        self.answers.retain(|(known, _)| *known != answer);
        self.answers.push((answer, place));
        place
    }

    /// A conditional jump.
    fn branch(&mut self, code: u16, k: u32, yes: Place, no: Place) -> Place {
        if yes == no {
            return yes;
        }
        // Bringing one nearer takes the other one instruction farther away.
        let yes = self.nearer(yes, Self::NEAR - 1);
        let no = self.nearer(no, Self::NEAR);
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(jump(code, k, jt, jf))
    }

    /// A place from which the program goes on at `place`, not farther than `most`.
    fn nearer(&mut self, place: Place, most: usize) -> Place {
        if self.distance(place) <= most {
            return place;
        }
        match self.code[place - 1] {
            Instruction { code: RETURN, k, .. } => self.new_answer(k),
            _ => self.push(statement(JUMP, self.distance(place) as u32)),
        }
    }

    /// Code for the calls of one architecture.
    fn section(&mut self, ranges: &[(u32, Leaf)], narrow: bool) -> Place {
        let first = self.search(ranges, narrow);
        self.before(first, statement(LOAD, DATA_NUMBER))
    }

    /// A binary search tree over `ranges`; the accumulator holds the number.
    fn search(&mut self, ranges: &[(u32, Leaf)], narrow: bool) -> Place {
        if let [(_, leaf)] = ranges {
            return self.leaf(leaf, narrow);
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let above = self.search(high, narrow);
        let below = self.search(low, narrow);
        self.branch(JUMP_GREATER_EQUAL, high[0].0, above, below)
    }

    fn leaf(&mut self, leaf: &Leaf, narrow: bool) -> Place {
        let tests = match leaf {
            Leaf::Return(answer) => return self.answer(*answer),
            Leaf::Test(tests) => tests,
        };
        let rules = self.rules;
        let mut otherwise = self.answer(self.default);
        for &(rule, selector) in tests.iter().rev() {
            let rule = &rules[usize::from(rule)];
            if let Some(value) = selector {
                let condition = Condition { index: 0, op: Operator::ScmpCmpEq, value, second: 0 };
                otherwise = self.rule(&[condition], rule.answer, otherwise, narrow);
            } else if rule.any {
                for condition in rule.conditions.iter().rev() {
                    otherwise = self.rule(std::slice::from_ref(condition), rule.answer, otherwise, narrow);
                }
            } else {
                otherwise = self.rule(&rule.conditions, rule.answer, otherwise, narrow);
            }
        }
        otherwise
    }

    /// Gives `answer` if all `conditions` hold, else goes on at `otherwise`.
    fn rule(&mut self, conditions: &[Condition], answer: u32, otherwise: Place, narrow: bool) -> Place {
        let mut held = self.answer(answer);
        for condition in conditions.iter().rev() {
            held = self.condition(condition, narrow, held, otherwise);
        }
        held
    }

    /// Compares one argument, the upper half first.
    fn condition(&mut self, condition: &Condition, narrow: bool, held: Place, failed: Place) -> Place {
        let argument = DATA_ARGS + 8 * u32::from(condition.index);
        let (value, second) = (halves(condition.value), halves(condition.second));
        let compared = match condition.op {
            Operator::ScmpCmpEq => self.branch(JUMP_EQUAL, value.low, held, failed),
            Operator::ScmpCmpNe => self.branch(JUMP_EQUAL, value.low, failed, held),
            Operator::ScmpCmpGt => self.branch(JUMP_GREATER, value.low, held, failed),
            Operator::ScmpCmpGe => self.branch(JUMP_GREATER_EQUAL, value.low, held, failed),
            Operator::ScmpCmpLt => self.branch(JUMP_GREATER_EQUAL, value.low, failed, held),
            Operator::ScmpCmpLe => self.branch(JUMP_GREATER, value.low, failed, held),
            Operator::ScmpCmpMaskedEq => {
                let compared = self.branch(JUMP_EQUAL, second.low, held, failed);
                self.before(compared, statement(AND, value.low))
            }
        };
        let low = self.before(compared, statement(LOAD, argument));
        // An ABI of 32 bits has no upper halves to look at.
        if narrow {
            return low;
        }
        let compared = match condition.op {
            Operator::ScmpCmpEq => self.branch(JUMP_EQUAL, value.high, low, failed),
            Operator::ScmpCmpNe => self.branch(JUMP_EQUAL, value.high, low, held),
            Operator::ScmpCmpGt | Operator::ScmpCmpGe => {
                let not_more = self.branch(JUMP_EQUAL, value.high, low, failed);
                self.branch(JUMP_GREATER, value.high, held, not_more)
            }
            Operator::ScmpCmpLt | Operator::ScmpCmpLe => {
                let not_more = self.branch(JUMP_EQUAL, value.high, low, held);
                self.branch(JUMP_GREATER, value.high, failed, not_more)
            }
            Operator::ScmpCmpMaskedEq => {
                let compared = self.branch(JUMP_EQUAL, second.high, low, failed);
                self.before(compared, statement(AND, value.high))
            }
        };
        self.before(compared, statement(LOAD, argument + 4))
    }
}

struct Halves {
    high: u32,
    low: u32,
}

fn halves(value: u64) -> Halves {
    Halves { high: (value >> 32) as u32, low: value as u32 }
}

fn statement(code: u16, k: u32) -> Instruction {
    jump(code, k, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests;
