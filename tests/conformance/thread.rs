//! clone(2) with shared memory, futex(2), robust lists, thread-local state.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;

use crate::support::{
    c, errno, exit_code, fails, futex, in_child, ok, sleep_ms, sys, tests, wait_for,
};

tests! {
    threads_share_memory, thread_ids_differ, join_waits, mutexes_exclude, condvars_wake, barriers_hold,
    futex_value_mismatch, futex_wait_times_out, futex_wake_counts, futex_requeue, futex_bitset, futex_between_processes,
    robust_mutex_tells_owner_died, thread_locals_are_separate, many_threads, task_directory_lists_threads,
    fork_from_a_thread, getcpu_and_affinity, main_thread_may_end_first, exec_from_a_thread_ends_the_others,
    stop_holds_all_threads, membarrier_reaches_running_threads, robust_mutex_of_many_threads_in_turn,
    signals_hit_who_makes_threads_and_processes, busy_threads_are_served_alike,
}

fn threads_share_memory() {
    let word = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let word = Arc::clone(&word);
            thread::spawn(move || {
                for _ in 0..1000 {
                    word.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    assert_eq!(word.load(SeqCst), 8000);
}

fn thread_ids_differ() {
    let tid = thread::spawn(|| (sys!(gettid()), sys!(getpid()))).join().expect("it does not panic");
    assert_eq!(tid.1, sys!(getpid()));
    assert_ne!(tid.0, sys!(gettid()));
}

fn join_waits() {
    let started = std::time::Instant::now();
    thread::spawn(|| sleep_ms(50)).join().expect("it does not panic");
    assert!(started.elapsed().as_millis() >= 50);
}

fn mutexes_exclude() {
    let count = Arc::new(Mutex::new(0));
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let count = Arc::clone(&count);
            thread::spawn(move || {
                for _ in 0..500 {
                    let mut count = count.lock().expect("nobody panics");
                    let seen = *count;
                    thread::yield_now();
                    *count = seen + 1;
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    assert_eq!(*count.lock().expect("nobody panics"), 8000);
}

fn condvars_wake() {
    let pair = Arc::new((Mutex::new(0), Condvar::new()));
    let other = Arc::clone(&pair);
    let thread = thread::spawn(move || {
        for turn in 0..500 {
            let mut state = other.0.lock().expect("nobody panics");
            while *state != turn * 2 + 1 {
                state = other.1.wait(state).expect("nobody panics");
            }
            *state += 1;
            other.1.notify_one();
        }
    });
    for turn in 0..500 {
        let mut state = pair.0.lock().expect("nobody panics");
        while *state != turn * 2 {
            state = pair.1.wait(state).expect("nobody panics");
        }
        *state += 1;
        pair.1.notify_one();
    }
    thread.join().expect("it does not panic");
    let state = pair.0.lock().expect("nobody panics");
    let result =
        pair.1.wait_timeout(state, std::time::Duration::from_millis(30)).expect("nobody panics");
    assert!(result.1.timed_out());
}

fn barriers_hold() {
    let barrier = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || (0..100).filter(|_| barrier.wait().is_leader()).count())
        })
        .collect();
    let leaders: usize =
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum();
    assert_eq!(leaders, 100);
}

fn futex_value_mismatch() {
    let word = AtomicU32::new(5);
    assert_eq!((futex(&word, libc::FUTEX_WAIT, 4, 0, 0, 0), errno()), (-1, libc::EAGAIN));
    assert_eq!(futex(&word, libc::FUTEX_WAKE, 1, 0, 0, 0), 0);
    assert_eq!((futex(&word, 99, 0, 0, 0, 0), errno()), (-1, libc::ENOSYS));
    assert_eq!(
        (sys!(syscall(libc::SYS_futex, 0x1001, libc::FUTEX_WAIT, 0, 0)), errno()),
        (-1, libc::EINVAL)
    );
    assert_eq!(
        (sys!(syscall(libc::SYS_futex, 0x1000, libc::FUTEX_WAIT, 0, 0)), errno()),
        (-1, libc::EFAULT)
    );
}

fn futex_wait_times_out() {
    let word = AtomicU32::new(0);
    let timeout = libc::timespec { tv_sec: 0, tv_nsec: 30_000_000 };
    let started = std::time::Instant::now();
    let result = futex(
        &word,
        libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
        0,
        (&raw const timeout) as usize,
        0,
        0,
    );
    assert_eq!((result, errno()), (-1, libc::ETIMEDOUT));
    assert!(started.elapsed().as_millis() >= 30);
}

/// Threads that wait on the first word; each counts in the second when it is woken.
fn sleepers(count: usize) -> (Arc<[AtomicU32; 3]>, Vec<thread::JoinHandle<()>>) {
    let words = Arc::new([const { AtomicU32::new(0) }; 3]);
    let threads = (0..count)
        .map(|_| {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                while futex(&words[0], libc::FUTEX_WAIT, 0, 0, 0, 0) != 0 {}
                words[1].fetch_add(1, SeqCst);
            })
        })
        .collect();
    sleep_ms(100);
    (words, threads)
}

fn futex_wake_counts() {
    let (words, threads) = sleepers(5);
    assert_eq!(futex(&words[0], libc::FUTEX_WAKE, 2, 0, 0, 0), 2);
    sleep_ms(50);
    assert_eq!(words[1].load(SeqCst), 2);
    assert_eq!(futex(&words[0], libc::FUTEX_WAKE, 100, 0, 0, 0), 3);
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
}

fn futex_requeue() {
    let (words, threads) = sleepers(4);
    let second = words[2].as_ptr() as usize;
    assert_eq!(futex(&words[0], libc::FUTEX_CMP_REQUEUE, 1, 2, second, 0), 3);
    assert_eq!(
        (futex(&words[0], libc::FUTEX_CMP_REQUEUE, 1, 2, second, 9), errno()),
        (-1, libc::EAGAIN)
    );
    assert_eq!(futex(&words[0], libc::FUTEX_WAKE, 100, 0, 0, 0), 1);
    assert_eq!(futex(&words[2], libc::FUTEX_WAKE, 100, 0, 0, 0), 2);
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
}

fn futex_bitset() {
    let word = Arc::new(AtomicU32::new(0));
    let other = Arc::clone(&word);
    let sleeper = thread::spawn(move || futex(&other, libc::FUTEX_WAIT_BITSET, 0, 0, 0, 0b10));
    sleep_ms(50);
    assert_eq!(futex(&word, libc::FUTEX_WAKE_BITSET, 1, 0, 0, 0b01), 0);
    assert_eq!(futex(&word, libc::FUTEX_WAKE_BITSET, 1, 0, 0, 0b11), 1);
    assert_eq!(sleeper.join().expect("it does not panic"), 0);
    assert_eq!((futex(&word, libc::FUTEX_WAIT_BITSET, 0, 0, 0, 0), errno()), (-1, libc::EINVAL));
}

fn shared_page() -> *mut libc::c_void {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let page = sys!(mmap(ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0));
    assert_ne!(page, libc::MAP_FAILED);
    page
}

fn futex_between_processes() {
    // SAFETY: a fresh shared mapping holds a zero word.
    let word = unsafe { &*shared_page().cast::<AtomicU32>() };
    let child = in_child(|| {
        while word.load(SeqCst) == 0 {
            futex(word, libc::FUTEX_WAIT, 0, 0, 0, 0);
        }
        8
    });
    sleep_ms(50);
    word.store(1, SeqCst);
    assert_eq!(futex(word, libc::FUTEX_WAKE, 1, 0, 0, 0), 1);
    assert_eq!(exit_code(wait_for(child)), 8);
}

fn robust_mutex_tells_owner_died() {
    let mutex: *mut libc::pthread_mutex_t = shared_page().cast();
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    sys!(pthread_mutexattr_init(attributes.as_mut_ptr()));
    sys!(pthread_mutexattr_setpshared(attributes.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED));
    sys!(pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST));
    assert_eq!(sys!(pthread_mutex_init(mutex, attributes.as_ptr())), 0);
    let child = in_child(|| {
        // A thread of the child's own: its robust list is registered afresh.
        let address = mutex as usize;
        let locker =
            thread::spawn(move || sys!(pthread_mutex_lock(address as *mut libc::pthread_mutex_t)));
        locker.join().unwrap_or(-1)
    });
    assert_eq!(exit_code(wait_for(child)), 0);
    assert_eq!(sys!(pthread_mutex_lock(mutex)), libc::EOWNERDEAD);
    assert_eq!(sys!(pthread_mutex_consistent(mutex)), 0);
    assert_eq!(sys!(pthread_mutex_unlock(mutex)), 0);
}

