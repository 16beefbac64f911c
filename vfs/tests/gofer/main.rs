//! The gofer's client filesystem against a real server, through the operations that system calls use.

mod walk;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path as HostPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::open::OpenFlags;
use abi::{Errno, Result};
use base::cred::Credentials;
use gofer_server::{Config, ConfineOptions, Tree};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vfs::fs::gofer::{Client, GoferFs};
use vfs::inode::{RenameFlags, SetAttr};
use vfs::mount::MountFlags;
use vfs::mount_namespace::MountNamespace;
use vfs::ops::OpenHow;
use vfs::path::LookupFlags;
use vfs::{Caller, File, FsContext, Path, VfsCx, ops};

struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gofer-fs-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A guest's view of one tree.
struct Guest {
    cred: Credentials,
    fs: Arc<FsContext>,
    _names: Arc<MountNamespace>,
    client: Arc<Client>,
    gofer: Arc<GoferFs>,
}

impl Guest {
    fn new(root: &HostPath, writable: bool) -> Self {
        Self::with_foresight(root, writable, "")
    }

    /// One whose gofer is asked for `paths` before it is there.
    fn with_foresight(root: &HostPath, writable: bool, paths: &str) -> Self {
        let (ours, theirs) = sockets(2);
        Client::greet(&ours[0], paths.as_bytes()).unwrap();
        let config = Config {
            trees: vec![Tree { host_path: root.to_path_buf(), writable }],
            sockets: theirs,
            confine: ConfineOptions::none(),
            leave: None,
        };
        std::thread::spawn(move || gofer_server::serve(config).unwrap());
        let client = Client::meet(ours, Box::new(|_| {})).unwrap();
        let gofer = GoferFs::new(Arc::clone(&client), 0).unwrap();
        let names = MountNamespace::new(Arc::clone(&gofer) as _, b"host", MountFlags::empty());
        let fs = FsContext::new(names.root(), names.root(), 0o022);
        let cred = Credentials::new(
            abi::ids::Uid(rustix::process::getuid().as_raw()),
            abi::ids::Gid(rustix::process::getgid().as_raw()),
            Arc::from([]),
        );
        Self { cred, fs, _names: names, client, gofer }
    }

    /// Round trips to the gofer that `work` takes.
    fn requests<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        let before = self.client.requests();
        let result = work();
        (result, self.client.requests() - before)
    }

    fn cx(&self) -> VfsCx<'_> {
        VfsCx {
            cred: &self.cred,
            fs: &self.fs,
            caller: Caller::default(),
            file_size_limit: u64::MAX,
            will_open: false,
        }
    }

    fn at(&self, path: &str) -> Result<Path> {
        vfs::path::resolve(&self.cx(), None, path.as_bytes(), LookupFlags::FOLLOW)
    }

    fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<File>> {
        let how = OpenHow { flags, mode: 0o666, ..OpenHow::default() };
        ops::open(&self.cx(), None, path.as_bytes(), how)?.now()
    }

    fn read(&self, path: &str) -> Result<String> {
        let file = self.open(path, OpenFlags::empty())?;
        self.read_open(&file)
    }

    fn read_open(&self, file: &File) -> Result<String> {
        let mut buffer = vec![0; 200_000];
        let mut sink = &mut buffer[..];
        let count = file.pread(&self.cx(), &mut sink, 0)?;
        Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
    }

    fn write(&self, file: &File, text: &str) -> Result<usize> {
        file.write(&self.cx(), &mut text.as_bytes())
    }

    fn list(&self, path: &str, at_a_time: usize) -> Vec<String> {
        let dir = self.open(path, OpenFlags::DIRECTORY).unwrap();
        let mut names = Vec::new();
        while self.read_names(&dir, at_a_time, &mut names) {}
        names.sort();
        names
    }

    /// Reads on in a directory; false at its end.
    fn read_names(&self, dir: &File, at_a_time: usize, names: &mut Vec<String>) -> bool {
        let mut left = at_a_time;
        dir.readdir(&self.cx(), &mut |entry| {
            let fits = left > 0;
            if fits {
                left -= 1;
                names.push(String::from_utf8_lossy(entry.name).into_owned());
            }
            fits
        })
        .unwrap();
        left < at_a_time
    }
}

