//! brk(2): a kernel may let a program move its heap's end on its own, as long as nobody can tell.

use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::memory::{PAGE, RW, get, listed, put};
use crate::support::{exit_code, in_child, ok, shared_word, sys, tests, wait_for};

tests! {
    the_end_moves_and_stays, what_comes_back_is_zero, a_mapping_ahead_is_in_the_way, a_stack_ahead_keeps_its_gap,
    the_limit_of_data_holds, a_limit_that_another_sets_holds, children_have_their_own, threads_share_it,
    it_goes_on_after_a_child_that_shared_it, a_new_program_has_a_new_one, maps_show_it_at_once, others_read_it_at_once,
    pieces_of_it_are_mappings_as_any, a_heap_with_nothing_above_stays, locked_memory_grows, faults_are_those_of_now,
    the_peak_counts,
}

const FIXED: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;

pub fn brk(to: usize) -> usize {
    sys!(syscall(libc::SYS_brk, to)) as usize
}

/// Where the heap's end is now, at the start of a page, once its calls have been made often. The allocator has what it needs.
pub fn begin() -> usize {
    drop(std::hint::black_box(vec![0_u8; 100 << 10]));
    let start = brk(0).next_multiple_of(PAGE);
    for round in 0..100 {
        assert_eq!(brk(start + round % 3 * PAGE), start + round % 3 * PAGE);
    }
    assert_eq!(brk(start), start);
    start
}

pub fn map_at(address: usize, pages: usize, flags: i32) {
    let at = address as *mut libc::c_void;
    assert_eq!(sys!(mmap(at, pages * PAGE, RW, flags, -1, 0)), at);
}

pub fn byte(address: usize) -> *mut u8 {
    address as *mut u8
}

/// Waits without a call.
fn await_word(word: &AtomicU32, value: u32) {
    while word.load(SeqCst) != value {
        std::hint::spin_loop();
    }
}

fn the_end_moves_and_stays() {
    let start = begin();
    for bytes in [1, PAGE - 1, PAGE, PAGE + 1, 9 * PAGE + 5, 9 * PAGE + 4, 3 * PAGE, 1, 0, 0] {
        assert_eq!(brk(start + bytes), start + bytes);
        assert_eq!(brk(0), start + bytes);
        if bytes > 0 {
            put(byte(start + bytes - 1), 0, 1);
        }
    }
    for impossible in [1, PAGE, 1 << 46, 1 << 47, 1 << 63, usize::MAX, usize::MAX - PAGE] {
        assert_eq!(brk(impossible), start, "{impossible:#x}");
    }
    // More than is likely to be given away at once, in one go and in pieces.
    for step in [200 << 20, 10 << 20] {
        for end in (start..=start + (200 << 20)).step_by(step) {
            assert_eq!(brk(end), end);
            put(byte(end), 0_usize.wrapping_sub(1), 1);
        }
        assert_eq!(brk(start), start);
    }
}

fn what_comes_back_is_zero() {
    let start = begin();
    for end in [start + 4 * PAGE, start + 2 * PAGE + 7, start + PAGE - 1] {
        assert_eq!(brk(end), end);
        let last = end.next_multiple_of(PAGE) - 1;
        put(byte(start), 0, 7);
        put(byte(last), 0, 7);
        assert_eq!(brk(start), start);
        assert_eq!(brk(end), end);
        assert_eq!((get(byte(start), 0), get(byte(last), 0)), (0, 0));
        assert_eq!(brk(start), start);
    }
    // What is left of a page stays.
    assert_eq!(brk(start + PAGE), start + PAGE);
    put(byte(start), 100, 7);
    assert_eq!(brk(start + 1), start + 1);
    assert_eq!(brk(start + PAGE), start + PAGE);
    assert_eq!(get(byte(start), 100), 7);
}

