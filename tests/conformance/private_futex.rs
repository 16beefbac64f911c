//! Private futexes whose waiters sleep wherever a kernel lets them: woken, counted, interrupted and ended all the same.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::{
    errno, exit_code, futex, in_child, ok, pipe, read_some, signal_of, sleep_ms, sys, tests,
    wait_for, write_all,
};

tests! {
    nobody_is_woken_where_nobody_waits, errors_of_private_futexes, waiters_are_woken_and_counted, bitsets_choose,
    no_wake_up_is_lost, a_handler_interrupts_a_wait, a_wait_is_restarted, timeouts_end_waits, sleepers_stop_and_go_on,
    sleepers_end_with_their_process, sleepers_end_with_exec, sleepers_sleep, requeue_takes_all, wake_op_wakes_both,
    waiters_of_many_words_are_woken, a_wait_after_vfork,
}

const WAIT: i32 = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
const WAKE: i32 = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
const WAIT_BITSET: i32 = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
const WAKE_BITSET: i32 = libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG;

/// More often than any kernel waits before it takes a short way.
const OFTEN: usize = 300;

fn wake(word: &AtomicU32, count: u32) -> i64 {
    futex(word, WAKE, count, 0, 0, 0)
}

/// Makes the call often, so that whatever way a kernel has for such calls is taken.
fn warm_up() {
    let word = AtomicU32::new(0);
    for _ in 0..OFTEN {
        assert_eq!(wake(&word, 1), 0);
        assert_eq!((futex(&word, WAIT, 1, 0, 0, 0), errno()), (-1, libc::EAGAIN));
    }
}

type Word = Arc<AtomicU32>;

/// Threads that wait while the word is 0; each tells what its last call returned.
fn sleepers(word: &Word, count: usize) -> Vec<JoinHandle<(i64, i32)>> {
    let asleep = Arc::new(AtomicUsize::new(0));
    let all = (0..count)
        .map(|_| {
            let (word, asleep) = (Arc::clone(word), Arc::clone(&asleep));
            thread::spawn(move || {
                asleep.fetch_add(1, SeqCst);
                let result = futex(&word, WAIT, 0, 0, 0, 0);
                (result, errno())
            })
        })
        .collect();
    while asleep.load(SeqCst) < count {
        sleep_ms(1);
    }
    sleep_ms(50);
    all
}

fn nobody_is_woken_where_nobody_waits() {
    warm_up();
    // A private futex is only an address to who wakes.
    let nowhere = |op: i32, value: u32, third: u32| {
        sys!(syscall(libc::SYS_futex, 0x1000, op, value, 0, 0, third))
    };
    for _ in 0..OFTEN {
        assert_eq!((nowhere(WAKE, 1, 0), nowhere(WAKE_BITSET, 1, 1)), (0, 0));
    }
}

fn errors_of_private_futexes() {
    let word = AtomicU32::new(5);
    let at = |addr: usize, op: i32| (sys!(syscall(libc::SYS_futex, addr, op, 5, 0, 0, 1)), errno());
    let odd = [libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }];
    for _ in 0..OFTEN {
        assert_eq!((futex(&word, WAIT, 4, 0, 0, 0), errno()), (-1, libc::EAGAIN));
        assert_eq!(at(0x1001, WAIT), (-1, libc::EINVAL));
        assert_eq!(at(0x1001, WAKE), (-1, libc::EINVAL));
        assert_eq!(at(0x1000, WAIT), (-1, libc::EFAULT));
        assert_eq!(at(0x1000, WAIT_BITSET), (-1, libc::EFAULT));
        assert_eq!(at(0x7fff_ffff_f000, WAIT), (-1, libc::EFAULT));
        for op in [WAIT_BITSET, WAKE_BITSET] {
            assert_eq!((futex(&word, op, 5, 0, 0, 0), errno()), (-1, libc::EINVAL), "no bits");
        }
        let odd = odd.as_ptr() as usize;
        assert_eq!((futex(&word, WAIT_BITSET, 5, odd, 0, 1), errno()), (-1, libc::EINVAL));
        assert_eq!((futex(&word, WAIT_BITSET, 5, 8, 0, 1), errno()), (-1, libc::EFAULT));
        let wake = libc::FUTEX_CLOCK_REALTIME | WAKE;
        assert_eq!((futex(&word, wake, 1, 0, 0, 1), errno()), (-1, libc::ENOSYS));
    }
}

