//! Many threads, many processes, many faults. Each prints one line when its results are right.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{exit_code, in_child, ok, pipe, read_some, sys, tests, wait_for, write_all};

tests! {
    mutex_of_64_threads, ping_pong_on_condvars, fork_tree_of_500, segv_on_alternate_stack_1000_times,
    vector_state_survives, pipe_ring_of_50, spin_barrier,
}

fn join<T>(threads: Vec<thread::JoinHandle<T>>) {
    threads.into_iter().for_each(|thread| drop(thread.join().expect("it does not panic")));
}

fn mutex_of_64_threads() {
    let shared = Arc::new((Mutex::new((0_u64, 0_u64)), AtomicUsize::new(0)));
    let threads = (0..64)
        .map(|n| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for round in 0..500 {
                    let mut pair = shared.0.lock().expect("nobody panics");
                    pair.0 += 1;
                    if (n + round) % 16 == 0 {
                        thread::yield_now();
                    }
                    pair.1 += 1;
                    assert_eq!(pair.0, pair.1);
                    drop(pair);
                    shared.1.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    join(threads);
    println!("{} {}", shared.0.lock().expect("nobody panics").0, shared.1.load(SeqCst));
}

fn ping_pong_on_condvars() {
    let table = Arc::new((Mutex::new(0_usize), Condvar::new()));
    let threads = (0..8)
        .map(|me| {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                for _ in 0..200 {
                    let mut turn = table.0.lock().expect("nobody panics");
                    while *turn % 8 != me {
                        turn = table.1.wait(turn).expect("nobody panics");
                    }
                    *turn += 1;
                    table.1.notify_all();
                }
            })
        })
        .collect();
    join(threads);
    println!("{}", table.0.lock().expect("nobody panics"));
}

/// A process makes up to four children, each with its share of what is left to make.
fn tree(size: i32, write_end: i32) -> i32 {
    write_all(write_end, b"n");
    let mut left = size - 1;
    let mut children = Vec::new();
    for slot in (1..=4).rev() {
        let share = left / slot;
        if share > 0 {
            left -= share;
            children.push(in_child(|| tree(share, write_end)));
        }
    }
    children.into_iter().map(|child| exit_code(wait_for(child))).max().unwrap_or(0)
}

fn fork_tree_of_500() {
    let (read_end, write_end) = pipe();
    let code = exit_code(wait_for(in_child(|| tree(500, write_end))));
    ok!(close(write_end));
    println!("{code} {}", read_some(read_end, 1000).len());
}

static FAULTS: AtomicUsize = AtomicUsize::new(0);
static PAGE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn unprotect(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo of a fault.
    let address = unsafe { (*info).si_addr() } as usize;
    let page = PAGE.load(SeqCst);
    if address != page {
        sys!(_exit(90));
    }
    FAULTS.fetch_add(1, SeqCst);
    sys!(mprotect(page as *mut libc::c_void, 4096, libc::PROT_READ | libc::PROT_WRITE));
}

fn segv_on_alternate_stack_1000_times() {
    let memory = vec![0_u8; 64 * 1024].leak();
    let stack =
        libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    ok!(sigaltstack(&stack, std::ptr::null_mut()));
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = unprotect as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    ok!(sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()));
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let page = sys!(mmap(std::ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0));
    PAGE.store(page as usize, SeqCst);
    for _ in 0..1000 {
        // SAFETY: the handler makes the page writable.
        unsafe { page.cast::<u8>().write_volatile(1) };
        ok!(mprotect(page, 4096, libc::PROT_NONE));
    }
    println!("{}", FAULTS.load(SeqCst));
}

/// ymm0-3 hold a pattern over system calls while a timer's signals come in. 10 million calls is what the issue
/// asks for; natively they take a second.
fn vector_state_survives() {
    extern "C" fn clobber(_: i32) {
        if std::arch::is_x86_feature_detected!("avx") {
            // SAFETY: AVX is there; the kernel restores what is changed here.
            unsafe {
                std::arch::asm!("vpcmpeqd xmm0, xmm0, xmm0", "vmovaps ymm1, ymm0", out("ymm0") _, out("ymm1") _)
            };
        }
        FAULTS.fetch_add(1, SeqCst);
    }
    sys!(signal(libc::SIGALRM, clobber as *const () as usize));
    let often = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 2000 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 2000 },
    };
    ok!(setitimer(libc::ITIMER_REAL, &often, std::ptr::null_mut()));
    let calls: u64 = std::env::args().nth(3).and_then(|text| text.parse().ok()).unwrap_or(200_000);
    let wrong =
        if std::arch::is_x86_feature_detected!("avx") { calls_with_patterns(calls) } else { 0 };
    println!("wrong {wrong}, interrupted {}", FAULTS.load(SeqCst) > 2);
}

