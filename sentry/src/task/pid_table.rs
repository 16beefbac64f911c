//! Who has which id, and who belongs to whom: threads, thread groups, process groups, sessions, parents.
//!
//! As in Linux (`tasklist_lock`), one lock guards the whole tree; the ids that hot paths read (parent, process group,
//! session) are mirrored as atomics in [`ThreadGroup`], written under that lock only.

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::ids::Tid;
use abi::{Errno, Result};
use base::lock::{Mutex, MutexGuard};

use crate::lock_order;
use crate::task::{Thread, ThreadGroup};

/// Highest id given out, as `/proc/sys/kernel/pid_max` says.
pub const PID_MAX: i32 = 4_194_304;
/// Ids below this are given out only once (as Linux's `RESERVED_PIDS`).
const RESERVED_PIDS: i32 = 300;

/// Where a thread group hangs in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Links {
    pub parent: Tid,
    pub pgid: Tid,
    pub sid: Tid,
}

/// The tree of tasks.
pub struct PidTable {
    tables: Mutex<Tables, lock_order::Tasks>,
    /// Threads allowed at once.
    limit: usize,
}

/// See [`PidTable::lock`].
pub struct Tables {
    last: i32,
    /// Live threads, and leaders that are zombies.
    pub threads: BTreeMap<Tid, Arc<Thread>>,
    /// Thread groups until they are reaped.
    pub groups: BTreeMap<Tid, Arc<ThreadGroup>>,
    /// Members of process groups, zombies included.
    pub process_groups: BTreeMap<Tid, Vec<Tid>>,
    /// Children by parent, oldest first.
    pub children: BTreeMap<Tid, Vec<Tid>>,
    /// Ids that are promised to a thread being made.
    reserved: std::collections::BTreeSet<Tid>,
}

impl PidTable {
    #[must_use]
    pub fn new(limit: Option<u32>) -> Self {
        let tables = Tables {
            last: 0,
            threads: BTreeMap::new(),
            groups: BTreeMap::new(),
            process_groups: BTreeMap::new(),
            children: BTreeMap::new(),
            reserved: std::collections::BTreeSet::new(),
        };
        let limit = limit.map_or(PID_MAX as usize, |limit| limit as usize);
        Self { tables: Mutex::new(tables), limit }
    }

    /// The tree, locked. Nothing is woken and no host call is made while it is held.
    pub fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock()
    }

    /// Threads allowed at once, when that was limited.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        u32::try_from(self.limit).ok().filter(|limit| *limit < PID_MAX.cast_unsigned())
    }

    /// A fresh id, promised until [`Tables::insert_thread`] or [`PidTable::unreserve`].
    ///
    /// # Errors
    /// `EAGAIN` when `--pids` threads exist or there is no id left.
    pub fn reserve(&self) -> Result<Tid> {
        let mut tables = self.lock();
        if tables.threads.len() + tables.reserved.len() >= self.limit {
            return Err(Errno::EAGAIN);
        }
        let tid = tables.free_id().ok_or(Errno::EAGAIN)?;
        tables.reserved.insert(tid);
        Ok(tid)
    }

    /// Gives back an id whose thread was not made.
    pub fn unreserve(&self, tid: Tid) {
        self.lock().reserved.remove(&tid);
    }

    /// A live thread (or zombie leader).
    #[must_use]
    pub fn thread(&self, tid: Tid) -> Option<Arc<Thread>> {
        self.lock().threads.get(&tid).cloned()
    }

    /// A thread group that was not reaped yet.
    #[must_use]
    pub fn group(&self, tgid: Tid) -> Option<Arc<ThreadGroup>> {
        self.lock().groups.get(&tgid).cloned()
    }

    /// All thread groups that were not reaped yet, by id.
    #[must_use]
    pub fn all_groups(&self) -> Vec<Arc<ThreadGroup>> {
        self.lock().groups.values().cloned().collect()
    }

    /// How many threads there are.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        self.lock().threads.len()
    }

    /// The last id given out, for /proc/loadavg.
    #[must_use]
    pub fn last_id(&self) -> Tid {
        Tid(self.lock().last)
    }
}

impl Tables {
    /// The next id that nothing bears: thread, thread group, process group or session.
    fn free_id(&mut self) -> Option<Tid> {
        for _ in 0..PID_MAX {
            self.last = if self.last >= PID_MAX - 1 { RESERVED_PIDS } else { self.last + 1 };
            let tid = Tid(self.last);
            if !self.is_used(tid) {
                return Some(tid);
            }
        }
        None
    }