fn waiters_are_woken_and_counted() {
    warm_up();
    for _ in 0..10 {
        let word = Word::default();
        let waiting = sleepers(&word, 5);
        assert_eq!(wake(&word, 2), 2);
        // On a busy machine one may not have come to its call yet.
        let mut woken = 0;
        for _ in 0..100 {
            woken += wake(&word, 100);
            if woken >= 3 {
                break;
            }
            sleep_ms(20);
        }
        assert_eq!((woken, wake(&word, 1)), (3, 0));
        for sleeper in waiting {
            assert_eq!(sleeper.join().expect("it does not panic").0, 0);
        }
    }
}

fn bitsets_choose() {
    warm_up();
    let word = Word::default();
    for _ in 0..OFTEN {
        assert_eq!(futex(&word, WAKE_BITSET, 1, 0, 0, 1), 0);
        assert_eq!((futex(&word, WAIT_BITSET, 7, 0, 0, 1), errno()), (-1, libc::EAGAIN));
    }
    let other = Arc::clone(&word);
    let sleeper = thread::spawn(move || futex(&other, WAIT_BITSET, 0, 0, 0, 0b10));
    sleep_ms(50);
    assert_eq!(futex(&word, WAKE_BITSET, 1, 0, 0, 0b01), 0);
    assert_eq!(futex(&word, WAKE_BITSET, 1, 0, 0, 0b11), 1);
    assert_eq!(sleeper.join().expect("it does not panic"), 0);
}

/// Two threads wake each other in turn; half of the waits have a timeout that never comes.
fn no_wake_up_is_lost() {
    const ROUNDS: u32 = 3_000;
    let word = Word::default();
    let far = [libc::timespec { tv_sec: 3600, tv_nsec: 0 }];
    let play = move |word: &Word, mine: u32| {
        let far = far.as_ptr() as usize;
        for round in 0..ROUNDS {
            loop {
                let now = word.load(SeqCst);
                if now % 2 == mine {
                    break;
                }
                futex(word, WAIT, now, if round % 2 == 0 { far } else { 0 }, 0, 0);
            }
            word.fetch_add(1, SeqCst);
            wake(word, 1);
        }
    };
    let other = Arc::clone(&word);
    let player = thread::spawn(move || play(&other, 1));
    play(&word, 0);
    player.join().expect("it does not panic");
    assert_eq!(word.load(SeqCst), 2 * ROUNDS);
}

static HITS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_signal: i32) {
    HITS.fetch_add(1, SeqCst);
}

fn install(flags: i32) {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as *const () as usize;
    action.sa_flags = flags;
    ok!(sigaction(libc::SIGUSR1, &action, ptr::null_mut()));
}

/// A thread that waits, and its id.
fn sleeper(word: &Word) -> (JoinHandle<(i64, i32)>, i32) {
    let (word, tid) = (Arc::clone(word), Arc::new(AtomicU32::new(0)));
    let told = Arc::clone(&tid);
    let handle = thread::spawn(move || {
        told.store(sys!(gettid()).cast_unsigned(), SeqCst);
        let result = futex(&word, WAIT, 0, 0, 0, 0);
        (result, errno())
    });
    while tid.load(SeqCst) == 0 {
        sleep_ms(1);
    }
    sleep_ms(20);
    (handle, tid.load(SeqCst).cast_signed())
}

fn a_handler_interrupts_a_wait() {
    warm_up();
    install(0);
    let me = sys!(getpid());
    for round in 1..=10 {
        let (handle, tid) = sleeper(&Word::default());
        ok!(syscall(libc::SYS_tgkill, me, tid, libc::SIGUSR1));
        assert_eq!(handle.join().expect("it does not panic"), (-1, libc::EINTR));
        assert_eq!(HITS.load(SeqCst), round);
    }
}

