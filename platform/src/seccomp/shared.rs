//! What all contexts of the platform share: tables, listener, deaths.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize};

use abi::Errno;
use parking_lot::Mutex;
use rustix::event::epoll;
use shim_abi::{ring, state};

use super::Config;
use super::awaited::Awaited;
use super::chain::Chain;
use super::frame::Template;
use super::known_paths::KnownPaths;
use super::listener::Listener;
use super::orders::{Arrival, Order, Orders};
use super::pool::Pool;
use super::process::Process;
use super::region::{GlobalPage, Region, RegionMaker, StubRegionMaker, errno};
use super::spin::Spin;
use super::sys::{self, Notification};
use super::thread::{Reply, Thread};
use crate::{AddressSpace, Kicker, PlatformError};

/// Marks an order's token among the process ids of the death set.
const TOKEN_BIT: u64 = 1 << 61;
/// Made whenever a process has died: then its successor's is there.
const REGIONS_AHEAD: usize = 2;
/// So many of the dying are sent to other CPUs. More are there when these have other work: then hundreds pile up, and whoever
/// wakes among them waits for long.
const MOST_DYING_ELSEWHERE: usize = 4;
/// The chain's alarm in the death set.
const ALARM_ID: u64 = 1 << 62;
/// The zygote in the death set.
pub const ZYGOTE_ID: u64 = 0;

/// The platform's common state.
pub struct Shared {
    pub listener: Listener,
    pub template: Template,
    pub global: Arc<GlobalPage>,
    pub known_paths: Arc<KnownPaths>,
    pub has_fsgsbase: bool,
    /// By host thread id.
    pub threads: Mutex<HashMap<i32, Arc<Thread>>>,
    pub orders: Arc<Orders>,
    pub pool: Pool,
    pub awaited: Awaited,
    processes: Mutex<HashMap<u64, Arc<Process>>>,
    /// Children that a guest claims to have made and that did not say hello yet.
    unborn: Mutex<HashMap<u64, OwnedFd>>,
    /// Regions made ahead of demand.
    regions: Mutex<Vec<Arc<Region>>>,
    region_maker: Mutex<RegionMaker>,
    /// The same for children of the zygote: first in, first out, as it has the memory of one after the other.
    stub_regions: Mutex<VecDeque<Arc<Region>>>,
    stub_region_maker: Mutex<StubRegionMaker>,
    /// Processes that nobody needs any more, to be killed when there is nothing better to do.
    doomed: Mutex<Vec<Arc<Process>>>,
    /// Whether there are any, for a look without the lock.
    has_doomed: AtomicBool,
    /// How many of them were killed and not collected yet.
    dying: AtomicUsize,
    /// Thread that collects the dead; 0 before it did so for the first time.
    reaper: AtomicI32,
    /// epoll of pidfds.
    deaths: OwnedFd,
    pub is_broken: AtomicBool,
    pub spin: Spin,
    pub chain: Chain,
    /// Shims may answer what they know.
    may_answer: bool,
    /// Calls that shims of contexts which are gone have answered.
    pub answered_calls: AtomicU64,
}

impl Shared {
    pub fn new(
        listener: OwnedFd,
        template: Template,
        global: GlobalPage,
        pool: Pool,
        config: &Config,
    ) -> Result<Arc<Self>, Errno> {
        let deaths = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(errno)?;
        let chain = Chain::new()?;
        let alarm = epoll::EventData::new_u64(ALARM_ID);
        epoll::add(&deaths, chain.alarm(), alarm, epoll::EventFlags::IN).map_err(errno)?;
        let global = Arc::new(global);
        let has_fsgsbase = global.get().flags.load(Relaxed) & shim_abi::global_flag::FSGSBASE != 0;
        Ok(Arc::new(Self {
            listener: Listener::new(listener),
            template,
            known_paths: KnownPaths::new(Arc::clone(&global)),
            global,
            has_fsgsbase,
            threads: Mutex::default(),
            orders: Orders::new(),
            pool,
            awaited: Awaited::default(),
            processes: Mutex::default(),
            unborn: Mutex::default(),
            regions: Mutex::default(),
            region_maker: Mutex::default(),
            stub_regions: Mutex::default(),
            stub_region_maker: Mutex::default(),
            doomed: Mutex::default(),
            has_doomed: AtomicBool::new(false),
            dying: AtomicUsize::new(0),
            reaper: AtomicI32::new(0),
            deaths,
            is_broken: AtomicBool::new(false),
            spin: Spin::new(config.spin),
            chain,
            may_answer: config.answer,
            answered_calls: AtomicU64::new(0),
        }))
    }

