//! One thread, and its process, as /proc shows it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::ids::{Fd, Tid};
use abi::rlimit::Resource;
use abi::signal::Signal;
use abi::{Errno, Result, UserAddr};
use base::cred::Credentials;
use platform::Prot;
use vfs::fs::procfs::view::{
    IoCounts, MapName, MapView, Scheduling, Scope, SignalState, TaskIds, TaskMemory, TaskState,
    TaskTimes, TaskView,
};
use vfs::{File, MountNamespace, Path};

use crate::kernel::Kernel;
use crate::mm::{ImageInfo, MapLine, Mm, VmaFlags};
use crate::task::{Rusage, Thread, ThreadGroup};

/// Longest cmdline or environ that is shown, as much as execve(2) takes.
const MAX_ARGUMENTS: u64 = 2 << 20;

/// See the module.
pub struct ThreadView {
    pub(super) kernel: Arc<Kernel>,
    pub(super) thread: Arc<Thread>,
    pub(super) mounts: Arc<MountNamespace>,
}

/// What a process has used, its live address space included.
pub(super) fn process_times(group: &ThreadGroup) -> Rusage {
    let mut usage = group.usage.lock().own;
    let threads = group.threads();
    for thread in &threads {
        let system_ns = thread.system_ns.load(Ordering::Relaxed);
        usage.add(&Rusage { system_ns, ..Rusage::default() });
    }
    if let Some(mm) = threads.first().and_then(|thread| thread.mm_if_alive()) {
        let live = mm.space().usage();
        usage.add(&Rusage { user_ns: live.user_ns, ..Rusage::default() });
    }
    usage
}

impl ThreadView {
    fn group(&self) -> &Arc<ThreadGroup> {
        &self.thread.group
    }

    /// This thread, or when it is an ended leader one that still lives.
    fn live(&self) -> Option<Arc<Thread>> {
        if self.thread.mm_if_alive().is_some() {
            return Some(Arc::clone(&self.thread));
        }
        self.group().any_thread()
    }

    fn mm(&self) -> Option<Arc<Mm>> {
        self.live()?.mm_if_alive()
    }

    fn image(&self) -> Option<(Arc<Mm>, ImageInfo)> {
        let mm = self.mm()?;
        let image = mm.with_state(|state| state.image.clone());
        Some((mm, image))
    }

    fn read_range(mm: &Mm, range: &Range<u64>) -> Vec<u8> {
        let len = range.end.saturating_sub(range.start).min(MAX_ARGUMENTS);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let got = mm.space().read(UserAddr(range.start), &mut bytes);
        bytes.truncate(got);
        bytes
    }

    fn start_ns(&self) -> u64 {
        self.thread.start_ns.saturating_sub(self.kernel.boot_monotonic_ns)
    }
}

fn map_view(line: MapLine) -> MapView {
    let name = match (&line.file, line.name) {
        (Some(file), _) => MapName::File(file.path().clone()),
        (None, "") => MapName::None,
        (None, name) => MapName::Special(name.to_owned()),
    };
    MapView {
        start: line.start,
        end: line.end,
        is_readable: line.prot.contains(Prot::READ),
        is_writable: line.prot.contains(Prot::WRITE),
        is_executable: line.prot.contains(Prot::EXEC),
        is_shared: line.is_shared,
        offset: line.offset,
        name,
        resident: 0,
        anonymous: 0,
        is_locked: line.flags.contains(VmaFlags::LOCKED),
    }
}

impl TaskView for ThreadView {
    fn ids(&self) -> TaskIds {
        let group = self.group();
        let terminal = self.kernel.terminals.of_session(group.sid());
        TaskIds {
            tid: self.thread.tid(),
            tgid: group.tgid,
            ppid: group.parent(),
            pgid: group.pgid(),
            sid: group.sid(),
            tty: terminal.as_ref().map_or(0, |tty| tty.rdev()),
            tty_pgid: terminal.map_or(-1, |tty| tty.foreground().0),
        }
    }

    fn cred(&self) -> Arc<Credentials> {
        self.thread.cred()
    }

    fn comm(&self) -> Vec<u8> {
        self.thread.attrs.lock().comm.clone()
    }

    fn set_comm(&self, name: &[u8]) {
        self.thread.attrs.lock().set_comm(name);
    }

