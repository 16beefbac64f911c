//! Threads that change their address space's layout beside each other, and what new threads start with.

use std::arch::asm;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;

use crate::support::{errno, exit_code, fails, in_child, ok, sys, tests, wait_for};

tests! {
    who_maps_and_computes_holds_up_nobody, refused_changes_are_told_beside_other_threads, layouts_change_beside_each_other,
    signals_interrupt_changes_of_a_shared_layout, stops_leave_the_layout_to_others, kill_ends_threads_that_change_the_layout,
    new_threads_have_their_creators_rounding, new_threads_know_nothing_of_ended_ones, threads_end_and_begin_in_forked_children,
}

const PAGE: usize = 4096;

fn map(pages: usize, prot: i32) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let memory = sys!(mmap(ptr::null_mut(), pages * PAGE, prot, flags, -1, 0));
    assert_ne!(memory, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    memory.cast()
}

fn unmap(memory: *mut u8, pages: usize) {
    ok!(munmap(memory.cast(), pages * PAGE));
}

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Maps pages, uses and protects them, and lets them go.
fn use_pages(seed: u8) {
    let memory = map(4, READ_WRITE);
    for page in 0..4 {
        // SAFETY: within the mapping.
        unsafe {
            assert_eq!(
                memory.add(page * PAGE).read_volatile(),
                0,
                "an address was given out twice"
            );
            memory.add(page * PAGE).write_volatile(seed);
        }
    }
    ok!(mprotect(memory.cast(), PAGE, libc::PROT_NONE));
    ok!(madvise(memory.add(PAGE).cast(), PAGE, libc::MADV_DONTNEED));
    // SAFETY: within the mapping.
    let seen = unsafe { [memory.add(PAGE).read_volatile(), memory.add(2 * PAGE).read_volatile()] };
    assert_eq!(seen, [0, seed]);
    unmap(memory, 4);
}

/// Threads that run `body` again and again until told to stop.
fn repeat(count: usize, body: fn(u8)) -> (Arc<AtomicBool>, Vec<thread::JoinHandle<()>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let threads = (0..count)
        .map(|at| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(SeqCst) {
                    body(at as u8 + 1);
                }
            })
        })
        .collect();
    (stop, threads)
}

fn end((stop, threads): (Arc<AtomicBool>, Vec<thread::JoinHandle<()>>)) {
    stop.store(true, SeqCst);
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
}

fn who_maps_and_computes_holds_up_nobody() {
    const ROUNDS: u32 = 40;
    let turn = Arc::new(AtomicU32::new(0));
    let other = Arc::clone(&turn);
    let computing = thread::spawn(move || {
        for round in 0..ROUNDS {
            unmap(map(1, READ_WRITE), 1);
            other.store(round * 2 + 1, SeqCst);
            // No call until the others have done what they want.
            while other.load(SeqCst) != round * 2 + 2 {
                std::hint::spin_loop();
            }
        }
    });
    for round in 0..ROUNDS {
        while turn.load(SeqCst) != round * 2 + 1 {
            std::hint::spin_loop();
        }
        use_pages(1);
        if round % 8 == 0 {
            assert_eq!(exit_code(wait_for(in_child(|| 7))), 7);
        }
        turn.store(round * 2 + 2, SeqCst);
    }
    computing.join().expect("it does not panic");
}

fn refused_changes_are_told_beside_other_threads() {
    let others = repeat(2, use_pages);
    let memory = map(2, libc::PROT_READ);
    for _ in 0..200 {
        fails!(libc::EINVAL, madvise(memory.cast(), 2 * PAGE, libc::MADV_POPULATE_WRITE));
        use_pages(9);
    }
    unmap(memory, 2);
    end(others);
}

fn layouts_change_beside_each_other() {
    let others = repeat(3, use_pages);
    for _ in 0..300 {
        use_pages(77);
    }
    for _ in 0..10 {
        // What a copy has is consistent, too.
        let child = in_child(|| {
            (0..20).for_each(|_| use_pages(5));
            3
        });
        assert_eq!(exit_code(wait_for(child)), 3);
    }
    end(others);
}

fn signals_interrupt_changes_of_a_shared_layout() {
    static HITS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn on_signal(_: i32) {
        HITS.fetch_add(1, SeqCst);
        // A handler may change it, too.
        use_pages(3);
    }
    let handler: extern "C" fn(i32) = on_signal;
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    (action.sa_sigaction, action.sa_flags) = (handler as usize, libc::SA_RESTART);
    ok!(sigaction(libc::SIGUSR1, &action, ptr::null_mut()));
    let others = repeat(2, use_pages);
    let targets: Vec<_> =
        others.1.iter().map(std::os::unix::thread::JoinHandleExt::as_pthread_t).collect();
    let mut sent = 0;
    while HITS.load(SeqCst) < 300 {
        for target in &targets {
            assert_eq!(sys!(pthread_kill(*target, libc::SIGUSR1)), 0);
            sent += 1;
        }
        use_pages(4);
    }
    end(others);
    assert!(HITS.load(SeqCst) <= sent);
}

/// A process of its own in the same memory: it changes the layout all the time.
extern "C" fn change_forever(_: *mut libc::c_void) -> i32 {
    loop {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let memory = sys!(mmap(ptr::null_mut(), PAGE, READ_WRITE, flags, -1, 0));
        if memory == libc::MAP_FAILED || sys!(munmap(memory, PAGE)) != 0 {
            return 1;
        }
    }
}