fn a_wait_is_restarted() {
    warm_up();
    install(libc::SA_RESTART);
    let me = sys!(getpid());
    let word = Word::default();
    let (handle, tid) = sleeper(&word);
    for round in 1..=20 {
        ok!(syscall(libc::SYS_tgkill, me, tid, libc::SIGUSR1));
        while HITS.load(SeqCst) < round {
            sleep_ms(1);
        }
    }
    sleep_ms(20);
    assert!(!handle.is_finished());
    assert_eq!(wake(&word, 1), 1);
    assert_eq!(handle.join().expect("it does not panic").0, 0);
}

fn timeouts_end_waits() {
    warm_up();
    let word = Word::default();
    for (op, clock) in [
        (WAIT_BITSET, libc::CLOCK_MONOTONIC),
        (WAIT_BITSET | libc::FUTEX_CLOCK_REALTIME, libc::CLOCK_REALTIME),
    ] {
        for _ in 0..20 {
            let mut until = [libc::timespec { tv_sec: 0, tv_nsec: 0 }];
            ok!(clock_gettime(clock, &mut until[0]));
            until[0].tv_nsec += 3_000_000;
            if until[0].tv_nsec >= 1_000_000_000 {
                (until[0].tv_sec, until[0].tv_nsec) =
                    (until[0].tv_sec + 1, until[0].tv_nsec - 1_000_000_000);
            }
            let begun = Instant::now();
            let at = until.as_ptr() as usize;
            assert_eq!((futex(&word, op, 0, at, 0, !0), errno()), (-1, libc::ETIMEDOUT));
            assert!(begun.elapsed() > Duration::from_millis(1));
        }
    }
    let short = [libc::timespec { tv_sec: 0, tv_nsec: 3_000_000 }];
    let at = short.as_ptr() as usize;
    assert_eq!((futex(&word, WAIT, 0, at, 0, 0), errno()), (-1, libc::ETIMEDOUT));
}

fn sleepers_stop_and_go_on() {
    let (from, to) = pipe();
    let child = in_child(|| {
        warm_up();
        let word = Word::default();
        let waiting = sleepers(&word, 3);
        write_all(to, b"a");
        sleep_ms(200);
        assert_eq!(wake(&word, 9), 3, "they went on where they were");
        waiting.into_iter().for_each(|one| assert_eq!(one.join().expect("no panic").0, 0));
        0
    });
    read_some(from, 1);
    let mut status = 0;
    for _ in 0..3 {
        ok!(kill(child, libc::SIGSTOP));
        ok!(waitpid(child, &mut status, libc::WUNTRACED));
        assert!(libc::WIFSTOPPED(status));
        ok!(kill(child, libc::SIGCONT));
        ok!(waitpid(child, &mut status, libc::WCONTINUED));
    }
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn sleepers_end_with_their_process() {
    let with = |end: fn() -> !| {
        in_child(move || {
            warm_up();
            let _waiting = sleepers(&Word::default(), 3);
            end()
        })
    };
    assert_eq!(exit_code(wait_for(with(|| std::process::exit(7)))), 7);
    assert_eq!(signal_of(wait_for(with(|| std::process::abort()))), libc::SIGABRT);
    let (from, to) = pipe();
    let all_asleep = in_child(|| {
        warm_up();
        let word = Word::default();
        let _waiting = sleepers(&word, 2);
        write_all(to, b"a");
        futex(&word, WAIT, 0, 0, 0, 0);
        0
    });
    read_some(from, 1);
    sleep_ms(20);
    ok!(kill(all_asleep, libc::SIGTERM));
    assert_eq!(signal_of(wait_for(all_asleep)), libc::SIGTERM);
}

fn sleepers_end_with_exec() {
    for from_thread in [false, true] {
        let child = in_child(move || {
            warm_up();
            let word = Word::default();
            let _waiting = sleepers(&word, 3);
            let execute = || {
                let path = c"/proc/self/exe".as_ptr();
                let [helper, code, number] = [c"helper", c"code", c"9"].map(|arg| arg.as_ptr());
                let args = [path, helper, code, number, ptr::null()];
                sys!(execv(path, args.as_ptr()));
            };
            if from_thread {
                thread::spawn(execute);
                futex(&word, WAIT, 0, 0, 0, 0);
            } else {
                execute();
            }
            1
        });
        assert_eq!(exit_code(wait_for(child)), 9);
    }
}

fn sleepers_sleep() {
    warm_up();
    let word = Word::default();
    let (handle, tid) = sleeper(&word);
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).expect("it lives");
    let state = stat.rsplit(')').next().map(|rest| rest.trim_start().chars().next());
    assert_eq!(state, Some(Some('S')), "{stat}");
    assert_eq!(wake(&word, 1), 1);
    handle.join().expect("it does not panic");
}

