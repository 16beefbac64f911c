//! One guest thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use abi::Errno;
use abi::ids::Tid;
use base::WaitQueue;
use base::clock::Nanos;
use base::cred::Credentials;
use base::lock::{Mutex, MutexGuard};
use platform::{Answers, Context};
use vfs::file_table::FdTable;
use vfs::{Caller, FsContext, VfsCx};

use crate::loans::FIRST_BROUGHT;
use crate::lock_order;
use crate::mm::Mm;
use crate::path_stats::PathHabit;
use crate::ready::ReadyFiles;
use crate::signal::ThreadSignals;
use crate::task::ThreadGroup;
use crate::task::run_state::RunState;

/// A guest thread: identity and the parts that clone(2) shares or copies.
pub struct Thread {
    /// Changes once at most: when an exec by a non-leader makes it the leader.
    tid: AtomicI32,
    pub group: Arc<ThreadGroup>,
    parts: Mutex<Held, lock_order::ThreadParts>,
    /// Changes whenever these do, under their lock; see `own_parts`.
    parts_version: AtomicU64,
    pub signals: Mutex<ThreadSignals, lock_order::ThreadSignals>,
    /// How others interrupt it.
    pub run: RunState,
    pub attrs: Mutex<Attrs, lock_order::Leaf>,
    /// When it was made, on `CLOCK_MONOTONIC`.
    pub start_ns: Nanos,
    /// Told when this thread, as a vfork child, has exec'd or exited; and when it has ended.
    pub released: WaitQueue,
    /// Set before `released` is told.
    is_released: AtomicBool,
    /// Its last change of the layout goes to the host with its way back to guest code, see `mm::layout`. Its own affair.
    changes_layout: AtomicBool,
    brings: AtomicU32,
    pub(crate) path_habit: Mutex<PathHabit, lock_order::Leaf>,
    pub(crate) ready: ReadyFiles,
    /// Time in the sentry on this thread's behalf, in nanoseconds; its own counter, nothing depends on its order.
    pub system_ns: AtomicU64,
}

/// Replaced as wholes; take a clone of the `Arc` and let go of the lock.
#[derive(Clone)]
pub struct Parts {
    pub cred: Arc<Credentials>,
    pub mm: Arc<Mm>,
    pub fs: Arc<FsContext>,
    pub files: Arc<FdTable>,
}

/// What a thread holds: credentials for ever, the rest until it ends.
struct Held {
    cred: Arc<Credentials>,
    shares: Option<Shares>,
}

/// What clone(2) can share and the end of the thread lets go of.
pub(super) struct Shares {
    pub mm: Arc<Mm>,
    pub fs: Arc<FsContext>,
    pub files: Arc<FdTable>,
}

/// Small attributes of a thread.
#[derive(Debug, Clone)]
pub struct Attrs {
    /// At most 15 bytes.
    pub comm: Vec<u8>,
    /// PR_SET_PDEATHSIG; 0 is none.
    pub pdeath_signal: u8,
    pub personality: u32,
    pub nice: i32,
    /// Policy and priority of sched_setscheduler(2).
    pub policy: u32,
    pub rt_priority: u32,
    pub reset_on_fork: bool,
    /// Bit n: may run on CPU n.
    pub affinity: Vec<u64>,
    pub timer_slack_ns: u64,
    /// I/O priority of ioprio_set(2).
    pub io_priority: u16,
    /// What exit(2) was given.
    pub exit_code: u8,
    /// What restart_syscall(2) goes on with.
    pub restart_block: Option<RestartBlock>,
}

/// An interrupted call that goes on with what is left of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartBlock {
    /// Number of the call; its arguments are still in the registers.
    pub number: u64,
    /// When its time is up, on `CLOCK_MONOTONIC`.
    pub deadline: Nanos,
}

impl Attrs {
    /// Of the first thread: `cpus` CPUs may be used.
    #[must_use]
    pub fn new(cpus: u32) -> Self {
        let mut affinity = vec![0u64; cpus.max(1).div_ceil(64) as usize];
        for cpu in 0..cpus.max(1) as usize {
            affinity[cpu / 64] |= 1 << (cpu % 64);
        }
        Self {
            comm: Vec::new(),
            pdeath_signal: 0,
            personality: 0,
            nice: 0,
            policy: 0,
            rt_priority: 0,
            reset_on_fork: false,
            affinity,
            timer_slack_ns: 50_000,
            io_priority: 0,
            exit_code: 0,
            restart_block: None,
        }
    }