    /// Whether threads carry their slot in gs, so that rewritten call sites work.
    pub fn has_fast_entry(&self) -> bool {
        self.global.get().flags.load(Relaxed) & shim_abi::global_flag::SLOT_IN_GS != 0
    }

    /// Tells shims to make calls for what they move to and from devices.
    pub fn hear_transfers(&self) {
        self.global.get().flags.fetch_or(shim_abi::global_flag::HEARD, SeqCst);
    }

    /// Makes nothing hold that shims were told of paths with a lower number.
    pub fn forget_names(&self, names: u64) {
        self.global.get().names.fetch_max(names, SeqCst);
    }

    /// A doorbell rang; true when somebody may have been woken: the caller then has tasks to run.
    pub fn on_notification(self: &Arc<Self>, notification: &Notification) -> bool {
        let id = notification.id;
        let tid = notification.pid.cast_signed();
        let [why, what, ..] = notification.data.args;
        if notification.data.nr.cast_unsigned() != shim_abi::DOORBELL {
            return self.on_clone(tid, id, why);
        }
        match why {
            ring::ZYGOTE if tid == self.pool.zygote_pid() => {
                self.pool.on_zygote(self, id, what);
                true
            }
            ring::HELLO => self.on_hello(what, tid, id),
            _ => {
                let thread = self.threads.lock().get(&tid).cloned();
                match thread {
                    // Else who jumps into the zygote's loop stays there, whoever kicks it.
                    Some(thread) if why != ring::EVENT => {
                        thread.process().fail("broke its channel: a ring of no kind");
                        true
                    }
                    Some(thread) if thread.on_ring(&self.listener, id) => {
                        self.note_ring();
                        self.on_post(&thread);
                        true
                    }
                    Some(_) => false,
                    None => {
                        self.put_down(tid);
                        true
                    }
                }
            }
        }
    }

    /// Somebody asks for a new thread or process: only who was ordered to make one gets it. True when somebody may have been woken.
    fn on_clone(&self, tid: i32, notification: u64, flags: u64) -> bool {
        if tid == self.pool.zygote_pid() {
            self.listener.permit(notification);
            return false;
        }
        let thread = self.threads.lock().get(&tid).cloned();
        match thread {
            Some(thread) if thread.may_clone.swap(0, SeqCst) == flags => {
                self.listener.permit(notification);
                false
            }
            Some(thread) => {
                thread.process().fail("broke its channel: a clone that nobody ordered");
                true
            }
            None => {
                self.put_down(tid);
                true
            }
        }
    }

    fn on_hello(self: &Arc<Self>, token: u64, tid: i32, notification: u64) -> bool {
        if self.living_thread(tid).is_some() {
            // Who has a slot was born long ago, whatever it has overheard.
            self.put_down(tid);
            true
        } else if self.pool.is_ours(token) {
            self.pool.on_stub(self, token, tid, notification)
        } else {
            if !self.orders.arrive(&self.listener, token, tid, notification) {
                self.put_down(tid);
            }
            true
        }
    }

    /// The thread of that id, unless it is only remembered.
    fn living_thread(&self, tid: i32) -> Option<Arc<Thread>> {
        self.threads.lock().get(&tid).filter(|thread| !thread.is_gone()).cloned()
    }

    /// Kills the process of a thread that nobody invited, and sees to it that it is collected.
    fn put_down(&self, tid: i32) {
        if let Some(thread) = self.living_thread(tid) {
            thread.process().fail("broke its channel: a hello that nobody ordered");
            return;
        }
        tracing::warn!(tid, "uninvited guest thread killed");
        let pidfd = sys::pidfd_open(tid);
        let _ = sys::kill(tid, libc::SIGKILL);
        // Of a known process's thread there is none, and its death is waited for already.
        if let Ok(pidfd) = pidfd {
            let token = self.orders.next_token();
            if self.watch(pidfd.as_fd(), token).is_ok() {
                self.unborn.lock().insert(token, pidfd);
            }
        }
    }

    /// Puts down what arrived for orders that were called off.
    pub fn clear_abandoned(&self) {
        let abandoned = std::mem::take(&mut *self.orders.abandoned.lock());
        for tid in abandoned {
            self.put_down(tid);
        }
    }