fn sockets(count: usize) -> (Vec<std::os::fd::OwnedFd>, Vec<std::os::fd::OwnedFd>) {
    (0..count)
        .map(|_| {
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap()
        })
        .unzip()
}

const CREATE: OpenFlags = OpenFlags::RDWR.union(OpenFlags::CREAT);

#[test]
fn reads_files_links_and_missing_names() {
    let dir = TempDir::new();
    fs::create_dir_all(dir.path("a/b/c")).unwrap();
    let long = "0123456789".repeat(15_000);
    fs::write(dir.path("a/b/c/file"), &long).unwrap();
    symlink("b/c", dir.path("a/link")).unwrap();
    symlink("/a/link/file", dir.path("absolute")).unwrap();
    for writable in [false, true] {
        let guest = Guest::new(&dir.0, writable);
        assert_eq!(guest.read("/a/b/c/file").unwrap(), long);
        assert_eq!(guest.read("a/link/file").unwrap(), long);
        // An absolute link is the guest's: its root, not the host's.
        assert_eq!(guest.read("/absolute").unwrap(), long);
        assert_eq!(guest.read("/a/none/x").err(), Some(Errno::ENOENT));
        assert_eq!(guest.read("/a/none/x").err(), Some(Errno::ENOENT));
        assert_eq!(guest.read("/a/b/c/file/x").err(), Some(Errno::ENOTDIR));
        assert_eq!(guest.open("/a", OpenFlags::RDWR).err(), Some(Errno::EISDIR));
        let attr = ops::stat(&guest.at("/a/b/c/file").unwrap()).unwrap();
        assert_eq!(attr.size, 150_000);
    }
}

#[test]
fn files_are_read_whole_whatever_their_size_was() {
    let dir = TempDir::new();
    let text = |len: usize| "abcdefghijk".chars().cycle().take(len).collect::<String>();
    for len in [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 120_000] {
        fs::write(dir.path("file"), text(len)).unwrap();
        let guest = Guest::new(&dir.0, true);
        let file = guest.open("/file", OpenFlags::empty()).unwrap();
        assert!(guest.read_open(&file).unwrap() == text(len), "{len}");
        // More than was known when it was opened.
        fs::write(dir.path("file"), text(len + 70_000)).unwrap();
        assert!(guest.read_open(&file).unwrap() == text(len + 70_000), "{len}");
    }
}

#[test]
fn a_read_only_tree_is_believed_and_refuses_changes() {
    let dir = TempDir::new();
    fs::write(dir.path("file"), "one").unwrap();
    let guest = Guest::new(&dir.0, false);
    assert_eq!(guest.read("/later").err(), Some(Errno::ENOENT));
    fs::write(dir.path("later"), "too late").unwrap();
    assert_eq!(guest.read("/later").err(), Some(Errno::ENOENT));
    assert_eq!(guest.open("/file", OpenFlags::RDWR).err(), Some(Errno::EROFS));
    assert_eq!(guest.open("/new", CREATE).err(), Some(Errno::EROFS));
    assert_eq!(ops::unlink(&guest.cx(), None, b"/file"), Err(Errno::EROFS));
    let inode = Arc::clone(guest.at("/file").unwrap().inode());
    let change = SetAttr { mode: Some(0), ..SetAttr::default() };
    assert_eq!(inode.set_attr(&change), Err(Errno::EROFS));
    assert_eq!(guest.read("/file").unwrap(), "one");
}

