//! The operation that FUTEX_WAKE_OP carries in one word. See futex(2).

use abi::{Errno, Result};

/// Change of the second word and comparison with what it held before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WakeOp {
    op: u32,
    op_arg: u32,
    cmp: u32,
    cmp_arg: i32,
}

/// The argument is a shift count: use `1 << arg`.
const OP_ARG_SHIFT: u32 = 8;

impl WakeOp {
    /// # Errors
    /// `ENOSYS` for an operation or a comparison that Linux does not know.
    pub const fn decode(word: u32) -> Result<Self> {
        let op = word >> 28;
        let cmp = (word >> 24) & 0xf;
        // Both are 12-bit numbers with a sign.
        let op_arg = (word << 8).cast_signed() >> 20;
        let cmp_arg = (word << 20).cast_signed() >> 20;
        let op_arg = if op & OP_ARG_SHIFT != 0 {
            // Linux masks a silly shift count rather than refusing it.
            1u32 << (op_arg & 31)
        } else {
            op_arg.cast_unsigned()
        };
        let op = op & !OP_ARG_SHIFT;
        if op > 4 || cmp > 5 {
            return Err(Errno::ENOSYS);
        }
        Ok(Self { op, op_arg, cmp, cmp_arg })
    }

    /// The word's new value.
    #[must_use]
    pub const fn apply(self, old: u32) -> u32 {
        match self.op {
            0 => self.op_arg,
            1 => old.wrapping_add(self.op_arg),
            2 => old | self.op_arg,
            3 => old & !self.op_arg,
            _ => old ^ self.op_arg,
        }
    }

    /// Whether the second word's waiters are woken too.
    #[must_use]
    pub const fn matches(self, old: u32) -> bool {
        let old = old.cast_signed();
        match self.cmp {
            0 => old == self.cmp_arg,
            1 => old != self.cmp_arg,
            2 => old < self.cmp_arg,
            3 => old <= self.cmp_arg,
            4 => old > self.cmp_arg,
            _ => old >= self.cmp_arg,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn encode(op: u32, cmp: u32, op_arg: u32, cmp_arg: u32) -> u32 {
        (op << 28) | (cmp << 24) | ((op_arg & 0xfff) << 12) | (cmp_arg & 0xfff)
    }

    #[test]
    fn glibc_condition_variable_unlock() {
        // FUTEX_OP_CLEAR_WAKE_IF_GT_ONE: set to 0, wake if it was greater than 1.
        let op = WakeOp::decode(encode(0, 4, 0, 1)).unwrap();
        assert_eq!(op.apply(2), 0);
        assert!(op.matches(2) && !op.matches(1));
    }

    #[test]
    fn arguments_have_a_sign_and_shifts_are_masked() {
        let add = WakeOp::decode(encode(1, 2, 0xfff, 0xfff)).unwrap();
        assert_eq!(add.apply(5), 4);
        assert!(add.matches((-2i32).cast_unsigned()) && !add.matches(0));
        let or = WakeOp::decode(encode(2 | 8, 0, 3, 0)).unwrap();
        assert_eq!(or.apply(0), 8);
    }

    #[test]
    fn strangers_are_refused() {
        assert_eq!(WakeOp::decode(encode(5, 0, 0, 0)), Err(Errno::ENOSYS));
        assert_eq!(WakeOp::decode(encode(0, 6, 0, 0)), Err(Errno::ENOSYS));
    }
}
