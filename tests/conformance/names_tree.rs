//! A tree of the host that is walked by names, so often and so much in order that a kernel may lay ready what comes next.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use sandbox_tests::names;

use crate::support::{c, errno, ok, sys};

/// The tree's path. It was there before this program began, where that was arranged: in the sandbox it is the host's. `name` is for one
/// test only.
pub fn tree(name: &str) -> String {
    let root = std::env::current_dir().expect("it is there").join(name);
    if !root.exists() {
        for (path, bytes) in names::files() {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("it is ours");
            std::fs::write(path, bytes).expect("it is ours");
        }
    }
    root.to_str().expect("a plain name").to_owned()
}

/// What stat(2) says, and what of it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub ino: u64,
    pub mode: u32,
    pub links: u64,
    pub size: i64,
}

fn seen(result: i32, stat: &libc::stat) -> Result<Seen, i32> {
    let libc::stat { st_ino, st_mode, st_nlink, st_size, .. } = *stat;
    let seen = Seen { ino: st_ino, mode: st_mode, links: st_nlink, size: st_size };
    if result == 0 { Ok(seen) } else { Err(errno()) }
}

pub fn stat_at(dir: i32, name: &str) -> Result<Seen, i32> {
    // SAFETY: plain data.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    let result = sys!(fstatat(dir, c(name).as_ptr(), &mut stat, libc::AT_SYMLINK_NOFOLLOW));
    seen(result, &stat)
}

pub fn stat_of(fd: i32) -> Seen {
    // SAFETY: plain data.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    let result = sys!(fstat(fd, &mut stat));
    seen(result, &stat).expect("it is open")
}

pub fn open_at(dir: i32, name: &str, flags: i32) -> Result<i32, i32> {
    let fd = sys!(openat(dir, c(name).as_ptr(), flags, 0o644));
    if fd >= 0 { Ok(fd) } else { Err(errno()) }
}

pub fn open_dir(dir: i32, name: &str) -> i32 {
    let flags = libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    open_at(dir, name, flags).expect("a directory")
}

/// A directory's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub ino: u64,
    pub is_dir: bool,
    pub next: i64,
}

/// What one getdents64(2) gives, or its errno.
pub fn some_entries(fd: i32, room: usize) -> Result<Vec<Entry>, i32> {
    let mut words = vec![0_u64; room.div_ceil(8)];
    let count = sys!(syscall(libc::SYS_getdents64, fd, words.as_mut_ptr(), room));
    let Ok(count) = usize::try_from(count) else { return Err(errno()) };
    assert!(count <= room);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take(count).collect();
    let mut left = bytes.as_slice();
    let mut entries = Vec::new();
    while !left.is_empty() {
        let word = |at: usize| u64::from_ne_bytes(left[at..at + 8].try_into().expect("8 bytes"));
        let len = usize::from(u16::from_ne_bytes([left[16], left[17]]));
        let name = left[19..len].split(|byte| *byte == 0).next().expect("a name");
        let name = String::from_utf8(name.to_vec()).expect("a plain name");
        let (is_dir, next) = (left[18] == libc::DT_DIR, word(8).cast_signed());
        entries.push(Entry { name, ino: word(0), is_dir, next });
        left = &left[len..];
    }
    Ok(entries)
}

/// All that come from here on; the end is told twice.
pub fn entries(fd: i32, room: usize) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let some = some_entries(fd, room).expect("there is room for a record");
        if some.is_empty() {
            assert_eq!(some_entries(fd, room), Ok(Vec::new()));
            return all;
        }
        all.extend(some);
    }
}

/// The names of a whole directory in their order, without itself and what it is in.
pub fn names_in(fd: i32) -> Vec<String> {
    ok!(lseek(fd, 0, libc::SEEK_SET));
    let all = entries(fd, 4096).into_iter().map(|entry| entry.name);
    all.filter(|name| name != "." && name != "..").collect()
}

/// All bytes from here on, by reads of this size; the end is told twice.
pub fn read_all(fd: i32, size: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; size];
    loop {
        let count = ok!(read(fd, buffer.as_mut_ptr().cast(), size)) as usize;
        all.extend_from_slice(&buffer[..count]);
        if count == 0 {
            assert_eq!(ok!(read(fd, buffer.as_mut_ptr().cast(), size)), 0);
            return all;
        }
    }
}

/// Looks at one after the other of these, as who walks does, without looking at what is in them.
pub fn lead(dir: i32, names: &[String]) {
    for name in names {
        let found = stat_at(dir, name).expect("it is there");
        let is_dir = found.mode & libc::S_IFMT == libc::S_IFDIR;
        if let Ok(fd) = open_at(dir, name, libc::O_RDONLY | libc::O_CLOEXEC) {
            assert_eq!(stat_of(fd), found);
            if !is_dir {
                assert_eq!(read_all(fd, 16384).len() as i64, found.size);
            }
            ok!(close(fd));
        }
    }
}

/// Walks through all of it, as `lead` does.
pub fn walk(dir: i32, name: &str) {
    let fd = open_dir(dir, name);
    let all: Vec<Entry> =
        entries(fd, 32768).into_iter().filter(|entry| !entry.name.starts_with('.')).collect();
    for entry in all {
        if entry.is_dir {
            walk(fd, &entry.name);
        } else {
            lead(fd, &[entry.name]);
        }
    }
    ok!(close(fd));
}

/// Another process, which does what it is asked for while its maker makes no call.
pub struct Other {
    pid: i32,
    word: &'static AtomicU32,
}

impl Other {
    pub fn new(mut act: impl FnMut(u32)) -> Self {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let at = sys!(mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0));
        // SAFETY: a new mapping, which is never unmapped.
        let word = unsafe { &*at.cast::<AtomicU32>() };
        let parent = sys!(getpid());
        let pid = crate::support::in_child(|| {
            while sys!(getppid()) == parent {
                match word.load(SeqCst) {
                    0 => drop(sys!(sched_yield())),
                    asked => {
                        act(asked - 1);
                        word.store(0, SeqCst);
                    }
                }
            }
            0
        });
        Self { pid, word }
    }

    pub fn ask(&self, what: u32) {
        self.word.store(what + 1, SeqCst);
        while self.word.load(SeqCst) != 0 {
            std::hint::spin_loop();
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        ok!(kill(self.pid, libc::SIGKILL));
        crate::support::wait_for(self.pid);
    }
}
