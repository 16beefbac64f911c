//! timer_create(2), setitimer(2), clock_nanosleep(2), timerfd(2); futexes that name their owner.

use std::mem::zeroed;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::{errno, fails, ok, read_some, sleep_ms, sys, tests};

tests! {
    posix_timer_signals, posix_timer_to_a_thread, posix_timer_overruns, posix_timers_are_counted_down, bad_timers,
    interval_timer_repeats, prof_timer_needs_work, alarm_tells_what_was_left, sleep_is_interrupted_with_rest,
    absolute_sleep, timerfd_counts, clocks_agree, pi_mutex_excludes, pi_lock_is_handed_over, pi_errors, pi_owner_dies,
}

static HITS: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicI32 = AtomicI32::new(0);
static OVERRUN: AtomicI32 = AtomicI32::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo; its third half-word pair is the value, the fifth word the overrun.
    unsafe {
        VALUE.store((*info).si_value().sival_ptr as usize as i32, Ordering::SeqCst);
        OVERRUN.store((*info).si_overrun(), Ordering::SeqCst);
    }
    THREAD.store(sys!(gettid()), Ordering::SeqCst);
    HITS.fetch_add(1, Ordering::SeqCst);
}

fn handle(signal: i32) {
    // SAFETY: all zeros is a valid struct sigaction; the handler only stores to atomics.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

fn wait_for_hits(count: i32) {
    let started = Instant::now();
    while HITS.load(Ordering::SeqCst) < count {
        assert!(started.elapsed() < Duration::from_secs(5), "{} hits", HITS.load(Ordering::SeqCst));
        sleep_ms(2);
    }
}

fn time(ms: i64) -> libc::timespec {
    libc::timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
}

fn create(notify: i32, signal: i32, thread: i32) -> libc::timer_t {
    // SAFETY: all zeros is a valid struct sigevent.
    let mut event: libc::sigevent = unsafe { zeroed() };
    event.sigev_notify = notify;
    event.sigev_signo = signal;
    event.sigev_notify_thread_id = thread;
    event.sigev_value = libc::sigval { sival_ptr: 42 as *mut libc::c_void };
    let mut timer = std::ptr::null_mut();
    ok!(timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer));
    timer
}

fn set(timer: libc::timer_t, value_ms: i64, interval_ms: i64) {
    let new = libc::itimerspec { it_value: time(value_ms), it_interval: time(interval_ms) };
    ok!(timer_settime(timer, 0, &new, std::ptr::null_mut()));
}

fn posix_timer_signals() {
    handle(libc::SIGRTMIN() + 1);
    let timer = create(libc::SIGEV_SIGNAL, libc::SIGRTMIN() + 1, 0);
    set(timer, 10, 10);
    wait_for_hits(3);
    assert_eq!(VALUE.load(Ordering::SeqCst), 42);
    ok!(timer_delete(timer));
    let hits = HITS.load(Ordering::SeqCst);
    sleep_ms(40);
    assert!(HITS.load(Ordering::SeqCst) <= hits + 1);
}

fn posix_timer_to_a_thread() {
    handle(libc::SIGUSR1);
    let thread = std::thread::spawn(|| {
        let me = sys!(gettid());
        let timer = create(libc::SIGEV_THREAD_ID, libc::SIGUSR1, me);
        set(timer, 10, 0);
        wait_for_hits(1);
        assert_eq!(THREAD.load(Ordering::SeqCst), me);
    });
    thread.join().expect("the thread's own assertions hold");
}

fn posix_timer_overruns() {
    handle(libc::SIGUSR1);
    // SAFETY: an empty set, then one with the signal in it.
    let mut blocked: libc::sigset_t = unsafe { zeroed() };
    ok!(sigaddset(&mut blocked, libc::SIGUSR1));
    ok!(sigprocmask(libc::SIG_BLOCK, &blocked, std::ptr::null_mut()));
    let timer = create(libc::SIGEV_SIGNAL, libc::SIGUSR1, 0);
    set(timer, 5, 5);
    sleep_ms(100);
    ok!(sigprocmask(libc::SIG_UNBLOCK, &blocked, std::ptr::null_mut()));
    wait_for_hits(2);
    set(timer, 0, 0);
}

fn posix_timers_are_counted_down() {
    let timer = create(libc::SIGEV_SIGNAL, libc::SIGUSR1, 0);
    set(timer, 10_000, 500);
    // SAFETY: all zeros is a valid struct itimerspec.
    let mut left: libc::itimerspec = unsafe { zeroed() };
    ok!(timer_gettime(timer, &mut left));
    assert!(left.it_value.tv_sec == 9 && left.it_interval.tv_nsec == 500_000_000);
    let new = libc::itimerspec { it_value: time(0), it_interval: time(5) };
    ok!(timer_settime(timer, 0, &new, &mut left));
    assert_eq!(left.it_value.tv_sec, 9);
    ok!(timer_gettime(timer, &mut left));
    assert_eq!((left.it_value.tv_sec, left.it_value.tv_nsec), (0, 0));
    assert_eq!(ok!(timer_getoverrun(timer)), 0);
}