#[test]
fn a_writable_tree_shows_what_others_do() {
    let dir = TempDir::new();
    let guest = Guest::new(&dir.0, true);
    assert_eq!(guest.read("/file").err(), Some(Errno::ENOENT));
    fs::write(dir.path("file"), "one").unwrap();
    assert_eq!(guest.read("/file").unwrap(), "one");
    fs::write(dir.path("file"), "three").unwrap();
    assert_eq!(ops::stat(&guest.at("/file").unwrap()).unwrap().size, 5);
    fs::remove_file(dir.path("file")).unwrap();
    fs::create_dir(dir.path("file")).unwrap();
    assert_eq!(guest.list("/file", 10), [".", ".."]);
    // Also what was listed and looked up often.
    for name in ["a", "b", "c", "d", "e"] {
        fs::write(dir.path("file").join(name), name).unwrap();
    }
    assert_eq!(guest.list("/file", 10).len(), 7);
    assert_eq!(guest.read("/file/a").unwrap(), "a");
    fs::rename(dir.path("file/b"), dir.path("file/a")).unwrap();
    fs::remove_file(dir.path("file/c")).unwrap();
    assert_eq!(guest.read("/file/a").unwrap(), "b");
    assert_eq!(guest.read("/file/b").err(), Some(Errno::ENOENT));
    assert_eq!(guest.read("/file/c").err(), Some(Errno::ENOENT));
    fs::create_dir(dir.path("other")).unwrap();
    fs::write(dir.path("other/d"), "moved here").unwrap();
    fs::rename(dir.path("file"), dir.path("gone")).unwrap();
    fs::rename(dir.path("other"), dir.path("file")).unwrap();
    assert_eq!(guest.read("/file/d").unwrap(), "moved here");
    assert_eq!(guest.list("/file", 10), [".", "..", "d"]);
}

#[test]
fn files_are_created_written_renamed_and_removed() {
    let dir = TempDir::new();
    let guest = Guest::new(&dir.0, true);
    let cx = guest.cx();
    ops::mkdir(&cx, None, b"/sub", 0o777).unwrap();
    let file = guest.open("/sub/file", CREATE).unwrap();
    guest.write(&file, "hello").unwrap();
    assert_eq!(fs::read_to_string(dir.path("sub/file")).unwrap(), "hello");
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(dir.path("sub/file")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);

    let append = guest.open("/sub/file", OpenFlags::WRONLY | OpenFlags::APPEND).unwrap();
    guest.write(&append, " there").unwrap();
    assert_eq!(guest.read("/sub/file").unwrap(), "hello there");
    ops::ftruncate(&cx, &file, 5).unwrap();
    assert_eq!(ops::stat(&guest.at("/sub/file").unwrap()).unwrap().size, 5);

    // What is below a renamed directory follows it.
    ops::rename(&cx, None, b"/sub", None, b"/moved", RenameFlags::empty()).unwrap();
    assert_eq!(guest.read("/moved/file").unwrap(), "hello");
    assert_eq!(guest.read("/sub/file").err(), Some(Errno::ENOENT));
    assert_eq!(file.inode().attr().unwrap().size, 5);

    ops::symlink(&cx, b"file", None, b"/moved/link").unwrap();
    assert_eq!(guest.read("/moved/link").unwrap(), "hello");
    ops::unlink(&cx, None, b"/moved/link").unwrap();

    // An open file outlives its name.
    ops::unlink(&cx, None, b"/moved/file").unwrap();
    guest.write(&file, "!").unwrap();
    assert_eq!(guest.read_open(&file).unwrap(), "hello!");
    assert_eq!(file.inode().attr().unwrap().nlink, 0);
    ops::rmdir(&cx, None, b"/moved").unwrap();
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
}

