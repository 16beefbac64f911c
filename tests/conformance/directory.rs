//! mkdir(2), rename(2), unlink(2), link(2), symlink(2), getdents(2), chdir(2) and the *at family.

use std::ffi::CStr;

use crate::support::{c, enter_new_directory, fails, leave, ok, open, sys, tests};

tests! {
    make_and_remove, remove_of_full_directory, rename_replaces_files, rename_refusals, rename_flags, hard_links,
    symbolic_links, symlink_loops, listing_has_every_name_once, big_directory_is_listed_whole, unlinked_file_lives_on,
    dot_names_are_refused, chdir_and_getcwd, removed_working_directory, at_calls_with_descriptors, trailing_slashes,
    mknod_makes_fifos, umask_applies,
}

fn make(path: &str) {
    ok!(mkdir(c(path).as_ptr(), 0o755));
}

fn touch(path: &str) {
    ok!(close(open(path, libc::O_CREAT | libc::O_WRONLY)));
}

fn names(path: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn make_and_remove() {
    let dir = enter_new_directory();
    make("d");
    fails!(libc::EEXIST, mkdir(c"d".as_ptr(), 0o755));
    fails!(libc::ENOENT, mkdir(c"x/y".as_ptr(), 0o755));
    ok!(rmdir(c"d".as_ptr()));
    fails!(libc::ENOENT, rmdir(c"d".as_ptr()));
    touch("f");
    fails!(libc::ENOTDIR, rmdir(c"f".as_ptr()));
    make("e");
    fails!(libc::EISDIR, unlink(c"e".as_ptr()));
    leave(&dir);
}

fn remove_of_full_directory() {
    let dir = enter_new_directory();
    make("d");
    touch("d/f");
    fails!(libc::ENOTEMPTY, rmdir(c"d".as_ptr()));
    ok!(unlink(c"d/f".as_ptr()));
    ok!(unlinkat(libc::AT_FDCWD, c"d".as_ptr(), libc::AT_REMOVEDIR));
    leave(&dir);
}

fn rename_replaces_files() {
    let dir = enter_new_directory();
    std::fs::write("a", "A").expect("writable");
    std::fs::write("b", "B").expect("writable");
    ok!(rename(c"a".as_ptr(), c"b".as_ptr()));
    assert_eq!(
        (names("."), std::fs::read("b").expect("it is there")),
        (vec!["b".to_owned()], b"A".to_vec())
    );
    ok!(rename(c"b".as_ptr(), c"b".as_ptr()));
    leave(&dir);
}

fn rename_refusals() {
    let dir = enter_new_directory();
    make("d");
    make("d/e");
    touch("f");
    fails!(libc::ENOENT, rename(c"nope".as_ptr(), c"x".as_ptr()));
    fails!(libc::EINVAL, rename(c"d".as_ptr(), c"d/e/x".as_ptr()));
    fails!(libc::EISDIR, rename(c"f".as_ptr(), c"d".as_ptr()));
    fails!(libc::ENOTDIR, rename(c"d".as_ptr(), c"f".as_ptr()));
    make("g");
    touch("g/h");
    fails!(libc::ENOTEMPTY, rename(c"d".as_ptr(), c"g".as_ptr()));
    ok!(unlink(c"g/h".as_ptr()));
    ok!(rename(c"d".as_ptr(), c"g".as_ptr()));
    assert_eq!(names("g"), ["e"]);
    leave(&dir);
}

fn rename_flags() {
    let dir = enter_new_directory();
    std::fs::write("a", "A").expect("writable");
    std::fs::write("b", "B").expect("writable");
    let (a, b) = (c("a"), c("b"));
    let at = libc::AT_FDCWD;
    fails!(libc::EEXIST, renameat2(at, a.as_ptr(), at, b.as_ptr(), libc::RENAME_NOREPLACE));
    ok!(renameat2(at, a.as_ptr(), at, b.as_ptr(), libc::RENAME_EXCHANGE));
    assert_eq!(std::fs::read("a").expect("it is there"), b"B");
    fails!(libc::EINVAL, renameat2(at, a.as_ptr(), at, b.as_ptr(), 1 << 20));
    leave(&dir);
}

fn hard_links() {
    let dir = enter_new_directory();
    std::fs::write("a", "A").expect("writable");
    ok!(link(c"a".as_ptr(), c"b".as_ptr()));
    let (a, b) = (crate::stat::stat("a"), crate::stat::stat("b"));
    assert_eq!((a.st_ino, a.st_nlink), (b.st_ino, 2));
    ok!(unlink(c"a".as_ptr()));
    assert_eq!(crate::stat::stat("b").st_nlink, 1);
    fails!(libc::EEXIST, link(c"b".as_ptr(), c"b".as_ptr()));
    make("d");
    fails!(libc::EPERM, link(c"d".as_ptr(), c"e".as_ptr()));
    leave(&dir);
}

fn symbolic_links() {
    let dir = enter_new_directory();
    ok!(symlink(c"target".as_ptr(), c"l".as_ptr()));
    let mut text = [0_u8; 100];
    assert_eq!(ok!(readlink(c"l".as_ptr(), text.as_mut_ptr().cast(), 100)), 6);
    assert_eq!(&text[..6], b"target");
    assert_eq!(ok!(readlink(c"l".as_ptr(), text.as_mut_ptr().cast(), 3)), 3);
    fails!(libc::ENOENT, open(c"l".as_ptr(), libc::O_RDONLY));
    fails!(libc::ELOOP, open(c"l".as_ptr(), libc::O_RDONLY | libc::O_NOFOLLOW));
    touch("target");
    ok!(close(open("l", libc::O_RDONLY)));
    fails!(libc::EINVAL, readlink(c"target".as_ptr(), text.as_mut_ptr().cast(), 100));
    fails!(libc::EEXIST, symlink(c"x".as_ptr(), c"l".as_ptr()));
    fails!(libc::ENOENT, symlink(c"".as_ptr(), c"m".as_ptr()));
    leave(&dir);
}

fn symlink_loops() {
    let dir = enter_new_directory();
    ok!(symlink(c"b".as_ptr(), c"a".as_ptr()));
    ok!(symlink(c"a".as_ptr(), c"b".as_ptr()));
    fails!(libc::ELOOP, open(c"a".as_ptr(), libc::O_RDONLY));
    touch("s0");
    for n in 1..=40 {
        ok!(symlink(c(&format!("s{}", n - 1)).as_ptr(), c(&format!("s{n}")).as_ptr()));
    }
    ok!(close(open("s40", libc::O_RDONLY)));
    ok!(symlink(c"s40".as_ptr(), c"s41".as_ptr()));
    fails!(libc::ELOOP, open(c"s41".as_ptr(), libc::O_RDONLY));
    leave(&dir);
}

fn listing_has_every_name_once() {
    let dir = enter_new_directory();
    make("d");
    touch("f");
    ok!(symlink(c"f".as_ptr(), c"l".as_ptr()));
    let stream = sys!(opendir(c".".as_ptr()));
    assert!(!stream.is_null());
    let mut found = Vec::new();
    loop {
        let entry = sys!(readdir(stream));
        if entry.is_null() {
            break;
        }
        // SAFETY: readdir returned an entry that is valid until the next call.
        let (name, kind) = unsafe { (CStr::from_ptr((*entry).d_name.as_ptr()), (*entry).d_type) };
        found.push((name.to_string_lossy().into_owned(), kind));
    }
    sys!(closedir(stream));
    found.sort();
    let expected = [
        (".", libc::DT_DIR),
        ("..", libc::DT_DIR),
        ("d", libc::DT_DIR),
        ("f", libc::DT_REG),
        ("l", libc::DT_LNK),
    ];
    assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind)));
    leave(&dir);
}