    fn is_used(&self, tid: Tid) -> bool {
        self.threads.contains_key(&tid)
            || self.groups.contains_key(&tid)
            || self.process_groups.contains_key(&tid)
            || self.reserved.contains(&tid)
            || self.groups.values().any(|group| group.sid() == tid)
    }

    /// Enters a thread under its id.
    pub fn insert_thread(&mut self, thread: &Arc<Thread>) {
        self.reserved.remove(&thread.tid());
        self.threads.insert(thread.tid(), Arc::clone(thread));
    }

    /// Enters a new thread group where its links say.
    pub fn insert_group(&mut self, group: &Arc<ThreadGroup>) {
        self.groups.insert(group.tgid, Arc::clone(group));
        self.process_groups.entry(group.pgid()).or_default().push(group.tgid);
        self.children.entry(group.parent()).or_default().push(group.tgid);
    }

    /// Removes a thread group for good: it was reaped.
    pub fn remove_group(&mut self, group: &Arc<ThreadGroup>) {
        self.groups.remove(&group.tgid);
        self.threads.remove(&group.tgid);
        self.leave_process_group(group);
        self.leave_parent(group);
        self.children.remove(&group.tgid);
    }

    /// Removes a thread that is no leader.
    pub fn remove_thread(&mut self, tid: Tid) {
        self.threads.remove(&tid);
    }

    /// The children of a process, oldest first.
    pub fn children_of(&self, parent: Tid) -> impl Iterator<Item = &Arc<ThreadGroup>> {
        let ids = self.children.get(&parent).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| self.groups.get(id))
    }

    /// The members of a process group.
    pub fn members_of(&self, pgid: Tid) -> impl Iterator<Item = &Arc<ThreadGroup>> {
        let ids = self.process_groups.get(&pgid).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| self.groups.get(id))
    }

    /// Moves a process to another process group.
    pub fn set_process_group(&mut self, group: &Arc<ThreadGroup>, pgid: Tid) {
        self.leave_process_group(group);
        group.set_pgid(pgid);
        self.process_groups.entry(pgid).or_default().push(group.tgid);
    }

    /// Gives a process another parent.
    pub fn set_parent(&mut self, group: &Arc<ThreadGroup>, parent: Tid) {
        self.leave_parent(group);
        group.set_parent(parent);
        self.children.entry(parent).or_default().push(group.tgid);
        for thread in &group.signals.lock().threads {
            thread.publish_identity();
        }
    }

    fn leave_process_group(&mut self, group: &ThreadGroup) {
        remove_member(&mut self.process_groups, group.pgid(), group.tgid);
    }

    fn leave_parent(&mut self, group: &ThreadGroup) {
        remove_member(&mut self.children, group.parent(), group.tgid);
    }

    /// True when no member of the process group has a parent outside it in the same session: nobody who does job
    /// control for it. See setpgid(2), "orphaned process group".
    #[must_use]
    pub fn is_orphaned(&self, pgid: Tid) -> bool {
        self.is_orphaned_without(pgid, None)
    }

    /// As [`Tables::is_orphaned`], as if `gone` were no member (it is about to end).
    #[must_use]
    pub fn is_orphaned_without(&self, pgid: Tid, gone: Option<Tid>) -> bool {
        !self.members_of(pgid).any(|member| {
            if Some(member.tgid) == gone || member.exit_status().is_some() {
                return false;
            }
            let parent = self.groups.get(&member.parent());
            parent.is_some_and(|parent| {
                parent.pgid() != pgid
                    && parent.sid() == member.sid()
                    && parent.exit_status().is_none()
                    && Some(parent.tgid) != gone
            })
        })
    }

    /// True when some member of the process group is stopped.
    #[must_use]
    pub fn has_stopped_member(&self, pgid: Tid) -> bool {
        self.members_of(pgid).any(|member| member.signals.lock().stop.is_some())
    }
}

fn remove_member(sets: &mut BTreeMap<Tid, Vec<Tid>>, key: Tid, member: Tid) {
    if let Some(members) = sets.get_mut(&key) {
        members.retain(|other| *other != member);
        if members.is_empty() {
            sets.remove(&key);
        }
    }
}
