//! mmap(2), munmap(2), mprotect(2), mremap(2), brk(2), madvise(2), mincore(2).

use std::ptr;

use crate::support::{
    enter_new_directory, fails, in_child, leave, ok, open, signal_of, sys, tests, wait_for,
    write_all,
};

tests! {
    anonymous_memory_is_zero, private_file_mapping, shared_file_mapping_writes_through, shared_anonymous_is_inherited,
    private_memory_is_copied_on_fork, protection_is_enforced, unmapped_memory_faults, fixed_replaces,
    fixed_noreplace_refuses, bad_arguments, mremap_grows_and_moves, munmap_makes_holes, brk_grows, dontneed_zeroes,
    mincore_tells_mapped, access_beyond_end_of_file_is_sigbus, mprotect_needs_a_mapping, executable_memory_runs,
    address_space_limit, stack_grows, maps_file_lists_mappings, what_is_taken_away_is_seen_by_all,
    many_small_changes_in_a_row, a_hole_stops_protection, the_heaps_end_follows,
}

pub const PAGE: usize = 4096;
pub const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

fn map(length: usize, protection: i32, flags: i32, fd: i32) -> *mut u8 {
    let address = sys!(mmap(ptr::null_mut(), length, protection, flags, fd, 0));
    assert_ne!(address, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    address.cast()
}

pub fn get(address: *mut u8, offset: usize) -> u8 {
    // SAFETY: tests read their own mappings, or expect the fault in a child.
    unsafe { address.add(offset).read_volatile() }
}

pub fn put(address: *mut u8, offset: usize, value: u8) {
    // SAFETY: tests write their own mappings, or expect the fault in a child.
    unsafe { address.add(offset).write_volatile(value) }
}

fn map_fails(errno: i32, address: usize, length: usize, flags: i32, fd: i32, offset: i64) {
    let result = sys!(mmap(address as *mut libc::c_void, length, RW, flags, fd, offset));
    assert_eq!((result, crate::support::errno()), (libc::MAP_FAILED, errno));
}

fn file_of(bytes: &[u8]) -> i32 {
    let fd = open("f", libc::O_CREAT | libc::O_RDWR | libc::O_TRUNC);
    write_all(fd, bytes);
    fd
}

fn anonymous_memory_is_zero() {
    let memory = map(64 * PAGE, RW, ANON, -1);
    assert!((0..64 * PAGE).step_by(512).all(|offset| get(memory, offset) == 0));
    put(memory, 5 * PAGE, 7);
    assert_eq!(get(memory, 5 * PAGE), 7);
    ok!(munmap(memory.cast(), 64 * PAGE));
}

fn private_file_mapping() {
    let dir = enter_new_directory();
    let fd = file_of(&[7; 2 * PAGE]);
    let memory = map(2 * PAGE, RW, libc::MAP_PRIVATE, fd);
    put(memory, 0, 9);
    let mut byte = [0_u8];
    ok!(pread(fd, byte.as_mut_ptr().cast(), 1, 0));
    assert_eq!((byte[0], get(memory, 0), get(memory, PAGE)), (7, 9, 7));
    leave(&dir);
}

fn shared_file_mapping_writes_through() {
    let dir = enter_new_directory();
    let fd = file_of(&[7; PAGE]);
    let memory = map(PAGE, RW, libc::MAP_SHARED, fd);
    put(memory, 10, 9);
    ok!(msync(memory.cast(), PAGE, libc::MS_SYNC));
    let mut byte = [0_u8];
    ok!(pread(fd, byte.as_mut_ptr().cast(), 1, 10));
    assert_eq!(byte[0], 9);
    ok!(pwrite(fd, [5_u8].as_ptr().cast(), 1, 11));
    assert_eq!(get(memory, 11), 5);
    leave(&dir);
}

fn shared_anonymous_is_inherited() {
    let memory = map(PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1);
    let child = in_child(|| {
        put(memory, 3, 42);
        0
    });
    wait_for(child);
    assert_eq!(get(memory, 3), 42);
}

fn private_memory_is_copied_on_fork() {
    let memory = map(PAGE, RW, ANON, -1);
    put(memory, 0, 1);
    let child = in_child(|| {
        put(memory, 0, 2);
        i32::from(get(memory, 0))
    });
    assert_eq!(crate::support::exit_code(wait_for(child)), 2);
    assert_eq!(get(memory, 0), 1);
}

fn protection_is_enforced() {
    let memory = map(PAGE, RW, ANON, -1);
    put(memory, 0, 1);
    ok!(mprotect(memory.cast(), PAGE, libc::PROT_READ));
    assert_eq!(get(memory, 0), 1);
    let child = in_child(|| {
        put(memory, 0, 2);
        0
    });
    assert_eq!(signal_of(wait_for(child)), libc::SIGSEGV);
    ok!(mprotect(memory.cast(), PAGE, libc::PROT_NONE));
    let child = in_child(|| i32::from(get(memory, 0)));
    assert_eq!(signal_of(wait_for(child)), libc::SIGSEGV);
    let zero = open("/dev/zero", libc::O_RDONLY);
    fails!(libc::EFAULT, read(zero, memory.cast(), 1));
}

fn unmapped_memory_faults() {
    let memory = map(PAGE, RW, ANON, -1);
    ok!(munmap(memory.cast(), PAGE));
    let child = in_child(|| i32::from(get(memory, 0)));
    assert_eq!(signal_of(wait_for(child)), libc::SIGSEGV);
    ok!(munmap(memory.cast(), PAGE));
}

fn fixed_replaces() {
    let memory = map(4 * PAGE, RW, ANON, -1);
    put(memory, PAGE, 1);
    put(memory, 2 * PAGE, 1);
    let middle = memory.wrapping_add(PAGE);
    let again = sys!(mmap(middle.cast(), PAGE, RW, ANON | libc::MAP_FIXED, -1, 0));
    assert_eq!(again, middle.cast());
    assert_eq!((get(memory, PAGE), get(memory, 2 * PAGE)), (0, 1));
}

fn fixed_noreplace_refuses() {
    let memory = map(2 * PAGE, RW, ANON, -1);
    map_fails(libc::EEXIST, memory as usize, PAGE, ANON | libc::MAP_FIXED_NOREPLACE, -1, 0);
    ok!(munmap(memory.cast(), PAGE));
    let again = sys!(mmap(memory.cast(), PAGE, RW, ANON | libc::MAP_FIXED_NOREPLACE, -1, 0));
    assert_eq!(again, memory.cast());
}

fn bad_arguments() {
    map_fails(libc::EINVAL, 0, 0, ANON, -1, 0);
    map_fails(libc::EINVAL, 0x1001, PAGE, ANON | libc::MAP_FIXED, -1, 0);
    map_fails(libc::EBADF, 0, PAGE, libc::MAP_PRIVATE, 999, 0);
    map_fails(libc::EINVAL, 0, PAGE, libc::MAP_ANONYMOUS, -1, 0);
    map_fails(libc::ENOMEM, 0, usize::MAX / 2, ANON, -1, 0);
    let (read_end, _) = crate::support::pipe();
    map_fails(libc::EACCES, 0, PAGE, libc::MAP_PRIVATE, crate::support::pipe().1, 0);
    map_fails(libc::EACCES, 0, PAGE, libc::MAP_SHARED, open("/dev/null", libc::O_WRONLY), 0);
    let _ = read_end;
    fails!(libc::EINVAL, munmap(0x1001 as *mut libc::c_void, PAGE));
    fails!(libc::EINVAL, munmap(0x1000 as *mut libc::c_void, 0));
}

fn mremap_grows_and_moves() {
    let memory = map(2 * PAGE, RW, ANON, -1);
    put(memory, 0, 5);
    put(memory, PAGE, 6);
    let moved = sys!(mremap(memory.cast(), 2 * PAGE, 64 * PAGE, libc::MREMAP_MAYMOVE));
    assert_ne!(moved, libc::MAP_FAILED);
    let moved: *mut u8 = moved.cast();
    assert_eq!((get(moved, 0), get(moved, PAGE), get(moved, 63 * PAGE)), (5, 6, 0));
    let shrunk = sys!(mremap(moved.cast(), 64 * PAGE, PAGE, 0));
    assert_eq!(shrunk, moved.cast());
    let child = in_child(|| i32::from(get(moved, 2 * PAGE)));
    assert_eq!(signal_of(wait_for(child)), libc::SIGSEGV);
}

fn munmap_makes_holes() {
    let memory = map(3 * PAGE, RW, ANON, -1);
    ok!(munmap(memory.wrapping_add(PAGE).cast(), PAGE));
    put(memory, 0, 1);
    put(memory, 2 * PAGE, 1);
    let child = in_child(|| i32::from(get(memory, PAGE)));
    assert_eq!(signal_of(wait_for(child)), libc::SIGSEGV);
}

fn brk_grows() {
    let start: *mut u8 = sys!(sbrk(0)).cast();
    ok!(brk(start.wrapping_add(10 * PAGE).cast()));
    assert_eq!(get(start, 9 * PAGE), 0);
    put(start, 9 * PAGE, 1);
    assert_eq!(sys!(sbrk(0)).cast::<u8>(), start.wrapping_add(10 * PAGE));
    ok!(brk(start.cast()));
}

fn dontneed_zeroes() {
    let memory = map(2 * PAGE, RW, ANON, -1);
    put(memory, 0, 1);
    ok!(madvise(memory.cast(), PAGE, libc::MADV_DONTNEED));
    assert_eq!(get(memory, 0), 0);
    fails!(libc::EINVAL, madvise(memory.cast(), PAGE, 9999));
    fails!(libc::EINVAL, madvise(memory.wrapping_add(1).cast(), PAGE, libc::MADV_DONTNEED));
    ok!(munmap(memory.cast(), 2 * PAGE));
    fails!(libc::ENOMEM, madvise(memory.cast(), PAGE, libc::MADV_DONTNEED));
}

fn mincore_tells_mapped() {
    let memory = map(2 * PAGE, RW, ANON, -1);
    put(memory, 0, 1);
    let mut resident = [0_u8; 2];
    ok!(mincore(memory.cast(), 2 * PAGE, resident.as_mut_ptr()));
    assert_eq!(resident[0] & 1, 1);
    ok!(munmap(memory.cast(), 2 * PAGE));
    fails!(libc::ENOMEM, mincore(memory.cast(), PAGE, resident.as_mut_ptr()));
}

fn access_beyond_end_of_file_is_sigbus() {
    let dir = enter_new_directory();
    let fd = file_of(b"short");
    let memory = map(2 * PAGE, RW, libc::MAP_SHARED, fd);
    assert_eq!((get(memory, 0), get(memory, 100)), (b's', 0));
    let child = in_child(|| i32::from(get(memory, PAGE)));
    assert_eq!(signal_of(wait_for(child)), libc::SIGBUS);
    leave(&dir);
}

fn mprotect_needs_a_mapping() {
    let memory = map(PAGE, RW, ANON, -1);
    fails!(libc::EINVAL, mprotect(memory.wrapping_add(1).cast(), PAGE, libc::PROT_READ));
    ok!(munmap(memory.cast(), PAGE));
    fails!(libc::ENOMEM, mprotect(memory.cast(), PAGE, libc::PROT_READ));
}

fn executable_memory_runs() {
    let memory = map(PAGE, RW, ANON, -1);
    for (offset, byte) in [0xb8, 42, 0, 0, 0, 0xc3].into_iter().enumerate() {
        put(memory, offset, byte);
    }
    ok!(mprotect(memory.cast(), PAGE, libc::PROT_READ | libc::PROT_EXEC));
    // SAFETY: `mov eax, 42; ret` was written there.
    let function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(memory) };
    assert_eq!(function(), 42);
}

