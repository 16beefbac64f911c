//! Ids, process groups, sessions and the selection of wait4(2), on processes without threads.

use std::sync::Arc;

use abi::Errno;
use abi::clone::WaitOptions;
use abi::ids::Tid;
use abi::signal::Signal;
use base::lock::Mutex;

use super::session::{set_process_group, start_session};
use super::wait::{Which, poll};
use super::{Image, Links, NewGroup, PidTable, Rlimits, ThreadGroup};
use crate::signal::ExitStatus;

/// A process; `tgid` is the next free id.
fn process(tasks: &PidTable, parent: i32, pgid: i32, sid: i32) -> Arc<ThreadGroup> {
    let tgid = tasks.reserve().unwrap();
    tasks.unreserve(tgid);
    let group = ThreadGroup::new(NewGroup {
        tgid,
        links: Links { parent: Tid(parent), pgid: Tid(pgid), sid: Tid(sid) },
        exit_signal: i32::from(Signal::SIGCHLD.number()),
        creator: Tid(parent),
        limits: Rlimits::default(),
        image: Image::default(),
        actions: Arc::new(Mutex::default()),
    });
    tasks.lock().insert_group(&group);
    group
}

/// Process 1, its child 2 in the same group, its child 3 in a group of its own.
fn family(tasks: &PidTable) -> [Arc<ThreadGroup>; 3] {
    [process(tasks, 0, 1, 1), process(tasks, 1, 1, 1), process(tasks, 1, 3, 1)]
}

#[test]
fn ids_rise_and_the_limit_holds() {
    let tasks = PidTable::new(Some(2));
    assert_eq!(tasks.reserve(), Ok(Tid(1)));
    assert_eq!(tasks.reserve(), Ok(Tid(2)));
    assert_eq!(tasks.reserve(), Err(Errno::EAGAIN));
    tasks.unreserve(Tid(1));
    assert_eq!(tasks.reserve(), Ok(Tid(3)));
}

#[test]
fn setpgid_follows_its_rules() {
    let tasks = PidTable::new(None);
    let [init, child, other] = family(&tasks);
    assert_eq!(set_process_group(&tasks, &init, Tid(2), Tid(0)), Ok(()));
    assert_eq!(child.pgid(), Tid(2));
    assert_eq!(set_process_group(&tasks, &init, Tid(2), Tid(3)), Ok(()));
    assert_eq!(tasks.lock().members_of(Tid(3)).count(), 2);
    assert_eq!(set_process_group(&tasks, &init, Tid(2), Tid(99)), Err(Errno::EPERM));
    // A session leader, somebody else's child, nobody, a negative group.
    assert_eq!(set_process_group(&tasks, &init, Tid(0), Tid(3)), Err(Errno::EPERM));
    assert_eq!(set_process_group(&tasks, &other, Tid(2), Tid(0)), Err(Errno::ESRCH));
    assert_eq!(set_process_group(&tasks, &init, Tid(50), Tid(0)), Err(Errno::ESRCH));
    assert_eq!(set_process_group(&tasks, &init, Tid(2), Tid(-1)), Err(Errno::EINVAL));
    child.set_has_execed();
    assert_eq!(set_process_group(&tasks, &init, Tid(2), Tid(0)), Err(Errno::EACCES));
}

#[test]
fn setsid_is_refused_to_group_leaders() {
    let tasks = PidTable::new(None);
    let [_, child, other] = family(&tasks);
    assert_eq!(start_session(&tasks, &other), Err(Errno::EPERM));
    assert_eq!(start_session(&tasks, &child), Ok(Tid(2)));
    assert_eq!((child.pgid(), child.sid()), (Tid(2), Tid(2)));
}

#[test]
fn process_groups_are_orphaned_without_a_parent_in_the_session() {
    let tasks = PidTable::new(None);
    let [_, child, other] = family(&tasks);
    assert!(!tasks.lock().is_orphaned(Tid(3)));
    assert!(tasks.lock().is_orphaned(Tid(1)));
    tasks.lock().set_parent(&other, child.tgid);
    assert!(!tasks.lock().is_orphaned(Tid(3)));
    assert!(tasks.lock().is_orphaned_without(Tid(3), Some(child.tgid)));
}

#[test]
fn wait_selects_and_reaps() {
    let tasks = PidTable::new(None);
    let [init, child, other] = family(&tasks);
    let look = |which, options| poll(&tasks, &init, which, options | WaitOptions::EXITED);
    let none = WaitOptions::empty();
    assert!(look(Which::Any, none).unwrap().is_none());
    assert_eq!(look(Which::Process(Tid(77)), none).unwrap_err(), Errno::ECHILD);
    assert_eq!(look(Which::Any, WaitOptions::CLONE).unwrap_err(), Errno::ECHILD);
    other.set_exit_status(ExitStatus::Exited(3));
    assert!(look(Which::Process(child.tgid), none).unwrap().is_none());
    assert!(look(Which::ProcessGroup(Tid(1)), none).unwrap().is_none());
    let seen = look(Which::Any, WaitOptions::NOWAIT).unwrap().unwrap();
    assert_eq!((seen.pid, seen.wait_word()), (Tid(3), 0x300));
    assert!(look(Which::ProcessGroup(Tid(3)), none).unwrap().is_some());
    assert_eq!(look(Which::Process(Tid(3)), none).unwrap_err(), Errno::ECHILD);
    assert!(tasks.group(Tid(3)).is_none());
}

#[test]
fn stops_and_continuations_are_reported_once() {
    let tasks = PidTable::new(None);
    let [init, child, _] = family(&tasks);
    child.signals.lock().stop_report = Some(Signal::SIGTSTP);
    let look = |options| poll(&tasks, &init, Which::Any, options).unwrap();
    assert!(look(WaitOptions::EXITED).is_none());
    assert_eq!(look(WaitOptions::UNTRACED).unwrap().wait_word(), 0x147f);
    assert!(look(WaitOptions::UNTRACED).is_none());
    child.signals.lock().continue_report = true;
    assert_eq!(look(WaitOptions::CONTINUED).unwrap().wait_word(), 0xffff);
}
