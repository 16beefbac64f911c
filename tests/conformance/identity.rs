//! Users, groups, capabilities, limits, names of the system.

use std::mem::zeroed;

use crate::support::{
    enter_new_directory, exit_code, fails, in_child, leave, ok, open, sys, tests, wait_for,
};

tests! {
    real_and_effective_agree, root_can_become_another, ordinary_user_cannot_become_root, permissions_follow_the_user,
    groups_are_told, limits_are_kept, the_stacks_limit_follows, limits_cannot_rise, uname_and_sysinfo, no_new_privs_sticks, capabilities_are_told,
    umask_of_children, priorities, chown_rules, keyctl_and_friends_are_refused_honestly,
}

fn is_root() -> bool {
    sys!(geteuid()) == 0
}

fn real_and_effective_agree() {
    let (mut r, mut e, mut s) = (0, 0, 0);
    ok!(getresuid(&mut r, &mut e, &mut s));
    assert_eq!((r, e, s), (sys!(getuid()), sys!(geteuid()), sys!(getuid())));
    ok!(getresgid(&mut r, &mut e, &mut s));
    assert_eq!((r, e), (sys!(getgid()), sys!(getegid())));
}

fn root_can_become_another() {
    if !is_root() {
        return;
    }
    let child = in_child(|| {
        ok!(setgroups(0, std::ptr::null()));
        ok!(setresgid(77, 77, 77));
        ok!(setresuid(1234, 1234, 1234));
        assert_eq!((sys!(getuid()), sys!(getegid())), (1234, 77));
        fails!(libc::EPERM, setuid(0));
        fails!(libc::EPERM, setgid(0));
        ok!(setuid(1234));
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
    let child = in_child(|| {
        ok!(setresuid(u32::MAX, 1234, u32::MAX));
        assert_eq!((sys!(getuid()), sys!(geteuid())), (0, 1234));
        ok!(seteuid(0));
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn ordinary_user_cannot_become_root() {
    if is_root() {
        return;
    }
    fails!(libc::EPERM, setuid(0));
    fails!(libc::EPERM, setresuid(0, 0, 0));
    fails!(libc::EPERM, setgroups(0, std::ptr::null()));
    fails!(libc::EPERM, chroot(c"/".as_ptr()));
    fails!(libc::EPERM, sethostname(c"x".as_ptr().cast(), 1));
}

fn permissions_follow_the_user() {
    let dir = enter_new_directory();
    ok!(chmod(c".".as_ptr(), 0o755));
    ok!(close(open("f", libc::O_CREAT | libc::O_WRONLY)));
    ok!(chmod(c"f".as_ptr(), 0));
    if is_root() {
        ok!(close(open("f", libc::O_RDWR)));
        let child = in_child(|| {
            ok!(setgid(1234));
            ok!(setuid(1234));
            fails!(libc::EACCES, open(c"f".as_ptr(), libc::O_RDONLY));
            fails!(libc::EACCES, open(c"g".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644));
            fails!(libc::EPERM, chmod(c"f".as_ptr(), 0o777));
            fails!(libc::EACCES, unlink(c"f".as_ptr()));
            0
        });
        assert_eq!(exit_code(wait_for(child)), 0);
    } else {
        fails!(libc::EACCES, open(c"f".as_ptr(), libc::O_RDONLY));
        fails!(
            libc::EACCES,
            open(c"/etc/conformance".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644)
        );
        fails!(libc::EACCES, open(c"/etc/passwd".as_ptr(), libc::O_WRONLY));
    }
    leave(&dir);
}

fn groups_are_told() {
    let count = ok!(getgroups(0, std::ptr::null_mut()));
    let mut groups = vec![0; usize::try_from(count).expect("it did not fail")];
    assert_eq!(ok!(getgroups(count, groups.as_mut_ptr())), count);
    if count > 1 {
        fails!(libc::EINVAL, getgroups(1, groups.as_mut_ptr()));
    }
}

fn limit_of(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    ok!(getrlimit(resource, &mut limit));
    limit
}

fn limits_are_kept() {
    let limit = libc::rlimit { rlim_cur: 50, rlim_max: 60 };
    ok!(setrlimit(libc::RLIMIT_NOFILE, &limit));
    assert_eq!(limit_of(libc::RLIMIT_NOFILE).rlim_cur, 50);
    let child = in_child(|| i32::try_from(limit_of(libc::RLIMIT_NOFILE).rlim_max).unwrap_or(0));
    assert_eq!(exit_code(wait_for(child)), 60);
    let wrong = libc::rlimit { rlim_cur: 70, rlim_max: 60 };
    fails!(libc::EINVAL, setrlimit(libc::RLIMIT_NOFILE, &wrong));
    fails!(libc::EINVAL, setrlimit(99, &limit));
    assert!(limit_of(libc::RLIMIT_STACK).rlim_cur >= 1 << 20);
}

/// By this thread, another one, a child that its parent changes it for.
fn the_stacks_limit_follows() {
    fn now() -> libc::rlimit {
        limit_of(libc::RLIMIT_STACK)
    }
    let set = |pid: i32, cur: u64| {
        let limit = libc::rlimit { rlim_cur: cur, ..now() };
        ok!(prlimit(pid, libc::RLIMIT_STACK, &limit, std::ptr::null_mut()));
    };
    for cur in [3 << 20, 1 << 20] {
        set(0, cur);
        assert_eq!((now().rlim_cur, now().rlim_cur), (cur, cur));
    }
    std::thread::spawn(move || set(0, 2 << 20)).join().expect("it sets the limit");
    assert_eq!(now().rlim_cur, 2 << 20);
    let (mut go, mut ready) = ([0; 2], [0; 2]);
    ok!(pipe(go.as_mut_ptr()));
    ok!(pipe(ready.as_mut_ptr()));
    let mut byte = 0_u8;
    let child = in_child(|| {
        let (before, mut byte) = (now().rlim_cur, 0_u8);
        ok!(write(ready[1], (&raw const byte).cast(), 1));
        ok!(read(go[0], (&raw mut byte).cast(), 1));
        i32::from((before, now().rlim_cur) != (2 << 20, 4 << 20))
    });
    ok!(read(ready[0], (&raw mut byte).cast(), 1));
    set(child, 4 << 20);
    ok!(write(go[1], (&raw const byte).cast(), 1));
    assert_eq!(exit_code(wait_for(child)), 0);
    assert_eq!(now().rlim_cur, 2 << 20);
}

fn limits_cannot_rise() {
    if is_root() {
        return;
    }
    ok!(setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 }));
    fails!(libc::EPERM, setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 1, rlim_max: 1 }));
}

fn uname_and_sysinfo() {
    // SAFETY: all zeros is valid for both.
    let (mut names, mut info): (libc::utsname, libc::sysinfo) = unsafe { (zeroed(), zeroed()) };
    ok!(uname(&mut names));
    let text = |field: &[libc::c_char]| {
        field.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect::<String>()
    };
    assert_eq!((text(&names.sysname).as_str(), text(&names.machine).as_str()), ("Linux", "x86_64"));
    let major: u32 =
        text(&names.release).split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(major >= 5);
    ok!(sysinfo(&mut info));
    assert!(info.totalram > 0 && info.uptime >= 0 && info.procs > 0 && info.mem_unit > 0);
}

fn no_new_privs_sticks() {
    ok!(prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    assert_eq!(ok!(prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), 1);
    fails!(libc::EINVAL, prctl(libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    assert_eq!(
        exit_code(wait_for(in_child(|| sys!(prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))))),
        1
    );
}

fn capabilities_are_told() {
    let mut header = [0x2008_0522_u32, 0];
    let mut sets = [[0_u32; 3]; 2];
    ok!(syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()));
    if !is_root() {
        assert_eq!(sets[0][0], 0);
    }
    header[0] = 1;
    fails!(libc::EINVAL, syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()));
    assert_eq!(header[0], 0x2008_0522);
}

fn umask_of_children() {
    sys!(umask(0o027));
    let child = in_child(|| i32::try_from(sys!(umask(0))).unwrap_or(0));
    assert_eq!(exit_code(wait_for(child)), 0o027);
}

fn priorities() {
    ok!(setpriority(libc::PRIO_PROCESS, 0, 5));
    assert_eq!(sys!(getpriority(libc::PRIO_PROCESS, 0)), 5);
    assert_eq!(exit_code(wait_for(in_child(|| sys!(getpriority(libc::PRIO_PROCESS, 0))))), 5);
    if !is_root() {
        fails!(libc::EACCES, setpriority(libc::PRIO_PROCESS, 0, 0));
    }
}

fn chown_rules() {
    let dir = enter_new_directory();
    ok!(close(open("f", libc::O_CREAT | libc::O_WRONLY)));
    if is_root() {
        ok!(chown(c"f".as_ptr(), 12, 34));
        assert_eq!((crate::stat::stat("f").st_uid, crate::stat::stat("f").st_gid), (12, 34));
        ok!(chmod(c"f".as_ptr(), 0o6755));
        ok!(chown(c"f".as_ptr(), 0, u32::MAX));
        assert_eq!(
            (crate::stat::stat("f").st_gid, crate::stat::stat("f").st_mode & 0o7777),
            (34, 0o755)
        );
    } else {
        fails!(libc::EPERM, chown(c"f".as_ptr(), 0, u32::MAX));
        let group = sys!(getgid());
        ok!(chown(c"f".as_ptr(), u32::MAX, group));
    }
    leave(&dir);
}

fn keyctl_and_friends_are_refused_honestly() {
    for number in [9999, 100_000, -1] {
        fails!(libc::ENOSYS, syscall(number));
    }
}
