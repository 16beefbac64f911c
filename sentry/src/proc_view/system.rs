//! The whole sandbox as /proc shows it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use abi::ids::Tid;
use abi::{Errno, Result};
use base::clock::Nanos;
use base::cred::Caps;
use base::lock::Mutex;
use vfs::fs::procfs::view::{
    Counters, CpuTimes, Load, SystemMemory, SystemView, TaskView, Uts as UtsView,
};
use vfs::{MountNamespace, VfsCx};

use crate::kernel::{Kernel, Uts};
use crate::lock_order;
use crate::proc_view::load::LoadAverage;
use crate::proc_view::task::{ThreadView, process_times};
use crate::task::{Thread, ThreadGroup};

/// See the module.
pub struct ProcView {
    /// Nobody's: tasks own the kernel and, by their directories, the mounts, which own procfs, which owns this.
    kernel: Weak<Kernel>,
    mounts: Arc<MountNamespace>,
    load: Mutex<LoadAverage, lock_order::Leaf>,
}

impl ProcView {
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>, mounts: &Arc<MountNamespace>) -> Arc<Self> {
        Arc::new(Self {
            kernel: Arc::downgrade(kernel),
            mounts: Arc::clone(mounts),
            load: Mutex::default(),
        })
    }

    fn groups(&self) -> Vec<Arc<ThreadGroup>> {
        self.kernel.upgrade().map_or_else(Vec::new, |kernel| kernel.tasks.all_groups())
    }

    fn threads(&self) -> Vec<Arc<Thread>> {
        self.groups().iter().flat_map(|group| group.threads()).collect()
    }

    fn change_uts(&self, cx: &VfsCx<'_>, change: impl FnOnce(&mut Uts)) -> Result<()> {
        if !cx.cred.has(Caps::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let kernel = self.kernel.upgrade().ok_or(Errno::EIO)?;
        change(&mut kernel.uts.lock());
        Ok(())
    }
}

/// Threads that run guest code now.
fn runnable(threads: &[Arc<Thread>]) -> u64 {
    threads.iter().filter(|thread| thread.run.is_running()).count() as u64
}

/// Text of a file of the host's /proc.
fn whole(file: &OwnedFd) -> String {
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = rustix::io::pread(file, &mut chunk[..], text.len() as u64) {
        text.extend_from_slice(chunk.get(..length).unwrap_or_default());
    }
    String::from_utf8_lossy(&text).into_owned()
}

impl SystemView for ProcView {
    fn processes(&self) -> Vec<Tid> {
        self.groups().iter().map(|group| group.tgid).collect()
    }

    fn task(&self, tid: Tid) -> Option<Arc<dyn TaskView>> {
        let kernel = self.kernel.upgrade()?;
        let thread = kernel.tasks.thread(tid)?;
        Some(Arc::new(ThreadView { kernel, thread, mounts: Arc::clone(&self.mounts) }))
    }

    fn cpuinfo(&self) -> String {
        let kernel = self.kernel.upgrade();
        let file = kernel.as_ref().and_then(|kernel| kernel.host.cpuinfo.as_ref());
        file.map_or_else(String::new, whole)
    }

    fn cpus(&self) -> u32 {
        self.kernel.upgrade().map_or(1, |kernel| kernel.host.cpus.max(1))
    }

    fn memory(&self) -> SystemMemory {
        let Some(kernel) = self.kernel.upgrade() else { return SystemMemory::default() };
        let mut memory = SystemMemory {
            total: kernel.memory_limit.unwrap_or(kernel.host.mem_total),
            swap_total: kernel.host.swap_total,
            swap_free: kernel.host.swap_total,
            ..SystemMemory::default()
        };
        // Processes that share an address space (vfork) count it once.
        let mut seen = std::collections::BTreeSet::new();
        for group in self.groups() {
            let Some(mm) = group.any_thread().and_then(|thread| thread.mm_if_alive()) else {
                continue;
            };
            if seen.insert(mm.space().id()) {
                let stat = mm.memory_stat();
                memory.anonymous += stat.resident.min(stat.data + stat.stack);
                memory.committed += stat.data + stat.stack;
            }
        }
        memory.free = memory.total.saturating_sub(memory.anonymous);
        memory.available = memory.free;
        memory
    }

    fn cpu_times(&self) -> CpuTimes {
        let mut times = CpuTimes::default();
        for group in self.groups() {
            let usage = process_times(&group);
            times.user += usage.user_ns;
            times.system += usage.system_ns;
            if group.parent() == Tid(0) {
                // Whoever was reaped was waited for by someone, in the end by the first process.
                let children = group.usage.lock().children;
                times.user += children.user_ns;
                times.system += children.system_ns;
            }
        }
        let capacity = self.uptime_ns().saturating_mul(u64::from(self.cpus()));
        times.idle = capacity.saturating_sub(times.user + times.system);
        times
    }

    fn counters(&self) -> Counters {
        let Some(kernel) = self.kernel.upgrade() else { return Counters::default() };
        Counters {
            forks: u64::try_from(kernel.tasks.last_id().0).unwrap_or(0),
            running: runnable(&self.threads()),
            ..Counters::default()
        }
    }

    fn load(&self) -> Load {
        let Some(kernel) = self.kernel.upgrade() else { return Load::default() };
        let threads = self.threads();
        // The reader itself runs too, in our code.
        let runnable = runnable(&threads) + 1;
        let hundredths = self.load.lock().update(kernel.now(), runnable - 1);
        let last_pid = kernel.tasks.last_id().0;
        Load { hundredths, runnable, threads: threads.len() as u64, last_pid }
    }

    fn uptime_ns(&self) -> Nanos {
        let since = |kernel: Arc<Kernel>| kernel.now().saturating_sub(kernel.boot_monotonic_ns);
        self.kernel.upgrade().map_or(0, since)
    }

    fn boot_time(&self) -> u64 {
        self.kernel.upgrade().map_or(0, |kernel| kernel.boot_realtime_ns / 1_000_000_000)
    }

    fn uts(&self) -> UtsView {
        let Some(kernel) = self.kernel.upgrade() else { return UtsView::default() };
        let uts = kernel.uts.lock().clone();
        UtsView {
            hostname: uts.hostname,
            domainname: uts.domainname,
            release: kernel.host.kernel_release.clone(),
            version: "#1 SMP PREEMPT_DYNAMIC".into(),
        }
    }

    fn set_hostname(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<()> {
        self.change_uts(cx, |uts| uts.hostname = name.to_vec())
    }

    fn set_domainname(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<()> {
        self.change_uts(cx, |uts| uts.domainname = name.to_vec())
    }
}
