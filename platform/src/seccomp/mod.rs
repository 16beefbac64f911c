//! The seccomp platform: guest code runs natively in host processes of its own (*stubs*) whose every system call is
//! caught by a filter and reported by a *shim* through shared memory.
//!
//! # Processes
//!
//! The sentry forks once and executes the shim blob from a memfd: the *zygote*. Its address space holds the blob,
//! the page all shims read ([`shim_abi::Global`]), a scratch stack, vvar and vDSO, nothing else; it has no
//! capability, no controlling terminal, and no descriptor but what its children are to have (`common`). It installs the filter, whose listener the sentry takes with
//! pidfd_getfd(2), and from then on clones itself on order. Each clone is a child of the sentry (CLONE_PARENT), maps a
//! *channel region* (a slot of 128 KiB per thread) at a fixed address and waits in its doorbell. The region is a part of a
//! sparse memfd that the zygote is given, one for many children; each closes it before it says hello, hence before guest
//! code can run, and the zygote never runs any: nobody gets at another one's channel. `spawn` takes such a stub; fork and threads are made by the shim of
//! the process itself, which also gets the descriptor of its child's region. A guest process is an address space; it
//! dies by SIGKILL on its pidfd, when the worker has nothing better to do.
//!
//! # The filter
//!
//! Outside of the shim's text every call is SIGSYS. Inside: a short list that is harmless by itself, the doorbell
//! (getppid, of all calls) and clone, which both become notifications; clone is let through only when it was
//! ordered. Foreign architectures and all else inside the shim's text kill. See `filter`.
//!
//! # Guest code's way out and back
//!
//! SIGSYS, faults and kicks enter the shim's handler on the alternate stack, which lies in the thread's slot: the
//! signal frame there *is* the saved context. The sentry reads registers and vector state from it and writes them
//! into it; the handler's rt_sigreturn loads whatever it then says. A context that never ran gets a frame built
//! from scratch.
//!
//! Rewritten call sites (`rewrite`) jump into the shim instead, which saves the general registers in the slot and keeps
//! the rest in the processor; `Context::settle` turns that into a frame with the whole state. Threads and copies that are
//! made by such a call begin the same way, with the processor state that the host's clone has given them. A thread finds its slot by
//! the base of gs, which the guest believes to be 0; where a guest uses gs itself, its sites go on to trap.
//!
//! A call that traps all the same mostly costs its signal only: the handler leads the way back from it into that entry, with the
//! registers as a trampoline leaves them (`shim/src/traps.rs`). Where guest code uses gs or steps itself, and for all else than calls, the
//! signal is the event.
//!
//! # States of a slot
//!
//! | `state` | owner | meaning | leaves by |
//! | --- | --- | --- | --- |
//! | RUNNING | guest | guest code (at first) or the shim runs | shim writes an event, then POSTED |
//! | POSTED | sentry | event (or, in a fresh slot, nothing) to be looked at | sentry writes operations, then a reply |
//! | LONG | sentry | the event was taken; its answer is not worth being looked for | sentry, as from POSTED |
//! | RESUME | guest | execute the operations, return to guest code, which then runs | shim: as from RUNNING |
//! | EXECUTE | guest | execute the operations, report | shim: RUNNING, then POSTED |
//! | RING | guest | ring: the true reply needs a notification (descriptors) | sentry, when it rang |
//! | SETTLE | guest | raise a signal, whose frame holds the whole state | shim: RUNNING, then POSTED |
//! | EXIT | guest | end this thread | - |
//!
//! # Rules
//!
//! 1. Only the owner writes `state` and what belongs to it. A guest that breaks this harms itself: whatever is in
//!    the region is wire data, copied once, checked before use, and a violation is the end of that process only.
//! 2. An event's fields are written before POSTED, a reply's before its state.
//! 3. A thread has at most one unanswered notification; `Link` (in `thread`) says which, under its lock, and whoever
//!    changes `state` on the sentry's side decides under the same lock how the guest learns of it.
//! 4. *Looking.* A shim posts with a full barrier, then reads `Global::looking`: zero, it rings; else it spins and then
//!    sleeps in a futex on `state`. A worker that stops looking first clears the flag, then (after a barrier) scans all
//!    awaited slots. So each post is either seen by a scan or rung for.
//! 5. *Late rings.* A post can be found by a scan, and be answered, before its doorbell rings. A ring that finds the
//!    slot not POSTED is answered at once with nothing.
//! 6. *Kicks.* The handler runs with all signals blocked but the faults it expects itself. A kick that arrives in the
//!    shim stays pending until rt_sigreturn restores the guest's mask, and is then taken with the guest's registers
//!    in place and before its next instruction. A kick after `resume` therefore always has an event; one that
//!    arrives too late costs a spurious `Interrupted`. On the way without a signal nothing is blocked: the handler sets
//!    `Fast::kicked`, posting clears it (the event is the kick's consequence), and the way out looks at it; its rest can
//!    begin again, and the handler makes it do so.
//! 7. *Sleep.* A shim that sleeps says so in `state` itself, by an exchange; the sentry exchanges the word, too, and wakes whom
//!    it finds asleep. (A word of its own would cost the sentry another look at a line that the shim is reading.)
//! 8. *Birth.* A new thread or process says hello with the unguessable token of the order it stems from. The sentry
//!    believes the kernel's word for its id, never the creator's. The slot of a newborn is POSTED from the start. Its
//!    creator posts without a ring and sleeps, for the sentry looks at its slot when it has heard the hello: the sentry sets
//!    `born` (barrier) before it looks, the shim posts (barrier) before it reads `born`: set, it rings. After some
//!    milliseconds it rings in any case, and the sentry watches what it says to have made.
//! 9. *Death of a slot.* A slot is used again when CLONE_CHILD_CLEARTID has cleared `alive`, that is, when the host
//!    thread that stood in it is gone. Slot 0 is not used twice. Regions are never used twice. A host thread whose context is
//!    dropped while it waits for an answer need not go: a few of each process *rest* in their slots, and the next thread made there
//!    is one of them, answered with new registers. Nobody but the shim's `LOAD_STATE` can bring it the creator's vector state, which
//!    calls that make threads leave in the creator's slot.
//! 10. Descriptors that can be written are in a guest only while it maps them: the shim closes each before guest code
//!     runs again. A few that can only be read stay, so that the next mapping of the file needs no ring, or as long as they
//!     are lent: they are good for nothing but to read or map what everybody may read.
//!
//! 11. *Signal masks.* A shared mask (`SharedSignals`) is written by the shim while guest code runs, by the sentry while the
//!     slot is POSTED. The sentry adds to `Fast::pending` (barrier) before it reads the mask to find out whether to kick; the
//!     shim writes the mask (barrier) before it reads `pending` to find out whether to ask. So a signal that is let through is
//!     kicked or asked for. What is read of the mask is a claim that concerns its thread only.
//!
//! 12. *Private futexes.* Waiters of one word may be on the host and in the sentry. Who waits is counted in the first slot
//!     (`Waits`) before the word is looked at, who wakes looks at the counts (barrier) after it was changed, and asks the sentry
//!     when somebody waits there. A wait that a kick has ended stays counted until its thread is in the sentry's queue.
//!
//! 13. *Loans.* A file that everybody may read can be lent to a process (`loans`): its descriptor then has a number of those from
//!     which the filter lets the shim read. Each has a word in the last slot: the sentry takes the position back, or ends the loan,
//!     by an exchange of it; the shim moves the position by compare-and-exchange, and believes what it has read only when the word
//!     is of the same loan as before the read. The descriptor is installed before the word says so, and closed, or replaced, after
//!     it says no more. A thread looks at these words only while its own slot says that its descriptors are those (`Fast::lends`).
//!     A file that nobody can change without a loan's end can also be *brought along* when it is opened: its attributes and its
//!     front are in the last slot then, and no descriptor is installed.
//!
//! 14. *Notes.* A thread that is alone in its address space (`Fast::is_alone`) may protect memory for reading and unmap a little
//!     of it on its own; the shim writes down what it did, and marks the next post. The sentry takes the notes with that event,
//!     before anything looks at the layout. Who writes down something else harms its own address space. It moves the heap's end
//!     (`Fast::heap`) within what is lent: the sentry looks whether the note is of that, and tells the truth again if not. In the same way a thread
//!     that is alone with its descriptors (`Fast::knows`) closes and duplicates those whose file descriptions are its own: the
//!     sentry does so again when it takes the note, and both keep the same words of what is open (`descriptors`).
//!
//! 15. *Ready files.* What such a thread is likely to open next may lie ready (`ready`), each in a place with a state: nothing, closed,
//!     opened, with the loan's generation. The sentry writes it while the state is nothing, and ends it by an exchange; the shim
//!     opens it by compare-and-exchange, so that one of them is first, and both know who. Then it gives the lowest free number
//!     its words and writes a note. A place is used again when the note has come and that loan is over. A position is taken back
//!     from a word only if the word is still of that loan, and given back only where there is none: the number may mean another
//!     file by now of which the sentry has not heard. With so many opened that more are wanted, the shim comes back as if it had
//!     been kicked.
//!
//! 16. *Traps.* Which calls went on so is written down in the thread's own slot (`Fast::traps`) and told with the next event, so that
//!     sites that trap often are rewritten, although the sentry hears nothing of calls that the shim answers. Without room for
//!     another one the signal is the event, with which the sentry takes them. They are claims: who lies is rewritten later, or
//!     somewhere that the plan refuses.
//!
//! 17. *Streams.* A pipe's bytes may lie in memory that the processes of both its ends have mapped (`streams`): to write by the one, to read by
//!     the other, for it is sealed before the latter maps it. The shim copies first and then moves its end's word by compare-and-exchange, up to a limit that
//!     the sentry sets. Whatever the sentry changes but to raise a limit also changes the word: so what was published by then counts, and what was not fails
//!     and comes as a call. A thread does so only while it is alone in its address space.
//!
//! # Modules
//!
//! | module | what |
//! | --- | --- |
//! | `zygote`, `blob` | starting the first guest process |
//! | `filter` | the filter |
//! | `listener`, `spin`, `placement` | waiting for rings; when to look instead; which CPUs guests then have |
//! | `chain` | which CPU guests have that take turns, while nobody looks |
//! | `shared`, `awaited` | tables, notifications, deaths; whose posts are looked for |
//! | `orders`, `pool`, `common` | new processes and threads; stubs ahead of demand; what these have from the start |
//! | `process`, `thread`, `context`, `birth` | an address space; a host thread; the same as its task sees it; new ones |
//! | `loans`, `ready` | files that the shim reads, and opens, by itself |
//! | `ledger` | locks and writes that the shim has made by itself |
//! | `streams`, `stream_memory` | pipes that it writes and reads by itself |
//! | `descriptors`, `path_stats`, `known_paths` | what it knows of descriptors and paths |
//! | `windows` | small inputs and outputs of a call, in its slot |
//! | `ops` | host operations as the shim's orders |
//! | `region`, `frame` | channel memory; signal frames in it |
//! | `sys` | host calls |
//!
//! Locks are leaves: none is taken while another of this module is held (but `Link`'s, which covers an atomic store
//! only), no host call that can sleep is made and no waker is called under one.

