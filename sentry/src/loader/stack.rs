//! The initial stack: strings, auxiliary vector, environment, arguments, in Linux' order (fs/binfmt_elf.c,
//! `create_elf_tables`).

use std::ops::Range;

use abi::addr::PAGE_SIZE;
use abi::auxv;
use abi::{Errno, Result};

/// Longest argument or environment string, its NUL included (`MAX_ARG_STRLEN`).
pub const MAX_STRING: usize = 32 * PAGE_SIZE as usize;
/// Arguments and environment may always take this much (`ARG_MAX`).
const MIN_TOTAL: u64 = 128 << 10;
/// And never more than three quarters of 8 MiB.
const MAX_TOTAL: u64 = 6 << 20;
/// Random displacement of the stack pointer, in bytes.
const JITTER: u64 = 8192;

/// What goes on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Strings<'a> {
    pub args: &'a [Vec<u8>],
    pub env: &'a [Vec<u8>],
    /// AT_EXECFN.
    pub exec_name: &'a [u8],
}

/// Auxiliary values that do not lie on the stack.
#[derive(Debug, Clone, Copy, Default)]
pub struct Aux {
    pub vdso: Option<u64>,
    pub minsigstksz: u64,
    pub hwcap: u64,
    pub hwcap2: u64,
    pub phdr: u64,
    pub phnum: u64,
    /// Where the interpreter lies; 0 without.
    pub base: u64,
    pub entry: u64,
    pub uid: u64,
    pub euid: u64,
    pub gid: u64,
    pub egid: u64,
    pub is_secure: bool,
}

/// A stack ready to be copied in.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The stack pointer at entry.
    pub pointer: u64,
    /// What is not zero there, and where it goes. Between tables and strings lies a random distance that is not to be touched.
    pub pieces: [(u64, Vec<u8>); 2],
    pub args: Range<u64>,
    pub env: Range<u64>,
    pub auxv: Vec<u64>,
}

/// Most bytes of arguments, environment and pointers to them under a stack limit.
#[must_use]
pub fn total_limit(stack_limit: u64) -> u64 {
    (stack_limit / 4).clamp(MIN_TOTAL, MAX_TOTAL)
}

/// `E2BIG` when the strings take more than the stack's limit (`stack_limit`, bytes) allows.
///
/// # Errors
/// `E2BIG`.
pub fn check_size(strings: &Strings<'_>, stack_limit: u64) -> Result<()> {
    let limit = total_limit(stack_limit);
    let pointers = (strings.args.len().max(1) + strings.env.len()) as u64 * 8;
    let mut total = pointers + strings.exec_name.len() as u64 + 1;
    for string in strings.args.iter().chain(strings.env) {
        if string.len() >= MAX_STRING {
            return Err(Errno::E2BIG);
        }
        total += string.len() as u64 + 1;
    }
    if total > limit { Err(Errno::E2BIG) } else { Ok(()) }
}

/// Lays out the stack below `top`. `random` gives AT_RANDOM's 16 bytes and 2 for the displacement.
///
/// # Errors
/// `E2BIG` when it does not fit below `top` at all.
pub fn build(top: u64, strings: &Strings<'_>, aux: &Aux, random: &[u8; 18]) -> Result<Stack> {
    let mut block = Block { pieces: Vec::new(), at: top.checked_sub(8).ok_or(Errno::E2BIG)? };
    block.pieces.push((block.at, vec![0; 8]));
    let exec_name = block.string(strings.exec_name)?;
    let env_end = block.at;
    let env = block.strings(strings.env)?;
    let args_end = block.at;
    let args = block.strings(strings.args)?;
    let (args_range, env_range) = (block.at..args_end, args_end..env_end);
    let strings_at = block.at;
    let strings = block.flat(strings_at, top)?;

    let jitter = u64::from(u16::from_le_bytes([random[16], random[17]])) % JITTER;
    block.at = block.at.checked_sub(jitter).ok_or(Errno::E2BIG)? & !15;
    let tables_end = block.at;
    let platform = block.string(b"x86_64")?;
    block.at = block.at.checked_sub(16).ok_or(Errno::E2BIG)? & !15;
    let random_at = block.at;
    block.pieces.push((random_at, random[..16].to_vec()));

    let auxv = auxv_words(aux, exec_name, platform, random_at);
    let mut words: Vec<u64> = Vec::with_capacity(args.len() + env.len() + auxv.len() + 3);
    words.push(args.len() as u64);
    words.extend(&args);
    words.push(0);
    words.extend(&env);
    words.push(0);
    words.extend(&auxv);
    let size = words.len() as u64 * 8;
    let pointer = block.at.checked_sub(size).ok_or(Errno::E2BIG)? & !15;
    let table: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    block.pieces.push((pointer, table));
    let tables = block.flat(pointer, tables_end)?;
    let pieces = [(pointer, tables), (strings_at, strings)];
    Ok(Stack { pointer, pieces, args: args_range, env: env_range, auxv })
}

