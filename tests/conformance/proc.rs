//! proc(5), null(4), random(4): what a program learns about itself, and the devices everyone has.

use std::os::fd::AsRawFd as _;

use crate::support::{
    c, enter_new_directory, exit_code, fails, in_child, leave, ok, open, pipe, read_some, sys,
    tests, wait_for, write_all,
};

tests! {
    own_links, stat_fields, status_fields, maps_show_mappings, descriptors_are_listed, fdinfo_tells_position,
    comm_can_be_written, cmdline_and_environ, limits_follow_setrlimit, threads_are_listed, children_come_and_go,
    small_reads_fit_together, memory_file, deleted_files_say_so, devices, zero_can_be_mapped, system_files,
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn link(path: &str) -> String {
    let target = std::fs::read_link(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    target.to_str().unwrap().to_owned()
}

fn own_pid() -> i32 {
    ok!(getpid())
}

fn own_links() {
    assert_eq!(link("/proc/self"), own_pid().to_string());
    assert_eq!(link("/proc/thread-self"), format!("{0}/task/{0}", own_pid()));
    assert_eq!(link("/proc/self/exe"), std::env::current_exe().unwrap().to_str().unwrap());
    let dir = enter_new_directory();
    assert_eq!(link("/proc/self/cwd"), dir);
    leave(&dir);
    assert_eq!(link("/proc/self/root"), "/");
}

fn stat_fields() {
    let stat = text("/proc/self/stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split_whitespace().collect();
    assert_eq!(fields.len(), 50);
    let number = |at: usize| fields[at - 3].parse::<i64>().unwrap();
    assert_eq!(fields[0], "R");
    assert_eq!(number(4), i64::from(ok!(getppid())));
    assert_eq!(number(5), i64::from(ok!(getpgrp())));
    assert_eq!(number(6), i64::from(ok!(getsid(0))));
    assert_eq!((number(18), number(19), number(20)), (20, 0, 1));
    assert!(number(23) > 100_000 && number(24) > 10);
    assert!(number(26) < number(27));
}

fn status_fields() {
    let status = text("/proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:\t")));
        line.unwrap_or_else(|| panic!("no {name}")).split_once('\t').unwrap().1.trim().to_owned()
    };
    assert_eq!(field("Pid"), own_pid().to_string());
    assert_eq!(field("State"), "R (running)");
    let uid = ok!(getuid());
    assert_eq!(field("Uid"), format!("{uid}\t{uid}\t{uid}\t{uid}"));
    assert!(field("VmRSS").ends_with(" kB"));
    assert_eq!(field("Threads"), "1");
    sys!(signal(libc::SIGUSR1, libc::SIG_IGN));
    let status = text("/proc/self/status");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    assert!(ignored >> (libc::SIGUSR1 - 1) & 1 == 1);
}

fn maps_show_mappings() {
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let at = sys!(mmap(std::ptr::null_mut(), 12288, libc::PROT_READ, anonymous, -1, 0)) as usize;
    sys!(mprotect((at + 4096) as *mut _, 4096, libc::PROT_NONE));
    let maps = text("/proc/self/maps");
    let middle = format!("{:x}-{:x} ---p 00000000 00:00 0", at + 4096, at + 8192);
    assert!(maps.contains(&middle), "{middle} not in\n{maps}");
    assert!(maps.contains("[stack]\n") && maps.contains("[vdso]\n"));
    assert!(maps.contains(&link("/proc/self/exe")));
    let starts: Vec<u64> = maps
        .lines()
        .map(|line| u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap())
        .collect();
    assert!(starts.is_sorted());
}

