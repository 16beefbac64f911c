//! The zygote: started by the sentry in a fresh address space, makes that ready, then multiplies on order.

use core::arch::naked_asm;
use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{self, MAX_FILTER, ring};
use crate::calls::{self, die, failed, syscall};
use crate::{channel, clone, fast, signals};

/// Descriptors the sentry passes.
const GLOBAL_FD: u64 = 0;
const REPORT_FD: u64 = 1;
/// Where the listener lands, being the lowest free number.
const LISTENER_FD: u64 = 0;

/// Where the zygote begins; the sentry finds the entry for rewritten call sites right behind the first jump.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        ".byte 0xeb, 0x05", // over the next jump, whatever its length would be else
        ".byte 0xe9",
        ".long {enter} - 2f",
        "2:",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {boot}",
        "ud2",
        enter = sym fast::enter,
        boot = sym boot,
    )
}

/// On the stack that execve made: maps what every stub needs and leaves for the scratch stack.
extern "C" fn boot(stack: u64) -> ! {
    const PROT_READ: u64 = 1;
    const PROT_READ_WRITE: u64 = 3;
    const MAP_SHARED_FIXED: u64 = 0x11;
    const MAP_PRIVATE_ANON_FIXED: u64 = 0x32;
    let map = |addr, len, prot, flags, fd| syscall(calls::MMAP, [addr, len, prot, flags, fd, 0]);
    if failed(map(abi::GLOBAL_ADDR, abi::GLOBAL_SIZE, PROT_READ, MAP_SHARED_FIXED, GLOBAL_FD))
        || failed(map(
            abi::SCRATCH_ADDR,
            abi::SCRATCH_SIZE,
            PROT_READ_WRITE,
            MAP_PRIVATE_ANON_FIXED,
            !0,
        ))
    {
        report(1);
    }
    let (stack_top, vdso) = read_auxv(stack);
    // SAFETY: the scratch stack is mapped and nobody stands on it.
    unsafe { switch_stack(stack_top, vdso, abi::SCRATCH_ADDR + abi::SCRATCH_SIZE) }
}

#[unsafe(naked)]
unsafe extern "C" fn switch_stack(old_top: u64, vdso: u64, new: u64) -> ! {
    naked_asm!("mov rsp, rdx", "xor ebp, ebp", "call {run}", "ud2", run = sym run)
}

/// End of the stack mapping (AT_EXECFN's string is the last thing on it), and where the vDSO is, or 0.
fn read_auxv(stack: u64) -> (u64, u64) {
    const AT_EXECFN: u64 = 31;
    const AT_SYSINFO_EHDR: u64 = 33;
    let (mut top, mut vdso) = (0, 0);
    // SAFETY: the layout is execve's: argc, argv, 0, envp, 0, auxv pairs.
    unsafe {
        let mut word = stack as *const u64;
        for _ in 0..2 {
            word = word.add(1);
            while *word != 0 {
                word = word.add(1);
            }
        }
        word = word.add(1);
        while *word != 0 {
            match *word {
                AT_EXECFN => {
                    let mut byte = *word.add(1) as *const u8;
                    // Volatile: or else the compiler calls for a strlen that nobody provides.
                    while byte.read_volatile() != 0 {
                        byte = byte.add(1);
                    }
                    top = (byte as u64 + 9 + 4095) & !4095;
                }
                AT_SYSINFO_EHDR => vdso = *word.add(1),
                _ => {}
            }
            word = word.add(2);
        }
    }
    if top == 0 {
        report(2);
    }
    (top, vdso)
}

/// Start of vvar and end of the vDSO around its image: nothing else is mapped near them.
fn vdso_range(vdso: u64) -> (u64, u64) {
    const PAGE: u64 = 4096;
    const MOST: u64 = 64 * PAGE;
    if vdso == 0 {
        return (0, 0);
    }
    let mut state = 0u8;
    let mut is_mapped =
        |at: u64| !failed(syscall(calls::MINCORE, [at, PAGE, &raw mut state as u64, 0, 0, 0]));
    let (mut start, mut end) = (vdso, vdso);
    while vdso - start < MOST && is_mapped(start - PAGE) {
        start -= PAGE;
    }
    while end - vdso < MOST && is_mapped(end) {
        end += PAGE;
    }
    (start, end)
}

/// On the scratch stack: handlers, filter, and the zygote's life.
extern "C" fn run(stack_top: u64, vdso: u64) -> ! {
    const STACK_LIMIT: u64 = 16 << 20;
    if failed(syscall(calls::MUNMAP, [stack_top - STACK_LIMIT, STACK_LIMIT, 0, 0, 0, 0])) {
        report(3);
    }
    let (vvar, vdso_end) = vdso_range(vdso);
    signals::install();
    syscall(calls::CLOSE, [GLOBAL_FD, 0, 0, 0, 0, 0]);
    install_filter();
    // End of file on the report pipe says: the listener is there.
    syscall(calls::CLOSE, [REPORT_FD, 0, 0, 0, 0, 0]);
    // The first answer comes when the sentry has taken its copy.
    let mut token = calls::ring_with([ring::ZYGOTE, 0, vvar, vdso, vdso_end, 0]);
    syscall(calls::CLOSE, [LISTENER_FD, 0, 0, 0, 0, 0]);
    let mut result = 0;
    loop {
        if token != 0 {
            let place = channel::global().next_channel.load(Relaxed);
            result = clone::process(None, token, abi::IN_ARENA | place);
        }
        token = calls::ring(ring::ZYGOTE, result as u64);
    }
}

fn install_filter() {
    /// `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        len: u16,
        filter: u64,
    }
    const SECCOMP_SET_MODE_FILTER: u64 = 1;
    let global = channel::global();
    let len = global.filter_len.load(Relaxed);
    if len as usize > MAX_FILTER {
        report(4);
    }
    let program = Program { len: len as u16, filter: &raw const global.filter as u64 };
    let flags = u64::from(global.filter_flags.load(Relaxed));
    let pointer = &raw const program as u64;
    let fd = syscall(calls::SECCOMP, [SECCOMP_SET_MODE_FILTER, flags, pointer, 0, 0, 0]);
    if fd != LISTENER_FD as i64 {
        report((0x100 + fd.unsigned_abs()) as u16);
    }
}

/// Tells the sentry at which step it failed, and ends.
fn report(step: u16) -> ! {
    let bytes = step.to_le_bytes();
    syscall(calls::WRITE, [REPORT_FD, &raw const bytes as u64, 2, 0, 0, 0]);
    die(108)
}