fn auxv_words(aux: &Aux, exec_name: u64, platform: u64, random: u64) -> Vec<u64> {
    let mut pairs: Vec<(u64, u64)> = Vec::with_capacity(24);
    pairs.extend(aux.vdso.map(|vdso| (auxv::AT_SYSINFO_EHDR, vdso)));
    pairs.extend([
        (auxv::AT_MINSIGSTKSZ, aux.minsigstksz),
        (auxv::AT_HWCAP, aux.hwcap),
        (auxv::AT_PAGESZ, PAGE_SIZE),
        (auxv::AT_CLKTCK, 100),
        (auxv::AT_PHDR, aux.phdr),
        (auxv::AT_PHENT, size_of::<abi::elf::ProgramHeader>() as u64),
        (auxv::AT_PHNUM, aux.phnum),
        (auxv::AT_BASE, aux.base),
        (auxv::AT_FLAGS, 0),
        (auxv::AT_ENTRY, aux.entry),
        (auxv::AT_UID, aux.uid),
        (auxv::AT_EUID, aux.euid),
        (auxv::AT_GID, aux.gid),
        (auxv::AT_EGID, aux.egid),
        (auxv::AT_SECURE, u64::from(aux.is_secure)),
        (auxv::AT_RANDOM, random),
        (auxv::AT_HWCAP2, aux.hwcap2),
        (auxv::AT_EXECFN, exec_name),
        (auxv::AT_PLATFORM, platform),
        (auxv::AT_NULL, 0),
    ]);
    pairs.into_iter().flat_map(|(key, value)| [key, value]).collect()
}

/// Bytes placed downwards.
struct Block {
    pieces: Vec<(u64, Vec<u8>)>,
    at: u64,
}

impl Block {
    fn string(&mut self, text: &[u8]) -> Result<u64> {
        let mut bytes = text.to_vec();
        bytes.push(0);
        self.at = self.at.checked_sub(bytes.len() as u64).ok_or(Errno::E2BIG)?;
        self.pieces.push((self.at, bytes));
        Ok(self.at)
    }

    /// The first string ends up lowest.
    fn strings(&mut self, texts: &[Vec<u8>]) -> Result<Vec<u64>> {
        let mut places = Vec::with_capacity(texts.len());
        for text in texts.iter().rev() {
            places.push(self.string(text)?);
        }
        places.reverse();
        Ok(places)
    }

    /// One buffer from `start` to `end`, of what was placed there since the last.
    fn flat(&mut self, start: u64, end: u64) -> Result<Vec<u8>> {
        let size = usize::try_from(end - start).map_err(|_| Errno::E2BIG)?;
        let mut bytes = vec![0; size];
        for (at, piece) in self.pieces.drain(..) {
            let from = usize::try_from(at - start).map_err(|_| Errno::E2BIG)?;
            let target = bytes.get_mut(from..from + piece.len()).ok_or(Errno::E2BIG)?;
            target.copy_from_slice(&piece);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(stack: &Stack, addr: u64) -> &[u8] {
        let piece = stack.pieces.iter().rev().find(|(at, _)| *at <= addr).unwrap();
        &piece.1[(addr - piece.0) as usize..]
    }

    fn word(stack: &Stack, addr: u64) -> u64 {
        u64::from_le_bytes(from(stack, addr)[..8].try_into().unwrap())
    }

    fn string(stack: &Stack, addr: u64) -> Vec<u8> {
        from(stack, addr).iter().copied().take_while(|byte| *byte != 0).collect()
    }

    #[test]
    fn tables_and_strings_lie_where_the_abi_says() {
        let args = [b"prog".to_vec(), b"one".to_vec()];
        let env = [b"A=1".to_vec()];
        let strings = Strings { args: &args, env: &env, exec_name: b"/bin/prog" };
        let aux = Aux { entry: 0x1234, ..Aux::default() };
        let top = 0x7000_0000_0000;
        let stack = build(top, &strings, &aux, &[7; 18]).unwrap();
        assert_eq!(stack.pointer % 16, 0);
        let [tables, strings] = &stack.pieces;
        assert_eq!(tables.0, stack.pointer);
        assert!(tables.0 + tables.1.len() as u64 <= strings.0);
        assert_eq!(strings.0 + strings.1.len() as u64, top);
        assert_eq!(word(&stack, stack.pointer), 2);
        let first = word(&stack, stack.pointer + 8);
        assert_eq!(string(&stack, first), b"prog");
        assert_eq!(stack.args, first..first + 9);
        assert_eq!(string(&stack, word(&stack, stack.pointer + 32)), b"A=1");
        assert_eq!(word(&stack, stack.pointer + 40), 0);
        let get = |key| stack.auxv.chunks(2).find(|pair| pair[0] == key).map(|pair| pair[1]);
        assert_eq!(get(auxv::AT_ENTRY), Some(0x1234));
        assert_eq!(string(&stack, get(auxv::AT_EXECFN).unwrap()), b"/bin/prog");
        assert_eq!(string(&stack, get(auxv::AT_PLATFORM).unwrap()), b"x86_64");
        assert_eq!(word(&stack, get(auxv::AT_RANDOM).unwrap()), 0x0707_0707_0707_0707);
        assert_eq!(word(&stack, stack.pointer + 48), stack.auxv[0]);
    }

    #[test]
    fn too_long_strings_are_refused() {
        let check = |args: &[Vec<u8>], limit| {
            check_size(&Strings { args, env: &[], exec_name: b"x" }, limit)
        };
        assert_eq!(check(&[vec![b'a'; MAX_STRING - 1]], 8 << 20), Ok(()));
        assert_eq!(check(&[vec![b'a'; MAX_STRING]], 8 << 20), Err(Errno::E2BIG));
        let many = vec![vec![b'a'; 1000]; 200];
        assert_eq!(check(&many, 8 << 20), Ok(()));
        assert_eq!(check(&many, 4096), Err(Errno::E2BIG));
    }
}
