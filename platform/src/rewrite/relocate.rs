//! Which instructions may be moved, and how they are encoded at their new place.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::Refusal;
use super::code::{Code, Length, decode};
use super::step::{branch_target, movable_length};
use super::window::Window;

/// `lea rcx, [rip + rel32]`.
pub const LEA_LEN: usize = 7;
/// That, `jmp [rip + 0]` and the address it reads.
pub const TAIL_LEN: usize = LEA_LEN + 6 + 8;

/// A window's instructions as they are in the trampoline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub bytes: Vec<u8>,
    pub steps: Vec<Step>,
}

/// Where an instruction was and is, from the start of the window and of the trampoline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub window: u8,
    pub trampoline: u8,
}

/// Encodes the window's instructions anew for `trampoline`.
pub fn relocate(code: &Code<'_>, window: &Window, trampoline: u64) -> Result<Moved, Refusal> {
    let mut moved = Moved { bytes: Vec::new(), steps: Vec::new() };
    for &at in &window.instructions {
        let refusal = Refusal::NotRelocatable(at);
        let offset = at.checked_sub(window.start).and_then(|offset| u8::try_from(offset).ok());
        let step = Step {
            window: offset.ok_or(refusal)?,
            trampoline: moved.bytes.len().try_into().map_err(|_| refusal)?,
        };
        moved.steps.push(step);
        let to = trampoline.checked_add(step.trampoline.into()).ok_or(Refusal::OutOfReach)?;
        moved.bytes.extend(move_one(code, window, at, to)?);
    }
    Ok(moved)
}

/// What follows the window in a trampoline at `trampoline`: rcx = `after`, and on to `entry`.
pub fn tail(moved: &Moved, trampoline: u64, after: u64, entry: u64) -> Result<Vec<u8>, Refusal> {
    let len = moved.bytes.len().checked_add(LEA_LEN).and_then(|len| u64::try_from(len).ok());
    let after_lea = len.and_then(|len| trampoline.checked_add(len)).ok_or(Refusal::OutOfReach)?;
    let mut bytes = vec![0x48, 0x8d, 0x0d];
    bytes.extend(distance(after_lea, after)?);
    bytes.extend([0xff, 0x25, 0, 0, 0, 0]);
    bytes.extend(entry.to_le_bytes());
    Ok(bytes)
}

/// The displacement that leads from the end of an instruction to a place.
pub fn distance(from: u64, to: u64) -> Result<[u8; 4], Refusal> {
    let distance = i32::try_from(to.wrapping_sub(from).cast_signed());
    Ok(distance.map_err(|_| Refusal::OutOfReach)?.to_le_bytes())
}

/// The bytes of the instruction at `from` for address `to`.
fn move_one(code: &Code<'_>, window: &Window, from: u64, to: u64) -> Result<Vec<u8>, Refusal> {
    let refusal = Refusal::NotRelocatable(from);
    let bytes = code.slice(from..window.syscall).ok_or(refusal)?;
    if let Some(len) = movable_length(bytes) {
        return Ok(bytes.get(..len.into()).ok_or(refusal)?.to_vec());
    }
    let (instruction, constants) = decode(bytes, from).ok_or(refusal)?;
    let bytes = bytes.get(..instruction.len()).ok_or(refusal)?;
    if branch_target(&instruction).is_some() {
        return move_jump(window, &instruction, bytes, to);
    }
    if !is_movable(&instruction) {
        return Err(refusal);
    }
    let mut bytes = bytes.to_vec();
    if instruction.memory_base() == Register::RIP {
        let target = instruction.ip_rel_memory_address();
        if constants.displacement_size() != 4 || window.range().contains(&target) {
            return Err(refusal);
        }
        let end = to.checked_add(instruction.length()).ok_or(Refusal::OutOfReach)?;
        let offset = constants.displacement_offset();
        let field = bytes.get_mut(offset..).and_then(|rest| rest.first_chunk_mut::<4>());
        *field.ok_or(refusal)? = distance(end, target)?;
    }
    match decode(&bytes, to) {
        Some((moved, _)) if moved == instruction && moved.len() == instruction.len() => Ok(bytes),
        _ => Err(refusal),
    }
}