fn thread_locals_are_separate() {
    thread_local!(static MINE: std::cell::Cell<u32> = const { std::cell::Cell::new(1) });
    MINE.set(5);
    let other = thread::spawn(|| MINE.get()).join().expect("it does not panic");
    assert_eq!((MINE.get(), other), (5, 1));
}

fn many_threads() {
    let threads: Vec<_> = (0..100).map(|n| thread::spawn(move || n)).collect();
    let sum: i32 =
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum();
    assert_eq!(sum, 4950);
}

fn task_directory_lists_threads() {
    let gate = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.wait().is_leader())
        })
        .collect();
    let count = std::fs::read_dir("/proc/self/task").expect("it is there").count();
    gate.wait();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    assert_eq!(count, 4);
}

fn fork_from_a_thread() {
    let status = thread::spawn(|| {
        let child = in_child(|| i32::from(sys!(gettid()) != sys!(getpid())));
        wait_for(child)
    });
    assert_eq!(exit_code(status.join().expect("it does not panic")), 0);
}

fn getcpu_and_affinity() {
    // SAFETY: all zeros is a valid set.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    ok!(sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut cpus));
    let mut cpu = 0_u32;
    ok!(syscall(libc::SYS_getcpu, &raw mut cpu, 0, 0));
    assert!(cpu < 4096);
    fails!(libc::EINVAL, sched_getaffinity(0, 1, &mut cpus));
    ok!(sched_yield());
}