mod awaited;
mod birth;
mod blob;
mod chain;
mod common;
mod context;
mod descriptors;
mod filter;
mod frame;
mod holdable;
mod known_paths;
mod ledger;
mod listener;
mod loans;
mod ops;
mod orders;
mod path_stats;
mod placement;
mod pool;
mod process;
mod ready;
mod region;
mod shared;
mod spin;
mod stream_memory;
mod streams;
mod sys;
mod thread;
mod windows;
mod zygote;

use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, OnceLock};

use abi::Errno;
use parking_lot::Mutex;
use shim_abi::global_flag;

use self::context::SeccompContext;
use self::listener::Wait;
use self::shared::Shared;
use crate::{BoxFuture, Context, Layout, Platform, PlatformError};

/// Choices at start-up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Stubs kept ready for `spawn`.
    pub pool: usize,
    /// Offer the entry without a signal, where the processor has what it takes.
    pub rewrite: bool,
    /// Let shims answer calls whose answer they know.
    pub answer: bool,
    /// Look at channels instead of sleeping, when that pays.
    pub spin: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { pool: 2, rewrite: true, answer: true, spin: true }
    }
}

/// Why the platform cannot start here.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("cannot set up guest processes: {0}: {text}", text = .1.text())]
    Host(&'static str, Errno),
    #[error(
        "the host refuses a seccomp filter with a listener ({error}): Linux 5.9 or later is needed, and an outer \
         sandbox that allows seccomp(2)",
        error = std::io::Error::from_raw_os_error(*.0)
    )]
    Filter(i32),
    #[error("the first guest process failed at step {0} of its start")]
    Zygote(i32),
    #[error("the embedded shim is damaged")]
    Blob,
    #[error("this host's signal frames are of an unknown form")]
    Frame,
}

