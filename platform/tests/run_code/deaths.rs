//! Ends: killed processes, dropped contexts, no zombie.

use abi::UserAddr;
use platform::{Event, NewContext, PlatformError};

use crate::harness::{DATA, block_on, load, next, platform, step};

const ALONE: &str = "RUN_CODE_ALONE";

/// Runs a test in a process of its own: other tests' children would be in the way of counting.
fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var(ALONE).is_ok() {
        return body();
    }
    let exe = std::env::current_exe().expect("the test's own file");
    let output = std::process::Command::new(exe)
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "yes")
        .output()
        .expect("started");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{out}\n{err}", output.status);
}

/// Children of this process that nobody has collected.
fn zombies() -> usize {
    let me = std::process::id().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let is_zombie = |stat: String| {
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let mut fields = rest.split_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(me.as_str())
    };
    entries
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| is_zombie(stat.clone()))
        .count()
}

fn no_zombie_after_a_while() {
    for _ in 0..100 {
        if zombies() == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{} zombies", zombies());
}

#[test]
fn killed_process_says_so() {
    alone("deaths::killed_process_says_so", || {
        let platform = platform();
        let mut context = load(&platform, snippet!("2:", "pause", "jmp 2b"));
        context.resume();
        context.space().kill();
        match next(&mut *context) {
            Err(PlatformError::Died(reason)) => assert_eq!(reason, "killed by signal 9"),
            other => panic!("{other:?}"),
        }
        let mut byte = [0];
        assert_eq!(context.space().read(UserAddr(DATA), &mut byte), 0);
        assert!(block_on(context.execute(vec![])).is_ok());
        drop(context);
        no_zombie_after_a_while();
    });
}

#[test]
fn foreign_architecture_kills_the_process() {
    let platform = platform();
    let mut context = load(&platform, snippet!("mov eax, 20", "int 0x80"));
    context.resume();
    match next(&mut *context) {
        Err(PlatformError::Died(reason)) => assert_eq!(reason, "killed by signal 31"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn dropped_contexts_leave_nothing() {
    alone("deaths::dropped_contexts_leave_nothing", || {
        let platform = platform();
        for _ in 0..30 {
            let mut context = load(&platform, snippet!("mov eax, 39", "syscall", "2:", "jmp 2b"));
            assert_eq!(step(&mut *context), Event::Syscall);
            let new = NewContext { regs: *context.regs(), fs_base: None };
            let mut child = block_on(context.fork(new)).expect("forked");
            child.resume();
        }
        no_zombie_after_a_while();
    });
}

#[test]
fn execution_cut_short_ends_cleanly() {
    alone("deaths::execution_cut_short_ends_cleanly", || {
        let platform = platform();
        let mut context = load(&platform, snippet!("2:", "mov eax, 39", "syscall", "jmp 2b"));
        step(&mut *context);
        let new = NewContext { regs: *context.regs(), fs_base: None };
        {
            // Polled once, then dropped: the child nobody waits for must go.
            let mut fork = context.fork(new);
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = fork.as_mut().poll(&mut cx);
        }
        drop(context);
        no_zombie_after_a_while();
    });
}

const ROLE: &str = "RUN_CODE_ROLE";

/// Not a test of its own: the sentry that the test below kills.
#[test]
fn sentry_to_be_killed() {
    if std::env::var(ROLE).is_err() {
        return;
    }
    let platform = platform();
    let mut context = load(&platform, snippet!("mov eax, 57", "syscall", "2:", "jmp 2b"));
    step(&mut *context);
    let new = NewContext { regs: *context.regs(), fs_base: None };
    let mut child = block_on(context.fork(new)).expect("forked");
    child.resume();
    context.resume();
    // The second one that is taken has stubs made ahead.
    let _second = block_on(platform.spawn()).expect("spawned");
    println!("ready");
    std::thread::sleep(std::time::Duration::from_secs(30));
}

#[test]
fn nothing_survives_a_killed_sentry() {
    use std::io::BufRead;
    let exe = std::env::current_exe().expect("the test's own file");
    let mut sentry = std::process::Command::new(exe)
        .args(["--exact", "deaths::sentry_to_be_killed", "--nocapture"])
        .env(ROLE, "sentry")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    let stdout = std::io::BufReader::new(sentry.stdout.take().expect("piped"));
    let is_ready = stdout.lines().map_while(Result::ok).any(|line| line.contains("ready"));
    assert!(is_ready);
    let guests = children_of(sentry.id());
    // The zygote, two guests and one that runs nothing, stubs in the pool or on their way.
    assert!(guests.len() >= 4, "{guests:?}");
    sentry.kill().expect("killed");
    sentry.wait().expect("collected");
    for _ in 0..200 {
        if !guests.iter().any(|pid| is_alive(*pid)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("still there: {:?}", guests.iter().filter(|pid| is_alive(**pid)).collect::<Vec<_>>());
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

fn children_of(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                let rest = stat.rsplit(')').next().unwrap_or_default().to_owned();
                rest.split_whitespace().nth(1) == Some(parent.as_str())
            })
        })
        .collect()
}