fn calls_with_patterns(calls: u64) -> u64 {
    let pattern: [u64; 4] = [
        0x1111_2222_3333_4444,
        0x5555_6666_7777_8888,
        0x9999_aaaa_bbbb_cccc,
        0xdddd_eeee_ffff_0001,
    ];
    let mut wrong = 0_u64;
    let started = Instant::now();
    // At least so many calls, and until signals have come between.
    for block in 0_u64.. {
        let is_late = started.elapsed() > Duration::from_secs(10);
        if block >= calls / 64 && (FAULTS.load(SeqCst) > 2 || is_late) {
            break;
        }
        // getppid, which may be answered near by, and getpgrp, which may not.
        let number: u32 = if block % 2 == 0 { 110 } else { 111 };
        let mut after = [[0_u64; 4]; 4];
        // SAFETY: the calls clobber rax, rcx, r11 only; AVX was checked for; buffers are 32 bytes each.
        unsafe {
            std::arch::asm!(
                "vmovups ymm0, [{p}]", "vmovups ymm1, [{p}]", "vmovups ymm2, [{p}]", "vmovups ymm15, [{p}]",
                "2:", "mov eax, {call:e}", "syscall", "dec {n:e}", "jnz 2b",
                "vmovups [{a}], ymm0", "vmovups [{a} + 32], ymm1", "vmovups [{a} + 64], ymm2", "vmovups [{a} + 96], ymm15",
                call = in(reg) number, p = in(reg) pattern.as_ptr(), a = in(reg) after.as_mut_ptr(), n = inout(reg) 64_u32 => _,
                out("rax") _, out("rcx") _, out("r11") _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm15") _,
            );
        }
        wrong += after.iter().filter(|value| **value != pattern).count() as u64;
    }
    wrong
}

fn pipe_ring_of_50() {
    const SIZE: usize = 50;
    let pipes: Vec<_> = (0..SIZE).map(|_| pipe()).collect();
    let children: Vec<_> = (0..SIZE)
        .map(|n| {
            let (from, to) = (pipes[n].0, pipes[(n + 1) % SIZE].1);
            in_child(|| {
                for _ in 0..20 {
                    let token = read_some(from, 1);
                    write_all(to, &[token[0].wrapping_add(1)]);
                }
                0
            })
        })
        .collect();
    write_all(pipes[0].1, &[0]);
    children.into_iter().for_each(|child| assert_eq!(exit_code(wait_for(child)), 0));
    println!("{:?}", read_some(pipes[0].0, 10));
}

/// As many threads as CPUs, each spinning until the others have come; prints nanoseconds per round.
fn spin_barrier() {
    const LASTS: Duration = Duration::from_millis(1500);
    let cpus = thread::available_parallelism().map_or(1, Into::into);
    let (arrived, last_round) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    last_round.store(usize::MAX, SeqCst);
    let started = Instant::now();
    let threads = (0..cpus)
        .map(|me| {
            let (arrived, last_round) = (Arc::clone(&arrived), Arc::clone(&last_round));
            thread::spawn(move || {
                for round in 1.. {
                    arrived.fetch_add(1, SeqCst);
                    while arrived.load(SeqCst) < round * cpus {
                        std::hint::spin_loop();
                    }
                    if round >= last_round.load(SeqCst) {
                        return;
                    }
                    // Nobody can be further than one round ahead.
                    if me == 0 && last_round.load(SeqCst) == usize::MAX && started.elapsed() > LASTS
                    {
                        last_round.store(round + 2, SeqCst);
                    }
                    // Some work, so that a round is not only cache traffic.
                    for n in 0..200 {
                        std::hint::black_box(n);
                    }
                }
            })
        })
        .collect();
    join(threads);
    println!("{}", started.elapsed().as_nanos() / last_round.load(SeqCst) as u128);
}