    pub fn order_process(&self, creator: &Thread) -> Order {
        self.orders.place(None, creator.slot())
    }

    pub fn order_thread(&self, creator: &Thread) -> Order {
        self.orders.place(Some(creator.process()), creator.slot())
    }

    /// Watches a child that its parent claims to have made, in case it dies before it says hello.
    pub fn watch_order(&self, order: &Order, claimed: i32) {
        if !order.is_of_thread()
            && !order.has_arrived()
            && !self.watch_unborn(order.token(), claimed)
        {
            self.orders.fail(order.token(), Errno::EAGAIN);
        }
    }

    /// The same by the order's token; false when there is no such process.
    pub fn watch_unborn(&self, token: u64, pid: i32) -> bool {
        let Ok(pidfd) = sys::pidfd_open(pid) else { return false };
        if self.watch(pidfd.as_fd(), token).is_ok() {
            self.unborn.lock().insert(token, pidfd);
        }
        true
    }

    /// It was born, or somebody else sees to it.
    pub fn unwatch_unborn(&self, token: u64) {
        self.unborn.lock().remove(&token);
    }

    pub fn watch(&self, pidfd: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
        let data = epoll::EventData::new_u64(id);
        epoll::add(&self.deaths, pidfd, data, epoll::EventFlags::IN).map_err(errno)
    }

