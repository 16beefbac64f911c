//! Programs that attack what runs them: the memory above the program's own addresses, where the sandbox keeps its
//! shim and channel. Natively there is nothing (the attackers just die); in the sandbox whatever happens must hurt the
//! attacker only. Each attack runs in a child; the test is that the parent is well and can get rid of it.

use std::arch::asm;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::support::{in_child, ok, sleep_ms, sys, tests, wait_for};

tests! {
    garbage_over_the_shim, garbage_while_another_thread_calls, jumps_into_the_shim,
    calls_from_the_shims_own_instructions, unmapping_above, mapping_above, unmapping_everything_of_ones_own,
    bad_stack_pointers, foreign_architecture,
}

/// Where the sandbox's part of an address space begins, and how much of it is looked at.
const START: usize = 0x7e00_0000_0000;
const LENGTH: usize = 16 << 20;
/// The channel's part.
const CHANNEL: usize = START + 0x4000_0000;
const CHANNEL_LENGTH: usize = 4 << 20;
const PAGE: usize = 4096;

/// Runs an attack in a child and sees that it ends, by itself or by SIGKILL, and that we are well after that.
fn survive(attack: impl FnOnce()) {
    let attacker = in_child(|| {
        sys!(alarm(2));
        attack();
        0
    });
    let mut status = 0;
    for _ in 0..300 {
        if ok!(waitpid(attacker, &mut status, libc::WNOHANG)) == attacker {
            return assert_well();
        }
        sleep_ms(10);
    }
    ok!(kill(attacker, libc::SIGKILL));
    wait_for(attacker);
    assert_well();
}

fn assert_well() {
    assert_eq!(crate::support::exit_code(wait_for(in_child(|| 17))), 17);
    assert!(std::fs::read("/proc/self/status").is_ok_and(|text| !text.is_empty()));
}

static HAS_FAULTED: AtomicBool = AtomicBool::new(false);

/// Steps over an instruction of two bytes that faulted.
extern "C" fn step_over(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context: *mut libc::ucontext_t = context.cast();
    HAS_FAULTED.store(true, Relaxed);
    // SAFETY: the kernel passes a valid ucontext.
    unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] += 2 };
}

fn step_over_faults() {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = step_over as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    ok!(sigaction(libc::SIGSEGV, &action, ptr::null_mut()));
    ok!(sigaction(libc::SIGBUS, &action, ptr::null_mut()));
}

/// Writes a byte, whatever is there; two bytes of code.
fn poke(address: usize, value: u8) {
    // SAFETY: destroying this process is the purpose; faults are stepped over.
    unsafe { asm!("mov [rdi], al", in("rdi") address, in("al") value) };
}

/// Reads a byte, if there is one; two bytes of code.
fn peek(address: usize) -> Option<u8> {
    let mut value = 0_u8;
    HAS_FAULTED.store(false, Relaxed);
    // SAFETY: faults are stepped over.
    unsafe { asm!("mov al, [rdi]", in("rdi") address, inout("al") value) };
    (!HAS_FAULTED.load(Relaxed)).then_some(value)
}

fn pages() -> impl Iterator<Item = usize> {
    (START..START + LENGTH).chain(CHANNEL..CHANNEL + CHANNEL_LENGTH).step_by(PAGE)
}

fn write_garbage() {
    for page in pages() {
        HAS_FAULTED.store(false, Relaxed);
        for offset in [0, 8, 64, 72, 128, 192, 256, 1024, 2048, 4088] {
            poke(page + offset, 0xff);
            if HAS_FAULTED.load(Relaxed) {
                break;
            }
        }
    }
}

fn garbage_over_the_shim() {
    survive(|| {
        step_over_faults();
        write_garbage();
        for _ in 0..100 {
            sys!(getppid());
        }
    });
}

fn garbage_while_another_thread_calls() {
    survive(|| {
        step_over_faults();
        std::thread::spawn(|| {
            loop {
                sys!(getppid());
            }
        });
        sleep_ms(5);
        write_garbage();
        sleep_ms(50);
    });
}