/// A conditional jump, with four bytes of displacement where it had one. No other branch may move.
fn move_jump(
    window: &Window,
    instruction: &Instruction,
    bytes: &[u8],
    to: u64,
) -> Result<Vec<u8>, Refusal> {
    let refusal = Refusal::NotRelocatable(instruction.ip());
    // Prefixes mean different things to different processors here.
    let opcode = match *bytes {
        [opcode @ 0x70..=0x7f, _] => opcode.wrapping_add(0x10),
        [0x0f, opcode @ 0x80..=0x8f, _, _, _, _] => opcode,
        _ => return Err(refusal),
    };
    let target = branch_target(instruction).ok_or(refusal)?;
    if target != window.start && window.range().contains(&target) {
        return Err(Refusal::BranchInside(instruction.ip()));
    }
    let end = to.checked_add(6).ok_or(Refusal::OutOfReach)?;
    let mut bytes = vec![0x0f, opcode];
    bytes.extend(distance(end, target)?);
    let (moved, _) = decode(&bytes, to).ok_or(refusal)?;
    let is_same =
        moved.mnemonic() == instruction.mnemonic() && branch_target(&moved) == Some(target);
    if is_same { Ok(bytes) } else { Err(refusal) }
}

/// Whether an instruction does the same at any address, once a displacement relative to rip is corrected.
pub(super) fn is_movable(instruction: &Instruction) -> bool {
    // Some code jumps over the prefix of a locked instruction: it has an inside.
    !instruction.has_lock_prefix()
        && LISTED.contains(&instruction.mnemonic())
        && instruction.memory_base() != Register::EIP
        && (0..instruction.op_count()).all(|operand| {
            instruction.op_kind(operand) != OpKind::Register
                || is_plain(instruction.op_register(operand))
        })
}

/// General and vector registers: not segments, not those that a kernel uses.
fn is_plain(register: Register) -> bool {
    (Register::AL..=Register::R15).contains(&register)
        || (Register::XMM0..=Register::ZMM31).contains(&register)
}

/// What compilers and people put before a system call. Neither stack of return addresses nor trap flag,
/// nor privileges, nor padding (a branch may lead behind it), nor the targets of indirect branches.
const LISTED: &[Mnemonic] = {
    use Mnemonic::*;
    &[
        Mov, Movzx, Movsx, Movsxd, Lea, Xchg, Push, Pop, Bswap, Cbw, Cwde, Cdqe, Cwd, Cdq, Cqo,
        Add, Adc, Sub, Sbb, Inc, Dec, Neg, Mul, Imul, And, Or, Xor, Not, Cmp, Test, Shl, Sal, Shr,
        Sar, Rol, Ror, Shld, Shrd, Bt, Bts, Btr, Btc, Bsf, Bsr, Tzcnt, Lzcnt, Popcnt, Andn, Sarx,
        Shlx, Shrx, Rorx, Cmpxchg, Xadd, Seto, Setno, Setb, Setae, Sete, Setne, Setbe, Seta, Sets,
        Setns, Setp, Setnp, Setl, Setge, Setle, Setg, Cmovo, Cmovno, Cmovb, Cmovae, Cmove, Cmovne,
        Cmovbe, Cmova, Cmovs, Cmovns, Cmovp, Cmovnp, Cmovl, Cmovge, Cmovle, Cmovg, Stosb, Stosd,
        Stosq, Movsb, Movsq, Movd, Movq, Movaps, Movups, Movapd, Movupd, Movdqa, Movdqu, Movhps,
        Movlps, Movss, Xorps, Pxor, Punpcklqdq, Pshufd, Vmovd, Vmovq, Vmovaps, Vmovups, Vmovdqa,
        Vmovdqu, Vpxor, Vxorps,
    ]
};