    fn state(&self) -> TaskState {
        let is_stopped = {
            let signals = self.group().signals.lock();
            if signals.threads.is_empty() {
                return TaskState::Zombie;
            }
            signals.stop.is_some() && signals.stopped > 0
        };
        if self.thread.mm_if_alive().is_none() {
            // A leader that ended before its threads.
            return TaskState::Zombie;
        }
        match (is_stopped, self.thread.run.is_running()) {
            (true, _) => TaskState::Stopped,
            (false, true) => TaskState::Running,
            (false, false) => TaskState::Sleeping,
        }
    }

    fn threads(&self) -> Vec<Tid> {
        let mut tids: Vec<Tid> = self.group().threads().iter().map(|thread| thread.tid()).collect();
        tids.sort_unstable();
        tids
    }

    fn times(&self, scope: Scope) -> TaskTimes {
        let group = self.group();
        let (usage, children) = (process_times(group), group.usage.lock().children);
        let mut times = TaskTimes {
            user_ns: usage.user_ns,
            system_ns: usage.system_ns,
            children_user_ns: children.user_ns,
            children_system_ns: children.system_ns,
            start_ns: self.start_ns(),
            minor_faults: usage.minor_faults,
            major_faults: usage.major_faults,
            voluntary_switches: usage.voluntary_switches,
            involuntary_switches: usage.involuntary_switches,
        };
        if scope == Scope::Thread {
            // The host accounts for the process; its threads share that evenly.
            let threads = group.threads().len().max(1) as u64;
            times.user_ns /= threads;
            times.system_ns = self.thread.system_ns.load(Ordering::Relaxed);
        }
        times
    }

    fn scheduling(&self) -> Scheduling {
        let attrs = self.thread.attrs.lock();
        Scheduling {
            nice: attrs.nice,
            policy: attrs.policy,
            rt_priority: attrs.rt_priority,
            affinity: attrs.affinity.clone(),
            last_cpu: 0,
        }
    }

    fn signals(&self) -> SignalState {
        let group = self.group();
        let (shared_pending, shared_queued, exit) = {
            let signals = group.signals.lock();
            (signals.queue.set().0, signals.queue.len(), signals.exit)
        };
        let (pending, queued, blocked) = {
            let signals = self.thread.signals.lock();
            (signals.queue.set().0, signals.queue.len(), signals.mask().0)
        };
        let (mut ignored, mut caught) = (0, 0);
        {
            let actions = group.actions.lock();
            for signal in (1..=64).filter_map(Signal::new) {
                let (action, bit) = (actions.get(signal), 1 << (signal.number() - 1));
                if action.is_ignore() {
                    ignored |= bit;
                } else if !action.is_default() {
                    caught |= bit;
                }
            }
        }
        SignalState {
            queued: (shared_queued + queued) as u64,
            pending,
            shared_pending,
            blocked,
            ignored,
            caught,
            exit_signal: group.exit_signal(),
            exit_code: exit.map_or(0, |exit| exit.wait_word()),
        }
    }

    fn limits(&self) -> Vec<(u64, u64)> {
        let limits = self.group().limits();
        let pair = |resource| (limits.get(resource).cur, limits.get(resource).max);
        (0..16).filter_map(Resource::from_raw).map(pair).collect()
    }

    fn exe(&self) -> Option<Path> {
        self.live()?;
        self.group().image.lock().exe.clone()
    }

    fn cwd(&self) -> Option<Path> {
        let fs = self.live()?.fs_if_alive()?;
        let cwd = fs.state.lock().cwd.clone();
        Some(cwd)
    }

    fn root(&self) -> Option<Path> {
        let fs = self.live()?.fs_if_alive()?;
        let root = fs.state.lock().root.clone();
        Some(root)
    }

    fn umask(&self) -> Option<u32> {
        let fs = self.live()?.fs_if_alive()?;
        let umask = fs.state.lock().umask;
        Some(umask)
    }

    fn mounts(&self) -> Option<Arc<MountNamespace>> {
        Some(Arc::clone(&self.mounts))
    }

    fn fds(&self) -> Vec<Fd> {
        let files = self.live().and_then(|thread| thread.files_if_alive());
        files.map_or_else(Vec::new, |files| files.list().into_iter().map(|(fd, _)| fd).collect())
    }

    fn file(&self, fd: Fd) -> Option<(Arc<File>, bool)> {
        let files = self.live()?.files_if_alive()?;
        let file = files.get_path_ok(fd).ok()?;
        Some((file, files.is_cloexec(fd).unwrap_or(false)))
    }

