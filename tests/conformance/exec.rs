//! execve(2), execveat(2): arguments, environment, what survives.

use std::ffi::CString;
use std::process::ExitCode;
use std::ptr;

use crate::support::{
    c, enter_new_directory, exit_code, fails, in_child, leave, ok, pipe, read_some, sys, tests,
    wait_for, write_all,
};

tests! {
    arguments_and_environment_arrive, close_on_exec, identity_survives, threads_do_not_survive, missing_and_refused,
    shebang_passes_its_argument, execveat_by_descriptor, empty_argv_gets_an_argument, large_arguments,
    working_directory_survives, exec_from_a_thread, memory_is_replaced, open_text_is_busy, auxiliary_vector,
}

/// The conformance binary itself.
pub fn own_path() -> CString {
    c(&std::env::current_exe().expect("it is there").to_string_lossy())
}

/// What a test executes: this binary as `conformance helper WHAT`.
pub fn helper(args: &[&str]) -> ExitCode {
    match args {
        ["code", code] => return ExitCode::from(code.parse::<u8>().unwrap_or(99)),
        ["print", rest @ ..] => {
            println!("{} {}", rest.join("|"), std::env::var("CONFORMANCE").unwrap_or_default());
        }
        ["fd", fd] => {
            let fd: i32 = fd.parse().unwrap_or(-1);
            return ExitCode::from(u8::from(sys!(fcntl(fd, libc::F_GETFD)) >= 0));
        }
        ["pid"] => println!(
            "{} {}",
            sys!(getpid()),
            std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
        ),
        ["cwd"] => println!("{}", std::env::current_dir().unwrap_or_default().display()),
        ["signals"] => return ExitCode::from(signals_after_exec()),
        ["lent", numbers @ ..] => {
            let numbers: Vec<i32> = numbers.iter().filter_map(|text| text.parse().ok()).collect();
            let &[fd, closed, at] = numbers.as_slice() else { return ExitCode::from(97) };
            let is_right = crate::lent_reads::after_exec(fd, closed, at);
            return ExitCode::from(u8::from(!is_right));
        }
        ["names", numbers @ ..] => {
            let numbers: Vec<i32> = numbers.iter().filter_map(|text| text.parse().ok()).collect();
            let &[fd, closed, at] = numbers.as_slice() else { return ExitCode::from(97) };
            return ExitCode::from(u8::from(!crate::known_names::after_exec(fd, closed, at)));
        }
        ["count"] => println!("{}", std::env::args().count()),
        _ => return ExitCode::from(98),
    }
    ExitCode::SUCCESS
}

/// 0 when SIGUSR1 is still ignored, SIGUSR2 back at its default and SIGTERM still blocked.
fn signals_after_exec() -> u8 {
    // SAFETY: all zeros is valid for both.
    let (mut action, mut mask): (libc::sigaction, libc::sigset_t) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    ok!(sigaction(libc::SIGUSR1, ptr::null(), &mut action));
    let ignored = action.sa_sigaction == libc::SIG_IGN;
    ok!(sigaction(libc::SIGUSR2, ptr::null(), &mut action));
    let default = action.sa_sigaction == libc::SIG_DFL;
    ok!(sigprocmask(libc::SIG_BLOCK, ptr::null(), &mut mask));
    let blocked = sys!(sigismember(&mask, libc::SIGTERM)) == 1;
    u8::from(!ignored) | u8::from(!default) << 1 | u8::from(!blocked) << 2
}

fn execute(path: &CString, args: &[&str], env: &[&str]) -> i32 {
    let args: Vec<CString> = args.iter().map(|arg| c(arg)).collect();
    let env: Vec<CString> = env.iter().map(|entry| c(entry)).collect();
    let pointers =
        |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    sys!(execve(path.as_ptr(), pointers(&args).as_ptr(), pointers(&env).as_ptr()));
    crate::support::errno()
}

/// Output and exit code of a helper.
fn output_of(args: &[&str], env: &[&str]) -> (String, i32) {
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        sys!(dup2(write_end, 1));
        execute(&own_path(), &[&["conformance", "helper"], args].concat(), env)
    });
    ok!(close(write_end));
    let mut text = Vec::new();
    loop {
        let some = read_some(read_end, 4096);
        if some.is_empty() {
            break;
        }
        text.extend(some);
    }
    (String::from_utf8_lossy(&text).into_owned(), exit_code(wait_for(child)))
}

fn arguments_and_environment_arrive() {
    let (text, code) = output_of(&["print", "a b", "", "ü"], &["X=1", "CONFORMANCE=yes"]);
    assert_eq!((text.as_str(), code), ("a b||ü yes\n", 0));
    assert_eq!(output_of(&["code", "77"], &[]).1, 77);
}

fn close_on_exec() {
    let (keep, drop) = (ok!(fcntl(0, libc::F_DUPFD, 50)), ok!(fcntl(0, libc::F_DUPFD_CLOEXEC, 60)));
    assert_eq!(output_of(&["fd", &keep.to_string()], &[]).1, 1);
    assert_eq!(output_of(&["fd", &drop.to_string()], &[]).1, 0);
}

fn identity_survives() {
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        sys!(dup2(write_end, 1));
        execute(&own_path(), &["x", "helper", "pid"], &[])
    });
    assert_eq!(read_some(read_end, 100), format!("{child} 1\n").into_bytes());
    wait_for(child);
}