#[test]
fn exchanged_names_keep_their_inodes() {
    let dir = TempDir::new();
    fs::write(dir.path("a"), "A").unwrap();
    fs::write(dir.path("b"), "B").unwrap();
    let guest = Guest::new(&dir.0, true);
    let (a, b) = (guest.at("/a").unwrap(), guest.at("/b").unwrap());
    let cx = guest.cx();
    ops::rename(&cx, None, b"/a", None, b"/b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(guest.read("/a").unwrap(), "B");
    let open = |path: &Path| ops::open_path(&cx, path, OpenFlags::empty()).unwrap().now().unwrap();
    assert_eq!(guest.read_open(&open(&a)).unwrap(), "A");
    assert_eq!(guest.read_open(&open(&b)).unwrap(), "B");
}

#[test]
fn large_directories_are_listed_in_any_steps() {
    let dir = TempDir::new();
    for number in 0..1200 {
        fs::write(dir.path(&format!("entry-{number}")), "").unwrap();
    }
    for writable in [false, true] {
        let guest = Guest::new(&dir.0, writable);
        for step in [7, 500, 5000] {
            let names = guest.list("/", step);
            let mut unique = names.clone();
            unique.dedup();
            assert_eq!((names.len(), unique.len()), (1202, 1202), "{step} at a time");
        }
        assert_eq!(guest.read("/entry-1199").unwrap(), "");
        assert_eq!(guest.read("/entry-none").err(), Some(Errno::ENOENT));
    }
}

/// Names of a directory in the host's order, as a listing gives them.
fn in_order(dir: &HostPath) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[test]
fn a_huge_directory_streams_and_missing_names_cost_one_question_each() {
    const COUNT: usize = 100_000;
    const PROBES: u64 = 10_000;
    let dir = TempDir::new();
    fs::write(dir.path("first"), "").unwrap();
    // Links are made faster than files, but a file takes only so many.
    for number in 0..COUNT {
        let path = dir.path(&format!("entry-{number}"));
        if number % 1000 == 0 {
            fs::write(path, "").unwrap();
        } else {
            fs::hard_link(dir.path(&format!("entry-{}", number / 1000 * 1000)), path).unwrap();
        }
    }
    let guest = Guest::new(&dir.0, false);
    let (names, asked) = guest.requests(|| guest.list("/", 1000));
    assert_eq!(names.len(), COUNT + 3);
    assert!(asked < 200, "{asked} round trips for the listing");
    let known = guest.gofer.known_bytes();
    assert!(known < 6 << 20, "{known} bytes known of a listing that went by");
    let probe = || {
        for number in 0..PROBES {
            assert_eq!(guest.at(&format!("/missing-{number}")).err(), Some(Errno::ENOENT));
        }
    };
    let ((), asked) = guest.requests(probe);
    assert!(asked <= PROBES + 2, "{asked} round trips for {PROBES} missing names");
    let ((), asked) = guest.requests(probe);
    assert_eq!(asked, 0, "absence is remembered");
    let known = guest.gofer.known_bytes();
    assert!(known < 12 << 20, "{known} bytes");
    assert_eq!(guest.read("/entry-77777").unwrap(), "");
}

#[test]
fn a_directory_that_is_looked_into_often_is_listed_once() {
    let dir = TempDir::new();
    for number in 0..50 {
        fs::write(dir.path(&format!("file-{number}")), "").unwrap();
    }
    let guest = Guest::new(&dir.0, false);
    let ((), asked) = guest.requests(|| {
        for number in 0..50 {
            assert!(guest.at(&format!("/file-{number}")).is_ok());
            let missing = guest.at(&format!("/none-{number}"));
            assert_eq!(missing.err(), Some(Errno::ENOENT));
        }
    });
    assert!(asked < 15, "{asked} round trips");
    let (names, asked) = guest.requests(|| guest.list("/", 7));
    assert_eq!((names.len(), asked), (52, 0), "what is known need not be listed again");
}

#[test]
fn a_dead_gofer_is_told_once_and_gives_eio() {
    let (ours, theirs) = sockets(1);
    let dir = TempDir::new();
    let config = Config {
        trees: vec![Tree { host_path: dir.0.clone(), writable: false }],
        sockets: theirs.iter().map(|fd| fd.try_clone().unwrap()).collect(),
        confine: ConfineOptions::none(),
        leave: None,
    };
    let server = std::thread::spawn(move || gofer_server::serve(config).unwrap());
    let told = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&told);
    let client = Client::connect(
        ours,
        Box::new(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        }),
    )
    .unwrap();
    let gofer = GoferFs::new(client, 0).unwrap();
    use vfs::FileSystem;
    assert!(gofer.statfs().is_ok());
    rustix::net::shutdown(&theirs[0], rustix::net::Shutdown::Both).unwrap();
    server.join().unwrap();
    assert_eq!(gofer.statfs().err(), Some(Errno::EIO));
    assert_eq!(gofer.statfs().err(), Some(Errno::EIO));
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