fn requeue_takes_all() {
    warm_up();
    let (first, second) = (Word::default(), Word::default());
    let waiting = sleepers(&first, 5);
    let requeue = libc::FUTEX_CMP_REQUEUE | libc::FUTEX_PRIVATE_FLAG;
    let to = second.as_ptr() as usize;
    assert_eq!((futex(&first, requeue, 1, 2, to, 1), errno()), (-1, libc::EAGAIN));
    assert_eq!(futex(&first, requeue, 1, 2, to, 0), 3);
    assert_eq!((wake(&first, 100), wake(&second, 100)), (2, 2));
    waiting.into_iter().for_each(|one| assert_eq!(one.join().expect("no panic").0, 0));
    // And as before after that.
    let waiting = sleepers(&first, 3);
    assert_eq!(wake(&first, 100), 3);
    waiting.into_iter().for_each(|one| assert_eq!(one.join().expect("no panic").0, 0));
}

fn wake_op_wakes_both() {
    warm_up();
    let (first, second) = (Word::default(), Word::default());
    let waiting = [sleepers(&first, 2), sleepers(&second, 2)];
    // second += 3; if it was equal to 0 wake its waiters, too.
    let what = 1 << 28 | 3 << 12;
    let op = libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG;
    assert_eq!(futex(&first, op, 1, 9, second.as_ptr() as usize, what), 3);
    assert_eq!((second.load(SeqCst), wake(&first, 9)), (3, 1));
    for one in waiting.into_iter().flatten() {
        assert_eq!(one.join().expect("it does not panic").0, 0);
    }
}

/// Sleepers of futex_waitv(2) and plain ones of the same word.
fn waiters_of_many_words_are_woken() {
    const FUTEX_WAITV: i64 = 449;
    warm_up();
    let words = [Word::default(), Word::default()];
    let plain = sleepers(&words[1], 1);
    let both = words.clone();
    let many = thread::spawn(move || {
        // Value, address, size (32 bits) and private.
        let list: Vec<[u64; 3]> =
            both.iter().map(|word| [0, word.as_ptr() as u64, 2 | 128]).collect();
        (sys!(syscall(FUTEX_WAITV, list.as_ptr(), list.len(), 0, 0, 0)), errno())
    });
    sleep_ms(50);
    assert_eq!(wake(&words[1], 9), 2);
    assert_eq!(many.join().expect("it does not panic").0, 1);
    plain.into_iter().for_each(|one| assert_eq!(one.join().expect("no panic").0, 0));
}

/// A child in the same memory wakes its parent's threads.
fn a_wait_after_vfork() {
    warm_up();
    let word = Word::default();
    let waiting = sleepers(&word, 2);
    #[expect(deprecated, reason = "what it is warned of is what is wanted")]
    // SAFETY: the child does nothing but make calls.
    let child = unsafe { libc::vfork() };
    if child == 0 {
        let woken = wake(&word, 9);
        sys!(_exit(i32::try_from(woken).unwrap_or(99)));
    }
    assert_eq!(exit_code(wait_for(child)), 2);
    waiting.into_iter().for_each(|one| assert_eq!(one.join().expect("no panic").0, 0));
}