fn bad_timers() {
    let mut timer = std::ptr::null_mut();
    fails!(libc::EINVAL, timer_create(99, std::ptr::null_mut(), &mut timer));
    fails!(libc::EINVAL, syscall(libc::SYS_timer_delete, 12345));
    let timer = create(libc::SIGEV_NONE, 0, 0);
    let bad = libc::itimerspec {
        it_value: libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 },
        it_interval: time(0),
    };
    fails!(libc::EINVAL, timer_settime(timer, 0, &bad, std::ptr::null_mut()));
}

fn itimer(which: libc::c_int, value_ms: i64, interval_ms: i64) -> libc::itimerval {
    let val = |ms: i64| libc::timeval { tv_sec: ms / 1000, tv_usec: ms % 1000 * 1000 };
    let new = libc::itimerval { it_interval: val(interval_ms), it_value: val(value_ms) };
    // SAFETY: all zeros is a valid struct itimerval.
    let mut old: libc::itimerval = unsafe { zeroed() };
    ok!(setitimer(which as _, &new, &mut old));
    old
}

fn interval_timer_repeats() {
    handle(libc::SIGALRM);
    itimer(libc::ITIMER_REAL, 10, 10);
    wait_for_hits(3);
    let old = itimer(libc::ITIMER_REAL, 0, 0);
    assert_eq!(old.it_interval.tv_usec, 10_000);
}

fn prof_timer_needs_work() {
    handle(libc::SIGPROF);
    itimer(libc::ITIMER_PROF, 30, 0);
    sleep_ms(80);
    assert_eq!(HITS.load(Ordering::SeqCst), 0);
    let started = Instant::now();
    let mut sum = 0_u64;
    while HITS.load(Ordering::SeqCst) == 0 {
        sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

fn alarm_tells_what_was_left() {
    sys!(alarm(100));
    let left = sys!(alarm(0));
    assert!(left == 100 || left == 99, "{left}");
    assert_eq!(sys!(alarm(0)), 0);
}

fn sleep_is_interrupted_with_rest() {
    handle(libc::SIGALRM);
    itimer(libc::ITIMER_REAL, 30, 0);
    let mut rest = time(0);
    assert_eq!((sys!(nanosleep(&time(5000), &mut rest)), errno()), (-1, libc::EINTR));
    assert_eq!(rest.tv_sec, 4);
    fails!(libc::EINVAL, nanosleep(&libc::timespec { tv_sec: 0, tv_nsec: -1 }, &mut rest));
}

fn now(clock: i32) -> libc::timespec {
    let mut time = time(0);
    ok!(clock_gettime(clock, &mut time));
    time
}

fn absolute_sleep() {
    let started = Instant::now();
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME] {
        let mut until = now(clock);
        until.tv_nsec += 20_000_000;
        if until.tv_nsec >= 1_000_000_000 {
            until.tv_sec += 1;
            until.tv_nsec -= 1_000_000_000;
        }
        assert_eq!(sys!(clock_nanosleep(clock, 1, &until, std::ptr::null_mut())), 0);
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(55) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(sys!(clock_nanosleep(99, 0, &time(1), std::ptr::null_mut())), libc::EINVAL);
}

fn timerfd_counts() {
    let fd = ok!(timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK));
    fails!(libc::EAGAIN, read(fd, [0_u8; 8].as_mut_ptr().cast(), 8));
    let new = libc::itimerspec { it_value: time(5), it_interval: time(5) };
    ok!(timerfd_settime(fd, 0, &new, std::ptr::null_mut()));
    sleep_ms(33);
    let ticks = u64::from_ne_bytes(read_some(fd, 8).try_into().expect("eight bytes"));
    assert!((5..=30).contains(&ticks), "{ticks}");
    fails!(libc::EINVAL, timerfd_create(99, 0));
    fails!(libc::EINVAL, timerfd_create(libc::CLOCK_MONOTONIC, 1));
}

fn clocks_agree() {
    let started = now(libc::CLOCK_MONOTONIC);
    sleep_ms(5);
    let ended = now(libc::CLOCK_MONOTONIC);
    assert!((ended.tv_sec, ended.tv_nsec) > (started.tv_sec, started.tv_nsec));
    let mut raw = time(0);
    ok!(syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut raw));
    assert!(raw.tv_sec - ended.tv_sec <= 1);
    for clock in [libc::CLOCK_PROCESS_CPUTIME_ID, libc::CLOCK_THREAD_CPUTIME_ID] {
        now(clock);
        let mut resolution = time(0);
        ok!(clock_getres(clock, &mut resolution));
    }
    fails!(libc::EINVAL, clock_gettime(10, &mut raw));
    assert_eq!(sys!(clock_settime(libc::CLOCK_MONOTONIC, &time(0))), -1);
}