fn main_thread_may_end_first() {
    let child = in_child(|| {
        thread::spawn(|| {
            sleep_ms(50);
            sys!(_exit(21));
        });
        sys!(syscall(libc::SYS_exit, 3));
        0
    });
    assert_eq!(exit_code(wait_for(child)), 21);
}

/// Threads that run, wait in a call and sleep.
fn busy_threads() {
    thread::spawn(|| while COUNTER.fetch_add(1, SeqCst) < u32::MAX {});
    thread::spawn(|| while sys!(getppid()) != -1 {});
    thread::spawn(|| sys!(pause()));
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

fn exec_from_a_thread_ends_the_others() {
    let child = in_child(|| {
        busy_threads();
        let call = thread::spawn(|| {
            let program = c("/bin/sh");
            let text = c("exit $(( $$ == PPID || $$ != $(cut -d ' ' -f 1 /proc/$$/stat) ))");
            let args = [program.as_ptr(), c"-c".as_ptr(), text.as_ptr(), ptr::null()];
            sys!(execv(program.as_ptr(), args.as_ptr()))
        });
        i32::from(call.join().is_ok()) + 10
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn stop_holds_all_threads() {
    let counter = shared_page().cast::<AtomicU32>();
    // SAFETY: the page is ours, zeroed and never unmapped.
    let counter = unsafe { &*counter };
    let child = in_child(|| {
        busy_threads();
        loop {
            counter.fetch_add(1, SeqCst);
        }
    });
    let mut status = 0;
    for _ in 0..5 {
        sleep_ms(5);
        ok!(kill(child, libc::SIGSTOP));
        assert_eq!(ok!(waitpid(child, &mut status, libc::WUNTRACED)), child);
        assert!(libc::WIFSTOPPED(status), "{status:#x}");
        let before = counter.load(SeqCst);
        sleep_ms(20);
        assert_eq!(counter.load(SeqCst), before);
        ok!(kill(child, libc::SIGCONT));
        assert_eq!(ok!(waitpid(child, &mut status, libc::WCONTINUED)), child);
    }
    ok!(kill(child, libc::SIGKILL));
    assert!(libc::WIFSIGNALED(wait_for(child)));
}

fn membarrier_reaches_running_threads() {
    let membarrier = |command: i32| sys!(syscall(libc::SYS_membarrier, command, 0, 0));
    let known = membarrier(libc::MEMBARRIER_CMD_QUERY);
    if known < 0 || known & i64::from(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0 {
        return;
    }
    let child = in_child(|| {
        busy_threads();
        assert_eq!(membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED), -1);
        assert_eq!(errno(), libc::EPERM);
        assert_eq!(membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED), 0);
        for _ in 0..10 {
            assert_eq!(membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED), 0);
        }
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

/// Often enough that nothing is done for the first time any more.
fn robust_mutex_of_many_threads_in_turn() {
    let mutex: *mut libc::pthread_mutex_t = shared_page().cast();
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    sys!(pthread_mutexattr_init(attributes.as_mut_ptr()));
    sys!(pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST));
    assert_eq!(sys!(pthread_mutex_init(mutex, attributes.as_ptr())), 0);
    let address = mutex as usize;
    for round in 0..50 {
        let locker =
            thread::spawn(move || sys!(pthread_mutex_lock(address as *mut libc::pthread_mutex_t)));
        assert_eq!(locker.join().expect("it does not panic"), 0);
        assert_eq!(sys!(pthread_mutex_lock(mutex)), libc::EOWNERDEAD, "round {round}");
        assert_eq!(sys!(pthread_mutex_consistent(mutex)), 0);
        assert_eq!(sys!(pthread_mutex_unlock(mutex)), 0);
    }
}

fn signals_hit_who_makes_threads_and_processes() {
    const MADE: i32 = 400;
    static HITS: AtomicU32 = AtomicU32::new(0);
    static LEFT: AtomicU32 = AtomicU32::new(2);
    extern "C" fn on_signal(_: i32) {
        HITS.fetch_add(1, SeqCst);
    }
    let handler: extern "C" fn(i32) = on_signal;
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    (action.sa_sigaction, action.sa_flags) = (handler as usize, libc::SA_RESTART);
    ok!(sigaction(libc::SIGUSR1, &action, ptr::null_mut()));
    let forks = thread::spawn(|| {
        for round in 0..MADE {
            assert_eq!(exit_code(wait_for(in_child(|| round % 64))), round % 64);
        }
        LEFT.fetch_sub(1, SeqCst);
        sleep_ms(60_000);
    });
    let clones = thread::spawn(|| {
        for round in 0..MADE {
            assert_eq!(thread::spawn(move || round).join().expect("it does not panic"), round);
        }
        LEFT.fetch_sub(1, SeqCst);
        sleep_ms(60_000);
    });
    let makers = [&forks, &clones].map(std::os::unix::thread::JoinHandleExt::as_pthread_t);
    let mut sent = 0;
    while LEFT.load(SeqCst) != 0 {
        for maker in makers {
            assert_eq!(sys!(pthread_kill(maker, libc::SIGUSR1)), 0);
            sent += 1;
        }
        sys!(usleep(100));
    }
    assert!((2..=sent).contains(&HITS.load(SeqCst)), "{sent} signals");
}

/// More threads than CPUs that do nothing but make calls: nobody may have them nearly all. On a busy machine it takes some time
/// until each has had its turns.
fn busy_threads_are_served_alike() {
    const THREADS: usize = 64;
    static COUNTS: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];
    static STOP: AtomicBool = AtomicBool::new(false);
    let barrier = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = COUNTS
        .iter()
        .map(|count| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                barrier.wait();
                // SAFETY: all zeros is a valid struct stat.
                let mut buffer: libc::stat = unsafe { std::mem::zeroed() };
                while !STOP.load(SeqCst) {
                    ok!(stat(c"/".as_ptr(), &mut buffer));
                    count.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let mut counts = Vec::new();
    for _ in 0..15 {
        sleep_ms(1000);
        counts = COUNTS.iter().map(|count| count.load(SeqCst)).collect();
        counts.sort_unstable();
        if counts[0] * 20 >= counts[THREADS - 1] {
            break;
        }
    }
    STOP.store(true, SeqCst);
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    assert!(counts[0] * 20 >= counts[THREADS - 1], "{counts:?}");
}
