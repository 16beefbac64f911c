//! What `cargo xtask bench` runs natively and in sandboxes: `bench-guest MILLISECONDS [NAME...]` prints
//! `name nanoseconds-per-operation` lines, each the median of several batches.

use std::ffi::CString;
use std::hint::black_box;
use std::io::Write;
use std::ptr;
use std::time::{Duration, Instant};

struct Bench {
    name: &'static str,
    /// Runs this many operations.
    run: fn(u64),
}

const BENCHES: &[Bench] = &[
    Bench { name: "null_call", run: null_call },
    Bench { name: "clock_gettime", run: clock_gettime },
    Bench { name: "read_1_byte", run: read_zero },
    Bench { name: "write_1_byte", run: write_null },
    Bench { name: "pread_4k", run: |count| pread(count, 4096) },
    Bench { name: "pread_64k", run: |count| pread(count, 65536) },
    Bench { name: "stat", run: stat },
    Bench { name: "open_close", run: open_close },
    Bench { name: "mmap_munmap_4k", run: mmap_munmap },
    Bench { name: "mmap_touch_1m", run: mmap_touch },
    Bench { name: "fork_wait", run: fork_wait },
    Bench { name: "fork_exec_wait", run: fork_exec_wait },
    Bench { name: "vfork_exec_wait", run: spawn_wait },
    Bench { name: "thread_create_join", run: thread_join },
    Bench { name: "pipe_ping_pong", run: ping_pong },
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let budget = args.first().and_then(|ms| ms.parse().ok()).unwrap_or(200);
    let names = args.get(1..).unwrap_or_default();
    std::fs::write(FILE, vec![7_u8; 65536]).expect("the temporary directory is writable");
    for bench in BENCHES {
        if names.is_empty() || names.iter().any(|name| name == bench.name) {
            let nanoseconds = measure(bench, Duration::from_millis(budget));
            println!("{} {nanoseconds:.1}", bench.name);
            let _ = std::io::stdout().flush();
        }
    }
    let _ = std::fs::remove_file(FILE);
}

const FILE: &str = "/tmp/sandbox-bench-file";

/// Finds a batch that lasts long enough to be timed, then takes the median of as many as fit the budget.
fn measure(bench: &Bench, budget: Duration) -> f64 {
    let mut count = 1;
    let timed = |count| {
        let started = Instant::now();
        (bench.run)(count);
        started.elapsed()
    };
    while timed(count) < budget / 20 {
        count *= 2;
    }
    let started = Instant::now();
    let mut batches = Vec::new();
    while started.elapsed() < budget || batches.len() < 3 {
        batches.push(timed(count).as_secs_f64() * 1e9 / count as f64);
    }
    batches.sort_by(f64::total_cmp);
    batches[batches.len() / 2]
}

/// A raw call whose result must not be negative.
macro_rules! call {
    ($name:ident($($arg:expr),* $(,)?)) => {{
        // SAFETY: arguments point to live memory of the right size.
        let result = unsafe { libc::$name($($arg),*) };
        assert!(result as isize >= 0, "{}: {}", stringify!($name), std::io::Error::last_os_error());
        result
    }};
}

fn null_call(count: u64) {
    for _ in 0..count {
        black_box(call!(getppid()));
    }
}

fn clock_gettime(count: u64) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    for _ in 0..count {
        call!(clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time));
    }
}

fn open(path: &str, flags: i32) -> i32 {
    let path = CString::new(path).expect("a plain path");
    call!(open(path.as_ptr(), flags))
}

fn read_zero(count: u64) {
    let fd = open("/dev/zero", libc::O_RDONLY);
    let mut byte = 0_u8;
    for _ in 0..count {
        call!(read(fd, (&raw mut byte).cast(), 1));
    }
    call!(close(fd));
}

fn write_null(count: u64) {
    let fd = open("/dev/null", libc::O_WRONLY);
    let byte = 0_u8;
    for _ in 0..count {
        call!(write(fd, (&raw const byte).cast(), 1));
    }
    call!(close(fd));
}