fn a_mapping_ahead_is_in_the_way() {
    let start = begin();
    for round in 0..4 {
        let taken = start + 40 * PAGE;
        map_at(taken, 1, FIXED);
        put(byte(taken), 0, 9);
        // A page before it stays free.
        assert_eq!(brk(taken), start);
        assert_eq!(brk(taken - PAGE + 1), start);
        assert_eq!(brk(taken + 2 * PAGE), start);
        assert_eq!(brk(taken - PAGE), taken - PAGE);
        assert_eq!(brk(start + round * PAGE), start + round * PAGE);
        assert_eq!(get(byte(taken), 0), 9);
        ok!(munmap(byte(taken).cast(), PAGE));
        assert_eq!(brk(taken + 2 * PAGE), taken + 2 * PAGE);
        assert_eq!(get(byte(taken), 0), 0);
        assert_eq!(brk(start), start);
    }
    // As a hint it is mapped there, too.
    let hint = byte(start + 3 * PAGE).cast();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    assert_eq!(sys!(mmap(hint, PAGE, RW, flags, -1, 0)), hint);
    assert_eq!(brk(start + 4 * PAGE), start);
    // And moved there.
    ok!(munmap(hint, PAGE));
    let memory = sys!(mmap(ptr::null_mut(), PAGE, RW, flags, -1, 0));
    let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    assert_eq!(sys!(mremap(memory, PAGE, PAGE, how, hint)), hint);
    assert_eq!(brk(start + 4 * PAGE), start);
    assert_eq!(brk(start + 2 * PAGE), start + 2 * PAGE);
}

fn a_stack_ahead_keeps_its_gap() {
    const GAP: usize = 256 * PAGE;
    let start = begin();
    let taken = start + GAP + 40 * PAGE;
    map_at(taken, 2, FIXED | libc::MAP_GROWSDOWN);
    assert_eq!(brk(taken - GAP), start);
    assert_eq!(brk(taken - GAP - PAGE), taken - GAP - PAGE);
    assert_eq!(brk(start), start);
    // It grows when it is touched below.
    put(byte(taken - PAGE), 0, 1);
    assert_eq!(brk(taken - GAP - PAGE), start);
    assert_eq!(brk(taken - GAP - 2 * PAGE), taken - GAP - 2 * PAGE);
}

fn the_limit_of_data_holds() {
    let start = begin();
    // SAFETY: plain data.
    let mut old: libc::rlimit = unsafe { std::mem::zeroed() };
    for which in [libc::RLIMIT_DATA, libc::RLIMIT_AS] {
        ok!(getrlimit(which, &mut old));
        assert_eq!(brk(start + PAGE), start + PAGE);
        ok!(setrlimit(which, &libc::rlimit { rlim_cur: 1 << 30, ..old }));
        assert_eq!(brk(start + 2 * PAGE), start + 2 * PAGE);
        assert_eq!(brk(start + (1 << 30)), start + 2 * PAGE);
        ok!(setrlimit(which, &libc::rlimit { rlim_cur: 0, ..old }));
        assert_eq!(brk(start + 3 * PAGE), start + 2 * PAGE);
        ok!(setrlimit(which, &old));
        assert_eq!(brk(start + 3 * PAGE), start + 3 * PAGE);
        assert_eq!(brk(start), start);
    }
}

