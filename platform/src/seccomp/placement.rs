//! Which CPUs guests may run on: while a worker looks at channels, all but its own. See `chain` for when nobody does.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::process::Pid;
use rustix::thread::CpuSet;

use super::chain::{AWAY, ROAMS};
use super::listener::one_cpu;
use super::shared::Shared;
use super::spin::Spin;
use super::thread::Thread;

impl Spin {
    /// The CPUs for guests while the calling worker looks: all but its own. Else the scheduler wakes guests on ours,
    /// where they wait until we stop looking. (We suppose because on a virtual machine an idle CPU counts as taken away
    /// by its host: see `available_idle_cpu`.)
    fn guests_cpus(&self) -> Option<CpuSet> {
        self.all_but(rustix::thread::sched_getcpu())
    }

    fn all_but(&self, cpu: usize) -> Option<CpuSet> {
        let mut others = self.allowed;
        others.unset(cpu);
        (others.count() > 0).then_some(others)
    }

    /// The CPU that guests are kept from as long as it is hot: the first worker's, or what [`Shared::follow_looker`] says.
    fn kept_from(&self) -> usize {
        match self.kept_from.load(Relaxed) {
            usize::MAX => {
                let here = rustix::thread::sched_getcpu();
                self.kept_from.store(here, Relaxed);
                here
            }
            cpu => cpu,
        }
    }

    /// Lets a thread run on other CPUs only than ours now; 0 is nobody.
    pub fn send_away(&self, tid: i32) {
        if let Some(cpus) = self.guests_cpus()
            && let Some(tid) = Pid::from_raw(tid)
        {
            // Without effect it is only slower.
            let _ = rustix::thread::sched_setaffinity(Some(tid), &cpus);
        }
    }

    /// See [`Platform::step_aside`](crate::Platform::step_aside).
    pub fn step_aside(&self, cpu: usize) {
        self.note_aside();
        if self.avoided.swap(cpu, Relaxed) != cpu
            && let Some(cpus) = self.all_but(cpu)
        {
            // Without effect it is only slower.
            let _ = rustix::thread::sched_setaffinity(None, &cpus);
        }
    }

    /// Lets a thread run on one CPU only; 0 is nobody.
    pub fn hold(&self, tid: i32, cpu: u32) {
        if let Some(tid) = Pid::from_raw(tid) {
            let _ = rustix::thread::sched_setaffinity(Some(tid), &one_cpu(cpu));
        }
    }

    /// Lets a thread run on all of the sandbox's CPUs; 0 is nobody.
    pub fn let_roam(&self, tid: i32) {
        if let Some(tid) = Pid::from_raw(tid) {
            let _ = rustix::thread::sched_setaffinity(Some(tid), &self.allowed);
        }
    }
}

impl Shared {
    /// See [`Platform::has_cpu_aside`](crate::Platform::has_cpu_aside): not while a worker looks, for it has that CPU. With as many guests
    /// as CPUs there is one as well: mostly not all of them compute, and the worker would do the same while they wait for it.
    pub fn has_cpu_aside(&self) -> bool {
        let others = self.awake_count().saturating_sub(1);
        self.spin.has_choice() && !self.spin.is_hot() && self.spin.has_room(others)
    }

    /// A thread is about to be answered: while somebody looks, it stays off that CPU.
    pub fn keep_away(&self, thread: &Arc<Thread>) {
        let spin = &self.spin;
        if !spin.is_hot() || thread.place.load(Relaxed) == AWAY {
            return;
        }
        if let Some(cpus) = spin.all_but(spin.kept_from())
            && let Some(tid) = Pid::from_raw(thread.tid())
            && rustix::thread::sched_setaffinity(Some(tid), &cpus).is_ok()
        {
            thread.place.store(AWAY, Relaxed);
            let mut kept_away = spin.kept_away.lock();
            // After a birth (`end_birth`) it is there already.
            if !kept_away.iter().any(|other| Arc::ptr_eq(other, thread)) {
                kept_away.push(Arc::clone(thread));
            }
        }
    }

    /// `creator` is about to make a thread or process, for which rings are needed. In a crowd both would wait for their turns
    /// beside all the others, again and again: they get the CPU that is looked from, which goes on afterwards. True: to be ended
    /// by [`Shared::end_birth`].
    pub fn begin_birth(&self, creator: &Thread) -> bool {
        let spin = &self.spin;
        if !spin.is_hot() || spin.has_room(self.awake_count() + 1) {
            self.cool_down();
            return false;
        }
        let mut here = CpuSet::new();
        here.set(spin.kept_from());
        let tid = Pid::from_raw(creator.tid());
        tid.is_some() && rustix::thread::sched_setaffinity(tid, &here).is_ok()
    }

    /// The creator, and whom it has made: as all others.
    pub fn end_birth(&self, tid: i32) {
        self.spin.let_roam(tid);
    }

    /// The calling worker looks: guests that are kept from another CPU, for it has moved or somebody else answered them, would
    /// share this one with it, and be served by rings only.
    pub fn follow_looker(&self) {
        let spin = &self.spin;
        let here = rustix::thread::sched_getcpu();
        if spin.kept_from.swap(here, Relaxed) == here {
            return;
        }
        let Some(cpus) = spin.all_but(here) else { return };
        for thread in &*spin.kept_away.lock() {
            if !thread.is_gone()
                && !thread.process().is_collected()
                && let Some(tid) = Pid::from_raw(thread.tid())
            {
                let _ = rustix::thread::sched_setaffinity(Some(tid), &cpus);
            }
        }
    }

    pub fn let_guests_roam(&self) {
        self.awaited.tidy();
        self.spin.kept_from.store(usize::MAX, Relaxed);
        let kept_away = std::mem::take(&mut *self.spin.kept_away.lock());
        for thread in kept_away {
            thread.place.store(ROAMS, Relaxed);
            // Dead meanwhile, its id may be somebody else's.
            let lives = !thread.is_gone() && !thread.process().is_collected();
            if lives {
                self.spin.let_roam(thread.tid());
            }
        }
    }
}
