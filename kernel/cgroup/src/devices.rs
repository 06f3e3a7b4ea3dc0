//! Device rules: lines for v1, an eBPF program for v2.

use crate::{Cgroup, Error, Result};
use hull_sys::bpf::{
    Instruction, attach_device_program, detach_device_program, device_programs, load_device_program,
};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};
use rustix::fs::{Mode, OFlags};
use std::os::fd::AsFd;
use std::path::Path;

const READ: u32 = 2;
const WRITE: u32 = 4;
const MKNOD: u32 = 1;

/// A rule, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) allow: bool,
    /// `None`: both kinds.
    block: Option<bool>,
    major: Option<u32>,
    minor: Option<u32>,
    /// Bits as in `bpf_cgroup_dev_ctx`.
    access: u32,
}

impl Rule {
    pub(crate) fn parse(rule: &LinuxDeviceCgroup) -> Result<Self> {
        let invalid = |reason: String| Error::Invalid { field: "devices".into(), reason };
        let block = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(true),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(false),
            Some(LinuxDeviceType::P) => return Err(invalid("a FIFO has no device rule".into())),
        };
        let number = |value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(value) => {
                u32::try_from(value).map(Some).map_err(|_| invalid(format!("{value} is no device number")))
            }
        };
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => return Err(invalid(format!("{letter:?} is no access"))),
            };
        }
        let (major, minor) = (number(rule.major())?, number(rule.minor())?);
        Ok(Self { allow: rule.allow(), block, major, minor, access })
    }

    /// Whether it speaks of every access to every device.
    fn is_everything(&self) -> bool {
        self.block.is_none()
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == READ | WRITE | MKNOD
    }

    /// As `devices.allow` and `devices.deny` take it.
    pub(crate) fn v1_line(&self) -> String {
        if self.is_everything() {
            return "a".into();
        }
        let kind = match self.block {
            None => 'a',
            Some(true) => 'b',
            Some(false) => 'c',
        };
        let number = |value: Option<u32>| value.map_or("*".into(), |value| value.to_string());
        let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        let access: String =
            letters.iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, c)| c).collect();
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

// Opcodes of <linux/bpf.h>.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE_IMMEDIATE: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K (32 bit)
const MOVE_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND_IMMEDIATE: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5e; // BPF_JMP32 | BPF_JNE | BPF_X
const EXIT: u8 = 0x95;

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

/// The program: rules from the last to the first, the first that matches decides; none: what a device cgroup starts
/// with, which is everything allowed. `bpf_cgroup_dev_ctx` is {access_type, major, minor}.
pub(crate) fn program(rules: &[Rule]) -> Vec<Instruction> {
    // r2 = type (2 char, 1 block), r3 = access, r4 = major, r5 = minor
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND_IMMEDIATE, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        append_rule(&mut code, rule);
        if rule.is_everything() {
            return code;
        }
    }
    append_verdict(&mut code, true);
    code
}

fn append_rule(code: &mut Vec<Instruction>, rule: &Rule) {
    let mut checks = Vec::new();
    if let Some(block) = rule.block {
        checks.push(instruction(JUMP_NOT_EQUAL, 2, 0, 0, if block { 1 } else { 2 }));
    }
    if rule.access != READ | WRITE | MKNOD {
        // An allow rule must cover all that is asked for, a deny rule meets any part of it.
        checks.push(instruction(MOVE_REGISTER, 1, 3, 0, 0));
        checks.push(instruction(AND_IMMEDIATE, 1, 0, 0, rule.access as i32));
        if rule.allow {
            checks.push(instruction(JUMP_NOT_EQUAL_REGISTER, 1, 3, 0, 0));
        } else {
            const JUMP_EQUAL: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
            checks.push(instruction(JUMP_EQUAL, 1, 0, 0, 0));
        }
    }
    if let Some(major) = rule.major {
        checks.push(instruction(JUMP_NOT_EQUAL, 4, 0, 0, major as i32));
    }
    if let Some(minor) = rule.minor {
        checks.push(instruction(JUMP_NOT_EQUAL, 5, 0, 0, minor as i32));
    }
    // Each failed check jumps behind this rule's two closing instructions.
    let length = checks.len();
    for (index, mut check) in checks.into_iter().enumerate() {
        if check.code & 0x07 == 0x06 {
            check.offset = (length - index - 1 + 2) as i16;
        }
        code.push(check);
    }
    append_verdict(code, rule.allow);
}