/// Figures, for `cargo test --release -p vfs --test gofer -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn figures() {
    use std::time::Instant;
    let guest = Guest::new(HostPath::new("/"), false);
    let timed = |what: &str, count: usize, work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        let each = start.elapsed().as_nanos() / count.max(1) as u128;
        println!("{what}: {each} ns each, {count} times, {:?}", start.elapsed());
    };
    let cx = guest.cx();
    let root = Arc::clone(guest.at("/").unwrap().inode());
    let mut names = Vec::new();
    for number in 0..2000 {
        names.push(format!("missing-{number}"));
    }
    timed("round trip (lookup of a missing name)", names.len(), &mut || {
        for name in &names {
            assert!(root.lookup(&cx, name.as_bytes()).is_err());
        }
    });
    timed("first walk of /usr/share/doc/bash/copyright", 1, &mut || {
        let _ = guest.at("/usr/share/doc/bash/copyright");
    });
    timed("open+close again", 1000, &mut || {
        for _ in 0..1000 {
            guest.open("/etc/passwd", OpenFlags::empty()).unwrap();
        }
    });
    timed("read 4 KiB", 1000, &mut || {
        let file = guest.open("/bin/bash", OpenFlags::empty()).unwrap();
        let mut buffer = [0; 4096];
        for _ in 0..1000 {
            let mut sink = &mut buffer[..];
            file.pread(&cx, &mut sink, 0).unwrap();
        }
    });
    for round in ["first", "second"] {
        let start = Instant::now();
        let (mut dirs, mut count) = (vec!["/usr/share".to_owned()], 0);
        while let Some(dir) = dirs.pop() {
            for name in guest.list(&dir, 1000) {
                if name == "." || name == ".." {
                    continue;
                }
                count += 1;
                let path = format!("{dir}/{name}");
                let at =
                    vfs::path::resolve(&cx, None, path.as_bytes(), LookupFlags::empty()).unwrap();
                if ops::stat(&at).unwrap().is_dir() {
                    dirs.push(path);
                }
            }
        }
        println!("find with stat, /usr/share, {round}: {count} entries in {:?}", start.elapsed());
    }
}

#[test]
fn what_was_asked_for_ahead_needs_no_round_trip() {
    let dir = TempDir::new();
    std::fs::create_dir_all(dir.0.join("usr/lib")).unwrap();
    std::fs::write(dir.0.join("usr/lib/libx.so.1.2"), "code").unwrap();
    std::os::unix::fs::symlink("libx.so.1.2", dir.0.join("usr/lib/libx.so.1")).unwrap();
    std::os::unix::fs::symlink("usr/lib", dir.0.join("lib")).unwrap();
    let guest = Guest::with_foresight(&dir.0, false, "/lib/libx.so.1\0/usr/none\0");
    let (text, requests) = guest.requests(|| guest.read("/lib/libx.so.1"));
    assert_eq!((text.as_deref(), requests), (Ok("code"), 0));
    let (absent, requests) = guest.requests(|| guest.at("/usr/none").err());
    assert_eq!((absent, requests), (Some(Errno::ENOENT), 0));
    // What was not asked for is there all the same.
    assert_eq!(guest.list("/usr", 10), [".", "..", "lib"]);
    assert_eq!(guest.at("/usr/lib/other").err(), Some(Errno::ENOENT));
}

#[test]
fn a_writable_tree_is_asked_when_it_is_wanted() {
    let dir = TempDir::new();
    std::fs::write(dir.0.join("file"), "old").unwrap();
    let guest = Guest::with_foresight(&dir.0, true, "/file\0/later\0");
    std::fs::remove_file(dir.0.join("file")).unwrap();
    std::fs::write(dir.0.join("file"), "new").unwrap();
    std::fs::write(dir.0.join("later"), "there").unwrap();
    assert_eq!(guest.read("/file").as_deref(), Ok("new"));
    assert_eq!(guest.read("/later").as_deref(), Ok("there"));
}
