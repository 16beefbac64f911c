//! read(2), write(2) and their relatives; lseek(2), ftruncate(2), fcntl(2), dup(2).

use crate::support::{
    enter_new_directory, fails, leave, ok, open, read_some, sys, tests, write_all,
};

tests! {
    write_then_read_back, append_goes_to_the_end, pread_and_pwrite_leave_the_offset, vectors_are_joined,
    seek_whence_and_errors, truncate_grows_with_zeros, exclusive_create_refuses, bad_descriptors, bad_addresses,
    access_modes_are_enforced, dup_shares_the_offset, dup3_and_close_on_exec, fcntl_flags, descriptor_limit,
    read_of_directory_is_eisdir, copy_file_range_copies, sendfile_copies, lowest_descriptor_is_used,
    host_files_are_read_whole, reads_end_at_unwritable_memory,
}

const CREATE: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;

fn write_then_read_back() {
    let dir = enter_new_directory();
    let fd = open("f", CREATE);
    write_all(fd, b"hello");
    assert_eq!(ok!(lseek(fd, 0, libc::SEEK_SET)), 0);
    assert_eq!(read_some(fd, 100), b"hello");
    assert_eq!(read_some(fd, 100), b"");
    leave(&dir);
}

fn append_goes_to_the_end() {
    let dir = enter_new_directory();
    let fd = open("f", CREATE | libc::O_APPEND);
    write_all(fd, b"one");
    ok!(lseek(fd, 0, libc::SEEK_SET));
    write_all(fd, b"two");
    let mut bytes = [0_u8; 6];
    assert_eq!(ok!(pread(fd, bytes.as_mut_ptr().cast(), 6, 0)), 6);
    assert_eq!(&bytes, b"onetwo");
    leave(&dir);
}

fn pread_and_pwrite_leave_the_offset() {
    let dir = enter_new_directory();
    let fd = open("f", CREATE);
    assert_eq!(ok!(pwrite(fd, b"xyz".as_ptr().cast(), 3, 10)), 3);
    assert_eq!(ok!(lseek(fd, 0, libc::SEEK_CUR)), 0);
    let mut bytes = [9_u8; 13];
    assert_eq!(ok!(pread(fd, bytes.as_mut_ptr().cast(), 13, 0)), 13);
    assert_eq!(&bytes, b"\0\0\0\0\0\0\0\0\0\0xyz");
    fails!(libc::EINVAL, pread(fd, bytes.as_mut_ptr().cast(), 1, -1));
    leave(&dir);
}

fn vectors_are_joined() {
    let dir = enter_new_directory();
    let fd = open("f", CREATE);
    let parts = [&b"ab"[..], b"", b"cde"];
    let out: Vec<_> = parts
        .iter()
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
        .collect();
    assert_eq!(ok!(writev(fd, out.as_ptr(), 3)), 5);
    let (mut a, mut b) = ([0_u8; 3], [0_u8; 10]);
    let into = [
        libc::iovec { iov_base: a.as_mut_ptr().cast(), iov_len: 3 },
        libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 10 },
    ];
    assert_eq!(ok!(preadv(fd, into.as_ptr(), 2, 0)), 5);
    assert_eq!((&a, &b[..2]), (b"abc", &b"de"[..]));
    fails!(libc::EINVAL, writev(fd, out.as_ptr(), -1));
    fails!(libc::EINVAL, writev(fd, out.as_ptr(), 1025));
    leave(&dir);
}

fn seek_whence_and_errors() {
    let dir = enter_new_directory();
    let fd = open("f", CREATE);
    write_all(fd, b"0123456789");
    assert_eq!(ok!(lseek(fd, -3, libc::SEEK_END)), 7);
    assert_eq!(ok!(lseek(fd, -2, libc::SEEK_CUR)), 5);
    assert_eq!(ok!(lseek(fd, 100, libc::SEEK_SET)), 100);
    fails!(libc::EINVAL, lseek(fd, -1, libc::SEEK_SET));
    fails!(libc::EINVAL, lseek(fd, 0, 99));
    assert_eq!(ok!(lseek(fd, 0, libc::SEEK_DATA)), 0);
    fails!(libc::ENXIO, lseek(fd, 11, libc::SEEK_DATA));
    let mut fds = [0; 2];
    ok!(pipe(fds.as_mut_ptr()));
    fails!(libc::ESPIPE, lseek(fds[0], 0, libc::SEEK_SET));
    leave(&dir);
}