fn descriptors_are_listed() {
    let (read_end, write_end) = pipe();
    let name = link(&format!("/proc/self/fd/{read_end}"));
    assert!(name.starts_with("pipe:["), "{name}");
    assert_eq!(name, link(&format!("/proc/self/fd/{write_end}")));
    let null = open("/dev/null", libc::O_RDONLY);
    assert_eq!(link(&format!("/proc/self/fd/{null}")), "/dev/null");
    let event = ok!(eventfd(0, 0));
    assert_eq!(link(&format!("/proc/self/fd/{event}")), "anon_inode:[eventfd]");
    let listed: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(listed.contains(&event.to_string()));
    ok!(close(event));
    let path = format!("/proc/self/fd/{event}");
    fails!(libc::ENOENT, open(c(&path).as_ptr(), libc::O_RDONLY));
}

fn fdinfo_tells_position() {
    let dir = enter_new_directory();
    let file = open("f", libc::O_CREAT | libc::O_RDWR | libc::O_APPEND);
    write_all(file, b"hello");
    let info = text(&format!("/proc/self/fdinfo/{file}"));
    assert!(info.starts_with("pos:\t5\nflags:\t0"), "{info}");
    let flags = info.lines().nth(1).unwrap().trim_start_matches("flags:\t");
    let flags = i32::from_str_radix(flags, 8).unwrap();
    let wanted = libc::O_RDWR | libc::O_APPEND | libc::O_CLOEXEC;
    assert_eq!(flags & wanted, wanted);
    leave(&dir);
}

fn comm_can_be_written() {
    std::fs::write("/proc/self/comm", "a name that is too long").unwrap();
    assert_eq!(text("/proc/self/comm"), "a name that is \n");
    let mut name = [0_u8; 16];
    ok!(prctl(libc::PR_GET_NAME, name.as_mut_ptr()));
    assert_eq!(&name, b"a name that is \0");
}

fn cmdline_and_environ() {
    let cmdline = std::fs::read("/proc/self/cmdline").unwrap();
    let words: Vec<String> = std::env::args().collect();
    let shown: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
    assert_eq!(shown.len(), words.len() + 1);
    assert!(words.iter().zip(&shown).all(|(word, shown)| word.as_bytes() == *shown));
    let environ = std::fs::read("/proc/self/environ").unwrap();
    for (name, value) in std::env::vars() {
        let entry = format!("{name}={value}");
        assert!(environ.split(|byte| *byte == 0).any(|shown| shown == entry.as_bytes()));
    }
}

fn limits_follow_setrlimit() {
    let limit = libc::rlimit { rlim_cur: 123, rlim_max: 456 };
    ok!(setrlimit(libc::RLIMIT_NOFILE, &limit));
    let limits = text("/proc/self/limits");
    let row = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(
        row,
        "Max open files            123                  456                  files     "
    );
}

fn threads_are_listed() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _ = wait.recv();
    });
    let count = || std::fs::read_dir("/proc/self/task").unwrap().count();
    assert_eq!(count(), 2);
    assert!(text("/proc/self/status").contains("Threads:\t2\n"));
    drop(done);
    thread.join().unwrap();
}

fn children_come_and_go() {
    let (ready, go) = pipe();
    let child = in_child(|| {
        ok!(close(go));
        read_some(ready, 1);
        0
    });
    let path = format!("/proc/{child}/stat");
    let stat = text(&path);
    assert!(stat.contains(" S ") || stat.contains(" R "), "{stat}");
    ok!(close(go));
    crate::support::sleep_ms(100);
    assert!(text(&path).contains(" Z "));
    assert_eq!(std::fs::read(format!("/proc/{child}/cmdline")).unwrap(), b"");
    assert_eq!(exit_code(wait_for(child)), 0);
    fails!(libc::ENOENT, open(c(&path).as_ptr(), libc::O_RDONLY));
}

fn small_reads_fit_together() {
    let whole = text("/proc/self/limits");
    let file = open("/proc/self/limits", libc::O_RDONLY);
    let mut pieces = Vec::new();
    loop {
        let piece = read_some(file, 7);
        if piece.is_empty() {
            break;
        }
        pieces.extend(piece);
    }
    assert_eq!(String::from_utf8(pieces).unwrap(), whole);
    assert_eq!(ok!(lseek(file, 6, libc::SEEK_SET)), 6);
    assert_eq!(read_some(file, 10), &whole.as_bytes()[6..16]);
}

