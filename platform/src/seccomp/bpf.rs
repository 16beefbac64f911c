//! A small assembler for classic BPF, as seccomp runs it: labels, and words of `struct seccomp_data`.

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

impl Instruction {
    /// As it lies in memory, little endian.
    pub fn to_word(self) -> u64 {
        u64::from(self.code)
            | u64::from(self.jt) << 16
            | u64::from(self.jf) << 24
            | u64::from(self.k) << 32
    }
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_ALWAYS: u16 = 0x05;
const RETURN: u16 = 0x06;

/// 32-bit words of `struct seccomp_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Number,
    Arch,
    PointerLow,
    PointerHigh,
    ArgLow(u32),
    ArgHigh(u32),
}

impl Word {
    const fn offset(self) -> u32 {
        match self {
            Self::Number => 0,
            Self::Arch => 4,
            Self::PointerLow => 8,
            Self::PointerHigh => 12,
            Self::ArgLow(n) => 16 + 8 * n,
            Self::ArgHigh(n) => 20 + 8 * n,
        }
    }
}

/// A place to jump to, forward only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// A comparison of the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    Equal(u32),
    AtLeast(u32),
}

/// The program under construction.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<Instruction>,
    /// Instruction and label of each jump yet to be resolved. A conditional jump goes to the next instruction
    /// when true, else over an unconditional one, so that no distance is too far.
    jumps: Vec<(usize, Label)>,
    places: Vec<Option<usize>>,
}

impl Assembler {
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The next instruction is where `label` leads.
    pub fn place(&mut self, label: Label) {
        if let Some(place) = self.places.get_mut(label.0) {
            *place = Some(self.code.len());
        }
    }

    fn push(&mut self, code: u16, k: u32) {
        self.code.push(Instruction { code, jt: 0, jf: 0, k });
    }

    pub fn load(&mut self, word: Word) {
        self.push(LOAD, word.offset());
    }

    pub fn and(&mut self, mask: u32) {
        self.push(AND, mask);
    }

    pub fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(JUMP_ALWAYS, 0);
    }

    pub fn jump_if(&mut self, test: Test, to: Label) {
        self.conditional(test, 0, 1);
        self.jump(to);
    }

    pub fn jump_unless(&mut self, test: Test, to: Label) {
        self.conditional(test, 1, 0);
        self.jump(to);
    }

    fn conditional(&mut self, test: Test, jt: u8, jf: u8) {
        let (code, k) = match test {
            Test::Equal(k) => (JUMP_EQUAL, k),
            Test::AtLeast(k) => (JUMP_GREATER_EQUAL, k),
        };
        self.code.push(Instruction { code, jt, jf, k });
    }

    pub fn ret(&mut self, verdict: u32) {
        self.push(RETURN, verdict);
    }

    /// The program; `None` when a jump leads nowhere or backwards.
    pub fn finish(mut self) -> Option<Vec<Instruction>> {
        for (at, label) in self.jumps {
            let place = (*self.places.get(label.0)?)?;
            let distance = place.checked_sub(at)?.checked_sub(1)?;
            self.code.get_mut(at)?.k = u32::try_from(distance).ok()?;
        }
        Some(self.code)
    }
}

/// What the kernel would answer: an interpreter for tests.
#[cfg(test)]
pub fn run(program: &[Instruction], data: &super::sys::SeccompData) -> u32 {
    let word = |offset: u32| -> u32 {
        let low_high = |value: u64, offset: u32| (value >> (8 * (offset % 8))) as u32;
        match offset {
            0 => data.nr.cast_unsigned(),
            4 => data.arch,
            8 | 12 => low_high(data.instruction_pointer, offset),
            _ => low_high(data.args[((offset - 16) / 8) as usize], offset),
        }
    };
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let branch = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
        match i.code {
            LOAD => accumulator = word(i.k),
            AND => accumulator &= i.k,
            JUMP_ALWAYS => at += i.k as usize,
            JUMP_EQUAL => at += branch(accumulator == i.k),
            JUMP_GREATER_EQUAL => at += branch(accumulator >= i.k),
            RETURN => return i.k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}
