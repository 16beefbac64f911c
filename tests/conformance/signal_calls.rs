//! rt_sigprocmask(2) and rt_sigaction(2) made so often that a kernel may take a short way for them: errors stay right, no
//! signal is lost, none comes while it is blocked.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::support::{exit_code, fails, in_child, ok, signal_of, sys, tests, wait_for};

tests! {
    errors_of_rt_sigprocmask, mask_comes_and_goes, masks_are_of_threads, children_inherit_the_mask,
    a_blocked_signal_comes_when_it_is_let_through, signals_come_in_order_when_several_are_let_through,
    no_signal_is_lost_or_early, a_process_signal_finds_who_lets_it_through, blocking_hands_a_signal_over,
    kill_and_stop_are_never_blocked, ignored_while_blocked_is_still_pending,
}

/// More often than any kernel waits before it takes a short way.
const OFTEN: usize = 500;

static HITS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_signal: i32) {
    HITS.fetch_add(1, SeqCst);
}

fn install(signal: i32, handler: extern "C" fn(i32)) {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    ok!(sigaction(signal, &action, ptr::null_mut()));
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

const USR1: u64 = bit(libc::SIGUSR1);
const USR2: u64 = bit(libc::SIGUSR2);

/// The call itself; returns the old mask.
fn change(how: i32, set: u64) -> u64 {
    let mut old = 0_u64;
    ok!(syscall(libc::SYS_rt_sigprocmask, how, &raw const set, &raw mut old, 8));
    old
}

fn mask() -> u64 {
    let mut old = 0_u64;
    ok!(syscall(libc::SYS_rt_sigprocmask, -1, ptr::null::<u64>(), &raw mut old, 8));
    old
}

fn send_to(tid: i32, signal: i32) {
    let pid = sys!(getpid());
    ok!(syscall(libc::SYS_tgkill, pid, tid, signal));
}

fn errors_of_rt_sigprocmask() {
    let (nothing, nowhere) = (ptr::null::<u64>(), 8 as *const u64);
    let beyond = (0x7fff_ffff_f000_u64 - 8) as *const u64;
    let set = USR1;
    let set = &raw const set;
    for _ in 0..OFTEN {
        change(libc::SIG_SETMASK, USR2);
        // The size comes first, then the set, then what to do with it, which is of interest only if there is a set.
        fails!(libc::EINVAL, syscall(libc::SYS_rt_sigprocmask, 0, nowhere, nothing, 4));
        fails!(libc::EFAULT, syscall(libc::SYS_rt_sigprocmask, 77, nowhere, nothing, 8));
        fails!(libc::EFAULT, syscall(libc::SYS_rt_sigprocmask, 0, beyond, nothing, 8));
        fails!(libc::EINVAL, syscall(libc::SYS_rt_sigprocmask, 77, set, nowhere, 8));
        fails!(libc::EINVAL, syscall(libc::SYS_rt_sigprocmask, -1, set, nothing, 8));
        ok!(syscall(libc::SYS_rt_sigprocmask, 77, nothing, nothing, 8));
        fails!(libc::EFAULT, syscall(libc::SYS_rt_sigprocmask, 77, nothing, nowhere, 8));
        assert_eq!(mask(), USR2);
        // The old mask cannot be told, the new one holds.
        fails!(libc::EFAULT, syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, set, nowhere, 8));
        assert_eq!(mask(), USR1 | USR2);
        // Only the lower half says what to do.
        ok!(syscall(libc::SYS_rt_sigprocmask, 0x7_0000_0001_u64, set, nothing, 8));
        assert_eq!(mask(), USR2);
    }
}

fn mask_comes_and_goes() {
    let mut both = USR2;
    for _ in 0..OFTEN {
        assert_eq!(change(libc::SIG_SETMASK, USR1), 0);
        assert_eq!(change(libc::SIG_BLOCK, USR2), USR1);
        assert_eq!(mask(), USR1 | USR2);
        assert_eq!(change(libc::SIG_UNBLOCK, USR1 | bit(64)), USR1 | USR2);
        // Set and old mask may be the same word: the set is read first.
        ok!(syscall(libc::SYS_rt_sigprocmask, libc::SIG_UNBLOCK, &raw mut both, &raw mut both, 8));
        assert_eq!((both, mask()), (USR2, 0));
        assert_eq!(change(libc::SIG_SETMASK, !0), 0);
        assert_eq!(change(libc::SIG_SETMASK, 0), !(bit(libc::SIGKILL) | bit(libc::SIGSTOP)));
    }
    change(libc::SIG_SETMASK, USR1 | bit(40));
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("it is there");
    let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t"));
    assert_eq!(line, Some(format!("{:016x}", USR1 | bit(40)).as_str()));
}

