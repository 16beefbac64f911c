//! A small assembler for classic BPF, as seccomp runs it: labels, and words of `struct seccomp_data`.
//!
//! The host runs a filter once per call number when it is installed, to learn which calls it always lets through: a
//! program should be short and its way to a verdict, too.

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
    #[must_use]
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
    /// Instruction and label of each jump yet to be resolved. A conditional jump stands before an unconditional one,
    /// for labels that are too far for it, and goes over it where it can.
    jumps: Vec<(usize, Label)>,
    places: Vec<Option<usize>>,
}

impl Assembler {
    /// A label that stands nowhere yet.
    #[must_use]
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
    #[must_use]
    pub fn finish(mut self) -> Option<Vec<Instruction>> {
        for (at, label) in self.jumps {
            let place = (*self.places.get(label.0)?)?;
            let distance = place.checked_sub(at)?.checked_sub(1)?;
            self.code.get_mut(at)?.k = u32::try_from(distance).ok()?;
            // Straight from the condition before it, if that can reach.
            let test = at.checked_sub(1).and_then(|before| self.code.get_mut(before));
            if let (Some(test), Ok(distance)) = (test, u8::try_from(distance + 1))
                && matches!(test.code, JUMP_EQUAL | JUMP_GREATER_EQUAL)
            {
                match (test.jt, test.jf) {
                    (0, 1) => test.jt = distance,
                    (1, 0) => test.jf = distance,
                    _ => {}
                }
            }
        }
        Some(self.code)
    }
}

/// What is asked about a call: `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub number: u32,
    pub arch: u32,
    /// Where the calling code goes on.
    pub pointer: u64,
    pub args: [u64; 6],
}

/// What the kernel would answer; `None` for a program that it would refuse. For tests of filters.
#[must_use]
pub fn run(program: &[Instruction], call: &Call) -> Option<u32> {
    let half = |value: u64, offset: u32| (value >> (8 * (offset % 8))) as u32;
    let word = |offset: u32| match offset {
        0 => Some(call.number),
        4 => Some(call.arch),
        8 | 12 => Some(half(call.pointer, offset)),
        _ => {
            let arg = call.args.get(usize::try_from(offset.checked_sub(16)? / 8).ok()?)?;
            Some(half(*arg, offset))
        }
    };
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let i = program.get(at)?;
        at += 1;
        let branch = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
        match i.code {
            LOAD => accumulator = word(i.k)?,
            AND => accumulator &= i.k,
            JUMP_ALWAYS => at += i.k as usize,
            JUMP_EQUAL => at += branch(accumulator == i.k),
            JUMP_GREATER_EQUAL => at += branch(accumulator >= i.k),
            RETURN => return Some(i.k),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(program: &[Instruction], number: u32) -> Option<u32> {
        run(program, &Call { number, arch: 0, pointer: 0, args: [0; 6] })
    }

    /// `returns` for what the test is true of and 0 for the rest, with `between` instructions on the way.
    fn program(is_jump_if: bool, between: usize) -> Vec<Instruction> {
        let mut asm = Assembler::default();
        let target = asm.label();
        asm.load(Word::Number);
        if is_jump_if {
            asm.jump_if(Test::AtLeast(7), target);
        } else {
            asm.jump_unless(Test::AtLeast(7), target);
        }
        for _ in 0..between {
            asm.and(!0);
        }
        asm.ret(u32::from(!is_jump_if));
        asm.place(target);
        asm.ret(u32::from(is_jump_if));
        asm.finish().expect("all labels stand behind their jumps")
    }

    #[test]
    fn jumps_reach_near_and_far_labels() {
        for between in [0, 1, 200, 253, 254, 255, 256, 1000] {
            for is_jump_if in [true, false] {
                let program = program(is_jump_if, between);
                assert_eq!(answer(&program, 6), Some(0), "{between} {is_jump_if}");
                assert_eq!(answer(&program, 7), Some(1), "{between} {is_jump_if}");
            }
        }
    }

    #[test]
    fn backward_jumps_and_lost_labels_are_refused() {
        let mut asm = Assembler::default();
        let nowhere = asm.label();
        asm.jump(nowhere);
        assert!(asm.finish().is_none());
        let mut asm = Assembler::default();
        let back = asm.label();
        asm.place(back);
        asm.jump(back);
        assert!(asm.finish().is_none());
    }
}
