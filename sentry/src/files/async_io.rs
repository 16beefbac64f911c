//! SIGIO: whom a file tells when something can be read or written. See fcntl(2), "Managing signals".
//!
//! Linux keeps owner and signal in the file; here they hang beside it, because few files have them. An entry observes
//! the file's wait queue and looks at `O_ASYNC` when it is told. Entries of files that are gone are swept when another
//! one is made.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use abi::ids::Tid;
use abi::open::OpenFlags;
use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use base::cred::{Caps, Credentials};
use base::lock::Mutex;
use base::wait::Registration;
use base::{Observer, WaitQueue};
use vfs::File;

use crate::kernel::Kernel;
use crate::lock_order;
use crate::signal::{send_to_group, send_to_thread};
use crate::task::Thread;

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owner {
    #[default]
    Nobody,
    Thread(Tid),
    Process(Tid),
    ProcessGroup(Tid),
}

/// What fcntl(2) set for a file.
#[derive(Clone, Default)]
struct Settings {
    owner: Owner,
    /// `None` is SIGIO without siginfo.
    signal: Option<Signal>,
    /// Of whoever set the owner: it must be allowed to signal it.
    cred: Option<Arc<Credentials>>,
}

struct Entry {
    file: Weak<File>,
    kernel: Weak<Kernel>,
    settings: Mutex<Settings, lock_order::Leaf>,
}

struct Kept {
    entry: Arc<Entry>,
    _registration: Option<Registration>,
}

/// All files that have an owner.
#[derive(Default)]
pub struct AsyncOwners {
    files: Mutex<HashMap<usize, Kept>, lock_order::Leaf>,
}

fn key(file: &Arc<File>) -> usize {
    Arc::as_ptr(file) as usize
}

impl AsyncOwners {
    /// F_SETOWN.
    pub fn set_owner(
        &self,
        kernel: &Arc<Kernel>,
        file: &Arc<File>,
        owner: Owner,
        cred: Arc<Credentials>,
    ) {
        self.change(kernel, file, |settings| {
            settings.owner = owner;
            settings.cred = Some(cred);
        });
    }

    /// F_SETSIG.
    pub fn set_signal(&self, kernel: &Arc<Kernel>, file: &Arc<File>, signal: Option<Signal>) {
        self.change(kernel, file, |settings| settings.signal = signal);
    }

    /// F_GETOWN.
    #[must_use]
    pub fn owner(&self, file: &Arc<File>) -> Owner {
        self.settings(file).owner
    }

    /// F_GETSIG.
    #[must_use]
    pub fn signal(&self, file: &Arc<File>) -> Option<Signal> {
        self.settings(file).signal
    }

    fn entry(&self, file: &Arc<File>) -> Option<Arc<Entry>> {
        let files = self.files.lock();
        let kept = files.get(&key(file))?;
        // The address may have been another file's.
        (kept.entry.file.as_ptr() == Arc::as_ptr(file)).then(|| Arc::clone(&kept.entry))
    }

    fn settings(&self, file: &Arc<File>) -> Settings {
        self.entry(file).map(|entry| entry.settings.lock().clone()).unwrap_or_default()
    }

    fn change(&self, kernel: &Arc<Kernel>, file: &Arc<File>, change: impl FnOnce(&mut Settings)) {
        let entry = match self.entry(file) {
            Some(entry) => entry,
            None => self.add(kernel, file),
        };
        change(&mut entry.settings.lock());
    }

    fn add(&self, kernel: &Arc<Kernel>, file: &Arc<File>) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            file: Arc::downgrade(file),
            kernel: Arc::downgrade(kernel),
            settings: Mutex::default(),
        });
        let register = |queue: &WaitQueue| {
            queue.register(PollEvents::all(), Arc::clone(&entry) as Arc<dyn Observer>)
        };
        let registration = file.ops().wait_queue().map(register);
        let kept = Kept { entry: Arc::clone(&entry), _registration: registration };
        // Registrations are dropped after the lock.
        let gone: Vec<Option<Kept>> = {
            let mut files = self.files.lock();
            let dead = |kept: &Kept| kept.entry.file.strong_count() == 0;
            let keys: Vec<usize> =
                files.iter().filter(|(_, kept)| dead(kept)).map(|(key, _)| *key).collect();
            let mut gone: Vec<_> = keys.iter().map(|key| files.remove(key)).collect();
            gone.push(files.insert(key(file), kept));
            gone
        };
        drop(gone);
        entry
    }
}

impl Observer for Entry {
    fn notify(&self, events: PollEvents) {
        let (Some(file), Some(kernel)) = (self.file.upgrade(), self.kernel.upgrade()) else {
            return;
        };
        if !file.flags().contains(OpenFlags::ASYNC) {
            return;
        }
        let Settings { owner, signal, cred: Some(cred) } = self.settings.lock().clone() else {
            return;
        };
        let info = match signal {
            None => SigInfo::kernel(Signal::SIGIO),
            Some(signal) => SigInfo::new(signal, code_of(events)),
        };
        let told = |thread: &Arc<Thread>| may_tell(&cred, thread);
        // A signal that cannot be queued is lost, as on Linux.
        match owner {
            Owner::Nobody => {}
            Owner::Thread(tid) => {
                if let Some(thread) = kernel.tasks.thread(tid).filter(told) {
                    let _ = send_to_thread(&thread, info);
                }
            }
            Owner::Process(tgid) => {
                if let Some(thread) = kernel.tasks.thread(tgid).filter(told) {
                    let _ = send_to_group(&thread.group, info);
                }
            }
            Owner::ProcessGroup(pgid) => {
                let members: Vec<_> = kernel.tasks.lock().members_of(pgid).cloned().collect();
                for group in members {
                    if group.any_thread().filter(told).is_some() {
                        let _ = send_to_group(&group, info);
                    }
                }
            }
        }
    }
}

/// `sigio_perm` of Linux.
fn may_tell(cred: &Credentials, target: &Thread) -> bool {
    let target = target.cred();
    let ids = [cred.euid, cred.ruid];
    cred.has(Caps::KILL) || ids.iter().any(|id| *id == target.suid || *id == target.ruid)
}

/// `si_code` of a signal that F_SETSIG chose.
const fn code_of(events: PollEvents) -> i32 {
    const POLL_IN: i32 = 1;
    const POLL_OUT: i32 = 2;
    const POLL_ERR: i32 = 4;
    const POLL_HUP: i32 = 6;
    if events.contains(PollEvents::IN) {
        POLL_IN
    } else if events.contains(PollEvents::OUT) {
        POLL_OUT
    } else if events.contains(PollEvents::HUP) {
        POLL_HUP
    } else {
        POLL_ERR
    }
}