fn masks_are_of_threads() {
    change(libc::SIG_SETMASK, USR1);
    let threads: Vec<_> = (0..8)
        .map(|at| {
            thread::spawn(move || {
                assert_eq!(mask() & (USR1 | USR2), USR1, "inherited");
                for round in 0..OFTEN {
                    let mine = bit(34 + at) << (round % 2);
                    change(libc::SIG_SETMASK, mine);
                    assert_eq!(mask(), mine);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    assert_eq!(mask(), USR1);
}

fn children_inherit_the_mask() {
    for round in 0..20 {
        for _ in 0..OFTEN {
            change(libc::SIG_SETMASK, USR1 | bit(40 + round % 2));
        }
        let child = in_child(move || i32::from(mask() != USR1 | bit(40 + round % 2)));
        assert_eq!(exit_code(wait_for(child)), 0);
        // SAFETY: as sys!; clone(2) with CLONE_VM and CLONE_VFORK, whose child only makes calls.
        #[expect(
            deprecated,
            reason = "a thread of another process in the same memory is what is wanted"
        )]
        let child = unsafe { libc::vfork() };
        if child == 0 {
            let mine = mask();
            change(libc::SIG_SETMASK, USR2);
            sys!(_exit(i32::from(mine != USR1 | bit(40 + round % 2))));
        }
        assert_eq!(exit_code(wait_for(child)), 0);
        assert_eq!(mask(), USR1 | bit(40 + round % 2), "a vfork child has a mask of its own");
    }
}

fn a_blocked_signal_comes_when_it_is_let_through() {
    install(libc::SIGUSR1, count);
    let (me, process) = (sys!(gettid()), sys!(getpid()));
    for round in 0..OFTEN {
        change(libc::SIG_BLOCK, USR1);
        match round % 3 {
            0 => send_to(me, libc::SIGUSR1),
            1 => assert_eq!(sys!(kill(process, libc::SIGUSR1)), 0),
            _ => thread::spawn(move || send_to(me, libc::SIGUSR1)).join().expect("no panic"),
        }
        // Neither other signals' changes nor looking let it through.
        change(libc::SIG_BLOCK, USR2);
        change(libc::SIG_UNBLOCK, USR2);
        mask();
        assert_eq!(HITS.load(SeqCst), round);
        change(libc::SIG_UNBLOCK, USR1);
        assert_eq!(HITS.load(SeqCst), round + 1);
    }
}

fn signals_come_in_order_when_several_are_let_through() {
    static LAST: AtomicI32 = AtomicI32::new(0);
    extern "C" fn note(signal: i32) {
        LAST.store(LAST.load(SeqCst) * 100 + signal, SeqCst);
    }
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: all zeros is a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = note as *const () as usize;
        // SAFETY: a valid set.
        unsafe { libc::sigfillset(&raw mut action.sa_mask) };
        ok!(sigaction(signal, &action, ptr::null_mut()));
    }
    let me = sys!(gettid());
    for _ in 0..OFTEN {
        change(libc::SIG_BLOCK, USR1 | USR2);
        send_to(me, libc::SIGUSR2);
        send_to(me, libc::SIGUSR1);
        LAST.store(0, SeqCst);
        change(libc::SIG_SETMASK, USR2);
        assert_eq!(LAST.load(SeqCst), 10);
        change(libc::SIG_SETMASK, 0);
        assert_eq!(LAST.load(SeqCst), 1012);
    }
}

static IS_BLOCKED: AtomicBool = AtomicBool::new(false);
static EARLY: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_unless_blocked(_signal: i32) {
    HITS.fetch_add(1, SeqCst);
    EARLY.fetch_add(usize::from(IS_BLOCKED.load(SeqCst)), SeqCst);
}

fn no_signal_is_lost_or_early() {
    const ROUNDS: usize = 500;
    install(libc::SIGUSR1, count_unless_blocked);
    let me = sys!(gettid());
    let sender = thread::spawn(move || {
        change(libc::SIG_BLOCK, USR1);
        for round in 0..ROUNDS {
            send_to(me, libc::SIGUSR1);
            // Each must be handled, or this never ends.
            while HITS.load(SeqCst) == round {
                thread::yield_now();
            }
        }
    });
    while HITS.load(SeqCst) < ROUNDS {
        change(libc::SIG_BLOCK, USR1);
        IS_BLOCKED.store(true, SeqCst);
        std::hint::black_box(mask());
        IS_BLOCKED.store(false, SeqCst);
        change(libc::SIG_UNBLOCK, USR1);
    }
    sender.join().expect("it does not panic");
    assert_eq!((HITS.load(SeqCst), EARLY.load(SeqCst)), (ROUNDS, 0));
}

fn a_process_signal_finds_who_lets_it_through() {
    const ROUNDS: usize = 300;
    install(libc::SIGUSR1, count);
    change(libc::SIG_BLOCK, USR1);
    // Each lets the signal through now and then only.
    let others: Vec<_> = (0..2)
        .map(|_| {
            thread::spawn(|| {
                while HITS.load(SeqCst) < ROUNDS {
                    change(libc::SIG_UNBLOCK, USR1);
                    change(libc::SIG_BLOCK, USR1);
                }
            })
        })
        .collect();
    let me = sys!(getpid());
    for round in 0..ROUNDS {
        ok!(kill(me, libc::SIGUSR1));
        while HITS.load(SeqCst) == round {
            thread::yield_now();
        }
    }
    others.into_iter().for_each(|other| other.join().expect("it does not panic"));
    assert_eq!(HITS.load(SeqCst), ROUNDS);
}

/// One thread always lets the signal through: whoever was chosen before and blocks it now, that one gets it.
fn blocking_hands_a_signal_over() {
    const ROUNDS: usize = 300;
    install(libc::SIGUSR1, count);
    let toggler = thread::spawn(|| {
        while HITS.load(SeqCst) < ROUNDS {
            change(libc::SIG_UNBLOCK, USR1);
            change(libc::SIG_BLOCK, USR1);
        }
        // It waits with the signal blocked for whoever is late.
    });
    let waiter = thread::spawn(|| {
        while HITS.load(SeqCst) < ROUNDS {
            thread::yield_now();
        }
    });
    change(libc::SIG_BLOCK, USR1);
    let me = sys!(getpid());
    for round in 0..ROUNDS {
        ok!(kill(me, libc::SIGUSR1));
        while HITS.load(SeqCst) == round {
            thread::yield_now();
        }
    }
    toggler.join().expect("it does not panic");
    waiter.join().expect("it does not panic");
}

fn kill_and_stop_are_never_blocked() {
    let child = in_child(|| {
        loop {
            change(libc::SIG_SETMASK, !0);
            assert_eq!(mask() & (bit(libc::SIGKILL) | bit(libc::SIGSTOP)), 0);
        }
    });
    crate::support::sleep_ms(20);
    ok!(kill(child, libc::SIGSTOP));
    let mut status = 0;
    ok!(waitpid(child, &mut status, libc::WUNTRACED));
    assert!(libc::WIFSTOPPED(status));
    ok!(kill(child, libc::SIGKILL));
    assert_eq!(signal_of(wait_for(child)), libc::SIGKILL);
}

fn ignored_while_blocked_is_still_pending() {
    ok!(signal(libc::SIGUSR1, libc::SIG_IGN));
    let me = sys!(gettid());
    for round in 0..OFTEN {
        HITS.store(0, SeqCst);
        change(libc::SIG_BLOCK, USR1);
        send_to(me, libc::SIGUSR1);
        if round % 2 == 0 {
            install(libc::SIGUSR1, count);
        }
        change(libc::SIG_UNBLOCK, USR1);
        assert_eq!(HITS.load(SeqCst), usize::from(round % 2 == 0));
        ok!(signal(libc::SIGUSR1, libc::SIG_IGN));
    }
}
