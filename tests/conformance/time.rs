//! Clocks, sleeps and timers.

use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::{fails, ok, sleep_ms, sys, tests, work};

tests! {
    clocks_advance, clocks_agree_with_each_other, bad_clocks, sleeps_are_long_enough, absolute_sleep,
    cpu_clocks_count_work, timerfd_expires, timerfd_repeats, posix_timer_signals, itimer_is_read_back, times_and_rusage,
    gettimeofday_agrees, bad_timespecs,
}

fn now(clock: i32) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    ok!(clock_gettime(clock, &mut time));
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn clocks_advance() {
    for clock in [
        libc::CLOCK_REALTIME,
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_BOOTTIME,
        libc::CLOCK_MONOTONIC_RAW,
    ] {
        let before = now(clock);
        sleep_ms(20);
        let passed = now(clock) - before;
        assert!((15_000_000..2_000_000_000).contains(&passed), "clock {clock}: {passed}");
    }
    for clock in [libc::CLOCK_MONOTONIC_COARSE, libc::CLOCK_REALTIME_COARSE, libc::CLOCK_TAI] {
        assert!(now(clock) > 0);
    }
}

fn clocks_agree_with_each_other() {
    let a = now(libc::CLOCK_MONOTONIC);
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // Past the vDSO, straight to the kernel.
    ok!(syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut time));
    let b = time.tv_sec * 1_000_000_000 + time.tv_nsec;
    let c = now(libc::CLOCK_MONOTONIC);
    assert!(a <= b && b <= c, "{a} {b} {c}");
    assert!(now(libc::CLOCK_REALTIME) > 1_700_000_000_000_000_000);
}

fn bad_clocks() {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    fails!(libc::EINVAL, clock_gettime(9999, &mut time));
    fails!(libc::EINVAL, clock_getres(9999, &mut time));
    ok!(clock_getres(libc::CLOCK_MONOTONIC, &mut time));
    assert_eq!((time.tv_sec, time.tv_nsec), (0, 1));
    fails!(libc::EFAULT, syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, 0x10));
}

fn sleeps_are_long_enough() {
    for ms in [1, 10, 60] {
        let before = now(libc::CLOCK_MONOTONIC);
        ok!(usleep(ms * 1000));
        assert!(now(libc::CLOCK_MONOTONIC) - before >= i64::from(ms) * 1_000_000);
    }
}

fn absolute_sleep() {
    let end = now(libc::CLOCK_MONOTONIC) + 30_000_000;
    let time = libc::timespec { tv_sec: end / 1_000_000_000, tv_nsec: end % 1_000_000_000 };
    assert_eq!(
        sys!(clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &time, ptr::null_mut())),
        0
    );
    assert!(now(libc::CLOCK_MONOTONIC) >= end);
    assert_eq!(
        sys!(clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &time, ptr::null_mut())),
        0
    );
}

fn cpu_clocks_count_work() {
    let started = now(libc::CLOCK_MONOTONIC);
    let (process, thread) =
        (now(libc::CLOCK_PROCESS_CPUTIME_ID), now(libc::CLOCK_THREAD_CPUTIME_ID));
    work();
    sleep_ms(50);
    assert!(now(libc::CLOCK_PROCESS_CPUTIME_ID) - process > 5_000_000);
    let used = now(libc::CLOCK_THREAD_CPUTIME_ID) - thread;
    assert!(used > 5_000_000, "{used}");
    // Sleeping is not working.
    assert!(used < now(libc::CLOCK_MONOTONIC) - started - 40_000_000, "{used}");
}

fn span(ms: i64) -> libc::timespec {
    libc::timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
}