impl SetupError {
    /// A host call failed just now.
    fn host(call: &'static str) -> Self {
        let raw = std::io::Error::last_os_error().raw_os_error();
        Self::Host(call, Errno::from_raw(raw.unwrap_or(libc::EIO)))
    }
}

impl From<SetupError> for PlatformError {
    fn from(error: SetupError) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Guest processes under seccomp user notification.
pub struct SeccompPlatform {
    config: Config,
    template: frame::Template,
    /// What is known before the zygote is there: all but its vDSO.
    early_layout: Layout,
    /// Taken by [`Platform::get_ready`].
    starting: Mutex<Option<Starting>>,
    ready: OnceLock<Ready>,
}

/// A zygote on its way, and the page it reads.
struct Starting {
    zygote: zygote::Starting,
    global: region::GlobalPage,
}

/// With a zygote.
struct Ready {
    shared: Arc<Shared>,
    layout: Layout,
}

impl SeccompPlatform {
    /// A platform that is ready.
    ///
    /// # Errors
    /// Those of [`SeccompPlatform::begin`] and [`Platform::get_ready`].
    #[expect(clippy::new_ret_no_self, reason = "callers see the trait only")]
    pub fn new(config: Config) -> Result<Arc<dyn Platform>, PlatformError> {
        let platform = Self::begin(config)?;
        platform.get_ready()?;
        Ok(platform)
    }