fn a_limit_that_another_sets_holds() {
    let word = shared_word();
    let child = in_child(|| {
        let start = begin();
        for round in 0..20 {
            assert_eq!(brk(start + PAGE), start + PAGE);
            word.store(4 * round + 1, SeqCst);
            await_word(word, 4 * round + 2);
            assert_eq!(brk(start + 2 * PAGE), start + PAGE, "limited");
            word.store(4 * round + 3, SeqCst);
            await_word(word, 4 * round + 4);
            assert_eq!(brk(start + 2 * PAGE), start + 2 * PAGE, "free");
            assert_eq!(brk(start), start);
        }
        0
    });
    let infinite = libc::RLIM_INFINITY;
    for round in 0..20 {
        for (step, rlim_cur) in [(1, 0), (3, infinite)] {
            await_word(word, 4 * round + step);
            let limit = libc::rlimit { rlim_cur, rlim_max: infinite };
            ok!(prlimit(child, libc::RLIMIT_DATA, &limit, ptr::null_mut()));
            word.store(4 * round + step + 1, SeqCst);
        }
    }
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn children_have_their_own() {
    let start = begin();
    assert_eq!(brk(start + 4 * PAGE), start + 4 * PAGE);
    put(byte(start), 5, 5);
    for depth in 1..4 {
        let child = in_child(|| {
            assert_eq!((brk(0), get(byte(start), 5)), (start + 4 * PAGE, 5));
            let end = start + (4 + depth) * PAGE;
            assert_eq!(brk(end), end);
            put(byte(end - 1), 0, 1);
            let grandchild = in_child(|| {
                assert_eq!((brk(0), get(byte(end - 1), 0)), (end, 1));
                assert_eq!(brk(start + PAGE), start + PAGE);
                i32::from(get(byte(start), 5))
            });
            assert_eq!(exit_code(wait_for(grandchild)), 5);
            assert_eq!((brk(0), get(byte(end - 1), 0)), (end, 1));
            0
        });
        assert_eq!(exit_code(wait_for(child)), 0);
        assert_eq!((brk(0), get(byte(start), 5)), (start + 4 * PAGE, 5));
        assert_eq!(listed(byte(start + 4 * PAGE)), None);
    }
}

fn threads_share_it() {
    let start = begin();
    for round in 1..8 {
        let end = start + round * PAGE;
        assert_eq!(brk(end), end);
        std::thread::spawn(move || {
            assert_eq!(brk(0), end);
            assert_eq!(brk(end + PAGE), end + PAGE);
            put(byte(end), 0, 3);
        })
        .join()
        .expect("it moves the end");
        assert_eq!(brk(0), end + PAGE);
        assert_eq!(get(byte(end), 0), 3);
        // Alone again.
        for pages in [3, 0, 5, 0] {
            assert_eq!(brk(start + pages * PAGE), start + pages * PAGE);
        }
    }
    // Both at once.
    let (old, flag) = (brk(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for pages in 0..500 {
                brk(old + pages % 7 * PAGE);
            }
            flag.store(1, SeqCst);
        });
        while flag.load(SeqCst) == 0 {
            brk(old + 3 * PAGE);
        }
    });
    let end = brk(0);
    assert!((old..old + 7 * PAGE).contains(&end));
    assert_eq!(listed(byte(end)), None);
    assert!(end == old || listed(byte(end - PAGE)).is_some());
}

fn it_goes_on_after_a_child_that_shared_it() {
    let start = begin();
    for round in 1..10 {
        let end = start + round * PAGE;
        assert_eq!(brk(end), end);
        let status = Command::new("/proc/self/exe").output().expect("it is there").status;
        assert!(status.success());
        assert_eq!(brk(0), end);
        for pages in [30, 20, 40] {
            assert_eq!(brk(start + pages * PAGE), start + pages * PAGE);
            assert_eq!(get(byte(start + pages * PAGE), 0_usize.wrapping_sub(1)), 0);
        }
    }
}

fn a_new_program_has_a_new_one() {
    let start = begin();
    assert_eq!(brk(start + 9 * PAGE), start + 9 * PAGE);
    let child = in_child(|| {
        let words = [c"conformance", c"heap", c"the_end_moves_and_stays"];
        let arguments = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), ptr::null()];
        assert_eq!(brk(start + 10 * PAGE), start + 10 * PAGE);
        sys!(execv(c"/proc/self/exe".as_ptr(), arguments.as_ptr()));
        1
    });
    assert_eq!(exit_code(wait_for(child)), 0);
    assert_eq!(brk(0), start + 9 * PAGE);
}

/// The lines of /proc/self/maps that are called the heap: from the first to the end of the last.
fn heap_lines() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it is there");
    let number = |text| usize::from_str_radix(text, 16).expect("a number");
    let ranges: Vec<(usize, usize)> = maps
        .lines()
        .filter(|line| line.ends_with("[heap]"))
        .filter_map(|line| line.split(' ').next()?.split_once('-'))
        .map(|(from, to)| (number(from), number(to)))
        .collect();
    let [first, .., last] = ranges.as_slice() else { return ranges[0] };
    (first.0, last.1)
}

