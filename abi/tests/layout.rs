//! Sizes, offsets and values against libc, the oracle of this crate.

use std::mem::{offset_of, size_of};

use abi::arch::x86_64_calls;

/// Same size, and each named field at the same offset under its name in libc.
macro_rules! same_layout {
    ($ours:ty, $theirs:ty; $($our_field:ident = $their_field:ident),* $(,)?) => {
        assert_eq!(size_of::<$ours>(), size_of::<$theirs>(), "size of {}", stringify!($ours));
        $(assert_eq!(
            offset_of!($ours, $our_field),
            offset_of!($theirs, $their_field),
            "{}::{}", stringify!($ours), stringify!($our_field),
        );)*
    };
}

#[test]
fn file_structs() {
    use abi::statbuf::{Stat, Statfs, Statx};
    same_layout!(Stat, libc::stat; dev = st_dev, ino = st_ino, nlink = st_nlink, mode = st_mode,
        uid = st_uid, gid = st_gid, rdev = st_rdev, size = st_size, blksize = st_blksize,
        blocks = st_blocks, atime = st_atime, mtime = st_mtime, ctime = st_ctime);
    same_layout!(Statx, libc::statx; mask = stx_mask, attributes = stx_attributes, mode = stx_mode,
        ino = stx_ino, size = stx_size, atime = stx_atime, btime = stx_btime, mtime = stx_mtime,
        rdev_major = stx_rdev_major, dev_major = stx_dev_major, mnt_id = stx_mnt_id,
        dio_mem_align = stx_dio_mem_align);
    same_layout!(Statfs, libc::statfs; kind = f_type, bsize = f_bsize, blocks = f_blocks,
        bfree = f_bfree, bavail = f_bavail, files = f_files, ffree = f_ffree, fsid = f_fsid,
        namelen = f_namelen, frsize = f_frsize);
    same_layout!(abi::fcntl::Flock, libc::flock; kind = l_type, whence = l_whence, start = l_start,
        len = l_len, pid = l_pid);
    same_layout!(abi::uio::Iovec, libc::iovec; base = iov_base, len = iov_len);
    same_layout!(abi::open::OpenHow, libc::open_how; flags = flags, mode = mode, resolve = resolve);
}

#[test]
fn readiness_structs() {
    same_layout!(abi::epoll::EpollEvent, libc::epoll_event; events = events, data = u64);
    same_layout!(abi::poll::PollFd, libc::pollfd; fd = fd, events = events, revents = revents);
}

#[test]
fn time_structs() {
    use abi::time::{Itimerspec, Itimerval, Sigevent, Timespec, Timeval, Timex, Utimbuf};
    same_layout!(Timespec, libc::timespec; sec = tv_sec, nsec = tv_nsec);
    same_layout!(Timeval, libc::timeval; sec = tv_sec, usec = tv_usec);
    same_layout!(Itimerval, libc::itimerval; interval = it_interval, value = it_value);
    same_layout!(Itimerspec, libc::itimerspec; interval = it_interval, value = it_value);
    same_layout!(Utimbuf, libc::utimbuf; actime = actime, modtime = modtime);
    same_layout!(Timex, libc::timex; modes = modes, offset = offset, status = status, time = time,
        tick = tick, shift = shift, stbcnt = stbcnt, tai = tai);
    same_layout!(Sigevent, libc::sigevent; value = sigev_value, signo = sigev_signo,
        notify = sigev_notify, tid = sigev_notify_thread_id);
}

#[test]
fn system_structs() {
    use abi::sysinfo::{Sysinfo, Utsname};
    same_layout!(Utsname, libc::utsname; sysname = sysname, nodename = nodename, release = release,
        version = version, machine = machine, domainname = domainname);
    same_layout!(Sysinfo, libc::sysinfo; uptime = uptime, loads = loads, totalram = totalram,
        freeswap = freeswap, procs = procs, totalhigh = totalhigh, mem_unit = mem_unit);
}

#[test]
fn directory_headers() {
    use abi::dirent::{DIRENT64_HEADER, dirent_len, dirent64_len};
    assert_eq!(DIRENT64_HEADER, offset_of!(libc::dirent64, d_name));
    assert_eq!((dirent64_len(1), dirent64_len(4), dirent64_len(5)), (24, 24, 32));
    assert_eq!((dirent_len(1), dirent_len(4), dirent_len(5)), (24, 24, 32));
}

#[test]
fn fcntl_values() {
    use abi::fcntl;
    let pairs = [
        (fcntl::F_DUPFD_CLOEXEC, libc::F_DUPFD_CLOEXEC),
        (fcntl::F_OFD_GETLK, libc::F_OFD_GETLK),
        (fcntl::F_OFD_SETLKW, libc::F_OFD_SETLKW),
        (fcntl::F_SETPIPE_SZ, libc::F_SETPIPE_SZ),
        (fcntl::F_ADD_SEALS, libc::F_ADD_SEALS),
        (fcntl::F_GET_SEALS, libc::F_GET_SEALS),
        (fcntl::F_SETLEASE, libc::F_SETLEASE),
        (fcntl::F_SETOWN, libc::F_SETOWN),
    ];
    for (ours, theirs) in pairs {
        assert_eq!(ours, theirs.cast_unsigned());
    }
    assert_eq!(abi::epoll::EPOLLET, libc::EPOLLET.cast_unsigned());
    assert_eq!(abi::epoll::EPOLLEXCLUSIVE, libc::EPOLLEXCLUSIVE.cast_unsigned());
    assert_eq!(abi::ioctl::FIONREAD as u64, libc::FIONREAD);
    assert_eq!(abi::ioctl::FIOCLEX as u64, libc::FIOCLEX);
    assert_eq!(abi::statbuf::STATX_ATTR_MOUNT_ROOT as i32, libc::STATX_ATTR_MOUNT_ROOT);
}

#[test]
fn device_numbers_split_as_libc_says() {
    for dev in [0x803, 0x8801, 0xffff_ffff_ffff_ffff, 0x1_2345_6789_abcd] {
        assert_eq!(abi::statbuf::major(dev), libc::major(dev));
        assert_eq!(abi::statbuf::minor(dev), libc::minor(dev));
    }
}

#[test]
fn calls_are_sorted_and_named() {
    assert!(x86_64_calls::CALLS.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(x86_64_calls::name(libc::SYS_openat as u64), Some("openat"));
    assert_eq!(x86_64_calls::name(libc::SYS_futex_waitv as u64), Some("futex_waitv"));
    assert_eq!(x86_64_calls::name(libc::SYS_mseal as u64), Some("mseal"));
    assert_eq!(x86_64_calls::name(400), None);
}