    /// Sets the name, cut to 15 bytes as PR_SET_NAME and execve(2) do.
    pub fn set_comm(&mut self, name: &[u8]) {
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        self.comm = name[..end.min(15)].to_vec();
    }
}

impl Thread {
    #[must_use]
    pub fn new(
        tid: Tid,
        group: Arc<ThreadGroup>,
        parts: Parts,
        attrs: Attrs,
        signals: ThreadSignals,
    ) -> Arc<Self> {
        let Parts { cred, mm, fs, files } = parts;
        let held = Held { cred, shares: Some(Shares { mm, fs, files }) };
        Arc::new(Self {
            tid: AtomicI32::new(tid.0),
            group,
            parts: Mutex::new(held),
            parts_version: AtomicU64::new(0),
            signals: Mutex::new(signals),
            run: RunState::default(),
            attrs: Mutex::new(attrs),
            start_ns: crate::executor::timer::monotonic(),
            released: WaitQueue::new(),
            is_released: AtomicBool::new(false),
            changes_layout: AtomicBool::new(false),
            brings: AtomicU32::new(FIRST_BROUGHT),
            path_habit: Mutex::default(),
            ready: ReadyFiles::default(),
            system_ns: AtomicU64::new(0),
        })
    }

    pub fn tid(&self) -> Tid {
        Tid(self.tid.load(Ordering::Relaxed))
    }

    pub fn tgid(&self) -> Tid {
        self.group.tgid
    }

    pub fn is_leader(&self) -> bool {
        self.tid() == self.group.tgid
    }

    /// The exec of a non-leader takes over the leader's id. Under the pid table's lock.
    pub(super) fn set_tid(&self, tid: Tid) {
        self.tid.store(tid.0, Ordering::Relaxed);
    }

    pub fn cred(&self) -> Arc<Credentials> {
        Arc::clone(&self.parts.lock().cred)
    }

    pub fn set_cred(&self, cred: Credentials) {
        let cred = Arc::new(cred);
        let old = std::mem::replace(&mut self.change_parts().cred, cred);
        drop(old);
        self.forget_paths();
        self.publish_identity();
    }

    /// What guest code was told of paths does not hold for it any more.
    pub fn forget_paths(&self) {
        let told = self.path_habit.lock().take_told();
        drop(told);
        self.ready.forget();
    }

    /// Tells the platform who the thread is, so that it needs no call to find out. After every change of that.
    pub fn publish_identity(&self) {
        let cred = self.cred();
        let mm = self.mm_if_alive();
        let questions = mm.map(|mm| mm.with_state(|state| state.image.questions.clone()));
        self.run.set_answers(&Answers {
            questions: questions.unwrap_or_default(),
            pid: self.tgid().0.cast_unsigned(),
            tid: self.tid().0.cast_unsigned(),
            parent: self.group.parent().0.cast_unsigned(),
            uid: cred.ruid.0,
            effective_uid: cred.euid.0,
            gid: cred.rgid.0,
            effective_gid: cred.egid.0,
            rseq: Errno::ENOSYS,
        });
    }

    /// A new execution context: at the start, and by execve.
    pub fn set_context(&self, context: &dyn Context) {
        self.run.set_kicker(context.kicker());
        self.run.set_lends(false);
        self.publish_identity();
        self.share_signals(context);
    }

    /// Its execution context is about to be given up.
    pub fn forget_context(&self) {
        self.unshare_signals();
        self.run.forget_context();
    }

    /// The address space of a thread that has not ended; for the thread itself.
    pub fn mm(&self) -> Arc<Mm> {
        self.mm_if_alive().expect("only a thread that has not ended asks for its own memory")
    }

    /// `None` once the thread has ended; for those who look at others.
    pub fn mm_if_alive(&self) -> Option<Arc<Mm>> {
        self.parts.lock().shares.as_ref().map(|shares| Arc::clone(&shares.mm))
    }

    /// Whether the host is still to carry out its last change of the layout, as far as it knows.
    pub fn changes_layout(&self) -> bool {
        self.changes_layout.load(Ordering::Relaxed)
    }

    /// So many bytes of a file come along when it opens one (`loans`).
    pub fn brings(&self) -> u32 {
        self.brings.load(Ordering::Relaxed)
    }

    /// Sets [`Thread::brings`].
    pub fn set_brings(&self, bytes: u32) {
        self.brings.store(bytes, Ordering::Relaxed);
    }