fn jumps_into_the_shim() {
    for offset in (0..16 * PAGE).step_by(397) {
        let target = START + 0x10000 + offset;
        let attacker = in_child(|| {
            sys!(alarm(2));
            // SAFETY: destroying this process is the purpose.
            unsafe {
                asm!("xor edi, edi", "xor esi, esi", "jmp {0}", in(reg) target, options(noreturn))
            }
        });
        let mut status = 0;
        for _ in 0..100 {
            if ok!(waitpid(attacker, &mut status, libc::WNOHANG)) == attacker {
                break;
            }
            sleep_ms(1);
        }
        if status == 0 {
            sys!(kill(attacker, libc::SIGKILL));
            sys!(waitpid(attacker, &mut status, 0));
        }
    }
    assert_well();
}

/// Addresses of `syscall` instructions above.
fn syscall_instructions() -> Vec<usize> {
    let mut found = Vec::new();
    for page in pages().take(64).filter(|page| peek(*page).is_some()) {
        for address in page..page + PAGE - 1 {
            if peek(address) == Some(0x0f) && peek(address + 1) == Some(0x05) {
                found.push(address);
            }
        }
    }
    found
}

/// Makes a host call by jumping to somebody else's instruction; what follows there runs, too.
fn call_at(address: usize, number: i64, args: [usize; 6]) {
    // SAFETY: destroying this process is the purpose.
    unsafe {
        asm!(
            "jmp r11",
            in("r11") address, in("rax") number, in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5], options(noreturn)
        )
    }
}

fn calls_from_the_shims_own_instructions() {
    let fixed = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as usize;
    let calls = [
        (libc::SYS_munmap, [START, LENGTH, 0, 0, 0, 0]),
        (libc::SYS_mmap, [START, LENGTH, 7, fixed, usize::MAX, 0]),
        (libc::SYS_mprotect, [START, LENGTH, 7, 0, 0, 0]),
        (libc::SYS_kill, [usize::MAX, 9, 0, 0, 0, 0]),
        (libc::SYS_openat, [usize::MAX - 99, c"/etc/shadow".as_ptr() as usize, 0, 0, 0, 0]),
        (libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0]),
        (libc::SYS_getppid, [3, usize::MAX, usize::MAX, usize::MAX, 0, 0]),
        (libc::SYS_exit, [0; 6]),
    ];
    for (number, args) in calls {
        survive(|| {
            step_over_faults();
            if let Some(address) = syscall_instructions().first() {
                call_at(*address, number, args);
            }
        });
    }
}

fn unmapping_above() {
    survive(|| {
        assert!(sys!(munmap(START as *mut libc::c_void, LENGTH)) <= 0);
        assert!(sys!(mprotect(START as *mut libc::c_void, PAGE, libc::PROT_NONE)) <= 0);
        sys!(madvise(START as *mut libc::c_void, LENGTH, libc::MADV_DONTNEED));
        sys!(getppid());
    });
}

fn mapping_above() {
    survive(|| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        for page in pages().step_by(16) {
            sys!(mmap(
                page as *mut libc::c_void,
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0
            ));
        }
        sys!(getppid());
    });
}

fn unmapping_everything_of_ones_own() {
    survive(|| {
        sys!(munmap(ptr::null_mut(), START));
    });
}

fn bad_stack_pointers() {
    for stack in [0_usize, 8, START, START + 0x10000, usize::MAX - 7, 0x8000_0000_0000_0000] {
        survive(|| {
            // SAFETY: destroying this process is the purpose.
            unsafe {
                asm!(
                    "mov rsp, {0}", "mov eax, 39", "syscall", "mov eax, 110", "syscall", "xor edi, edi", "mov eax, 231",
                    "syscall", "ud2", in(reg) stack, options(noreturn)
                )
            }
        });
    }
}

/// A 32-bit entry: the host may kill for it, or answer as to an unknown call.
fn foreign_architecture() {
    survive(|| {
        // SAFETY: getpid, or death.
        unsafe { asm!("int 0x80", inout("eax") 20 => _) };
    });
    survive(|| {
        sys!(syscall(0x4000_0000 + libc::SYS_getpid));
    });
}
