//! inotify(7).

use crate::support::{c, enter_new_directory, fails, leave, ok, open, read_some, tests, write_all};

tests! {
    entries_of_a_directory, renames_are_paired, the_object_itself, end_of_a_watch, masks_are_replaced_or_extended,
    refusals, events_are_coalesced, once_only,
}

/// An instance that does not block.
fn instance() -> i32 {
    ok!(inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC))
}

fn watch(inotify: i32, path: &str, mask: u32) -> i32 {
    ok!(inotify_add_watch(inotify, c(path).as_ptr(), mask))
}

/// Watch, mask, cookie and name of each queued event.
fn events(inotify: i32) -> Vec<(i32, u32, u32, String)> {
    let mut buffer = [0_u8; 4096];
    let length = crate::support::sys!(read(inotify, buffer.as_mut_ptr().cast(), buffer.len()));
    let mut rest = buffer.get(..usize::try_from(length).unwrap_or(0)).unwrap();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
        let end = 16 + usize::try_from(word(12)).unwrap();
        let name = String::from_utf8(rest[16..end].to_vec()).unwrap();
        let name = name.trim_end_matches('\0').to_owned();
        events.push((word(0).cast_signed(), word(4), word(8), name));
        rest = &rest[end..];
    }
    events
}

fn short(inotify: i32) -> Vec<(u32, String)> {
    events(inotify).into_iter().map(|(_, mask, _, name)| (mask, name)).collect()
}

fn entries_of_a_directory() {
    let dir = enter_new_directory();
    let inotify = instance();
    watch(inotify, ".", libc::IN_ALL_EVENTS);
    let file = open("f", libc::O_CREAT | libc::O_WRONLY);
    write_all(file, b"x");
    ok!(close(file));
    ok!(mkdir(c("d").as_ptr(), 0o755));
    ok!(chmod(c("f").as_ptr(), 0o600));
    ok!(unlink(c("f").as_ptr()));
    let f = || "f".to_owned();
    let expected = [
        (libc::IN_CREATE, f()),
        (libc::IN_OPEN, f()),
        (libc::IN_MODIFY, f()),
        (libc::IN_CLOSE_WRITE, f()),
        (libc::IN_CREATE | libc::IN_ISDIR, "d".to_owned()),
        (libc::IN_ATTRIB, f()),
        (libc::IN_DELETE, f()),
    ];
    assert_eq!(short(inotify), expected);
    leave(&dir);
}

fn renames_are_paired() {
    let dir = enter_new_directory();
    ok!(close(open("a", libc::O_CREAT | libc::O_WRONLY)));
    let inotify = instance();
    let wd = watch(inotify, ".", libc::IN_MOVE);
    ok!(rename(c("a").as_ptr(), c("b").as_ptr()));
    let events = events(inotify);
    assert_eq!(events.len(), 2);
    assert_eq!((events[0].0, events[0].1, events[0].3.as_str()), (wd, libc::IN_MOVED_FROM, "a"));
    assert_eq!((events[1].0, events[1].1, events[1].3.as_str()), (wd, libc::IN_MOVED_TO, "b"));
    assert!(events[0].2 != 0 && events[0].2 == events[1].2);
    leave(&dir);
}

fn the_object_itself() {
    let dir = enter_new_directory();
    ok!(close(open("f", libc::O_CREAT | libc::O_WRONLY)));
    let inotify = instance();
    watch(inotify, "f", libc::IN_ALL_EVENTS);
    let file = open("f", libc::O_RDWR);
    write_all(file, b"x");
    assert_eq!(read_some(file, 1), b"");
    ok!(lseek(file, 0, libc::SEEK_SET));
    assert_eq!(read_some(file, 1), b"x");
    ok!(close(file));
    let none = String::new;
    let expected = [libc::IN_OPEN, libc::IN_MODIFY, libc::IN_ACCESS, libc::IN_CLOSE_WRITE];
    assert_eq!(short(inotify), expected.map(|mask| (mask, none())));
    leave(&dir);
}

