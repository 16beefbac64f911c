//! stat(2), statx(2), chmod(2), utimensat(2), access(2), xattrs and statfs(2).

use crate::support::{c, enter_new_directory, fails, leave, ok, open, tests, write_all};

tests! {
    sizes_and_kinds, lstat_sees_the_link, fstatat_flags, statx_agrees_with_stat, chmod_and_special_bits,
    times_are_set, times_follow_changes, access_checks, statfs_of_root, well_known_devices,
}

pub fn stat(path: &str) -> libc::stat {
    let mut buffer = zeroed_stat();
    ok!(stat(c(path).as_ptr(), &mut buffer));
    buffer
}

pub fn fstat(fd: i32) -> libc::stat {
    let mut buffer = zeroed_stat();
    ok!(fstat(fd, &mut buffer));
    buffer
}

fn zeroed_stat() -> libc::stat {
    // SAFETY: all zeros is a valid struct stat.
    unsafe { std::mem::zeroed() }
}

fn sizes_and_kinds() {
    let dir = enter_new_directory();
    let fd = open("f", libc::O_CREAT | libc::O_WRONLY);
    write_all(fd, &[1; 5000]);
    let file = stat("f");
    assert_eq!(
        (file.st_size, file.st_mode & libc::S_IFMT, file.st_nlink),
        (5000, libc::S_IFREG, 1)
    );
    assert!(file.st_blocks >= 8 && file.st_blksize > 0);
    assert_eq!(stat(".").st_mode & libc::S_IFMT, libc::S_IFDIR);
    assert_eq!((fstat(fd).st_ino, fstat(fd).st_dev), (file.st_ino, file.st_dev));
    let mut buffer = zeroed_stat();
    fails!(libc::ENOENT, stat(c"nope".as_ptr(), &mut buffer));
    fails!(libc::EFAULT, stat(c"f".as_ptr(), 0x10 as *mut libc::stat));
    leave(&dir);
}

fn lstat_sees_the_link() {
    let dir = enter_new_directory();
    ok!(symlink(c"12345".as_ptr(), c"l".as_ptr()));
    let mut buffer = zeroed_stat();
    ok!(lstat(c"l".as_ptr(), &mut buffer));
    assert_eq!((buffer.st_mode & libc::S_IFMT, buffer.st_size), (libc::S_IFLNK, 5));
    leave(&dir);
}

fn fstatat_flags() {
    let dir = enter_new_directory();
    let fd = open("f", libc::O_CREAT | libc::O_WRONLY);
    let mut buffer = zeroed_stat();
    ok!(fstatat(fd, c"".as_ptr(), &mut buffer, libc::AT_EMPTY_PATH));
    assert_eq!(buffer.st_ino, fstat(fd).st_ino);
    fails!(libc::ENOENT, fstatat(fd, c"".as_ptr(), &mut buffer, 0));
    fails!(libc::EINVAL, fstatat(libc::AT_FDCWD, c"f".as_ptr(), &mut buffer, 0x4000_0000));
    leave(&dir);
}

fn statx_agrees_with_stat() {
    let dir = enter_new_directory();
    let fd = open("f", libc::O_CREAT | libc::O_WRONLY);
    write_all(fd, b"abc");
    // SAFETY: all zeros is a valid struct statx.
    let mut x: libc::statx = unsafe { std::mem::zeroed() };
    ok!(statx(libc::AT_FDCWD, c"f".as_ptr(), 0, libc::STATX_BASIC_STATS, &mut x));
    let s = fstat(fd);
    assert_eq!((x.stx_size, x.stx_ino, u32::from(x.stx_mode)), (3, s.st_ino, s.st_mode));
    assert_eq!((x.stx_mtime.tv_sec, i64::from(x.stx_mtime.tv_nsec)), (s.st_mtime, s.st_mtime_nsec));
    assert_eq!(x.stx_mask & libc::STATX_BASIC_STATS, libc::STATX_BASIC_STATS);
    fails!(
        libc::EINVAL,
        statx(libc::AT_FDCWD, c"f".as_ptr(), 0, libc::STATX__RESERVED as u32, &mut x)
    );
    leave(&dir);
}