fn truncate_grows_with_zeros() {
    let dir = enter_new_directory();
    let fd = open("f", CREATE);
    write_all(fd, b"abcdef");
    ok!(ftruncate(fd, 3));
    ok!(ftruncate(fd, 6));
    let mut bytes = [9_u8; 6];
    assert_eq!(ok!(pread(fd, bytes.as_mut_ptr().cast(), 6, 0)), 6);
    assert_eq!(&bytes, b"abc\0\0\0");
    fails!(libc::EINVAL, ftruncate(fd, -1));
    let readable = open("f", libc::O_RDONLY);
    fails!(libc::EINVAL, ftruncate(readable, 0));
    leave(&dir);
}

fn exclusive_create_refuses() {
    let dir = enter_new_directory();
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    ok!(open(c"f".as_ptr(), flags, 0o600));
    fails!(libc::EEXIST, open(c"f".as_ptr(), flags, 0o600));
    fails!(libc::ENOENT, open(c"g".as_ptr(), libc::O_RDONLY));
    fails!(libc::ENOTDIR, open(c"f/g".as_ptr(), libc::O_RDONLY));
    fails!(libc::ENOTDIR, open(c"f".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY));
    fails!(libc::EISDIR, open(c".".as_ptr(), libc::O_WRONLY));
    fails!(libc::ENOENT, open(c"".as_ptr(), libc::O_RDONLY));
    let long = crate::support::c(&"x".repeat(256));
    fails!(libc::ENAMETOOLONG, open(long.as_ptr(), libc::O_RDONLY));
    leave(&dir);
}

fn bad_descriptors() {
    let mut byte = 0_u8;
    fails!(libc::EBADF, read(-1, (&raw mut byte).cast(), 1));
    fails!(libc::EBADF, write(999, (&raw const byte).cast(), 1));
    fails!(libc::EBADF, close(999));
    fails!(libc::EBADF, dup(999));
    fails!(libc::EBADF, fcntl(999, libc::F_GETFD));
    fails!(libc::EBADF, fsync(999));
    fails!(libc::EBADF, dup2(0, -1));
}

fn bad_addresses() {
    let zero = open("/dev/zero", libc::O_RDONLY);
    fails!(libc::EFAULT, read(zero, 0x10 as *mut libc::c_void, 10));
    let (_, write_end) = crate::support::pipe();
    fails!(libc::EFAULT, write(write_end, 0x10 as *const libc::c_void, 10));
    fails!(libc::EFAULT, open(0x10 as *const libc::c_char, libc::O_RDONLY));
    fails!(libc::EFAULT, pipe(0x10 as *mut i32));
}

fn access_modes_are_enforced() {
    let dir = enter_new_directory();
    let writer = open("f", libc::O_WRONLY | libc::O_CREAT);
    let mut byte = 0_u8;
    fails!(libc::EBADF, read(writer, (&raw mut byte).cast(), 1));
    let reader = open("f", libc::O_RDONLY);
    fails!(libc::EBADF, write(reader, (&raw const byte).cast(), 1));
    let path = ok!(open(c"f".as_ptr(), libc::O_PATH));
    fails!(libc::EBADF, read(path, (&raw mut byte).cast(), 1));
    leave(&dir);
}

fn dup_shares_the_offset() {
    let dir = enter_new_directory();
    let fd = open("f", CREATE);
    let copy = ok!(dup(fd));
    write_all(fd, b"abc");
    assert_eq!(ok!(lseek(copy, 0, libc::SEEK_CUR)), 3);
    let other = open("f", libc::O_RDONLY);
    assert_eq!(ok!(lseek(other, 0, libc::SEEK_CUR)), 0);
    leave(&dir);
}

fn dup3_and_close_on_exec() {
    let copy = ok!(dup3(0, 77, libc::O_CLOEXEC));
    assert_eq!(copy, 77);
    assert_eq!(ok!(fcntl(77, libc::F_GETFD)), libc::FD_CLOEXEC);
    assert_eq!(ok!(dup2(77, 78)), 78);
    assert_eq!(ok!(fcntl(78, libc::F_GETFD)), 0);
    assert_eq!(ok!(dup2(78, 78)), 78);
    fails!(libc::EINVAL, dup3(78, 78, 0));
    assert_eq!(ok!(fcntl(0, libc::F_DUPFD_CLOEXEC, 90)), 90);
    fails!(libc::EINVAL, fcntl(0, libc::F_DUPFD, -1));
}

fn fcntl_flags() {
    let dir = enter_new_directory();
    let fd = open("f", CREATE | libc::O_APPEND);
    let flags = ok!(fcntl(fd, libc::F_GETFL));
    assert_eq!(flags & libc::O_ACCMODE, libc::O_RDWR);
    assert_ne!(flags & libc::O_APPEND, 0);
    ok!(fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK));
    let flags = ok!(fcntl(fd, libc::F_GETFL));
    assert_eq!((flags & libc::O_APPEND, flags & libc::O_NONBLOCK), (0, libc::O_NONBLOCK));
    leave(&dir);
}

