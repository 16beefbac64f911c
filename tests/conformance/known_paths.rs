//! Paths whose attributes are asked for so often that a kernel may remember them: what changes them, or what they lead to, is seen at
//! once.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::{
    c, errno, exit_code, fails, in_child, ok, open, subject, sys, tests, wait_for,
};

tests! {
    changes_of_a_file_are_seen, names_that_go_and_move_are_seen, folders_that_move_are_seen, folders_that_close_are_seen,
    another_root_is_seen, of_threads_and_children, a_short_buffer_is_refused,
}

fn identity(path: &str) -> Result<(u64, u32, u64, i64), i32> {
    // SAFETY: plain data.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    match sys!(stat(c(path).as_ptr(), &mut stat)) {
        0 => Ok((stat.st_ino, stat.st_mode, stat.st_nlink, stat.st_size)),
        _ => Err(errno()),
    }
}

/// Asked often enough.
fn known(path: &str) -> Result<(u64, u32, u64, i64), i32> {
    let first = identity(path);
    for _ in 0..60 {
        assert_eq!(identity(path), first);
    }
    first
}

fn changes_of_a_file_are_seen() {
    let path = subject("link");
    let before = known(&path).expect("it is there");
    let mode = before.1 & 0o7777;
    for round in 0..8 {
        let other = mode ^ 0o020;
        if round % 2 == 0 {
            ok!(chmod(c(&path).as_ptr(), other));
        } else {
            let child = in_child(|| sys!(chmod(c(&path).as_ptr(), other)));
            assert_eq!(exit_code(wait_for(child)), 0);
        }
        assert_eq!(known(&path).map(|now| now.1 & 0o7777), Ok(other));
        ok!(chmod(c(&path).as_ptr(), mode));
        assert_eq!(known(&path).map(|now| now.1), Ok(before.1));
    }
    let link = format!("{path}-link-{}", sys!(getpid()));
    ok!(link(c(&path).as_ptr(), c(&link).as_ptr()));
    assert_eq!(known(&path).map(|now| now.2), Ok(before.2 + 1));
    ok!(unlink(c(&link).as_ptr()));
    assert_eq!(known(&path).map(|now| now.2), Ok(before.2));
}

fn names_that_go_and_move_are_seen() {
    let path = subject("name");
    let aside = format!("{path}-aside-{}", sys!(getpid()));
    for _ in 0..6 {
        let before = known(&path);
        assert_eq!(known(&aside), Err(libc::ENOENT));
        ok!(rename(c(&path).as_ptr(), c(&aside).as_ptr()));
        assert_eq!(identity(&path), Err(libc::ENOENT));
        assert_eq!(known(&aside), before);
        // In a child, and over a new file.
        std::fs::write(&path, "new").expect("a new file");
        assert_eq!(known(&path).map(|now| now.3), Ok(3));
        let child = in_child(|| sys!(rename(c(&aside).as_ptr(), c(&path).as_ptr())));
        assert_eq!(exit_code(wait_for(child)), 0);
        assert_eq!(identity(&path), before);
        assert_eq!(identity(&aside), Err(libc::ENOENT));
    }
}

fn folders_that_move_are_seen() {
    let path = subject("moved");
    let folder = PathBuf::from(&path).parent().expect("a folder").to_owned();
    let aside = folder.with_file_name("aside");
    let there = format!("{}/subject", aside.display());
    for _ in 0..6 {
        let before = known(&path);
        std::fs::rename(&folder, &aside).expect("both are ours");
        assert_eq!(identity(&path), Err(libc::ENOENT));
        assert_eq!(known(&there), before);
        let child = in_child(|| i32::from(std::fs::rename(&aside, &folder).is_err()));
        assert_eq!(exit_code(wait_for(child)), 0);
        assert_eq!(identity(&there), Err(libc::ENOENT));
        assert_eq!(known(&path), before);
    }
}

/// Whose mode says who may go through, and whose credentials.
fn folders_that_close_are_seen() {
    let path = subject("folder");
    let folder = PathBuf::from(&path).parent().expect("a folder").to_owned();
    if sys!(geteuid()) != 0 {
        return;
    }
    let mode = std::fs::metadata(&folder).expect("it is there").permissions().mode() & 0o7777;
    let child = in_child(|| {
        let before = known(&path);
        // Others may not go there any more, root may.
        ok!(setresuid(65534, 65534, 0));
        assert_eq!(known(&path), before);
        let by_root = in_child(|| {
            ok!(setresuid(0, 0, 0));
            sys!(chmod(c(folder.to_str().expect("a plain name")).as_ptr(), 0o700))
        });
        assert_eq!(exit_code(wait_for(by_root)), 0);
        assert_eq!(identity(&path), Err(libc::EACCES));
        ok!(setresuid(0, 0, 0));
        assert_eq!(known(&path), before);
        ok!(setresuid(65534, 65534, 0));
        assert_eq!(identity(&path), Err(libc::EACCES));
        ok!(setresuid(0, 0, 0));
        0
    });
    let status = wait_for(child);
    ok!(chmod(c(folder.to_str().expect("a plain name")).as_ptr(), mode));
    assert_eq!(exit_code(status), 0);
}

fn another_root_is_seen() {
    if sys!(geteuid()) != 0 {
        return;
    }
    let child = in_child(|| {
        assert!(known("/etc/passwd").is_ok());
        ok!(chroot(c"/etc".as_ptr()));
        assert_eq!(known("/etc/passwd"), Err(libc::ENOENT));
        assert!(known("/passwd").is_ok());
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn of_threads_and_children() {
    let paths = ["/etc/passwd", "/etc", "/etc/group", "/usr/bin/env", "/"];
    let expected: Vec<_> = paths.iter().map(|path| known(path)).collect();
    let look = move || {
        let seen: Vec<_> = paths.iter().map(|path| known(path)).collect();
        assert!(seen == expected);
        for path in paths {
            let fd = open(path, libc::O_RDONLY);
            // SAFETY: plain data.
            let mut stat: libc::stat = unsafe { std::mem::zeroed() };
            ok!(fstat(fd, &mut stat));
            assert_eq!(identity(path).map(|seen| seen.0), Ok(stat.st_ino));
            ok!(close(fd));
        }
    };
    for _ in 0..3 {
        let (ours, theirs) = (look.clone(), look.clone());
        let thread = std::thread::spawn(theirs);
        ours();
        thread.join().expect("it asserts what we do");
        let child = in_child(|| {
            look();
            0
        });
        assert_eq!(exit_code(wait_for(child)), 0);
        look();
    }
}

fn a_short_buffer_is_refused() {
    assert!(known("/etc/passwd").is_ok());
    for _ in 0..20 {
        fails!(libc::EFAULT, stat(c"/etc/passwd".as_ptr(), std::ptr::without_provenance_mut(8)));
        fails!(libc::EFAULT, stat(std::ptr::without_provenance(8), std::ptr::null_mut()));
    }
    // Other spellings of the same.
    let expected = known("/etc/passwd");
    for path in ["/etc/../etc/passwd", "//etc/passwd", "/etc/./passwd", "/etc//passwd"] {
        assert_eq!(known(path), expected);
    }
    assert_eq!(known("/etc/passwd/"), Err(libc::ENOTDIR));
}
