//! Calls made so often that a kernel may take a short way for them: the answers must stay right when things change.

use std::arch::asm;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use crate::support::{
    exit_code, fails, in_child, ok, pipe, read_some, sys, tests, wait_for, write_all,
};

tests! {
    ids_follow_changes, orphans_see_their_new_parent, copies_and_threads_have_ids_of_their_own,
    users_of_gs_keep_it, results_go_only_where_memory_is, paths_end_where_memory_ends,
    signals_come_between_calls, what_was_written_is_seen_at_once,
}

/// More often than any kernel waits before it takes a short way.
const OFTEN: usize = 500;

fn ids_follow_changes() {
    for _ in 0..OFTEN {
        assert_eq!(sys!(getuid()), sys!(getuid()));
        assert_eq!(sys!(getegid()), sys!(getegid()));
    }
    if sys!(geteuid()) != 0 {
        return;
    }
    let child = in_child(|| {
        for id in 1..20 {
            ok!(setresgid(id, id + 100, 0));
            ok!(setresuid(id, id + 100, 0));
            assert_eq!((sys!(getuid()), sys!(geteuid())), (id, id + 100));
            assert_eq!((sys!(getgid()), sys!(getegid())), (id, id + 100));
            ok!(setresuid(0, 0, 0));
            assert_eq!((sys!(getuid()), sys!(geteuid())), (0, 0));
        }
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn orphans_see_their_new_parent() {
    let (from, to) = pipe();
    let (go, started) = pipe();
    let child = in_child(|| {
        let parent = sys!(getpid());
        let _orphan = in_child(|| {
            for _ in 0..OFTEN {
                assert_eq!(sys!(getppid()), parent);
            }
            write_all(started, b"s");
            while sys!(getppid()) == parent {}
            write_all(to, b"n");
            0
        });
        read_some(go, 1);
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
    assert_eq!(read_some(from, 1), b"n");
}

fn copies_and_threads_have_ids_of_their_own() {
    let me = sys!(getpid());
    for _ in 0..OFTEN {
        assert_eq!(sys!(getpid()), me);
    }
    for _ in 0..20 {
        let child = in_child(|| i32::from(sys!(getpid()) == me || sys!(getppid()) != me));
        assert_eq!(exit_code(wait_for(child)), 0);
    }
    let threads: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                let mine = sys!(gettid());
                for _ in 0..OFTEN {
                    assert_eq!((sys!(gettid()), sys!(getpid())), (mine, me));
                }
                mine
            })
        })
        .collect();
    let mut ids: Vec<i32> =
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect();
    ids.push(me);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 9);
}

fn users_of_gs_keep_it() {
    const ARCH_SET_GS: i64 = 0x1001;
    const ARCH_GET_GS: i64 = 0x1004;
    let mut base = 1_u64;
    ok!(syscall(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut base));
    assert_eq!(base, 0);
    let words = [0x1234_5678_u64, 0];
    for _ in 0..3 {
        ok!(syscall(libc::SYS_arch_prctl, ARCH_SET_GS, words.as_ptr()));
        for _ in 0..OFTEN {
            assert!(sys!(getppid()) >= 0);
            let word: u64;
            // SAFETY: gs points to `words`.
            unsafe { asm!("mov {}, gs:[0]", out(reg) word, options(nostack, readonly)) };
            assert_eq!(word, 0x1234_5678);
        }
        ok!(syscall(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut base));
        assert_eq!(base, words.as_ptr() as u64);
        ok!(syscall(libc::SYS_arch_prctl, ARCH_SET_GS, 0));
        for _ in 0..OFTEN {
            assert!(sys!(getppid()) >= 0);
        }
        ok!(syscall(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut base));
        assert_eq!(base, 0);
    }
    for _ in 0..OFTEN {
        ok!(syscall(libc::SYS_arch_prctl, ARCH_SET_GS, words.as_ptr()));
        ok!(syscall(libc::SYS_arch_prctl, ARCH_SET_GS, 0));
    }
}