fn threads_do_not_survive() {
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        for _ in 0..3 {
            std::thread::spawn(|| crate::support::sleep_ms(60_000));
        }
        sys!(dup2(write_end, 1));
        execute(&own_path(), &["x", "helper", "pid"], &[])
    });
    assert_eq!(read_some(read_end, 100), format!("{child} 1\n").into_bytes());
    wait_for(child);
}

fn missing_and_refused() {
    let dir = enter_new_directory();
    assert_eq!(execute(&c("nope"), &["x"], &[]), libc::ENOENT);
    assert_eq!(execute(&c("."), &["x"], &[]), libc::EACCES);
    std::fs::write("f", "#!/no/such\n").expect("writable");
    ok!(chmod(c"f".as_ptr(), 0o644));
    assert_eq!(execute(&c("f"), &["x"], &[]), libc::EACCES);
    ok!(chmod(c"f".as_ptr(), 0o755));
    assert_eq!(execute(&c("f"), &["x"], &[]), libc::ENOENT);
    assert_eq!(execute(&c("f/g"), &["x"], &[]), libc::ENOTDIR);
    std::fs::write("g", "no program\n").expect("writable");
    ok!(chmod(c"g".as_ptr(), 0o755));
    assert_eq!(execute(&c("g"), &["x"], &[]), libc::ENOEXEC);
    assert_eq!(execute(&c("/etc/passwd/x"), &["x"], &[]), libc::ENOTDIR);
    fails!(libc::EFAULT, execve(0x10 as *const libc::c_char, ptr::null(), ptr::null()));
    leave(&dir);
}

fn shebang_passes_its_argument() {
    let dir = enter_new_directory();
    let own = own_path();
    let own = own.to_string_lossy();
    std::fs::write("s", format!("#!{own} helper\n")).expect("writable");
    ok!(chmod(c"s".as_ptr(), 0o755));
    // argv: interpreter, "helper", "s", then ours; the helper does not know "s".
    let child = in_child(|| execute(&c("s"), &["s", "x"], &[]));
    assert_eq!(exit_code(wait_for(child)), 98);
    leave(&dir);
}

fn execveat_by_descriptor() {
    let fd = ok!(open(own_path().as_ptr(), libc::O_PATH | libc::O_CLOEXEC));
    let child = in_child(|| {
        let args =
            [c"x".as_ptr(), c"helper".as_ptr(), c"code".as_ptr(), c"44".as_ptr(), ptr::null()];
        let env: [*const libc::c_char; 1] = [ptr::null()];
        sys!(syscall(
            libc::SYS_execveat,
            fd,
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH
        ));
        99
    });
    assert_eq!(exit_code(wait_for(child)), 44);
}

fn empty_argv_gets_an_argument() {
    let child = in_child(|| {
        let none: [*const libc::c_char; 1] = [ptr::null()];
        sys!(execve(own_path().as_ptr(), none.as_ptr(), none.as_ptr()));
        99
    });
    // Linux gives an empty name; then our binary lists its families.
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn large_arguments() {
    let many: Vec<String> = (0..20_000).map(|n| format!("argument-{n}")).collect();
    let mut args = vec!["count"];
    args.extend(many.iter().map(String::as_str));
    let child = in_child(|| execute(&c("/bin/true"), &args, &[]));
    assert_eq!(exit_code(wait_for(child)), 0);
    let long = "x".repeat(200_000);
    assert_eq!(execute(&c("/bin/true"), &[&long], &[]), libc::E2BIG);
}

fn working_directory_survives() {
    let dir = enter_new_directory();
    assert_eq!(output_of(&["cwd"], &[]).0, format!("{dir}\n"));
    leave(&dir);
}

fn exec_from_a_thread() {
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        sys!(dup2(write_end, 1));
        std::thread::spawn(|| execute(&own_path(), &["x", "helper", "pid"], &[]));
        crate::support::sleep_ms(60_000);
        0
    });
    assert_eq!(read_some(read_end, 100), format!("{child} 1\n").into_bytes());
    wait_for(child);
}

fn memory_is_replaced() {
    let child = in_child(|| {
        let memory = vec![1_u8; 50 << 20];
        std::hint::black_box(&memory);
        execute(&own_path(), &["x", "helper", "code", "5"], &[])
    });
    assert_eq!(exit_code(wait_for(child)), 5);
}

fn open_text_is_busy() {
    let dir = enter_new_directory();
    std::fs::copy("/bin/sleep", "program").expect("it is there");
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        write_all(write_end, b"x");
        execute(&c("program"), &["sleep", "5"], &[])
    });
    read_some(read_end, 1);
    crate::support::sleep_ms(100);
    fails!(libc::ETXTBSY, open(c"program".as_ptr(), libc::O_WRONLY));
    ok!(kill(child, libc::SIGKILL));
    wait_for(child);
    leave(&dir);
}

fn auxiliary_vector() {
    let value = |key| sys!(getauxval(key));
    assert_eq!(value(libc::AT_PAGESZ), 4096);
    assert_eq!(
        (value(libc::AT_UID), value(libc::AT_EUID)),
        (sys!(getuid()).into(), sys!(geteuid()).into())
    );
    assert_eq!(value(libc::AT_CLKTCK), 100);
    assert!(
        value(libc::AT_RANDOM) != 0
            && value(libc::AT_PHDR) != 0
            && value(libc::AT_SYSINFO_EHDR) != 0
    );
    assert_eq!(value(libc::AT_SECURE), 0);
}