fn address_space_limit() {
    let limit = libc::rlimit { rlim_cur: 200 << 20, rlim_max: 200 << 20 };
    ok!(setrlimit(libc::RLIMIT_AS, &limit));
    map_fails(libc::ENOMEM, 0, 300 << 20, ANON, -1, 0);
}

fn stack_grows() {
    fn deep(n: usize) -> usize {
        let frame = std::hint::black_box([n; 512]);
        if n == 0 { 0 } else { deep(n - 1) + frame[511].min(1) }
    }
    assert_eq!(deep(1000), 1000);
}

fn maps_file_lists_mappings() {
    let memory = map(3 * PAGE, RW, ANON, -1);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it is there");
    let start = memory as usize;
    let covers = |line: &&str| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        range.is_some_and(|(from, to)| number(from) <= start && start + 3 * PAGE <= number(to))
    };
    let line = maps.lines().find(covers).expect("the mapping is listed");
    assert!(line.contains(" rw-p "), "{line}");
    assert!(maps.contains("[stack]") && maps.contains("conformance"), "{maps}");
}

/// Permissions of the page at an address, as /proc/self/maps says; `None`: not mapped.
pub fn listed(address: *mut u8) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it is there");
    let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
    maps.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (from, to) = words.next()?.split_once('-')?;
        (number(from)..number(to))
            .contains(&(address as usize))
            .then(|| words.next())?
            .map(str::to_owned)
    })
}