fn timerfd_expires() {
    let fd = ok!(timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC));
    let once = libc::itimerspec { it_interval: span(0), it_value: span(30) };
    ok!(timerfd_settime(fd, 0, &once, ptr::null_mut()));
    let mut count = 0_u64;
    let before = now(libc::CLOCK_MONOTONIC);
    assert_eq!(ok!(read(fd, (&raw mut count).cast(), 8)), 8);
    assert_eq!(count, 1);
    assert!(now(libc::CLOCK_MONOTONIC) - before >= 25_000_000);
    ok!(fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK));
    fails!(libc::EAGAIN, read(fd, (&raw mut count).cast(), 8));
    fails!(libc::EINVAL, read(fd, (&raw mut count).cast(), 4));
}

fn timerfd_repeats() {
    let fd = ok!(timerfd_create(libc::CLOCK_MONOTONIC, 0));
    let often = libc::itimerspec { it_interval: span(10), it_value: span(10) };
    ok!(timerfd_settime(fd, 0, &often, ptr::null_mut()));
    sleep_ms(100);
    let mut count = 0_u64;
    ok!(read(fd, (&raw mut count).cast(), 8));
    assert!((5..=30).contains(&count), "{count}");
    // SAFETY: all zeros is a valid itimerspec.
    let mut left: libc::itimerspec = unsafe { zeroed() };
    ok!(timerfd_gettime(fd, &mut left));
    assert_eq!(left.it_interval.tv_nsec, 10_000_000);
}

static FIRED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn fired(_: i32) {
    FIRED.fetch_add(1, SeqCst);
}

fn posix_timer_signals() {
    sys!(signal(libc::SIGUSR1, fired as *const () as usize));
    // SAFETY: all zeros is a valid sigevent.
    let mut event: libc::sigevent = unsafe { zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGUSR1;
    let mut timer: libc::timer_t = ptr::null_mut();
    ok!(timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer));
    let often = libc::itimerspec { it_interval: span(10), it_value: span(10) };
    ok!(timer_settime(timer, 0, &often, ptr::null_mut()));
    while FIRED.load(SeqCst) < 3 {
        sleep_ms(5);
    }
    ok!(timer_delete(timer));
}

fn itimer_is_read_back() {
    sys!(signal(libc::SIGALRM, libc::SIG_IGN));
    assert_eq!(sys!(alarm(100)), 10);
    // SAFETY: all zeros is a valid itimerval.
    let mut left: libc::itimerval = unsafe { zeroed() };
    ok!(getitimer(libc::ITIMER_REAL, &mut left));
    assert!((98..=100).contains(&left.it_value.tv_sec));
    assert_eq!(sys!(alarm(0)), 100);
}

fn times_and_rusage() {
    work();
    // SAFETY: all zeros is valid for both.
    let (mut usage, mut ticks): (libc::rusage, libc::tms) = unsafe { (zeroed(), zeroed()) };
    ok!(getrusage(libc::RUSAGE_SELF, &mut usage));
    assert!(usage.ru_utime.tv_sec * 1_000_000 + usage.ru_utime.tv_usec > 5_000);
    assert!(usage.ru_maxrss > 100);
    assert!(sys!(times(&mut ticks)) != -1);
    assert!(ticks.tms_utime >= 1);
    fails!(libc::EINVAL, getrusage(99, &mut usage));
}

fn gettimeofday_agrees() {
    let mut time = libc::timeval { tv_sec: 0, tv_usec: 0 };
    ok!(gettimeofday(&mut time, ptr::null_mut()));
    let difference = now(libc::CLOCK_REALTIME) / 1_000_000_000 - time.tv_sec;
    assert!((0..=1).contains(&difference));
    // Of the last tick, so that a second may begin a little later here.
    assert!((-1..=1).contains(&(sys!(time(ptr::null_mut())) - time.tv_sec)));
}

fn bad_timespecs() {
    for bad in [
        libc::timespec { tv_sec: -1, tv_nsec: 0 },
        libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 },
    ] {
        fails!(libc::EINVAL, nanosleep(&bad, ptr::null_mut()));
    }
    fails!(libc::EFAULT, syscall(libc::SYS_nanosleep, 0x10, 0));
}