fn end_of_a_watch() {
    let dir = enter_new_directory();
    ok!(close(open("f", libc::O_CREAT | libc::O_WRONLY)));
    let inotify = instance();
    let wd = watch(inotify, "f", libc::IN_DELETE_SELF);
    ok!(unlink(c("f").as_ptr()));
    let masks: Vec<u32> = events(inotify).into_iter().map(|event| event.1).collect();
    assert_eq!(masks, [libc::IN_DELETE_SELF, libc::IN_IGNORED]);
    fails!(libc::EINVAL, inotify_rm_watch(inotify, wd));
    let wd = watch(inotify, ".", libc::IN_CREATE);
    ok!(inotify_rm_watch(inotify, wd));
    assert_eq!(short(inotify), [(libc::IN_IGNORED, String::new())]);
    leave(&dir);
}

fn masks_are_replaced_or_extended() {
    let dir = enter_new_directory();
    let inotify = instance();
    let wd = watch(inotify, ".", libc::IN_CREATE);
    assert_eq!(watch(inotify, ".", libc::IN_DELETE), wd);
    ok!(close(open("f", libc::O_CREAT | libc::O_WRONLY)));
    assert_eq!(short(inotify), []);
    assert_eq!(watch(inotify, ".", libc::IN_CREATE | libc::IN_MASK_ADD), wd);
    ok!(unlink(c("f").as_ptr()));
    ok!(close(open("g", libc::O_CREAT | libc::O_WRONLY)));
    assert_eq!(short(inotify), [(libc::IN_DELETE, "f".into()), (libc::IN_CREATE, "g".into())]);
    leave(&dir);
}

fn refusals() {
    let inotify = instance();
    fails!(libc::EINVAL, inotify_init1(1));
    fails!(libc::EINVAL, inotify_add_watch(inotify, c(".").as_ptr(), 0));
    fails!(libc::ENOENT, inotify_add_watch(inotify, c("/missing").as_ptr(), libc::IN_OPEN));
    let only_dir = libc::IN_OPEN | libc::IN_ONLYDIR;
    fails!(libc::ENOTDIR, inotify_add_watch(inotify, c("/dev/null").as_ptr(), only_dir));
    fails!(libc::EINVAL, inotify_add_watch(0, c(".").as_ptr(), libc::IN_OPEN));
    fails!(libc::EAGAIN, read(inotify, [0_u8; 64].as_mut_ptr().cast(), 64));
    watch(inotify, "/", libc::IN_OPEN);
    let create = libc::IN_OPEN | libc::IN_MASK_CREATE;
    fails!(libc::EEXIST, inotify_add_watch(inotify, c("/").as_ptr(), create));
}

fn events_are_coalesced() {
    let dir = enter_new_directory();
    let inotify = instance();
    let file = open("f", libc::O_CREAT | libc::O_WRONLY);
    watch(inotify, ".", libc::IN_MODIFY);
    write_all(file, b"x");
    write_all(file, b"x");
    let mut bytes = 0_i32;
    ok!(ioctl(inotify, libc::FIONREAD, &mut bytes));
    assert_eq!(bytes, 32);
    assert_eq!(short(inotify), [(libc::IN_MODIFY, "f".into())]);
    leave(&dir);
}

fn once_only() {
    let dir = enter_new_directory();
    let inotify = instance();
    watch(inotify, ".", libc::IN_CREATE | libc::IN_ONESHOT);
    ok!(mkdir(c("a").as_ptr(), 0o755));
    ok!(mkdir(c("b").as_ptr(), 0o755));
    let masks: Vec<u32> = events(inotify).into_iter().map(|event| event.1).collect();
    assert_eq!(masks, [libc::IN_CREATE | libc::IN_ISDIR, libc::IN_IGNORED]);
    leave(&dir);
}