fn what_is_taken_away_is_seen_by_all() {
    let memory = map(4 * PAGE, RW, ANON, -1);
    let at = |page: usize| memory.wrapping_add(page * PAGE);
    put(at(1), 0, 7);
    ok!(mprotect(at(1).cast(), PAGE, libc::PROT_READ));
    ok!(munmap(at(2).cast(), PAGE));
    let lists = [0, 1, 2, 3].map(|page| listed(at(page)));
    assert_eq!(
        lists.each_ref().map(Option::as_deref),
        [Some("rw-p"), Some("r--p"), None, Some("rw-p")]
    );
    // The kernel's own accesses.
    let zero = open("/dev/zero", libc::O_RDONLY);
    ok!(mprotect(at(3).cast(), PAGE, libc::PROT_READ));
    fails!(libc::EFAULT, read(zero, at(3).cast(), 1));
    ok!(munmap(at(3).cast(), PAGE));
    fails!(libc::EFAULT, write(1, at(3).cast(), 1));
    // A child's, right after the change.
    ok!(mprotect(at(0).cast(), PAGE, libc::PROT_READ));
    let child = in_child(|| {
        put(memory, 0, 2);
        0
    });
    assert_eq!(signal_of(wait_for(child)), libc::SIGSEGV);
    // And back.
    ok!(mprotect(memory.cast(), 2 * PAGE, RW));
    put(memory, 0, 3);
    assert_eq!((get(memory, 0), get(at(1), 0)), (3, 7));
    let again = sys!(mmap(at(2).cast(), PAGE, RW, ANON | libc::MAP_FIXED_NOREPLACE, -1, 0));
    assert_eq!(again, at(2).cast());
}