    fn fd_slots(&self) -> usize {
        let files = self.live().and_then(|thread| thread.files_if_alive());
        files.map_or(0, |files| files.capacity())
    }

    fn memory(&self) -> Option<TaskMemory> {
        let (mm, image) = self.image()?;
        let stat = mm.memory_stat();
        let anonymous = stat.resident.min(stat.data + stat.stack);
        let start_brk = mm.with_state(|state| state.brk_start);
        let past_resident = self.group().usage.lock().own.max_rss_bytes;
        Some(TaskMemory {
            size: stat.size,
            peak_size: stat.peak,
            resident: stat.resident,
            peak_resident: past_resident.max(stat.resident),
            resident_file: stat.resident - anonymous,
            locked: stat.locked,
            data: stat.data,
            stack: stat.stack,
            text: stat.exe,
            library: stat.lib,
            swap: 0,
            start_code: image.code.start,
            end_code: image.code.end,
            start_data: image.data.start,
            end_data: image.data.end,
            start_brk,
            start_stack: image.start_stack,
            arg_start: image.args.start,
            arg_end: image.args.end,
            env_start: image.env.start,
            env_end: image.env.end,
        })
    }

    fn maps(&self) -> Vec<MapView> {
        let Some(mm) = self.mm() else { return Vec::new() };
        let lines = mm.maps(self.kernel.platform.layout());
        let mut views: Vec<MapView> = lines.into_iter().map(map_view).collect();
        share_resident(&mut views, mm.memory_stat().resident);
        views
    }

    fn cmdline(&self) -> Result<Vec<u8>> {
        let Some((mm, image)) = self.image() else { return Ok(Vec::new()) };
        let mut text = Self::read_range(&mm, &image.args);
        // A program that wrote its title over the last NUL goes on into the environment (setproctitle).
        if text.last().is_some_and(|last| *last != 0) {
            let more = Self::read_range(&mm, &(image.args.end..image.env.end));
            let end = more.iter().position(|byte| *byte == 0).map_or(more.len(), |at| at + 1);
            text.extend_from_slice(more.get(..end).unwrap_or(&more));
        }
        Ok(text)
    }

    fn environ(&self) -> Result<Vec<u8>> {
        let image = self.image();
        Ok(image.map_or_else(Vec::new, |(mm, image)| Self::read_range(&mm, &image.env)))
    }

    fn auxv(&self) -> Result<Vec<u8>> {
        let (_, image) = self.image().ok_or(Errno::ESRCH)?;
        Ok(image.auxv.iter().flat_map(|word| word.to_ne_bytes()).collect())
    }

    fn read_memory(&self, addr: u64, into: &mut [u8]) -> usize {
        self.mm().map_or(0, |mm| mm.space().read(UserAddr(addr), into))
    }

    fn write_memory(&self, addr: u64, bytes: &[u8]) -> usize {
        self.mm().map_or(0, |mm| mm.space().write(UserAddr(addr), bytes))
    }

    fn personality(&self) -> u32 {
        self.thread.attrs.lock().personality
    }

    fn no_new_privs(&self) -> bool {
        self.thread.cred().no_new_privs
    }

    fn is_dumpable(&self) -> bool {
        self.group().image.lock().dumpable == 1
    }

    fn timer_slack_ns(&self) -> u64 {
        self.thread.attrs.lock().timer_slack_ns
    }

    fn oom_score_adj(&self) -> i32 {
        self.group().image.lock().oom_score_adj
    }

    fn set_oom_score_adj(&self, value: i32) {
        self.group().image.lock().oom_score_adj = value;
    }

    fn io(&self) -> IoCounts {
        IoCounts::default()
    }
}

/// The host tells the resident bytes of the whole address space only: mappings get their share of it by size.
fn share_resident(views: &mut [MapView], resident: u64) {
    let accessible = |view: &MapView| view.is_readable || view.is_writable || view.is_executable;
    let size = |view: &MapView| view.end - view.start;
    let total: u64 = views.iter().filter(|view| accessible(view)).map(size).sum();
    for view in views.iter_mut().filter(|view| accessible(view)) {
        let share = u128::from(resident) * u128::from(size(view)) / u128::from(total.max(1));
        // Whole pages, as every reader expects.
        view.resident = (u64::try_from(share).unwrap_or(0) & !0xfff).min(size(view));
        let is_file = matches!(view.name, MapName::File(_));
        view.anonymous = if is_file && !view.is_writable { 0 } else { view.resident };
    }
}