fn stops_leave_the_layout_to_others() {
    let stack = map(16, READ_WRITE);
    let top = stack.wrapping_add(16 * PAGE).cast();
    let flags = libc::CLONE_VM | libc::SIGCHLD;
    let other = ok!(clone(change_forever, top, flags, ptr::null_mut()));
    for _ in 0..20 {
        ok!(kill(other, libc::SIGSTOP));
        let mut status = 0;
        assert_eq!(ok!(waitpid(other, &mut status, libc::WUNTRACED)), other);
        assert!(libc::WIFSTOPPED(status), "{status:#x}");
        (0..5).for_each(|_| use_pages(6));
        ok!(kill(other, libc::SIGCONT));
        use_pages(6);
    }
    ok!(kill(other, libc::SIGKILL));
    assert_eq!(libc::WTERMSIG(wait_for(other)), libc::SIGKILL);
    use_pages(6);
}

fn kill_ends_threads_that_change_the_layout() {
    for round in 0..10 {
        let child = in_child(|| {
            let _others = repeat(3, use_pages);
            loop {
                use_pages(8);
            }
        });
        sys!(usleep(500 * round));
        ok!(kill(child, libc::SIGKILL));
        assert_eq!(libc::WTERMSIG(wait_for(child)), libc::SIGKILL);
    }
}

/// MXCSR and the x87 control word.
fn rounding() -> (u32, u16) {
    let (mut vector, mut old) = (0_u32, 0_u16);
    // SAFETY: stores to the two places only.
    unsafe {
        asm!("stmxcsr [{}]", "fnstcw [{}]", in(reg) &raw mut vector, in(reg) &raw mut old, options(nostack));
    }
    // Without the flags of what was computed.
    (vector & !0x3f, old)
}

fn set_rounding((vector, old): (u32, u16)) {
    // SAFETY: valid words, which Rust code here does not depend on.
    unsafe {
        asm!("ldmxcsr [{}]", "fldcw [{}]", in(reg) &raw const vector, in(reg) &raw const old, options(nostack));
    }
}

const USUAL: (u32, u16) = (0x1f80, 0x37f);
/// Upwards, and downwards.
const UP: (u32, u16) = (0x5f80, 0xb7f);
const DOWN: (u32, u16) = (0x3f80, 0x77f);

fn new_threads_have_their_creators_rounding() {
    assert_eq!(rounding(), USUAL);
    for round in 0..40 {
        let wanted = [USUAL, UP, DOWN][round % 3];
        set_rounding(wanted);
        let thread = thread::spawn(move || {
            let seen = rounding();
            // What it leaves behind is nobody's.
            set_rounding([DOWN, USUAL, UP][round % 3]);
            seen
        });
        let seen = thread.join().expect("it does not panic");
        assert_eq!(rounding(), wanted);
        set_rounding(USUAL);
        assert_eq!(seen, wanted, "round {round}");
    }
}

fn new_threads_know_nothing_of_ended_ones() {
    thread_local! { static LOCAL: std::cell::Cell<u32> = const { std::cell::Cell::new(0) }; }
    let mut tids = std::collections::BTreeSet::new();
    for round in 1..60 {
        let thread = thread::spawn(move || {
            assert_eq!(LOCAL.replace(round), 0);
            let tid = sys!(gettid());
            assert_eq!(i64::from(tid), sys!(syscall(libc::SYS_gettid)));
            // SAFETY: all zeros is a valid set.
            let (mut mask, mut all): (libc::sigset_t, libc::sigset_t) =
                unsafe { std::mem::zeroed() };
            sys!(pthread_sigmask(libc::SIG_SETMASK, ptr::null(), &mut mask));
            assert_eq!(sys!(sigismember(&mask, libc::SIGUSR2)), 0, "round {round}");
            assert_eq!(sys!(sigismember(&mask, libc::SIGUSR1)), i32::from(round % 2 == 0));
            sys!(sigfillset(&mut all));
            sys!(pthread_sigmask(libc::SIG_SETMASK, &all, ptr::null_mut()));
            // To itself, blocked: it ends with this pending.
            assert_eq!(sys!(pthread_kill(libc::pthread_self(), libc::SIGUSR2)), 0);
            tid
        });
        tids.insert(thread.join().expect("it does not panic"));
        // SAFETY: all zeros is a valid set.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        sys!(sigemptyset(&mut set));
        if round % 2 == 1 {
            sys!(sigaddset(&mut set, libc::SIGUSR1));
        }
        sys!(pthread_sigmask(libc::SIG_SETMASK, &set, ptr::null_mut()));
        assert_eq!(sys!(sigpending(&mut set)), 0, "{}", errno());
        assert_eq!(sys!(sigismember(&set, libc::SIGUSR2)), 0);
    }
    assert_eq!(tids.len(), 59);
}

fn threads_end_and_begin_in_forked_children() {
    let in_turn = |count: u32| {
        (0..count)
            .map(|at| thread::spawn(move || at * 3).join().expect("it does not panic"))
            .sum::<u32>()
    };
    assert_eq!(in_turn(20), 570);
    for _ in 0..5 {
        let child = in_child(|| {
            let at_once: Vec<_> = (0..12).map(|at| thread::spawn(move || at)).collect();
            let sum: u32 =
                at_once.into_iter().map(|thread| thread.join().expect("it does not panic")).sum();
            i32::try_from(sum + in_turn(3)).expect("a small number")
        });
        assert_eq!(exit_code(wait_for(child)), 75);
        assert_eq!(in_turn(4), 18);
    }
}
