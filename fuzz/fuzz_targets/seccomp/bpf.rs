//! Classic BPF as the kernel runs it on `struct seccomp_data` (seccomp(2)).

/// `AUDIT_ARCH_X86_64`
pub(crate) const X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`
pub(crate) const I386: u32 = 0x4000_0003;

/// `struct sock_filter`
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// A system call as a filter sees it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) arch: u32,
    pub(crate) number: u32,
    pub(crate) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset % 8 == 0 { arg as u32 } else { (arg >> 32) as u32 }
            }
            // The instruction pointer, which no policy looks at.
            _ => 0,
        }
    }
}

/// What `program` answers. It panics where the kernel would have refused to load the program.
pub(crate) fn verdict(program: &[Instruction], call: &Call) -> u32 {
    let (mut accumulator, mut scratch, mut at) = (0u32, [0u32; 16], 0usize);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1;
        match code {
            0x20 => accumulator = call.word(k),
            0x60 => accumulator = scratch[k as usize],
            0x02 => scratch[k as usize] = accumulator,
            0x00 => accumulator = k,
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x06 => return k,
            _ => panic!("instruction {code:#x} at {}", at - 1),
        }
    }
}