fn big_directory_is_listed_whole() {
    let dir = enter_new_directory();
    for n in 0..1500 {
        touch(&format!("file-with-a-name-of-some-length-{n}"));
    }
    assert_eq!(names(".").len(), 1500);
    leave(&dir);
}

fn unlinked_file_lives_on() {
    let dir = enter_new_directory();
    let fd = open("f", libc::O_CREAT | libc::O_RDWR);
    crate::support::write_all(fd, b"data");
    ok!(unlink(c"f".as_ptr()));
    ok!(lseek(fd, 0, libc::SEEK_SET));
    assert_eq!(crate::support::read_some(fd, 10), b"data");
    assert_eq!(crate::stat::fstat(fd).st_nlink, 0);
    leave(&dir);
}

fn dot_names_are_refused() {
    let dir = enter_new_directory();
    make("d");
    fails!(libc::EINVAL, rmdir(c"d/.".as_ptr()));
    fails!(libc::ENOTEMPTY, rmdir(c"d/..".as_ptr()));
    fails!(libc::EEXIST, mkdir(c"d/..".as_ptr(), 0o755));
    fails!(libc::EBUSY, rename(c"d/.".as_ptr(), c"e".as_ptr()));
    leave(&dir);
}

fn chdir_and_getcwd() {
    let dir = enter_new_directory();
    make("d");
    ok!(chdir(c"d".as_ptr()));
    let here = std::env::current_dir().expect("it is there");
    assert_eq!(here.to_string_lossy(), format!("{dir}/d"));
    let mut small = [0_i8; 3];
    assert!(sys!(getcwd(small.as_mut_ptr().cast(), 3)).is_null());
    assert_eq!(crate::support::errno(), libc::ERANGE);
    ok!(chdir(c"..".as_ptr()));
    fails!(libc::ENOENT, chdir(c"nope".as_ptr()));
    let fd = open("d", libc::O_RDONLY | libc::O_DIRECTORY);
    ok!(fchdir(fd));
    leave(&dir);
}

