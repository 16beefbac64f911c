//! fork(2), vfork(2), exit(2), wait(2), process groups and sessions.

use std::ptr;

use crate::support::{
    errno, exit_code, fails, in_child, ok, pipe, read_some, signal_of, sleep_ms, sys, tests,
    wait_for, work, write_all,
};

tests! {
    exit_code_is_eight_bits, wait_any_and_none_left, wait_nohang, waitid_fills_siginfo, waitid_leaves_with_nowait,
    stopped_and_continued_children_are_reported, parent_ids, orphans_are_adopted, subreaper_adopts,
    ignored_sigchld_reaps, zombies_stay_until_waited, descriptors_are_copied_by_fork, offsets_are_shared_by_fork,
    vfork_shares_memory_and_waits, process_groups, sessions, wait_for_a_group, rusage_of_children, pidfd_of_a_child,
    clone3_with_pidfd, prctl_name_and_death_signal, kill_of_a_group, exit_group_ends_all_threads, deep_fork_chain,
}

fn exit_code_is_eight_bits() {
    assert_eq!(exit_code(wait_for(in_child(|| 0x1234))), 0x34);
    let child = in_child(|| sys!(raise(libc::SIGTERM)));
    assert_eq!(signal_of(wait_for(child)), libc::SIGTERM);
}

fn wait_any_and_none_left() {
    let mut children = [in_child(|| 1), in_child(|| 2)];
    let mut status = 0;
    let mut waited = [ok!(wait(&mut status)), ok!(wait(&mut status))];
    children.sort_unstable();
    waited.sort_unstable();
    assert_eq!(children, waited);
    fails!(libc::ECHILD, wait(&mut status));
    fails!(libc::ECHILD, waitpid(1, &mut status, 0));
    fails!(libc::EINVAL, waitpid(-1, &mut status, 0x1000));
}

fn wait_nohang() {
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        read_some(read_end, 1);
        3
    });
    let mut status = 0;
    assert_eq!(ok!(waitpid(child, &mut status, libc::WNOHANG)), 0);
    write_all(write_end, b"x");
    assert_eq!(exit_code(wait_for(child)), 3);
}

fn siginfo() -> libc::siginfo_t {
    // SAFETY: all zeros is a valid siginfo.
    unsafe { std::mem::zeroed() }
}

fn waitid_fills_siginfo() {
    let child = in_child(|| 5);
    let mut info = siginfo();
    ok!(waitid(libc::P_PID, child.unsigned_abs(), &mut info, libc::WEXITED));
    // SAFETY: waitid filled in the fields of SIGCHLD.
    let (pid, status, uid) = unsafe { (info.si_pid(), info.si_status(), info.si_uid()) };
    assert_eq!(
        (info.si_signo, info.si_code, pid, status),
        (libc::SIGCHLD, libc::CLD_EXITED, child, 5)
    );
    assert_eq!(uid, sys!(getuid()));
    fails!(libc::EINVAL, waitid(libc::P_ALL, 0, &mut info, 0));
}

fn waitid_leaves_with_nowait() {
    let child = in_child(|| 6);
    let mut info = siginfo();
    for flags in [libc::WEXITED | libc::WNOWAIT, libc::WEXITED | libc::WNOWAIT, libc::WEXITED] {
        ok!(waitid(libc::P_PID, child.unsigned_abs(), &mut info, flags));
    }
    fails!(libc::ECHILD, waitid(libc::P_PID, child.unsigned_abs(), &mut info, libc::WEXITED));
}

fn stopped_and_continued_children_are_reported() {
    // Else its end might be told before that it goes on.
    let (may_end, end) = pipe();
    let child = in_child(|| {
        sys!(raise(libc::SIGSTOP));
        read_some(may_end, 1);
        7
    });
    let mut status = 0;
    assert_eq!(ok!(waitpid(child, &mut status, libc::WUNTRACED)), child);
    assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP, "{status:#x}");
    ok!(kill(child, libc::SIGCONT));
    assert_eq!(ok!(waitpid(child, &mut status, libc::WCONTINUED)), child);
    assert!(libc::WIFCONTINUED(status), "{status:#x}");
    write_all(end, b"e");
    assert_eq!(exit_code(wait_for(child)), 7);
}

