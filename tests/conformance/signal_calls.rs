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
    kill_and_stop_are_never_blocked, ignored_while_blocked_is_still_pending, errors_of_rt_sigaction,
    dispositions_follow_changes, dispositions_are_of_processes, the_kernels_own_changes_are_seen,
    dispositions_change_with_exec, defaults_set_anew_are_seen, defaults_set_anew_discard_what_they_ignore,
}

/// Another process in the same memory, which may do nothing but make calls. (Not a function: the child would return
/// from it first.)
macro_rules! vfork {
    () => {{
        #[expect(deprecated, reason = "what it is warned of is what is wanted")]
        // SAFETY: all uses keep to it.
        let child = unsafe { libc::vfork() };
        child
    }};
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
    let (nothing, nowhere) = (ptr::null::<u64>(), ptr::without_provenance::<u64>(8));
    let beyond = ptr::without_provenance::<u64>(0x7fff_ffff_f000 - 8);
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
        let child = vfork!();
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

/// `struct sigaction` of the kernel: handler, flags, restorer, mask.
type Action = [u64; 4];

fn action_of(signal: i32) -> Action {
    let mut old = [1; 4];
    ok!(syscall(libc::SYS_rt_sigaction, signal, ptr::null::<Action>(), &raw mut old, 8));
    old
}

fn handler_of(signal: i32) -> u64 {
    action_of(signal)[0]
}

fn set_action(signal: i32, action: Action) {
    ok!(syscall(libc::SYS_rt_sigaction, signal, &raw const action, ptr::null::<Action>(), 8));
}

const IGNORED: Action = [1, 0, 0, 0];
const DEFAULT: Action = [0; 4];

fn errors_of_rt_sigaction() {
    let (nothing, nowhere) = (ptr::null::<Action>(), ptr::without_provenance::<Action>(8));
    for _ in 0..OFTEN {
        handler_of(libc::SIGUSR1);
        fails!(libc::EINVAL, syscall(libc::SYS_rt_sigaction, 1, nothing, nothing, 16));
        for signal in [0, 65, -1, 1 << 20] {
            fails!(libc::EINVAL, syscall(libc::SYS_rt_sigaction, signal, nothing, nowhere, 8));
        }
        fails!(libc::EFAULT, syscall(libc::SYS_rt_sigaction, 0, nowhere, nothing, 8));
        fails!(libc::EFAULT, syscall(libc::SYS_rt_sigaction, 1, nothing, nowhere, 8));
        ok!(syscall(libc::SYS_rt_sigaction, 1, nothing, nothing, 8));
        ok!(syscall(libc::SYS_rt_sigaction, 0x9_0000_0001_u64, nothing, nothing, 8));
        assert_eq!((handler_of(libc::SIGKILL), handler_of(libc::SIGSTOP)), (0, 0));
    }
}

fn dispositions_follow_changes() {
    for round in 0..OFTEN as u64 {
        // SA_RESTORER is there in what libc sets; the kernel keeps what it is given.
        let action = [0x1000 + round, 0x0400_0000, 0x2000 + round, USR2 | round << 40];
        set_action(libc::SIGUSR1, action);
        assert_eq!(action_of(libc::SIGUSR1), action);
        set_action(64, IGNORED);
        assert_eq!(action_of(64), IGNORED);
        // What cannot be blocked is not in a mask; unknown flags vanish.
        set_action(64, [1, 1 << 40, 0, !0]);
        assert_eq!(action_of(64), [1, 0, 0, !(bit(libc::SIGKILL) | bit(libc::SIGSTOP))]);
    }
    let changer = thread::spawn(|| {
        for round in 0..OFTEN as u64 {
            set_action(libc::SIGUSR2, [4096 + round, 0x0400_0000, 4096 + round, bit(40)]);
            assert_eq!(handler_of(libc::SIGUSR2), 4096 + round);
        }
    });
    let mut last = 0;
    while !changer.is_finished() {
        let [handler, _, restorer, _] = action_of(libc::SIGUSR2);
        assert_eq!(handler, restorer, "all of it is of one time");
        assert!(handler >= last, "and never older than before");
        last = handler;
    }
    changer.join().expect("it does not panic");
    assert_eq!(handler_of(libc::SIGUSR2), 4096 + OFTEN as u64 - 1);
}

fn dispositions_are_of_processes() {
    set_action(libc::SIGUSR1, IGNORED);
    let ignored = || (1..=64).filter(|signal| handler_of(*signal) == 1).count();
    let before = ignored();
    for round in 0..20 {
        assert_eq!((ignored(), handler_of(libc::SIGUSR1)), (before, 1), "round {round}");
        let child = in_child(|| {
            assert_eq!(handler_of(libc::SIGUSR1), 1);
            set_action(libc::SIGUSR1, DEFAULT);
            i32::from(handler_of(libc::SIGUSR1) != 0)
        });
        assert_eq!(exit_code(wait_for(child)), 0);
        let child = vfork!();
        if child == 0 {
            // As posix_spawn(3) does it.
            let inherited = ignored();
            set_action(libc::SIGUSR1, DEFAULT);
            set_action(libc::SIGUSR2, IGNORED);
            let is_right = inherited == before && handler_of(libc::SIGUSR1) == 0;
            sys!(_exit(i32::from(!is_right)));
        }
        assert_eq!(exit_code(wait_for(child)), 0, "round {round}");
    }
}

fn the_kernels_own_changes_are_seen() {
    let mut action: Action = [0; 4];
    install(libc::SIGUSR1, count);
    ok!(syscall(libc::SYS_rt_sigaction, libc::SIGUSR1, 0, &raw mut action, 8));
    action[1] |= 0x8000_0000;
    let me = sys!(gettid());
    for round in 0..OFTEN {
        set_action(libc::SIGUSR1, action);
        assert_eq!(action_of(libc::SIGUSR1), action);
        send_to(me, libc::SIGUSR1);
        assert_eq!((HITS.load(SeqCst), handler_of(libc::SIGUSR1)), (round + 1, 0), "SA_RESETHAND");
    }
}

fn dispositions_change_with_exec() {
    let path = c"/proc/self/exe".as_ptr();
    let args = [path, c"helper".as_ptr(), c"signals".as_ptr(), ptr::null()];
    for in_same_memory in [false, true] {
        ok!(signal(libc::SIGUSR1, libc::SIG_IGN));
        install(libc::SIGUSR2, count);
        change(libc::SIG_SETMASK, bit(libc::SIGTERM));
        for _ in 0..OFTEN {
            assert_ne!(handler_of(libc::SIGUSR2), 0);
            assert_eq!(mask(), bit(libc::SIGTERM));
        }
        let execute = || -> i32 {
            handler_of(libc::SIGUSR2);
            mask();
            sys!(execv(path, args.as_ptr()));
            99
        };
        let child = if in_same_memory {
            let child = vfork!();
            if child == 0 {
                sys!(_exit(execute()));
            }
            child
        } else {
            in_child(execute)
        };
        assert_eq!(exit_code(wait_for(child)), 0);
        assert_ne!(handler_of(libc::SIGUSR2), 0);
    }
}

/// A default disposition with flags.
const fn default_with(flags: u64, round: usize) -> Action {
    [0, flags | 0x0400_0000, 0x1000 + round as u64, USR2]
}

fn defaults_set_anew_are_seen() {
    for round in 0..OFTEN {
        let [one, two] = [default_with(4, round), default_with(1, round)];
        set_action(libc::SIGTERM, one);
        set_action(libc::SIGCHLD, two);
        assert_eq!((action_of(libc::SIGTERM), action_of(libc::SIGCHLD)), (one, two));
        let mut old = [1; 4];
        ok!(syscall(libc::SYS_rt_sigaction, libc::SIGTERM, &raw const two, &raw mut old, 8));
        assert_eq!((old, action_of(libc::SIGTERM)), (one, two));
        fails!(libc::EINVAL, syscall(libc::SYS_rt_sigaction, libc::SIGKILL, &DEFAULT, 0, 8));
        fails!(libc::EFAULT, syscall(libc::SYS_rt_sigaction, libc::SIGTERM, 8, 0, 8));
        // The old one cannot be told, the new one holds.
        fails!(libc::EFAULT, syscall(libc::SYS_rt_sigaction, libc::SIGTERM, &one, 8, 8));
        assert_eq!(action_of(libc::SIGTERM), one);
        if round % 50 == 0 {
            let child = in_child(|| i32::from(action_of(libc::SIGTERM) != one));
            assert_eq!(exit_code(wait_for(child)), 0);
        }
        if round % 50 == 25 {
            let seen = thread::spawn(move || {
                let seen = action_of(libc::SIGTERM);
                set_action(libc::SIGTERM, two);
                seen
            });
            assert_eq!(seen.join().expect("it does not panic"), one);
            assert_eq!(action_of(libc::SIGTERM), two);
        }
    }
    let other = thread::spawn(|| {
        while action_of(libc::SIGHUP)[3] != bit(50) {
            thread::yield_now();
        }
    });
    // Two threads: what one sets the other one sees.
    set_action(libc::SIGHUP, [0, 0, 0, bit(50)]);
    other.join().expect("it does not panic");
    assert_eq!(exit_code(wait_for(in_child(|| i32::from(handler_of(libc::SIGHUP) != 0)))), 0);
    let killed = in_child(|| {
        set_action(libc::SIGTERM, default_with(4, 1));
        sys!(raise(libc::SIGTERM));
        0
    });
    assert_eq!(signal_of(wait_for(killed)), libc::SIGTERM);
}

fn defaults_set_anew_discard_what_they_ignore() {
    let me = sys!(gettid());
    let signals = [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT, libc::SIGUSR1];
    for _ in 0..OFTEN {
        change(libc::SIG_SETMASK, !0);
        for signal in signals {
            set_action(signal, DEFAULT);
            send_to(me, signal);
        }
        let mut pending = 0_u64;
        ok!(syscall(libc::SYS_rt_sigpending, &raw mut pending, 8));
        assert_eq!(pending, signals.iter().fold(0, |all, signal| all | bit(*signal)));
        signals.iter().for_each(|signal| set_action(*signal, DEFAULT));
        ok!(syscall(libc::SYS_rt_sigpending, &raw mut pending, 8));
        assert_eq!(pending, USR1);
        set_action(libc::SIGUSR1, IGNORED);
        change(libc::SIG_SETMASK, 0);
        set_action(libc::SIGUSR1, DEFAULT);
    }
}