fn maps_show_it_at_once() {
    let start = begin();
    let first = heap_lines().0;
    for pages in [1, 30, 4, 90, 3, 2] {
        let end = start + pages * PAGE - pages;
        assert_eq!(brk(end), end);
        assert_eq!(heap_lines(), (first, start + pages * PAGE));
        assert_eq!(listed(byte(start)).as_deref(), Some("rw-p"));
        assert_eq!(listed(byte(start + pages * PAGE)), None);
    }
}

/// What `process_vm_readv` finds in another process: a byte, or an errno.
fn read_of(process: i32, address: usize) -> Result<u8, i32> {
    let mut found = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut found).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: byte(address).cast(), iov_len: 1 };
    match sys!(process_vm_readv(process, &local, 1, &remote, 1, 0)) {
        1 => Ok(found),
        _ => Err(crate::support::errno()),
    }
}

fn others_read_it_at_once() {
    let word = shared_word();
    let start = begin();
    let child = in_child(|| {
        assert_eq!(begin(), start);
        for round in 0..10_u8 {
            let turn = u32::from(round) * 4;
            assert_eq!(brk(start + 20 * PAGE), start + 20 * PAGE);
            put(byte(start), 19 * PAGE, round);
            word.store(turn + 1, SeqCst);
            await_word(word, turn + 2);
            assert_eq!(get(byte(start), 18 * PAGE), round + 100, "written by another");
            assert_eq!(brk(start), start);
            word.store(turn + 3, SeqCst);
            await_word(word, turn + 4);
        }
        0
    });
    for round in 0..10_u8 {
        let turn = u32::from(round) * 4;
        await_word(word, turn + 1);
        assert_eq!(read_of(child, start + 19 * PAGE), Ok(round));
        let new = round + 100;
        let local = libc::iovec { iov_base: (&raw const new).cast_mut().cast(), iov_len: 1 };
        let remote = libc::iovec { iov_base: byte(start + 18 * PAGE).cast(), iov_len: 1 };
        ok!(process_vm_writev(child, &local, 1, &remote, 1, 0));
        word.store(turn + 2, SeqCst);
        await_word(word, turn + 3);
        assert_eq!(read_of(child, start + 19 * PAGE), Err(libc::EFAULT));
        word.store(turn + 4, SeqCst);
    }
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn pieces_of_it_are_mappings_as_any() {
    let start = begin();
    let at = |page: usize| start + page * PAGE;
    assert_eq!(brk(at(20)), at(20));
    // Another mapping in it goes with it.
    map_at(at(5), 2, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
    ok!(mprotect(byte(at(12)).cast(), 2 * PAGE, libc::PROT_READ));
    ok!(munmap(byte(at(15)).cast(), PAGE));
    assert_eq!(listed(byte(at(13))).as_deref(), Some("r--p"));
    assert_eq!(brk(at(13)), at(13));
    assert_eq!(brk(at(14)), at(14));
    assert_eq!([at(12), at(13)].map(|at| listed(byte(at)).unwrap_or_default()), ["r--p", "rw-p"]);
    assert_eq!(brk(at(6)), at(6));
    assert_eq!(listed(byte(at(5))).as_deref(), Some("rw-p"));
    assert_eq!(listed(byte(at(6))), None);
    // Its last page grows as a mapping, which is then in the way.
    let last = byte(at(5)).cast();
    assert_eq!(sys!(mremap(last, PAGE, 3 * PAGE, 0)), last);
    assert_eq!(brk(at(7)), at(6));
    ok!(munmap(byte(at(6)).cast(), 2 * PAGE));
    assert_eq!(brk(at(7)), at(7));
    // One that reaches over the end.
    map_at(at(6), 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
    assert_eq!(brk(at(8)), at(7));
    assert_eq!(brk(at(6)), at(6));
    assert_eq!(listed(byte(at(6))), None);
    assert_eq!(listed(byte(at(7))).as_deref(), Some("rw-p"));
    assert_eq!(brk(at(7)), at(6));
    ok!(munmap(byte(at(7)).cast(), 2 * PAGE));
}

fn a_heap_with_nothing_above_stays() {
    let start = begin();
    let at = |page: usize| start + page * PAGE;
    assert_eq!(brk(at(10)), at(10));
    ok!(munmap(byte(at(4)).cast(), 6 * PAGE));
    assert_eq!(brk(at(7)), at(10), "nothing is to be unmapped");
    assert_eq!(brk(at(4)), at(10));
    assert_eq!(brk(at(9) + 1), at(9) + 1, "the same page");
    assert_eq!(brk(at(12)), at(12));
    assert_eq!(brk(at(11)), at(11));
    assert_eq!(brk(at(3)), at(3));
    assert_eq!(brk(start), start);
    // Holes that were made in a row, each with a move after it.
    assert_eq!(brk(at(40)), at(40));
    for page in (10..40).rev() {
        ok!(munmap(byte(at(page)).cast(), PAGE));
        assert_eq!(brk(at(page)), at(40), "page {page}");
    }
    assert_eq!(brk(at(9)), at(9));
}

fn locked_memory_grows() {
    let start = begin();
    assert_eq!(brk(start + PAGE), start + PAGE);
    if sys!(mlockall(libc::MCL_FUTURE)) != 0 {
        // Who may lock nothing cannot tell.
        return;
    }
    let before = status("VmLck:");
    assert_eq!(brk(start + 5 * PAGE), start + 5 * PAGE);
    assert_eq!(status("VmLck:"), before + 16);
    ok!(munlockall());
    assert_eq!(brk(start + 9 * PAGE), start + 9 * PAGE);
    assert_eq!(status("VmLck:"), 0);
}

/// A line of /proc/self/status, in KiB.
fn status(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("it is there");
    let line = text.lines().find(|line| line.starts_with(name)).expect("it is there");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

fn the_peak_counts() {
    let start = begin();
    let before = status("VmSize:");
    for _ in 0..3 {
        assert_eq!(brk(start + 2000 * PAGE), start + 2000 * PAGE);
        assert_eq!(brk(start), start);
    }
    assert_eq!(status("VmSize:"), before);
    assert!(status("VmPeak:") >= before + 8000, "{} after {before}", status("VmPeak:"));
    assert!(status("VmPeak:") < before + 9000);
    assert_eq!(brk(start + 100 * PAGE), start + 100 * PAGE);
    assert_eq!(status("VmSize:"), before + 400);
}

extern "C" fn exit_with_code(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's own.
    let code = unsafe { (*info).si_code };
    sys!(_exit(code));
}

fn faults_are_those_of_now() {
    const MAPERR: i32 = 1;
    const ACCERR: i32 = 2;
    let start = begin();
    // SAFETY: plain data.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = exit_with_code as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    ok!(sigaction(libc::SIGSEGV, &action, ptr::null_mut()));
    let touch = |address: usize, prepare: &dyn Fn()| {
        let child = in_child(|| {
            begin();
            prepare();
            put(byte(address), 0, 1);
            100
        });
        exit_code(wait_for(child))
    };
    let at = |page: usize| start + page * PAGE;
    let grow = || assert_eq!(brk(at(5)), at(5));
    assert_eq!(touch(at(4), &grow), 100);
    assert_eq!(touch(at(5), &grow), MAPERR);
    let back = || {
        grow();
        assert_eq!(brk(at(4)), at(4));
    };
    assert_eq!(touch(at(4), &back), MAPERR);
    let protected = || {
        grow();
        ok!(mprotect(byte(at(3)).cast(), PAGE, libc::PROT_READ));
    };
    assert_eq!(touch(at(3), &protected), ACCERR);
    let anew = || {
        protected();
        assert_eq!(brk(at(3)), at(3));
        grow();
    };
    assert_eq!(touch(at(3), &anew), 100);
}
