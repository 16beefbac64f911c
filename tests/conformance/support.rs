//! What every family uses: tests in processes of their own, errnos, files.

use std::ffi::CString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::AtomicU32;

/// A test: panics when Linux would not be recognised.
pub struct Test {
    pub name: &'static str,
    pub run: fn(),
}

/// Lists functions as tests.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const TESTS: &[crate::support::Test] =
            &[$(crate::support::Test { name: stringify!($name), run: $name }),*];
    };
}
pub(crate) use tests;

/// A raw libc call with its result.
macro_rules! sys {
    ($name:ident($($arg:expr),* $(,)?)) => {
        // SAFETY: the arguments are valid for the call, or deliberately not, where the kernel must refuse them.
        unsafe { libc::$name($($arg),*) }
    };
}
pub(crate) use sys;

/// A raw libc call that must succeed; its result.
macro_rules! ok {
    ($name:ident($($arg:expr),* $(,)?)) => {{
        let result = crate::support::sys!($name($($arg),*));
        assert!(i64::try_from(result).unwrap_or(0) >= 0, "{}: {}", stringify!($name), std::io::Error::last_os_error());
        result
    }};
}
pub(crate) use ok;

/// A raw libc call that must fail with this errno.
macro_rules! fails {
    ($errno:expr, $name:ident($($arg:expr),* $(,)?)) => {{
        let result = crate::support::sys!($name($($arg),*));
        let errno = crate::support::errno();
        assert!(i64::try_from(result).unwrap_or(0) < 0, "{} succeeded", stringify!($name));
        assert_eq!(errno, $errno, "{}: {}", stringify!($name), std::io::Error::last_os_error());
    }};
}
pub(crate) use fails;

pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL in a test's name")
}

/// Runs each test in a child, with a time limit, and prints how it ended.
pub fn run_all(tests: &[Test]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for test in tests {
        let result = match in_child_status(test.run) {
            0 => "ok".to_owned(),
            status if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM => {
                "timed out".to_owned()
            }
            status if libc::WIFSIGNALED(status) => {
                format!("killed by signal {}", libc::WTERMSIG(status))
            }
            status => format!("exit code {}", libc::WEXITSTATUS(status)),
        };
        if result != "ok" {
            code = ExitCode::FAILURE;
        }
        println!("test {}: {result}", test.name);
        let _ = std::io::stdout().flush();
    }
    code
}

fn in_child_status(run: fn()) -> i32 {
    let pid = sys!(fork());
    if pid == 0 {
        sys!(alarm(10));
        run();
        sys!(_exit(0));
    }
    assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
    wait_for(pid)
}

/// The wait status of a child.
pub fn wait_for(pid: i32) -> i32 {
    let mut status = 0;
    loop {
        let waited = sys!(waitpid(pid, &mut status, 0));
        if waited == pid {
            return status;
        }
        assert_eq!(errno(), libc::EINTR, "waitpid: {}", std::io::Error::last_os_error());
    }
}

/// Runs `body` in a forked child that exits with its result.
pub fn in_child(body: impl FnOnce() -> i32) -> i32 {
    let pid = ok!(fork());
    if pid == 0 {
        let code = body();
        sys!(_exit(code));
    }
    pid
}

pub fn exit_code(status: i32) -> i32 {
    assert!(libc::WIFEXITED(status), "status {status:#x}");
    libc::WEXITSTATUS(status)
}

pub fn signal_of(status: i32) -> i32 {
    assert!(libc::WIFSIGNALED(status), "status {status:#x}");
    libc::WTERMSIG(status)
}

/// A pipe: read end, write end.
pub fn pipe() -> (i32, i32) {
    let mut fds = [0; 2];
    ok!(pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC));
    (fds[0], fds[1])
}

pub fn write_all(fd: i32, bytes: &[u8]) {
    let written = ok!(write(fd, bytes.as_ptr().cast(), bytes.len()));
    assert_eq!(usize::try_from(written), Ok(bytes.len()));
}

pub fn read_some(fd: i32, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; most];
    let length = ok!(read(fd, bytes.as_mut_ptr().cast(), most));
    bytes.truncate(usize::try_from(length).expect("it did not fail"));
    bytes
}

/// A new directory, current from now on; gone with its test.
pub fn enter_new_directory() -> String {
    let mut template = b"/tmp/conformance-XXXXXX\0".to_vec();
    let made = sys!(mkdtemp(template.as_mut_ptr().cast()));
    assert!(!made.is_null(), "mkdtemp: {}", std::io::Error::last_os_error());
    template.pop();
    let path = String::from_utf8(template).expect("mkdtemp writes letters");
    ok!(chdir(c(&path).as_ptr()));
    path
}

/// Leaves and removes a directory of [`enter_new_directory`], with the files in it.
pub fn leave(path: &str) {
    ok!(chdir(c"/".as_ptr()));
    std::fs::remove_dir_all(path).expect("it is ours");
}

pub fn open(path: &str, flags: i32) -> i32 {
    ok!(open(c(path).as_ptr(), flags | libc::O_CLOEXEC, 0o644))
}

/// A file that was there before this program began, where that was arranged: in the sandbox it is one of the host's.
/// `name` is the folder's, for one test only.
pub fn subject(name: &str) -> String {
    let folder = std::env::current_dir().expect("it is there").join(name);
    let path = folder.join("subject");
    if !path.exists() {
        std::fs::create_dir_all(folder).expect("the directory is ours");
        std::fs::write(&path, "a file\n").expect("the directory is ours");
    }
    path.to_str().expect("a plain name").to_owned()
}

/// futex(2), with its arguments in order.
pub fn futex(
    word: &AtomicU32,
    operation: i32,
    value: u32,
    extra: usize,
    second: usize,
    third: u32,
) -> i64 {
    sys!(syscall(libc::SYS_futex, word.as_ptr(), operation, value, extra, second, third))
}

/// A word that children share.
pub fn shared_word() -> &'static std::sync::atomic::AtomicU32 {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let at = sys!(mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0));
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: a new mapping, which is never unmapped.
    unsafe { &*at.cast::<std::sync::atomic::AtomicU32>() }
}

pub fn sleep_ms(ms: u64) {
    std::thread::sleep(std::time::Duration::from_millis(ms));
}

/// Uses some tens of milliseconds of CPU, however busy the machine is otherwise.
pub fn work() {
    let mut x = 0_u64;
    for _ in 0..20_000_000 {
        x = std::hint::black_box(x.wrapping_add(1));
    }
}