fn pread(count: u64, size: usize) {
    // A file of the root filesystem, as a library is; not one that was just written.
    let fd = open("/bin/bash", libc::O_RDONLY);
    let mut buffer = vec![0_u8; size];
    for _ in 0..count {
        call!(pread(fd, buffer.as_mut_ptr().cast(), size, 0));
    }
    call!(close(fd));
}

fn stat(count: u64) {
    // SAFETY: all zeros is a valid struct stat.
    let mut buffer: libc::stat = unsafe { std::mem::zeroed() };
    for _ in 0..count {
        call!(stat(c"/usr/bin/env".as_ptr(), &raw mut buffer));
    }
}

fn open_close(count: u64) {
    for _ in 0..count {
        call!(close(call_open()));
    }
}

fn call_open() -> i32 {
    call!(open(c"/usr/bin/env".as_ptr(), libc::O_RDONLY))
}

fn map(length: usize) -> *mut libc::c_void {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping touches nothing that exists.
    let memory = unsafe {
        libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    assert_ne!(memory, libc::MAP_FAILED);
    memory
}

fn mmap_munmap(count: u64) {
    for _ in 0..count {
        call!(munmap(map(4096), 4096));
    }
}

fn mmap_touch(count: u64) {
    for _ in 0..count {
        let memory = map(1 << 20);
        for offset in (0..1 << 20).step_by(4096) {
            // SAFETY: within the mapping.
            unsafe { memory.cast::<u8>().add(offset).write_volatile(1) };
        }
        call!(munmap(memory, 1 << 20));
    }
}

fn wait(pid: i32) {
    let mut status = 0;
    call!(waitpid(pid, &raw mut status, 0));
    assert_eq!(status, 0);
}

fn fork_wait(count: u64) {
    for _ in 0..count {
        let pid = call!(fork());
        if pid == 0 {
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        wait(pid);
    }
}

fn fork_exec_wait(count: u64) {
    for _ in 0..count {
        let pid = call!(fork());
        if pid == 0 {
            let args = [c"true".as_ptr(), ptr::null()];
            // SAFETY: both lists end with null; the child ends whatever happens.
            unsafe {
                libc::execv(c"/bin/true".as_ptr(), args.as_ptr());
                libc::_exit(1)
            };
        }
        wait(pid);
    }
}

fn spawn_wait(count: u64) {
    for _ in 0..count {
        let (mut pid, args, env) =
            (0, [c"true".as_ptr().cast_mut(), ptr::null_mut()], [ptr::null_mut()]);
        call!(posix_spawn(
            &raw mut pid,
            c"/bin/true".as_ptr(),
            ptr::null(),
            ptr::null(),
            args.as_ptr(),
            env.as_ptr()
        ));
        wait(pid);
    }
}

fn thread_join(count: u64) {
    for _ in 0..count {
        std::thread::spawn(|| black_box(1)).join().expect("it does not panic");
    }
}

/// There and back over two pipes between two threads.
fn ping_pong(count: u64) {
    let (mut there, mut back) = ([0_i32; 2], [0_i32; 2]);
    call!(pipe(there.as_mut_ptr()));
    call!(pipe(back.as_mut_ptr()));
    let (from, to) = (there[0], back[1]);
    let echo = std::thread::spawn(move || {
        let mut byte = 0_u8;
        for _ in 0..count {
            call!(read(from, (&raw mut byte).cast(), 1));
            call!(write(to, (&raw const byte).cast(), 1));
        }
    });
    let mut byte = 0_u8;
    for _ in 0..count {
        call!(write(there[1], (&raw const byte).cast(), 1));
        call!(read(back[0], (&raw mut byte).cast(), 1));
    }
    echo.join().expect("it does not panic");
    for fd in there.into_iter().chain(back) {
        call!(close(fd));
    }
}
