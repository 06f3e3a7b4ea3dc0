//! System call numbers of the three ABIs an x86-64 kernel has.
//!
//! `syscalls.txt` has a line `name x86_64 i386 x32` per call, sorted by name, `-` where the ABI lacks it; x32
//! numbers are without their marker bit. Source: the kernel's `arch/x86/entry/syscalls/*.tbl`.

const TEXT: &str = include_str!("syscalls.txt");
const COUNT: usize = count_lines();
const ABSENT: u16 = u16::MAX;

/// The marker bit of x32 numbers (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// An ABI of system calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Abi {
    X86_64,
    I386,
    X32,
}

/// A line of the table; fixed size and free of pointers, so that it needs no relocation at program start.
#[derive(Clone, Copy)]
struct Entry {
    start: u16,
    length: u16,
    numbers: [u16; 3],
}

static ENTRIES: [Entry; COUNT] = parse();

/// A system call of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Syscall(u16);

impl Syscall {
    /// The call with this name, if any of the ABIs has it.
    pub(super) fn named(name: &str) -> Option<Self> {
        ENTRIES.binary_search_by(|entry| entry.name().cmp(name)).ok().map(|index| Self(index as u16))
    }

    /// [`Self::named`], where `previous` was looked up before: policies list names in alphabetical order, so the name is likely to
    /// be one of the next.
    pub(super) fn named_after(previous: Option<Self>, name: &str) -> Option<Self> {
        const NEXT: usize = 3;
        let first = previous.map_or(0, |call| usize::from(call.0) + 1);
        let next = ENTRIES.iter().enumerate().skip(first).take(NEXT);
        match next.into_iter().find(|(_, entry)| entry.name() == name) {
            Some((index, _)) => Some(Self(index as u16)),
            None => Self::named(name),
        }
    }

    /// Its number as the filter sees it, if `abi` has it.
    pub(super) fn number(self, abi: Abi) -> Option<u32> {
        let number = ENTRIES[usize::from(self.0)].numbers[abi as usize];
        match (number, abi) {
            (ABSENT, _) => None,
            (number, Abi::X32) => Some(u32::from(number) | X32_BIT),
            (number, _) => Some(u32::from(number)),
        }
    }
}

impl Entry {
    fn name(&self) -> &'static str {
        &TEXT[usize::from(self.start)..usize::from(self.start + self.length)]
    }
}

/// What i386 multiplexes through one call: the multiplexer's number and the value of its first argument. Some
/// names (`accept`, `recv`, `send`) exist there in this form only.
pub(super) fn multiplexed(name: &str) -> Option<(u32, u64)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    Some(match name {
        "socket" => (SOCKETCALL, 1),
        "bind" => (SOCKETCALL, 2),
        "connect" => (SOCKETCALL, 3),
        "listen" => (SOCKETCALL, 4),
        "accept" => (SOCKETCALL, 5),
        "getsockname" => (SOCKETCALL, 6),
        "getpeername" => (SOCKETCALL, 7),
        "socketpair" => (SOCKETCALL, 8),
        "send" => (SOCKETCALL, 9),
        "recv" => (SOCKETCALL, 10),
        "sendto" => (SOCKETCALL, 11),
        "recvfrom" => (SOCKETCALL, 12),
        "shutdown" => (SOCKETCALL, 13),
        "setsockopt" => (SOCKETCALL, 14),
        "getsockopt" => (SOCKETCALL, 15),
        "sendmsg" => (SOCKETCALL, 16),
        "recvmsg" => (SOCKETCALL, 17),
        "accept4" => (SOCKETCALL, 18),
        "recvmmsg" => (SOCKETCALL, 19),
        "sendmmsg" => (SOCKETCALL, 20),
        "semop" => (IPC, 1),
        "semget" => (IPC, 2),
        "semctl" => (IPC, 3),
        "semtimedop" => (IPC, 4),
        "msgsnd" => (IPC, 11),
        "msgrcv" => (IPC, 12),
        "msgget" => (IPC, 13),
        "msgctl" => (IPC, 14),
        "shmat" => (IPC, 21),
        "shmdt" => (IPC, 22),
        "shmget" => (IPC, 23),
        "shmctl" => (IPC, 24),
        _ => return None,
    })
}

const fn count_lines() -> usize {
    let text = TEXT.as_bytes();
    let (mut at, mut lines) = (0, 0);
    while at < text.len() {
        if text[at] == b'\n' {
            lines += 1;
        }
        at += 1;
    }
    lines
}

const fn parse() -> [Entry; COUNT] {
    let text = TEXT.as_bytes();
    let mut entries = [Entry { start: 0, length: 0, numbers: [ABSENT; 3] }; COUNT];
    let (mut at, mut line) = (0, 0);
    while line < COUNT {
        let start = at;
        while text[at] != b' ' {
            at += 1;
        }
        let mut numbers = [ABSENT; 3];
        let length = at - start;
        let mut column = 0;
        while column < 3 {
            at += 1;
            let mut number = ABSENT;
            while text[at] != b' ' && text[at] != b'\n' {
                if text[at] != b'-' {
                    let digit = (text[at] - b'0') as u16;
                    number = if number == ABSENT { digit } else { number * 10 + digit };
                }
                at += 1;
            }
            numbers[column] = number;
            column += 1;
        }
        at += 1;
        entries[line] = Entry { start: start as u16, length: length as u16, numbers };
        line += 1;
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_found() {
        assert!(ENTRIES.windows(2).all(|pair| pair[0].name() < pair[1].name()));
        assert!(TEXT.len() < usize::from(u16::MAX));
        for (name, numbers) in [
            ("read", [Some(0), Some(3), Some(X32_BIT)]),
            ("execve", [Some(59), Some(11), Some(X32_BIT | 520)]),
            ("clone3", [Some(435), Some(435), Some(X32_BIT | 435)]),
            ("_sysctl", [Some(156), Some(149), None]),
            ("writev", [Some(20), Some(146), Some(X32_BIT | 516)]),
            ("chown32", [None, Some(212), None]),
        ] {
            let call = Syscall::named(name).unwrap();
            assert_eq!([Abi::X86_64, Abi::I386, Abi::X32].map(|abi| call.number(abi)), numbers, "{name}");
        }
        assert_eq!(Syscall::named("frobnicate"), None);
        for previous in [None, Syscall::named("read"), Syscall::named("writev"), Syscall::named("_llseek")] {
            for name in ["_llseek", "read", "readahead", "readv", "write", "writev"] {
                assert_eq!(Syscall::named_after(previous, name), Syscall::named(name), "{name}");
            }
            assert_eq!(Syscall::named_after(previous, "frobnicate"), None);
        }
    }
}
