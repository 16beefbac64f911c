//! Runs machine code in this very process with chosen registers, and says what came out.
//!
//! # Safety
//! Code that runs here may write the arena only, keeps r15 and rax, and leaves by one of the two exits.

use std::arch::global_asm;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Offsets in the arena: code, what it may load and store, its stack, and two places for trampolines.
pub const CODE: usize = 0x1_0000;
pub const DATA: usize = 0x2_0000;
const STACK: usize = 0x3_0000;
const PAGE: usize = 4096;
pub const NEAR: usize = 0x4_0000;
pub const FAR: usize = 0x5000_0000;
const ARENA: usize = FAR + PAGE;

/// Registers in the order of their numbers (rsp among them), then flags, where to start, which exit was taken.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub registers: [u64; 16],
    pub flags: u64,
    pub code: u64,
    pub exit: u64,
}

// Neither exit nor entry touches flags before they are saved; `rewrite_entry` makes the call as a shim would.
global_asm!(
    ".pushsection .bss.rewrite, \"aw\", @nobits",
    ".balign 8",
    "rewrite_host_rsp: .skip 8",
    "rewrite_state: .skip 8",
    "rewrite_rdi: .skip 8",
    "rewrite_way: .skip 8",
    ".globl rewrite_came_with",
    "rewrite_came_with: .skip 8",
    ".popsection",
    ".pushsection .text.rewrite, \"ax\"",
    ".globl rewrite_run, rewrite_exit, rewrite_exit_out, rewrite_entry",
    "rewrite_run:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + rewrite_host_rsp], rsp",
    "mov [rip + rewrite_state], rdi",
    "mov rsp, [rdi + 32]",
    "push qword ptr [rdi + 136]",
    "push qword ptr [rdi + 128]",
    "mov rax, [rdi]",
    "mov rcx, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov rbx, [rdi + 24]",
    "mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]",
    "mov r8, [rdi + 64]",
    "mov r9, [rdi + 72]",
    "mov r10, [rdi + 80]",
    "mov r11, [rdi + 88]",
    "mov r12, [rdi + 96]",
    "mov r13, [rdi + 104]",
    "mov r14, [rdi + 112]",
    "mov r15, [rdi + 120]",
    "mov rdi, [rdi + 56]",
    "popfq",
    "ret",
    "rewrite_entry:",
    "mov [rip + rewrite_came_with], rcx",
    "syscall",
    "jmp qword ptr [rip + rewrite_came_with]",
    "rewrite_exit_out:",
    "mov qword ptr [rip + rewrite_way], 2",
    "jmp 2f",
    "rewrite_exit:",
    "mov qword ptr [rip + rewrite_way], 1",
    "2:",
    "mov [rip + rewrite_rdi], rdi",
    "mov rdi, [rip + rewrite_state]",
    "mov [rdi], rax",
    "mov [rdi + 8], rcx",
    "mov [rdi + 16], rdx",
    "mov [rdi + 24], rbx",
    "mov [rdi + 32], rsp",
    "mov [rdi + 40], rbp",
    "mov [rdi + 48], rsi",
    "mov [rdi + 64], r8",
    "mov [rdi + 72], r9",
    "mov [rdi + 80], r10",
    "mov [rdi + 88], r11",
    "mov [rdi + 96], r12",
    "mov [rdi + 104], r13",
    "mov [rdi + 112], r14",
    "mov [rdi + 120], r15",
    "mov rax, [rip + rewrite_rdi]",
    "mov [rdi + 56], rax",
    "mov rax, [rip + rewrite_way]",
    "mov [rdi + 144], rax",
    "mov rsp, [rip + rewrite_host_rsp]",
    "pushfq",
    "pop qword ptr [rdi + 128]",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn rewrite_run(state: *mut State);
    fn rewrite_exit();
    fn rewrite_exit_out();
    fn rewrite_entry();
    #[link_name = "rewrite_came_with"]
    static CAME_WITH: AtomicU64;
}

/// Addresses that code leaves by: after its system call, and before.
pub fn exits() -> [u64; 2] {
    [rewrite_exit as *const () as u64, rewrite_exit_out as *const () as u64]
}

/// What trampolines lead to.
pub fn entry() -> u64 {
    rewrite_entry as *const () as u64
}

/// What a run left behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub state: State,
    pub memory: Vec<u8>,
    /// rcx at the entry, if that was reached.
    pub came_with: Option<u64>,
}

/// Memory to run in. One at a time: runs share statics.
pub struct Arena {
    base: *mut u8,
}

impl Arena {
    pub fn new() -> Self {
        let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, wherever there is room.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), ARENA, prot, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "no memory to write and execute");
        Self { base: base.cast() }
    }

    pub fn addr(&self, offset: usize) -> u64 {
        self.base as u64 + offset as u64
    }

    fn area(&mut self, offset: usize, len: usize) -> &mut [u8] {
        assert!(offset + len <= ARENA);
        // SAFETY: within the mapping, borrowed as long as the arena; no code runs meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(offset), len) }
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.area(offset, bytes.len()).copy_from_slice(bytes);
    }

    /// Runs the code from registers and flags; r15 points to the data, rsp into the stack.
    pub fn run(&mut self, registers: [u64; 16], flags: u64) -> Outcome {
        for area in [DATA, STACK] {
            for (index, byte) in self.area(area, PAGE).iter_mut().enumerate() {
                *byte = (index * 7 + (index >> 5)) as u8;
            }
        }
        let mut state = State { registers, flags, code: self.addr(CODE), exit: 0 };
        state.registers[4] = self.addr(STACK + PAGE / 2);
        state.registers[15] = self.addr(DATA);
        // SAFETY: as the module's documentation demands of the code.
        unsafe {
            CAME_WITH.store(0, Relaxed);
            rewrite_run(&raw mut state);
        }
        // SAFETY: an atomic; nothing else runs.
        let came_with = unsafe { CAME_WITH.load(Relaxed) };
        let mut memory = self.area(DATA, PAGE).to_vec();
        memory.extend_from_slice(self.area(STACK, PAGE));
        Outcome { state, memory, came_with: (came_with != 0).then_some(came_with) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; no slice of it outlives the arena.
        unsafe { libc::munmap(self.base.cast(), ARENA) };
    }
}