fn parent_ids() {
    let me = sys!(getpid());
    let child = in_child(|| i32::from(sys!(getppid()) != me || sys!(getpid()) == me));
    assert_eq!(exit_code(wait_for(child)), 0);
    assert_eq!(sys!(gettid()), me);
}

fn orphans_are_adopted() {
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        let middle = sys!(getpid());
        in_child(|| {
            while sys!(getppid()) == middle {
                sleep_ms(1);
            }
            write_all(write_end, b"adopted");
            0
        });
        0
    });
    wait_for(child);
    assert_eq!(read_some(read_end, 10), b"adopted");
}

fn subreaper_adopts() {
    ok!(prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        let grandchild = in_child(|| {
            sleep_ms(20);
            9
        });
        write_all(write_end, &grandchild.to_ne_bytes());
        0
    });
    wait_for(child);
    let bytes = read_some(read_end, 4);
    let grandchild = i32::from_ne_bytes(bytes.try_into().expect("four bytes"));
    assert_eq!(exit_code(wait_for(grandchild)), 9);
}

fn ignored_sigchld_reaps() {
    sys!(signal(libc::SIGCHLD, libc::SIG_IGN));
    let child = in_child(|| 0);
    let mut status = 0;
    fails!(libc::ECHILD, waitpid(child, &mut status, 0));
}

fn zombies_stay_until_waited() {
    let child = in_child(|| 0);
    sleep_ms(50);
    ok!(kill(child, 0));
    let stat =
        std::fs::read_to_string(format!("/proc/{child}/stat")).expect("a zombie has its entry");
    assert!(stat.contains(") Z "), "{stat}");
    wait_for(child);
    fails!(libc::ESRCH, kill(child, 0));
}

fn descriptors_are_copied_by_fork() {
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        sys!(close(read_end));
        write_all(write_end, b"hi");
        0
    });
    ok!(close(write_end));
    assert_eq!(read_some(read_end, 10), b"hi");
    assert_eq!(read_some(read_end, 10), b"");
    wait_for(child);
}

fn offsets_are_shared_by_fork() {
    let dir = crate::support::enter_new_directory();
    let fd = crate::support::open("f", libc::O_CREAT | libc::O_RDWR);
    let child = in_child(|| {
        write_all(fd, b"12345");
        0
    });
    wait_for(child);
    assert_eq!(ok!(lseek(fd, 0, libc::SEEK_CUR)), 5);
    crate::support::leave(&dir);
}

fn vfork_shares_memory_and_waits() {
    let memory = sys!(mmap(
        ptr::null_mut(),
        4096,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1,
        0
    ));
    let flag: *mut u32 = memory.cast();
    let mut stack = vec![0_u8; 65536];
    extern "C" fn child(flag: *mut libc::c_void) -> i32 {
        sleep_ms(30);
        // SAFETY: the parent passes a live, writable word and waits.
        unsafe { flag.cast::<u32>().write_volatile(77) };
        11
    }
    let top = stack.as_mut_ptr_range().end;
    let pid = ok!(clone(
        child,
        top.cast(),
        libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
        flag.cast()
    ));
    // SAFETY: mapped above.
    assert_eq!(unsafe { flag.read_volatile() }, 77);
    assert_eq!(exit_code(wait_for(pid)), 11);
}

fn process_groups() {
    ok!(setpgid(0, 0));
    assert_eq!(sys!(getpgrp()), sys!(getpid()));
    let group = sys!(getpgrp());
    let child = in_child(|| {
        i32::from(
            sys!(getpgrp()) != group
                || sys!(setpgid(0, 0)) != 0
                || sys!(getpgrp()) != sys!(getpid()),
        )
    });
    assert_eq!(exit_code(wait_for(child)), 0);
    fails!(libc::EINVAL, setpgid(0, -1));
    fails!(libc::ESRCH, getpgid(999_999));
}

