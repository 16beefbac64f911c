//! poll(2), select(2), epoll(7), eventfd(2).

use std::ptr;

use crate::support::{
    fails, in_child, ok, pipe, read_some, sleep_ms, sys, tests, wait_for, write_all,
};

tests! {
    poll_tells_readiness, poll_times_out, poll_of_bad_descriptors, poll_wakes_up, select_works, pselect_with_mask,
    epoll_level_triggered, epoll_edge_triggered, epoll_oneshot, epoll_refusals, epoll_forgets_closed, epoll_nested,
    epoll_wakes_up, eventfd_counts, eventfd_semaphore, eventfd_in_epoll, hang_up_is_told,
}

fn pollfd(fd: i32, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

fn poll_tells_readiness() {
    let (read_end, write_end) = pipe();
    let mut fds = [
        pollfd(read_end, libc::POLLIN),
        pollfd(write_end, libc::POLLOUT),
        pollfd(-1, libc::POLLIN),
    ];
    assert_eq!(ok!(poll(fds.as_mut_ptr(), 3, 0)), 1);
    assert_eq!(fds.map(|fd| fd.revents), [0, libc::POLLOUT, 0]);
    write_all(write_end, b"x");
    assert_eq!(ok!(poll(fds.as_mut_ptr(), 3, -1)), 2);
    assert_eq!(fds[0].revents, libc::POLLIN);
}

fn poll_times_out() {
    let started = std::time::Instant::now();
    assert_eq!(ok!(poll(ptr::null_mut(), 0, 30)), 0);
    assert!(started.elapsed().as_millis() >= 30);
}

fn poll_of_bad_descriptors() {
    let mut fds = [pollfd(999, libc::POLLIN)];
    assert_eq!(ok!(poll(fds.as_mut_ptr(), 1, -1)), 1);
    assert_eq!(fds[0].revents, libc::POLLNVAL);
    fails!(libc::EFAULT, poll(0x10 as *mut libc::pollfd, 1, 0));
}

fn poll_wakes_up() {
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        sleep_ms(30);
        write_all(write_end, b"x");
        0
    });
    let mut fds = [pollfd(read_end, libc::POLLIN)];
    assert_eq!(ok!(poll(fds.as_mut_ptr(), 1, 5000)), 1);
    wait_for(child);
}

fn select_works() {
    let (read_end, write_end) = pipe();
    // SAFETY: all zeros is the empty set.
    let mut reads: libc::fd_set = unsafe { std::mem::zeroed() };
    let mut writes = reads;
    sys!(FD_SET(read_end, &mut reads));
    sys!(FD_SET(write_end, &mut writes));
    let mut timeout = libc::timeval { tv_sec: 1, tv_usec: 0 };
    assert_eq!(
        ok!(select(write_end + 1, &mut reads, &mut writes, ptr::null_mut(), &mut timeout)),
        1
    );
    assert_eq!(
        (sys!(FD_ISSET(read_end, &reads)), sys!(FD_ISSET(write_end, &writes))),
        (false, true)
    );
    fails!(
        libc::EINVAL,
        select(-1, ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), &mut timeout)
    );
    sys!(FD_SET(50, &mut reads));
    fails!(libc::EBADF, select(51, &mut reads, ptr::null_mut(), ptr::null_mut(), &mut timeout));
}

fn pselect_with_mask() {
    extern "C" fn nothing(_: i32) {}
    sys!(signal(libc::SIGUSR1, nothing as *const () as usize));
    // SAFETY: all zeros is the empty set.
    let (empty, mut blocked): (libc::sigset_t, libc::sigset_t) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    sys!(sigaddset(&mut blocked, libc::SIGUSR1));
    ok!(sigprocmask(libc::SIG_BLOCK, &blocked, ptr::null_mut()));
    sys!(raise(libc::SIGUSR1));
    let timeout = libc::timespec { tv_sec: 5, tv_nsec: 0 };
    fails!(libc::EINTR, ppoll(ptr::null_mut(), 0, &timeout, &empty));
    sys!(raise(libc::SIGUSR1));
    fails!(
        libc::EINTR,
        pselect(0, ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), &timeout, &empty)
    );
}

struct Epoll(i32);

impl Epoll {
    fn new() -> Self {
        Self(ok!(epoll_create1(libc::EPOLL_CLOEXEC)))
    }

    fn control(&self, operation: i32, fd: i32, events: i32) -> i32 {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: fd as u64 };
        sys!(epoll_ctl(self.0, operation, fd, &mut event))
    }

    fn add(&self, fd: i32, events: i32) {
        assert_eq!(
            self.control(libc::EPOLL_CTL_ADD, fd, events),
            0,
            "{}",
            std::io::Error::last_os_error()
        );
    }

    fn wait(&self, timeout: i32) -> Vec<(u64, i32)> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
        let count = ok!(epoll_wait(self.0, events.as_mut_ptr(), 8, timeout));
        let count = usize::try_from(count).expect("it did not fail");
        events[..count].iter().map(|event| (event.u64, event.events.cast_signed())).collect()
    }
}

fn epoll_level_triggered() {
    let (read_end, write_end) = pipe();
    let epoll = Epoll::new();
    epoll.add(read_end, libc::EPOLLIN);
    assert_eq!(epoll.wait(0), []);
    write_all(write_end, b"xy");
    for _ in 0..3 {
        assert_eq!(epoll.wait(0), [(read_end as u64, libc::EPOLLIN)]);
    }
    read_some(read_end, 2);
    assert_eq!(epoll.wait(10), []);
}