fn chmod_and_special_bits() {
    let dir = enter_new_directory();
    let fd = open("f", libc::O_CREAT | libc::O_WRONLY);
    ok!(chmod(c"f".as_ptr(), 0o4755));
    assert_eq!(stat("f").st_mode & 0o7777, 0o4755);
    ok!(fchmod(fd, 0o1640));
    assert_eq!(stat("f").st_mode & 0o7777, 0o1640);
    ok!(fchmodat(libc::AT_FDCWD, c"f".as_ptr(), 0o600, 0));
    assert_eq!(stat("f").st_mode & 0o7777, 0o600);
    fails!(libc::ENOENT, chmod(c"nope".as_ptr(), 0o600));
    leave(&dir);
}

fn times_are_set() {
    let dir = enter_new_directory();
    ok!(close(open("f", libc::O_CREAT | libc::O_WRONLY)));
    let time = |sec, nsec| libc::timespec { tv_sec: sec, tv_nsec: nsec };
    ok!(utimensat(libc::AT_FDCWD, c"f".as_ptr(), [time(1, 2), time(3, 4)].as_ptr(), 0));
    let s = stat("f");
    assert_eq!((s.st_atime, s.st_atime_nsec, s.st_mtime, s.st_mtime_nsec), (1, 2, 3, 4));
    ok!(utimensat(
        libc::AT_FDCWD,
        c"f".as_ptr(),
        [time(0, libc::UTIME_OMIT), time(9, 0)].as_ptr(),
        0
    ));
    assert_eq!((stat("f").st_atime, stat("f").st_mtime), (1, 9));
    ok!(utimensat(libc::AT_FDCWD, c"f".as_ptr(), std::ptr::null(), 0));
    assert!(stat("f").st_mtime > 1_600_000_000);
    fails!(
        libc::EINVAL,
        utimensat(libc::AT_FDCWD, c"f".as_ptr(), [time(0, -1), time(0, 0)].as_ptr(), 0)
    );
    leave(&dir);
}

fn times_follow_changes() {
    let dir = enter_new_directory();
    let fd = open("f", libc::O_CREAT | libc::O_WRONLY);
    let old = [libc::timespec { tv_sec: 1, tv_nsec: 0 }; 2];
    ok!(futimens(fd, old.as_ptr()));
    write_all(fd, b"x");
    assert!(stat("f").st_mtime > 1_600_000_000);
    ok!(utimensat(libc::AT_FDCWD, c".".as_ptr(), old.as_ptr(), 0));
    ok!(mkdir(c"d".as_ptr(), 0o755));
    assert!(stat(".").st_mtime > 1_600_000_000);
    leave(&dir);
}

fn access_checks() {
    let dir = enter_new_directory();
    ok!(close(open("f", libc::O_CREAT | libc::O_WRONLY)));
    ok!(chmod(c"f".as_ptr(), 0o400));
    ok!(access(c"f".as_ptr(), libc::F_OK));
    ok!(access(c"f".as_ptr(), libc::R_OK));
    fails!(libc::EACCES, access(c"f".as_ptr(), libc::X_OK));
    fails!(libc::ENOENT, access(c"nope".as_ptr(), libc::F_OK));
    fails!(libc::EINVAL, access(c"f".as_ptr(), 0o777));
    leave(&dir);
}

fn statfs_of_root() {
    // SAFETY: all zeros is a valid struct statfs.
    let mut buffer: libc::statfs = unsafe { std::mem::zeroed() };
    ok!(statfs(c"/".as_ptr(), &mut buffer));
    assert!(buffer.f_bsize > 0 && buffer.f_blocks > 0 && buffer.f_namelen >= 255);
    ok!(statfs(c"/proc".as_ptr(), &mut buffer));
    assert_eq!(buffer.f_type, 0x9fa0);
}

fn well_known_devices() {
    for (path, major, minor) in [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ] {
        let s = stat(path);
        assert_eq!(s.st_mode & libc::S_IFMT, libc::S_IFCHR, "{path}");
        assert_eq!((libc::major(s.st_rdev), libc::minor(s.st_rdev)), (major, minor), "{path}");
    }
}