fn sessions() {
    let child = in_child(|| {
        assert_eq!(ok!(setsid()), sys!(getpid()));
        assert_eq!((sys!(getsid(0)), sys!(getpgrp())), (sys!(getpid()), sys!(getpid())));
        fails!(libc::EPERM, setsid());
        fails!(libc::EPERM, setpgid(0, 0));
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn wait_for_a_group() {
    let first = in_child(|| {
        sys!(setpgid(0, 0));
        sleep_ms(50);
        1
    });
    sys!(setpgid(first, first));
    let mut status = 0;
    assert_eq!(ok!(waitpid(-first, &mut status, 0)), first);
    fails!(libc::ECHILD, waitpid(-first, &mut status, 0));
}

fn rusage_of_children() {
    let child = in_child(|| {
        work();
        0
    });
    let mut status = 0;
    // SAFETY: all zeros is a valid struct rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    assert_eq!(ok!(wait4(child, &mut status, 0, &mut usage)), child);
    let used = usage.ru_utime.tv_sec * 1_000_000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    assert!(used > 5_000, "{used} us");
}

fn pidfd_of_a_child() {
    let child = in_child(|| {
        sleep_ms(10_000);
        0
    });
    let fd = i32::try_from(ok!(syscall(libc::SYS_pidfd_open, child, 0))).expect("a descriptor");
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    assert_eq!(ok!(poll(&mut poll, 1, 0)), 0);
    ok!(syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGTERM, 0, 0));
    assert_eq!(ok!(poll(&mut poll, 1, 5000)), 1);
    let mut info = siginfo();
    ok!(waitid(libc::P_PIDFD, fd.unsigned_abs(), &mut info, libc::WEXITED));
    assert_eq!(info.si_code, libc::CLD_KILLED);
}

fn clone3_with_pidfd() {
    let mut pidfd = -1_i32;
    let mut args = [0_u64; 11];
    args[0] = libc::CLONE_PIDFD as u64;
    args[1] = (&raw mut pidfd) as u64;
    args[4] = libc::SIGCHLD as u64;
    let pid = i32::try_from(ok!(syscall(libc::SYS_clone3, args.as_ptr(), 88))).expect("a pid");
    if pid == 0 {
        sys!(_exit(4));
    }
    assert!(pidfd >= 0);
    assert_eq!(exit_code(wait_for(pid)), 4);
    fails!(libc::EINVAL, syscall(libc::SYS_clone3, args.as_ptr(), 8));
}

fn prctl_name_and_death_signal() {
    ok!(prctl(libc::PR_SET_NAME, c"a-name-that-is-too-long".as_ptr(), 0, 0, 0));
    let mut name = [0_u8; 16];
    ok!(prctl(libc::PR_GET_NAME, name.as_mut_ptr(), 0, 0, 0));
    assert_eq!(&name, b"a-name-that-is-\0");
    let comm = std::fs::read_to_string("/proc/self/comm").expect("it is there");
    assert_eq!(comm, "a-name-that-is-\n");
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        in_child(|| {
            ok!(prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0));
            write_all(write_end, b"r");
            sleep_ms(60_000);
            0
        });
        read_some(read_end, 1);
        0
    });
    ok!(close(write_end));
    wait_for(child);
    assert_eq!(read_some(read_end, 1), b"");
}

fn kill_of_a_group() {
    let leader = in_child(|| {
        sys!(setpgid(0, 0));
        in_child(|| {
            sleep_ms(60_000);
            0
        });
        sleep_ms(60_000);
        0
    });
    sys!(setpgid(leader, leader));
    sleep_ms(20);
    ok!(kill(-leader, libc::SIGKILL));
    assert_eq!(signal_of(wait_for(leader)), libc::SIGKILL);
    sleep_ms(50);
    // The orphan is dead too; whoever adopted it may not have collected it yet.
    assert!(sys!(kill(-leader, 0)) == 0 || errno() == libc::ESRCH);
}

fn exit_group_ends_all_threads() {
    let child = in_child(|| {
        for _ in 0..4 {
            std::thread::spawn(|| sleep_ms(60_000));
        }
        std::thread::spawn(|| sys!(_exit(12)));
        sleep_ms(60_000);
        0
    });
    assert_eq!(exit_code(wait_for(child)), 12);
}

fn deep_fork_chain() {
    fn deeper(n: i32) -> i32 {
        if n == 0 { 1 } else { exit_code(wait_for(in_child(|| deeper(n - 1)))) + 1 }
    }
    assert_eq!(deeper(20), 21);
}