fn removed_working_directory() {
    let dir = enter_new_directory();
    make("d");
    ok!(chdir(c"d".as_ptr()));
    ok!(rmdir(c"../d".as_ptr()));
    fails!(libc::ENOENT, open(c"f".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644));
    assert!(std::env::current_dir().is_err());
    leave(&dir);
}

fn at_calls_with_descriptors() {
    let dir = enter_new_directory();
    make("d");
    let fd = open("d", libc::O_RDONLY | libc::O_DIRECTORY);
    ok!(mkdirat(fd, c"e".as_ptr(), 0o755));
    let file = ok!(openat(fd, c"f".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644));
    ok!(close(file));
    ok!(symlinkat(c"f".as_ptr(), fd, c"l".as_ptr()));
    ok!(linkat(fd, c"f".as_ptr(), fd, c"g".as_ptr(), 0));
    assert_eq!(names("d"), ["e", "f", "g", "l"]);
    ok!(faccessat(fd, c"f".as_ptr(), libc::R_OK, 0));
    fails!(libc::EBADF, openat(999, c"f".as_ptr(), libc::O_RDONLY));
    let file = open("d/f", libc::O_RDONLY);
    fails!(libc::ENOTDIR, openat(file, c"x".as_ptr(), libc::O_RDONLY));
    leave(&dir);
}

fn trailing_slashes() {
    let dir = enter_new_directory();
    make("d");
    touch("f");
    ok!(close(open("d/", libc::O_RDONLY)));
    ok!(close(open("d//.///", libc::O_RDONLY)));
    fails!(libc::ENOTDIR, open(c"f/".as_ptr(), libc::O_RDONLY));
    fails!(libc::EISDIR, open(c"new/".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644));
    ok!(mkdir(c"e/".as_ptr(), 0o755));
    leave(&dir);
}

fn mknod_makes_fifos() {
    let dir = enter_new_directory();
    ok!(mkfifo(c"p".as_ptr(), 0o600));
    assert_eq!(crate::stat::stat("p").st_mode & libc::S_IFMT, libc::S_IFIFO);
    fails!(libc::ENXIO, open(c"p".as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK));
    let reader = open("p", libc::O_RDONLY | libc::O_NONBLOCK);
    let writer = open("p", libc::O_WRONLY | libc::O_NONBLOCK);
    crate::support::write_all(writer, b"x");
    assert_eq!(crate::support::read_some(reader, 5), b"x");
    leave(&dir);
}

fn umask_applies() {
    let dir = enter_new_directory();
    sys!(umask(0o077));
    ok!(open(c"f".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o666));
    ok!(mkdir(c"d".as_ptr(), 0o777));
    assert_eq!(crate::stat::stat("f").st_mode & 0o7777, 0o600);
    assert_eq!(crate::stat::stat("d").st_mode & 0o7777, 0o700);
    assert_eq!(sys!(umask(0o022)), 0o077);
    leave(&dir);
}