    /// Starts the zygote; [`Platform::get_ready`] waits for it. To be called by the thread that lives as long as the
    /// sentry does (guest processes die with it), while it is the only one, with the credentials it will keep and
    /// before it gives up its filesystem.
    ///
    /// # Errors
    /// `Broken`, with what the host lacks.
    pub fn begin(config: Config) -> Result<Arc<dyn Platform>, PlatformError> {
        Ok(Arc::new(Self::start(config)?))
    }

    fn start(config: Config) -> Result<Self, SetupError> {
        sys::keep_zombies().map_err(|e| SetupError::Host("sigaction", e))?;
        let global = region::GlobalPage::new().map_err(|e| SetupError::Host("memfd_create", e))?;
        zygote::prepare(&global, config.rewrite)?;
        let zygote = zygote::start(&global)?;
        // No shim reads this before it is a guest's.
        global.get().spins.store(spin::shim_spins(), Relaxed);
        let template = frame::Template::capture()?;
        let (hwcap, hwcap2) = rustix::param::linux_hwcap();
        let flags = global.get().flags.load(Relaxed);
        let has_fast_entry = flags & global_flag::SLOT_IN_GS != 0;
        let layout = Layout {
            min_addr: shim_abi::MIN_ADDR,
            task_size: shim_abi::TASK_SIZE,
            vdso: None,
            vvar: None,
            hwcap: hwcap as u64,
            hwcap2: hwcap2 as u64,
            minsigstksz: rustix::param::linux_minsigstksz() as u64,
            xstate_size: template.xstate_size(),
            call_entry: if has_fast_entry { Some(blob::call_entry()?) } else { None },
            has_slow_questions: flags & global_flag::SLOW_QUESTIONS != 0,
        };
        Ok(Self {
            config,
            template,
            early_layout: layout,
            starting: Mutex::new(Some(Starting { zygote, global })),
            ready: OnceLock::new(),
        })
    }

    fn finish(&self, Starting { zygote, global }: Starting) -> Result<Ready, SetupError> {
        let config = &self.config;
        let zygote = zygote.finish(&global)?;
        let mut layout = self.early_layout.clone();
        let pool = pool::Pool::new(zygote.pid, zygote.pidfd, config.pool);
        let shared = Shared::new(zygote.listener, self.template.clone(), global, pool, config)
            .map_err(|e| SetupError::Host("epoll_create1", e))?;
        shared
            .watch(shared.pool.zygote().as_fd(), shared::ZYGOTE_ID)
            .map_err(|e| SetupError::Host("epoll_ctl", e))?;
        // Its first ring asks whether the listener was taken; the second waits for orders.
        let host = |e| SetupError::Host("notification", e);
        let first = shared.listener.receive().map_err(host)?;
        let [_, _, vvar, vdso, end, _] = first.data.args;
        if vdso != 0 {
            layout.vdso = Some(vdso..end);
            layout.vvar = (vvar < vdso).then_some(vvar..vdso);
        }
        shared.listener.send(first.id, 0);
        let second = shared.listener.receive().map_err(host)?;
        shared.on_notification(&second);
        shared.pool.refill(&shared);
        Ok(Ready { shared, layout })
    }

    fn shared(&self) -> Result<&Arc<Shared>, PlatformError> {
        let not_ready = || PlatformError::Broken("the platform is not ready".to_owned());
        self.ready.get().map(|ready| &ready.shared).ok_or_else(not_ready)
    }