fn memory_file() {
    let value = std::hint::black_box(*b"findme");
    let memory = open("/proc/self/mem", libc::O_RDWR);
    let at = value.as_ptr() as i64;
    let mut got = [0_u8; 6];
    assert_eq!(ok!(pread(memory, got.as_mut_ptr().cast(), 6, at)), 6);
    assert_eq!(&got, b"findme");
    fails!(libc::EIO, pread(memory, got.as_mut_ptr().cast(), 6, 0));
}

fn deleted_files_say_so() {
    let dir = enter_new_directory();
    let file = open("gone", libc::O_CREAT | libc::O_RDWR);
    write_all(file, b"still here");
    ok!(unlink(c("gone").as_ptr()));
    let path = format!("/proc/self/fd/{file}");
    assert_eq!(link(&path), format!("{dir}/gone (deleted)"));
    assert_eq!(text(&path), "still here");
    leave(&dir);
}

fn devices() {
    let null = open("/dev/null", libc::O_RDWR);
    write_all(null, b"into the void");
    assert_eq!(read_some(null, 10), b"");
    assert_eq!(read_some(open("/dev/zero", libc::O_RDONLY), 5), [0; 5]);
    let full = open("/dev/full", libc::O_RDWR);
    fails!(libc::ENOSPC, write(full, c"x".as_ptr().cast(), 1));
    assert_eq!(read_some(full, 3), [0; 3]);
    let random = std::fs::File::open("/dev/urandom").unwrap();
    let (first, second) = (read_some(random.as_raw_fd(), 16), read_some(random.as_raw_fd(), 16));
    assert_ne!(first, second);
    for (path, major, minor) in [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ] {
        // SAFETY: stat is plain data.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        ok!(stat(c(path).as_ptr(), &mut stat));
        assert_eq!(stat.st_mode, libc::S_IFCHR | 0o666, "{path}");
        assert_eq!((libc::major(stat.st_rdev), libc::minor(stat.st_rdev)), (major, minor));
    }
}

fn zero_can_be_mapped() {
    let zero = open("/dev/zero", libc::O_RDWR);
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let at = sys!(mmap(std::ptr::null_mut(), 4096, prot, libc::MAP_PRIVATE, zero, 0));
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: just mapped, a page long.
    let page = unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>(), 4096) };
    assert!(page.iter().all(|byte| *byte == 0));
    page[0] = 1;
    assert_eq!(read_some(zero, 1), [0]);
}

fn system_files() {
    let meminfo = text("/proc/meminfo");
    assert!(meminfo.starts_with("MemTotal: "));
    assert!(meminfo.lines().all(|line| line.split_once(':').is_some()));
    let cpus = sys!(sysconf(libc::_SC_NPROCESSORS_ONLN));
    let cpuinfo = text("/proc/cpuinfo");
    let listed = cpuinfo.lines().filter(|line| line.starts_with("processor\t:")).count();
    assert!(i64::try_from(listed).unwrap() >= cpus);
    let stat = text("/proc/stat");
    assert!(stat.starts_with("cpu  ") && stat.contains("\nbtime ") && stat.contains("\ncpu0 "));
    assert_eq!(text("/proc/uptime").split_whitespace().count(), 2);
    assert_eq!(text("/proc/loadavg").split_whitespace().count(), 5);
    assert!(text("/proc/self/mounts").lines().any(|line| line.contains(" /proc proc ")));
    assert!(text("/proc/filesystems").contains("nodev\tproc\n"));
    assert_eq!(text("/proc/sys/kernel/ostype"), "Linux\n");
    assert_eq!(text("/proc/sys/kernel/random/uuid").len(), 37);
    assert_eq!(text("/proc/sys/kernel/random/boot_id"), text("/proc/sys/kernel/random/boot_id"));
}