fn epoll_edge_triggered() {
    let (read_end, write_end) = pipe();
    let epoll = Epoll::new();
    epoll.add(read_end, libc::EPOLLIN | libc::EPOLLET);
    write_all(write_end, b"x");
    assert_eq!(epoll.wait(0).len(), 1);
    assert_eq!(epoll.wait(0).len(), 0);
    write_all(write_end, b"y");
    assert_eq!(epoll.wait(0).len(), 1);
}

fn epoll_oneshot() {
    let (read_end, write_end) = pipe();
    let epoll = Epoll::new();
    epoll.add(read_end, libc::EPOLLIN | libc::EPOLLONESHOT);
    write_all(write_end, b"x");
    assert_eq!((epoll.wait(0).len(), epoll.wait(0).len()), (1, 0));
    assert_eq!(epoll.control(libc::EPOLL_CTL_MOD, read_end, libc::EPOLLIN), 0);
    assert_eq!(epoll.wait(0).len(), 1);
}

fn epoll_refusals() {
    use crate::support::errno;
    let (read_end, other) = pipe();
    let epoll = Epoll::new();
    epoll.add(read_end, libc::EPOLLIN);
    assert_eq!((epoll.control(libc::EPOLL_CTL_ADD, read_end, 0), errno()), (-1, libc::EEXIST));
    assert_eq!((epoll.control(libc::EPOLL_CTL_MOD, other, 0), errno()), (-1, libc::ENOENT));
    assert_eq!((epoll.control(libc::EPOLL_CTL_ADD, 999, 0), errno()), (-1, libc::EBADF));
    assert_eq!((epoll.control(libc::EPOLL_CTL_ADD, epoll.0, 0), errno()), (-1, libc::EINVAL));
    let file = crate::support::open("/etc/passwd", libc::O_RDONLY);
    assert_eq!((epoll.control(libc::EPOLL_CTL_ADD, file, 0), errno()), (-1, libc::EPERM));
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    fails!(libc::EINVAL, epoll_wait(epoll.0, &mut event, 0, 0));
    fails!(libc::EINVAL, epoll_wait(read_end, &mut event, 1, 0));
}

fn epoll_forgets_closed() {
    let (read_end, write_end) = pipe();
    let epoll = Epoll::new();
    epoll.add(read_end, libc::EPOLLIN);
    write_all(write_end, b"x");
    ok!(close(read_end));
    assert_eq!(epoll.wait(0), []);
}

fn epoll_nested() {
    let (read_end, write_end) = pipe();
    let (inner, outer) = (Epoll::new(), Epoll::new());
    inner.add(read_end, libc::EPOLLIN);
    outer.add(inner.0, libc::EPOLLIN);
    assert_eq!(outer.wait(0), []);
    write_all(write_end, b"x");
    assert_eq!(outer.wait(100).len(), 1);
}

fn epoll_wakes_up() {
    let (read_end, write_end) = pipe();
    let epoll = Epoll::new();
    epoll.add(read_end, libc::EPOLLIN);
    let thread = std::thread::spawn(move || {
        sleep_ms(30);
        write_all(write_end, b"x");
    });
    assert_eq!(epoll.wait(5000).len(), 1);
    thread.join().expect("it does not panic");
}

fn eventfd_counts() {
    let fd = ok!(eventfd(3, libc::EFD_NONBLOCK));
    let mut value = 0_u64;
    write_all(fd, &4_u64.to_ne_bytes());
    ok!(read(fd, (&raw mut value).cast(), 8));
    assert_eq!(value, 7);
    fails!(libc::EAGAIN, read(fd, (&raw mut value).cast(), 8));
    fails!(libc::EINVAL, read(fd, (&raw mut value).cast(), 7));
    value = u64::MAX;
    fails!(libc::EINVAL, write(fd, (&raw const value).cast(), 8));
    value = u64::MAX - 1;
    ok!(write(fd, (&raw const value).cast(), 8));
    value = 1;
    fails!(libc::EAGAIN, write(fd, (&raw const value).cast(), 8));
}

fn eventfd_semaphore() {
    let fd = ok!(eventfd(2, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK));
    let mut value = 0_u64;
    for _ in 0..2 {
        ok!(read(fd, (&raw mut value).cast(), 8));
        assert_eq!(value, 1);
    }
    fails!(libc::EAGAIN, read(fd, (&raw mut value).cast(), 8));
}

fn eventfd_in_epoll() {
    let fd = ok!(eventfd(0, 0));
    let epoll = Epoll::new();
    epoll.add(fd, libc::EPOLLIN | libc::EPOLLOUT);
    assert_eq!(epoll.wait(0), [(fd as u64, libc::EPOLLOUT)]);
    write_all(fd, &1_u64.to_ne_bytes());
    assert_eq!(epoll.wait(0), [(fd as u64, libc::EPOLLIN | libc::EPOLLOUT)]);
}

fn hang_up_is_told() {
    let (read_end, write_end) = pipe();
    ok!(close(write_end));
    let mut fds = [pollfd(read_end, libc::POLLIN)];
    assert_eq!(ok!(poll(fds.as_mut_ptr(), 1, 0)), 1);
    assert_eq!(fds[0].revents, libc::POLLHUP);
    let (read_end, write_end) = pipe();
    ok!(close(read_end));
    let mut fds = [pollfd(write_end, libc::POLLOUT)];
    assert_eq!(ok!(poll(fds.as_mut_ptr(), 1, 0)), 1);
    assert_eq!(fds[0].revents, libc::POLLOUT | libc::POLLERR);
}