    async fn take_stub(&self) -> Result<Box<dyn Context>, PlatformError> {
        let shared = self.shared()?;
        let thread = poll_fn(|cx| shared.pool.poll_take(shared, cx)).await?;
        let xstate = shared.template.initial_xstate();
        let regs = frame::initial_registers();
        let context = SeccompContext::new(shared, thread, regs, xstate)
            .ok_or_else(|| PlatformError::Broken("no room for a signal frame".to_owned()))?;
        Ok(Box::new(context))
    }
}

impl Platform for SeccompPlatform {
    fn name(&self) -> &'static str {
        "seccomp"
    }

    fn get_ready(&self) -> Result<(), PlatformError> {
        if let Some(starting) = self.starting.lock().take() {
            let ready = self.finish(starting)?;
            // Nobody else got to `starting`.
            let _ = self.ready.set(ready);
        }
        self.shared().map(drop)
    }

    fn layout(&self) -> &Layout {
        self.ready.get().map_or(&self.early_layout, |ready| &ready.layout)
    }

    fn answered_calls(&self) -> u64 {
        self.shared().map_or(0, |shared| shared.answered_calls.load(Relaxed))
    }

    fn end_guests(&self) {
        if let Ok(shared) = self.shared() {
            shared.kill_all();
        }
    }

    fn rings(&self) -> u64 {
        self.shared().map_or(0, |shared| shared.spin.rings())
    }

    fn has_cpu_aside(&self) -> bool {
        self.shared().is_ok_and(|shared| shared.has_cpu_aside())
    }

    fn step_aside(&self, cpu: usize) {
        if let Ok(shared) = self.shared() {
            shared.spin.step_aside(cpu);
        }
    }

    fn spawn(&self) -> BoxFuture<'_, Result<Box<dyn Context>, PlatformError>> {
        Box::pin(self.take_stub())
    }

    fn poll(&self) -> bool {
        // Who posts while nobody looks rings, and is better waited for.
        self.shared().is_ok_and(|shared| shared.may_have_unrung() && shared.scan())
    }

    fn park(&self, before_sleep: &dyn Fn() -> bool) -> Result<(), PlatformError> {
        let shared = self.shared()?;
        loop {
            if shared.is_broken.load(SeqCst) {
                return Err(PlatformError::Broken("the zygote died".to_owned()));
            }
            shared.end_doomed();
            if shared.look() || before_sleep() {
                return Ok(());
            }
            match shared.listener.wait() {
                Ok(Wait::Rang(notification)) => {
                    let has_woken = shared.on_notification(&notification);
                    if shared.awaited.len() > 0 {
                        shared.listener.hand_over();
                    }
                    if has_woken {
                        return Ok(());
                    }
                }
                Ok(Wait::Unparked) => return Ok(()),
                Err(errno) => {
                    return Err(PlatformError::Broken(format!("listener: {}", errno.text())));
                }
            }
        }
    }

    fn unpark(&self) {
        if let Ok(shared) = self.shared() {
            shared.listener.unpark();
        }
    }

    fn death_fd(&self) -> Option<BorrowedFd<'_>> {
        self.ready.get().map(|ready| ready.shared.deaths())
    }

    fn reap(&self) {
        if let Ok(shared) = self.shared() {
            shared.reap();
        }
    }

    fn share(&self, file: &Arc<OwnedFd>) {
        if let Ok(shared) = self.shared() {
            shared.pool.common().note_use(file);
        }
    }

    fn hear_transfers(&self) {
        if let Ok(shared) = self.shared() {
            shared.hear_transfers();
        }
    }

    fn tell_path(
        &self,
        names: u64,
        path: &[u8],
        fact: crate::PathFact<'_>,
    ) -> Option<Arc<dyn base::Lent>> {
        self.shared().ok()?.known_paths.tell(names, path, fact)
    }

    fn tell_processor(&self, answers: &[crate::processor::Answer]) {
        if let Ok(shared) = self.shared() {
            shared.global.tell_processor(answers);
        }
    }

    fn forget_names(&self, names: u64) {
        if let Ok(shared) = self.shared() {
            shared.forget_names(names);
        }
    }
}

impl Drop for SeccompPlatform {
    fn drop(&mut self) {
        if let Ok(shared) = self.shared() {
            shared.end_all();
            let _ = sys::kill(shared.pool.zygote_pid(), libc::SIGKILL);
            let _ = sys::wait_pid(shared.pool.zygote_pid());
        }
    }
}