    pub fn deaths(&self) -> BorrowedFd<'_> {
        self.deaths.as_fd()
    }

    /// A channel region, never used before.
    pub fn take_region(&self) -> Result<Arc<Region>, Errno> {
        let ready = self.regions.lock().pop();
        ready.map_or_else(|| self.region_maker.lock().make(), Ok)
    }

    /// The same for a child of the zygote.
    pub fn take_stub_region(&self) -> Result<Arc<Region>, Errno> {
        let ready = self.stub_regions.lock().pop_front();
        ready.map_or_else(|| self.stub_region_maker.lock().make(), Ok)
    }

    /// Makes regions ahead of demand, when there is time.
    fn stock_regions(&self) {
        while self.stub_regions.lock().len() < REGIONS_AHEAD
            && let Ok(region) = self.stub_region_maker.lock().make()
        {
            self.stub_regions.lock().push_back(region);
        }
        while self.regions.lock().len() < REGIONS_AHEAD
            && let Ok(region) = self.region_maker.lock().make()
        {
            self.regions.lock().push(region);
        }
    }

    /// Registers a new process that stands in its hello; its first thread.
    pub fn adopt_process(
        &self,
        arrival: Arrival,
        region: Arc<Region>,
        token: u64,
    ) -> Result<Arc<Thread>, PlatformError> {
        self.unwatch_unborn(token);
        let pidfd = arrival.pidfd.ok_or_else(|| PlatformError::Broken("no pidfd".to_owned()))?;
        let process = Process::new(arrival.tid, pidfd, region, self.may_answer);
        let (slot, _) = process.take_slot().map_err(PlatformError::Exhausted)?;
        // Never zero: the first thread's slot is not used again.
        slot.head().alive.store(1, Relaxed);
        slot.head().host_futexes.store(u32::from(self.may_answer), Relaxed);
        slot.head().state.store(state::POSTED, SeqCst);
        let thread = Thread::new(&process, arrival.tid, slot);
        thread.hold_hello(arrival.notification);
        self.watch(process.pidfd(), process.id_for_death()).map_err(PlatformError::Exhausted)?;
        self.processes.lock().insert(process.id_for_death(), process);
        Ok(thread)
    }

    /// The context is gone: the host thread must go, too.
    pub fn end_thread(&self, thread: &Arc<Thread>) {
        thread.is_doomed.store(true, SeqCst);
        if thread.is_ours() {
            self.finish_thread(thread);
            return;
        }
        self.await_thread(thread);
        thread.is_running.store(true, SeqCst);
        thread.kick();
        if thread.is_posted() {
            self.finish_thread(thread);
        }
    }

    /// A thread's post was found.
    pub fn on_post(&self, thread: &Arc<Thread>) {
        if thread.is_doomed.load(SeqCst) {
            self.finish_thread(thread);
        } else {
            thread.prefetch_post();
            thread.wake();
        }
    }

    fn finish_thread(&self, thread: &Arc<Thread>) {
        if !thread.is_ended.swap(true, SeqCst) {
            self.unawait(thread);
            thread.give_up();
            let reply = Reply { state: state::EXIT, ..Reply::default() };
            thread.reply(&self.listener, reply);
        }
    }

    /// The host thread is dead.
    pub fn forget_thread(&self, thread: &Arc<Thread>) {
        self.unawait(thread);
        let mut threads = self.threads.lock();
        if threads.get(&thread.tid()).is_some_and(|known| Arc::ptr_eq(known, thread)) {
            threads.remove(&thread.tid());
        }
    }

    /// Collects the dead.
    pub fn reap(self: &Arc<Self>) {
        if self.reaper.load(Relaxed) == 0 {
            self.reaper.store(rustix::thread::gettid().as_raw_nonzero().get(), Relaxed);
        }
        let mut events = Vec::with_capacity(64);
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            if epoll::wait(&self.deaths, buffer, Some(&now)).is_err() || events.is_empty() {
                break;
            }
            for event in &events {
                self.on_death(event.data.u64());
            }
        }
        self.stock_regions();
    }

    fn on_death(self: &Arc<Self>, id: u64) {
        if id == ALARM_ID {
            self.on_alarm();
        } else if id == ZYGOTE_ID {
            self.is_broken.store(true, SeqCst);
            self.pool.on_zygote_death(self);
        } else if id & TOKEN_BIT != 0 {
            if let Some(pidfd) = self.unborn.lock().remove(&id) {
                let _ = sys::wait_pidfd(pidfd.as_fd());
            }
            self.orders.fail(id, Errno::EAGAIN);
            self.pool.on_lost(self, id);
        } else {
            let process = self.processes.lock().remove(&id);
            if let Some(process) = process {
                self.bury(&process);
            }
        }
    }

    fn bury(&self, process: &Arc<Process>) {
        let _ = epoll::delete(&self.deaths, process.pidfd());
        process.before_collection();
        let fate = match sys::wait_pidfd(process.pidfd()) {
            Ok(Some(ending)) => ending.to_string(),
            _ => "gone".to_owned(),
        };
        if process.is_doomed() {
            self.dying.fetch_sub(1, Relaxed);
        }
        process.mark_dead(fate);
        for thread in process.bury() {
            self.forget_thread(&thread);
            thread.wake();
        }
    }

    /// A process's last context is gone. Its end is put off: the host takes long for an address space, and somebody may wait for this thread.
    pub fn doom(&self, process: &Arc<Process>) {
        self.doomed.lock().push(Arc::clone(process));
        self.has_doomed.store(true, SeqCst);
    }

    /// Whether [`Shared::end_doomed`] has something to do.
    pub fn has_doomed(&self) -> bool {
        self.has_doomed.load(SeqCst)
    }

    /// Kills the doomed, on another CPU if there is one.
    pub fn end_doomed(&self) {
        if !self.has_doomed() || !self.has_doomed.swap(false, SeqCst) {
            return;
        }
        let doomed = std::mem::take(&mut *self.doomed.lock());
        for process in doomed {
            let reaper = self.reaper.load(Relaxed);
            if self.dying.fetch_add(1, Relaxed) < MOST_DYING_ELSEWHERE {
                self.spin.send_away(process.pid());
                // Who will collect it, too: it would be woken here, in the midst of something else.
                self.spin.send_away(reaper);
            } else {
                // Elsewhere there is no time for them, it seems.
                self.spin.let_roam(reaper);
            }
            process.mark_doomed();
            process.kill();
        }
    }

    /// Kills everything on another CPU, if there is one, and does not wait for it: for the end of this process, with which it would
    /// die, but one after the other.
    pub fn kill_all(&self) {
        let processes: Vec<_> = self.processes.lock().values().cloned().collect();
        for process in processes {
            self.spin.send_away(process.pid());
            let _ = sys::pidfd_send_signal(process.pidfd(), libc::SIGKILL);
        }
    }

    /// Kills everything; for the platform's end.
    pub fn end_all(&self) {
        let processes: Vec<_> = self.processes.lock().drain().map(|(_, process)| process).collect();
        for process in &processes {
            let _ = sys::pidfd_send_signal(process.pidfd(), libc::SIGKILL);
        }
        for process in &processes {
            process.before_collection();
            let _ = sys::wait_pid(process.pid());
            process.mark_dead("the platform ended".to_owned());
            for thread in process.bury() {
                self.forget_thread(&thread);
                thread.wake();
            }
        }
    }
}