fn many_small_changes_in_a_row() {
    const COUNT: usize = 100;
    let memory = map(COUNT * PAGE, RW, ANON, -1);
    let at = |page: usize| memory.wrapping_add(page * PAGE);
    for page in 0..COUNT {
        if page % 2 == 0 {
            ok!(mprotect(at(page).cast(), PAGE, libc::PROT_READ));
        } else {
            ok!(munmap(at(page).cast(), PAGE));
        }
    }
    for page in 0..COUNT {
        let expected = if page % 2 == 0 { Some("r--p") } else { None };
        assert_eq!(listed(at(page)).as_deref(), expected, "page {page}");
    }
}

fn a_hole_stops_protection() {
    let memory = map(3 * PAGE, RW, ANON, -1);
    ok!(munmap(memory.wrapping_add(PAGE).cast(), PAGE));
    fails!(libc::ENOMEM, mprotect(memory.cast(), 3 * PAGE, libc::PROT_READ));
    assert_eq!(listed(memory).as_deref(), Some("r--p"), "what lies before the hole");
    assert_eq!(listed(memory.wrapping_add(2 * PAGE)).as_deref(), Some("rw-p"));
}

fn the_heaps_end_follows() {
    let end = || sys!(syscall(libc::SYS_brk, 0)) as usize;
    let start = end();
    for pages in [3, 1, 7, 0] {
        let wanted = start + pages * PAGE;
        assert_eq!(sys!(syscall(libc::SYS_brk, wanted)) as usize, wanted);
        assert_eq!((end(), end()), (wanted, wanted));
        let child = in_child(|| i32::from(end() != wanted));
        assert_eq!(wait_for(child), 0);
    }
    let thread = std::thread::spawn(move || {
        assert_eq!(sys!(syscall(libc::SYS_brk, start + PAGE)) as usize, start + PAGE);
    });
    thread.join().expect("it moves the end");
    assert_eq!(end(), start + PAGE);
    sys!(syscall(libc::SYS_brk, start));
}