    /// Sets [`Thread::changes_layout`]; what it was.
    pub fn set_changes_layout(&self, changes: bool) -> bool {
        let before = self.changes_layout();
        if before != changes {
            self.changes_layout.store(changes, Ordering::Relaxed);
        }
        before
    }

    /// Takes a new address space (execve); returns the old one.
    pub fn set_mm(&self, mm: Arc<Mm>) -> Option<Arc<Mm>> {
        let mut parts = self.change_parts();
        parts.shares.as_mut().map(|shares| std::mem::replace(&mut shares.mm, mm))
    }

    pub fn fs(&self) -> Arc<FsContext> {
        self.fs_if_alive().expect("only a thread that has not ended asks for its own directories")
    }

    /// `None` once the thread has ended.
    pub fn fs_if_alive(&self) -> Option<Arc<FsContext>> {
        self.parts.lock().shares.as_ref().map(|shares| Arc::clone(&shares.fs))
    }

    /// Takes an own copy of root, cwd and umask (CLONE_FS of unshare(2), execve).
    pub fn set_fs(&self, fs: Arc<FsContext>) {
        let mut parts = self.change_parts();
        let old = parts.shares.as_mut().map(|shares| std::mem::replace(&mut shares.fs, fs));
        drop(parts);
        drop(old);
    }

    /// All parts of a thread that has not ended.
    pub fn parts(&self) -> Parts {
        let parts = self.parts.lock();
        let shares = parts.shares.as_ref().expect("only a thread that has not ended copies itself");
        Parts {
            cred: Arc::clone(&parts.cred),
            mm: Arc::clone(&shares.mm),
            fs: Arc::clone(&shares.fs),
            files: Arc::clone(&shares.files),
        }
    }

    fn change_parts(&self) -> MutexGuard<'_, Held> {
        let parts = self.parts.lock();
        self.parts_version.fetch_add(1, Ordering::Release);
        parts
    }

    /// Another one after each change of the parts.
    pub(super) fn parts_version(&self) -> u64 {
        self.parts_version.load(Ordering::Acquire)
    }

    /// The descriptor table of a thread that has not ended.
    pub fn files(&self) -> Arc<FdTable> {
        self.files_if_alive().expect("only a thread that has not ended asks for its own files")
    }

    /// `None` once the thread has ended.
    pub fn files_if_alive(&self) -> Option<Arc<FdTable>> {
        self.parts.lock().shares.as_ref().map(|shares| Arc::clone(&shares.files))
    }

    /// Takes another descriptor table (unshare, execve); the old one is closed when nobody else has it.
    pub fn set_files(&self, files: Arc<FdTable>) {
        self.run.set_lends(false);
        let mut parts = self.change_parts();
        let old = parts.shares.as_mut().map(|shares| std::mem::replace(&mut shares.files, files));
        drop(parts);
        drop(old);
    }

    /// Lets go of memory, files and directories at the end of the thread.
    pub(super) fn take_shares(&self) -> Option<Shares> {
        self.change_parts().shares.take()
    }

    /// Tells a parent that waits in vfork(2), and whoever waits for the thread's end.
    pub fn release(&self) {
        self.is_released.store(true, Ordering::Release);
        self.released.notify(abi::poll::PollEvents::IN);
    }

    /// See [`Thread::release`].
    pub fn is_released(&self) -> bool {
        self.is_released.load(Ordering::Acquire)
    }

    /// Runs `f` with this thread as the filesystems see it.
    pub fn with_vfs<R>(&self, f: impl FnOnce(&VfsCx<'_>) -> R) -> R {
        let (cred, fs) = {
            let parts = self.parts.lock();
            let shares = parts.shares.as_ref().expect("only a thread that has not ended asks");
            (Arc::clone(&parts.cred), Arc::clone(&shares.fs))
        };
        self.with_parts(&cred, &fs, f)
    }

    /// The same, with these parts of it.
    pub fn with_parts<R>(
        &self,
        cred: &Credentials,
        fs: &FsContext,
        f: impl FnOnce(&VfsCx<'_>) -> R,
    ) -> R {
        let group = &self.group;
        let caller =
            Caller { tid: self.tid(), tgid: group.tgid, pgid: group.pgid(), sid: group.sid() };
        let file_size_limit = group.file_size_limit();
        f(&VfsCx { cred, fs, caller, file_size_limit, will_open: false })
    }
}

impl std::fmt::Debug for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Thread({}/{})", self.group.tgid, self.tid())
    }
}