fn append_verdict(code: &mut Vec<Instruction>, allow: bool) {
    code.push(instruction(MOVE_IMMEDIATE, 0, 0, 0, allow.into()));
    code.push(instruction(EXIT, 0, 0, 0, 0));
}

/// Attaches a program for the rules and detaches the one before, in this order: there is no moment without.
pub(crate) fn apply_v2(cgroup: &Cgroup, directory: &Path, resources: &LinuxResources) -> Result<()> {
    let Some(rules) = resources.devices().as_ref().filter(|rules| !rules.is_empty()) else { return Ok(()) };
    let rules = rules.iter().map(Rule::parse).collect::<Result<Vec<_>>>()?;
    let failed = |operation: &str| {
        let operation = operation.to_owned();
        move |source| Error::File { operation, path: cgroup.path().into(), source }
    };
    let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let at = rustix::fs::open(directory, open, Mode::empty()).map_err(failed("open"))?;
    let old = device_programs(at.as_fd()).map_err(failed("list device programs of"))?;
    let new = load_device_program(&program(&rules)).map_err(failed("load a device program for"))?;
    attach_device_program(at.as_fd(), new.as_fd()).map_err(failed("attach a device program to"))?;
    for program in old {
        detach_device_program(at.as_fd(), program.as_fd()).map_err(failed("detach the device program of"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        let json = |value: &str| value.parse::<i64>().ok();
        let parts: Vec<_> = text.split(' ').collect();
        let (major, minor) = parts[2].split_once(':').expect("numbers");
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(parts[0] == "allow");
        rule.set_typ(Some(match parts[1] {
            "a" => LinuxDeviceType::A,
            "b" => LinuxDeviceType::B,
            _ => LinuxDeviceType::C,
        }));
        rule.set_major(json(major));
        rule.set_minor(json(minor));
        rule.set_access(Some(parts[3].into()));
        Rule::parse(&rule).expect("rule")
    }

    /// Interprets the few instructions the compiler makes.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u32; 11];
        let mut at = 0usize;
        loop {
            let i = program[at];
            let (to, from) = ((i.registers & 15) as usize, (i.registers >> 4) as usize);
            at += 1;
            let jump = match i.code {
                LOAD_WORD => {
                    registers[to] = context[i.offset as usize / 4];
                    false
                }
                MOVE_IMMEDIATE => {
                    registers[to] = i.immediate as u32;
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                AND_IMMEDIATE => {
                    registers[to] &= i.immediate as u32;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= i.immediate;
                    false
                }
                JUMP_NOT_EQUAL => registers[to] != i.immediate as u32,
                0x16 => registers[to] == i.immediate as u32,
                JUMP_NOT_EQUAL_REGISTER => registers[to] != registers[from],
                EXIT => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            };
            if jump {
                at += i.offset as usize;
            }
        }
    }

    #[test]
    fn lines_of_v1() {
        assert_eq!(rule("deny a *:* rwm").v1_line(), "a");
        assert_eq!(rule("allow c 1:3 rwm").v1_line(), "c 1:3 rwm");
        assert_eq!(rule("allow b *:* m").v1_line(), "b *:* m");
    }

    #[test]
    fn the_last_matching_rule_decides() {
        let rules = [
            rule("deny a *:* rwm"),
            rule("allow c *:* m"),
            rule("allow c 1:3 rw"),
            rule("allow b 8:* r"),
            rule("deny b 8:1 r"),
        ];
        let program = program(&rules);
        let (block, char) = (1, 2);
        assert!(run(&program, char, READ | WRITE, 1, 3));
        assert!(run(&program, char, MKNOD, 200, 7));
        assert!(!run(&program, char, READ, 1, 5));
        assert!(!run(&program, block, WRITE, 8, 2));
        assert!(!run(&program, block, READ | WRITE, 8, 2));
        assert!(run(&program, block, READ, 8, 2));
        assert!(!run(&program, block, READ, 8, 1));
        assert!(!run(&program, block, MKNOD, 1, 3));
    }

    #[test]
    fn the_kernel_takes_the_program_or_has_no_bpf() {
        let rules = [rule("deny a *:* rwm"), rule("allow c 1:3 r"), rule("deny b 8:1 w")];
        match load_device_program(&program(&rules)) {
            Ok(_) | Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {}
            Err(error) => panic!("verifier: {error}"),
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_access(Some("rx".into()));
        assert!(Rule::parse(&rule).is_err());
        rule.set_access(None);
        rule.set_major(Some(-7));
        assert!(Rule::parse(&rule).is_err());
    }
}