/// Two pages, of which the second one is then gone.
fn page_before_nothing() -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let both = sys!(mmap(std::ptr::null_mut(), 8192, 3, flags, -1, 0));
    assert_ne!(both, libc::MAP_FAILED);
    let page = both.cast::<u8>();
    ok!(munmap(page.wrapping_add(4096).cast(), 4096));
    page
}

fn results_go_only_where_memory_is() {
    let page = page_before_nothing();
    let zero = crate::support::open("/dev/zero", libc::O_RDONLY);
    for round in 0..OFTEN {
        let last = page.wrapping_add(4096 - 144);
        ok!(stat(c"/".as_ptr(), last.cast()));
        fails!(libc::EFAULT, stat(c"/".as_ptr(), last.wrapping_add(8).cast()));
        assert_eq!(ok!(read(zero, last.cast(), 144)), 144);
        ok!(mprotect(page.cast(), 4096, 1));
        fails!(libc::EFAULT, read(zero, page.cast(), 1 + round));
        ok!(mprotect(page.cast(), 4096, 0));
        fails!(libc::EFAULT, stat(c"/".as_ptr(), page.cast()));
        ok!(mprotect(page.cast(), 4096, 3));
    }
}

fn paths_end_where_memory_ends() {
    let page = page_before_nothing();
    for _ in 0..OFTEN {
        let end = page.wrapping_add(4096);
        // SAFETY: within the page.
        unsafe { std::ptr::copy_nonoverlapping(c"/".as_ptr().cast(), end.sub(2), 2) };
        ok!(access(end.wrapping_sub(2).cast(), libc::F_OK));
        // SAFETY: within the page.
        unsafe { end.sub(1).write(b'x') };
        fails!(libc::EFAULT, access(end.wrapping_sub(2).cast(), libc::F_OK));
        fails!(libc::EFAULT, access(end.cast(), libc::F_OK));
        fails!(libc::EFAULT, access(std::ptr::null(), libc::F_OK));
    }
    let long = [vec![b'a'; 300], vec![0]].concat();
    let longest = [b"/".repeat(4095), vec![0]].concat();
    let too_long = [b"/".repeat(4096), vec![0]].concat();
    for _ in 0..OFTEN {
        fails!(libc::ENAMETOOLONG, access(long.as_ptr().cast(), libc::F_OK));
        ok!(access(longest.as_ptr().cast(), libc::F_OK));
        fails!(libc::ENAMETOOLONG, access(too_long.as_ptr().cast(), libc::F_OK));
    }
}

fn signals_come_between_calls() {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    extern "C" fn count(_: i32) {
        COUNT.fetch_add(1, SeqCst);
    }
    ok!(signal(libc::SIGALRM, count as *const () as usize));
    let often = libc::timeval { tv_sec: 0, tv_usec: 500 };
    let timer = libc::itimerval { it_interval: often, it_value: often };
    ok!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()));
    let me = (sys!(getpid()), sys!(getpgrp()));
    while COUNT.load(SeqCst) < 200 {
        for _ in 0..100 {
            assert_eq!((sys!(getpid()), sys!(getpgrp())), me);
        }
    }
}

fn what_was_written_is_seen_at_once() {
    // What a call gives is there when it returns, for other threads and copies, too.
    let (from, to) = pipe();
    let shared =
        sys!(mmap(std::ptr::null_mut(), 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0));
    assert_ne!(shared, libc::MAP_FAILED);
    for round in 0..OFTEN {
        let text = [round as u8; 16];
        write_all(to, &text);
        assert_eq!(ok!(read(from, shared, 16)), 16);
        if round % 25 == 0 {
            // SAFETY: mapped, and nobody writes it now.
            let child = in_child(|| i32::from(unsafe { shared.cast::<[u8; 16]>().read() } != text));
            assert_eq!(exit_code(wait_for(child)), 0);
        }
        write_all(to, &text);
        // SAFETY: 16 bytes are there; a call that reads what another one has just given.
        assert_eq!(ok!(read(from, shared.wrapping_add(16), 16)), 16);
        assert_eq!(ok!(write(to, shared.wrapping_add(16), 16)), 16);
        assert_eq!(read_some(from, 16), text);
    }
}