fn descriptor_limit() {
    let limit = libc::rlimit { rlim_cur: 20, rlim_max: 20 };
    ok!(setrlimit(libc::RLIMIT_NOFILE, &limit));
    let mut last = 0;
    while let fd @ 0.. = sys!(dup(0)) {
        last = fd;
    }
    assert_eq!((last, crate::support::errno()), (19, libc::EMFILE));
    fails!(libc::EBADF, dup2(0, 20));
}

fn read_of_directory_is_eisdir() {
    let fd = open("/", libc::O_RDONLY | libc::O_DIRECTORY);
    let mut byte = 0_u8;
    fails!(libc::EISDIR, read(fd, (&raw mut byte).cast(), 1));
}

fn copy_file_range_copies() {
    let dir = enter_new_directory();
    let (from, to) = (open("a", CREATE), open("b", CREATE));
    write_all(from, b"0123456789");
    let mut offset = 3_i64;
    let copied = ok!(copy_file_range(from, &raw mut offset, to, std::ptr::null_mut(), 4, 0));
    assert_eq!((copied, offset), (4, 7));
    ok!(lseek(to, 0, libc::SEEK_SET));
    assert_eq!(read_some(to, 10), b"3456");
    leave(&dir);
}

fn sendfile_copies() {
    let dir = enter_new_directory();
    let from = open("a", CREATE);
    write_all(from, b"0123456789");
    let (read_end, write_end) = crate::support::pipe();
    let mut offset = 2_i64;
    assert_eq!(ok!(sendfile(write_end, from, &raw mut offset, 5)), 5);
    assert_eq!((read_some(read_end, 10), offset), (b"23456".to_vec(), 7));
    leave(&dir);
}

fn lowest_descriptor_is_used() {
    let (a, b) = (ok!(dup(0)), ok!(dup(0)));
    ok!(close(a));
    assert_eq!(ok!(dup(0)), a);
    ok!(close(b));
    assert_eq!(open("/dev/null", libc::O_RDONLY), b);
}

/// The program's own file: large, and below the overlay when inside.
fn open_own_file() -> i32 {
    open("/proc/self/exe", libc::O_RDONLY)
}

fn host_files_are_read_whole() {
    let fd = open_own_file();
    let mut expected = Vec::new();
    while expected.len() < 100_000 {
        let part = read_some(fd, 1000);
        assert_eq!(part.len(), 1000, "a regular file gives all that is asked for");
        expected.extend(part);
    }
    for size in [1_usize, 4095, 16_383, 16_384, 16_385, 40_000, 65_536, 99_999] {
        let mut bytes = vec![0_u8; size];
        let got = ok!(pread(fd, bytes.as_mut_ptr().cast(), size, 1));
        assert_eq!(got as usize, size);
        assert!(bytes == expected[1..=size], "{size} bytes differ");
    }
    // Two ranges, the first of which is short; and a buffer that reaches beyond the end.
    let (mut a, mut b) = (vec![0_u8; 10], vec![0_u8; 30_000]);
    let into = [
        libc::iovec { iov_base: a.as_mut_ptr().cast(), iov_len: a.len() },
        libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() },
    ];
    assert_eq!(ok!(preadv(fd, into.as_ptr(), 2, 0)), 30_010);
    assert!(a == expected[..10] && b == expected[10..30_010]);
    let end = ok!(lseek(fd, -5, libc::SEEK_END));
    assert_eq!(read_some(fd, 70_000).len(), 5);
    assert_eq!(ok!(lseek(fd, 0, libc::SEEK_CUR)), end + 5);
    assert_eq!(read_some(fd, 70_000).len(), 0);
    ok!(close(fd));
}

fn reads_end_at_unwritable_memory() {
    const PAGE: usize = 4096;
    let fd = open_own_file();
    for pages in [1, 3, 5, 8] {
        let len = (pages + 1) * PAGE;
        // SAFETY: anonymous memory anywhere.
        let memory = unsafe {
            let (protection, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0)
        };
        assert_ne!(memory, libc::MAP_FAILED);
        let last = memory.wrapping_byte_add(pages * PAGE);
        ok!(mprotect(last, PAGE, libc::PROT_READ));
        assert_eq!(ok!(pread(fd, memory, len, 0)) as usize, pages * PAGE);
        fails!(libc::EFAULT, pread(fd, last, PAGE, 0));
        ok!(munmap(memory, len));
    }
    ok!(close(fd));
}