fn futex(word: &AtomicU32, operation: i32) -> i64 {
    sys!(syscall(libc::SYS_futex, word.as_ptr(), operation | libc::FUTEX_PRIVATE_FLAG, 0, 0, 0, 0))
}

fn pi_mutex_excludes() {
    let (word, total) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (word, total) = (Arc::clone(&word), Arc::clone(&total));
            std::thread::spawn(move || {
                let me = sys!(gettid()).cast_unsigned();
                for _ in 0..200 {
                    if word.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                        assert_eq!(futex(&word, libc::FUTEX_LOCK_PI), 0, "errno {}", errno());
                    }
                    let before = total.load(Ordering::Relaxed);
                    std::thread::yield_now();
                    total.store(before + 1, Ordering::Relaxed);
                    if word.compare_exchange(me, 0, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                        assert_eq!(futex(&word, libc::FUTEX_UNLOCK_PI), 0, "errno {}", errno());
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread's own assertions hold");
    }
    assert_eq!((total.load(Ordering::SeqCst), word.load(Ordering::SeqCst)), (800, 0));
}

fn pi_lock_is_handed_over() {
    let me = sys!(gettid()).cast_unsigned();
    let word = Arc::new(AtomicU32::new(me));
    let other = Arc::clone(&word);
    let thread = std::thread::spawn(move || {
        let tid = sys!(gettid()).cast_unsigned();
        assert_eq!(futex(&other, libc::FUTEX_LOCK_PI), 0);
        assert_eq!(other.load(Ordering::SeqCst) & 0x3fff_ffff, tid);
        assert_eq!(futex(&other, libc::FUTEX_UNLOCK_PI), 0);
    });
    sleep_ms(40);
    assert_ne!(word.load(Ordering::SeqCst) & 0x8000_0000, 0);
    assert_eq!(futex(&word, libc::FUTEX_UNLOCK_PI), 0);
    thread.join().expect("the thread's own assertions hold");
    assert_eq!(word.load(Ordering::SeqCst), 0);
}

fn pi_errors() {
    let me = sys!(gettid()).cast_unsigned();
    let word = AtomicU32::new(me);
    assert_eq!((futex(&word, libc::FUTEX_LOCK_PI), errno()), (-1, libc::EDEADLK));
    word.store(1, Ordering::SeqCst);
    assert_eq!((futex(&word, libc::FUTEX_UNLOCK_PI), errno()), (-1, libc::EPERM));
    word.store(0x3fff_fff0, Ordering::SeqCst);
    assert_eq!((futex(&word, libc::FUTEX_LOCK_PI), errno()), (-1, libc::ESRCH));
    word.store(0, Ordering::SeqCst);
    assert_eq!(futex(&word, libc::FUTEX_TRYLOCK_PI), 0);
    assert_eq!(word.load(Ordering::SeqCst), me);
}

/// A word of the robust list of a thread that dies with the lock, as glibc lays it out.
#[repr(C)]
struct RobustLock {
    next: *mut RobustLock,
    word: AtomicU32,
}

#[repr(C)]
struct RobustHead {
    list: *mut RobustLock,
    offset: i64,
    pending: *mut RobustLock,
}

fn pi_owner_dies() {
    let lock: &'static mut RobustLock =
        Box::leak(Box::new(RobustLock { next: std::ptr::null_mut(), word: AtomicU32::new(0) }));
    let address = std::ptr::from_mut(lock) as usize;
    let thread = std::thread::spawn(move || {
        let lock = address as *mut RobustLock;
        let offset = std::mem::offset_of!(RobustLock, word) as i64;
        let head =
            Box::leak(Box::new(RobustHead { list: lock, offset, pending: std::ptr::null_mut() }));
        // SAFETY: the lock lives for ever; the list ends at its head. Bit 0 marks a PI futex.
        unsafe {
            (*lock).next = std::ptr::from_mut(head).cast();
            head.list = (address | 1) as *mut RobustLock;
            (*lock).word.store(sys_gettid(), Ordering::SeqCst);
        }
        ok!(syscall(libc::SYS_set_robust_list, std::ptr::from_mut(head), size_of::<RobustHead>()));
        sleep_ms(60);
        // Ends the thread without the library's own end of a thread, which knows another list.
        sys!(syscall(libc::SYS_exit, 0));
    });
    sleep_ms(30);
    // SAFETY: the lock lives for ever.
    let word = unsafe { &(*(address as *const RobustLock)).word };
    assert_eq!(futex(word, libc::FUTEX_LOCK_PI), 0, "errno {}", errno());
    assert_eq!(word.load(Ordering::SeqCst) & 0x3fff_ffff, sys_gettid());
    assert_ne!(word.load(Ordering::SeqCst) & 0x4000_0000, 0);
    // Its end cannot be waited for by the library.
    std::mem::forget(thread);
}

fn sys_gettid() -> u32 {
    sys!(gettid()).cast_unsigned()
}
