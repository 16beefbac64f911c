//! The console: a pseudo-terminal of the guest's whose master is joined to the host's terminal.
//!
//! The host's terminal is in raw mode: every key comes as it is, and our line discipline makes signals, echo and lines
//! of it. Two tasks copy: what is typed into the master, what the guest prints out of it.

use std::sync::Arc;

use abi::open::OpenFlags;
use abi::poll::PollEvents;
use abi::termios::{Termios, WinSize};
use abi::{Errno, Result};
use base::Observer;
use base::cred::Credentials;
use base::lock::Mutex;
use vfs::fs::{anonfs, hostfile};
use vfs::tty::{Slave, Tty};
use vfs::{Caller, File, FsContext, LookupFlags, Path, VfsCx, path};
use zerocopy::FromBytes;

use super::stdio;
use super::{BootError, Mounts};
use crate::config;
use crate::executor::notify::Notified;
use crate::kernel::Kernel;
use crate::lock_order;
use crate::task::exit::INIT;

const CHUNK: usize = 4096;
/// How often the rest of the output is offered to a host terminal that takes nothing, at the end.
const LAST_TRIES: u32 = 200;
const LAST_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// See the module.
pub struct Console {
    tty: Arc<Tty>,
    typed: Pump,
    printed: Pump,
    /// Where the guest finds it: /dev/pts/0, if that is mounted.
    place: Option<Path>,
}

impl Console {
    /// Makes it, with the host terminal's size and settings, and gives it to the first process's session.
    pub fn new(
        kernel: &Arc<Kernel>,
        mounts: &Mounts,
        host: config::Console,
        owner: &Credentials,
    ) -> std::result::Result<Arc<Self>, BootError> {
        let failed = |errno| BootError::of("cannot set up the terminal", errno);
        let master = kernel.devpts.new_console(owner).map_err(failed)?;
        let tty = Arc::clone(master.tty());
        tty.resize(WinSize { rows: host.rows, cols: host.cols, ..WinSize::default() });
        if let Ok((termios, _)) = Termios::read_from_prefix(&host.termios) {
            tty.set_termios(termios);
        }
        kernel.terminals.give(&tty, INIT, INIT);
        let reactor = stdio::reactor(kernel);
        let input = hostfile::adopt(host.input, Arc::clone(&reactor)).map_err(failed)?;
        let output = hostfile::adopt(host.output, reactor).map_err(failed)?;
        let root = mounts.root();
        let fs = FsContext::new(root.clone(), root, 0o022);
        let place = find(&fs, &tty);
        let master = anonfs::new_file(master, "[console]", OpenFlags::RDWR);
        let typed = Pump::new(input, Arc::clone(&master), &fs);
        let printed = Pump::new(master, output, &fs);
        Ok(Arc::new(Self { tty, typed, printed, place }))
    }

    /// Opens the guest's end.
    pub fn open(&self) -> Result<Arc<File>> {
        let slave = Slave::attach(&self.tty)?;
        Ok(match &self.place {
            Some(path) => File::new(slave, Arc::clone(path.inode()), path.clone(), OpenFlags::RDWR),
            None => anonfs::new_file(slave, "[console]", OpenFlags::RDWR),
        })
    }

    /// The host's terminal has another size.
    pub fn resize(&self, rows: u16, cols: u16) {
        self.tty.resize(WinSize { rows, cols, ..WinSize::default() });
    }

    /// Starts copying.
    pub fn start(self: &Arc<Self>, kernel: &Kernel) {
        let (typing, printing) = (Arc::clone(self), Arc::clone(self));
        kernel.executor.spawn(async move { typing.typed.run().await });
        kernel.executor.spawn(async move { printing.printed.run().await });
    }

    /// Prints what the guest printed last, once the executor has ended.
    pub fn drain(&self) {
        for _ in 0..LAST_TRIES {
            if self.printed.copy() != Progress::Blocked {
                return;
            }
            std::thread::sleep(LAST_PAUSE);
        }
    }
}

/// The terminal's node in the guest's tree.
fn find(fs: &Arc<FsContext>, tty: &Tty) -> Option<Path> {
    let cred = Credentials::root();
    let cx = VfsCx {
        cred: &cred,
        fs,
        caller: Caller::default(),
        file_size_limit: u64::MAX,
        will_open: false,
    };
    let name = format!("/dev/pts/{}", tty.index());
    let found = path::resolve(&cx, None, name.as_bytes(), LookupFlags::FOLLOW).ok()?;
    found.inode().attr().is_ok_and(|attr| attr.rdev == tty.rdev()).then_some(found)
}

/// Copies from one file to another.
struct Pump {
    from: Arc<File>,
    to: Arc<File>,
    /// Read and not written yet. The lock makes a copy step whole: the last one may run on another thread.
    pending: Mutex<Vec<u8>, lock_order::Console>,
    cred: Credentials,
    fs: Arc<FsContext>,
}

/// Why copying paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// There is nothing to read now.
    Idle,
    /// The destination takes nothing now.
    Blocked,
    Ended,
}

impl Pump {
    fn new(from: Arc<File>, to: Arc<File>, fs: &Arc<FsContext>) -> Self {
        let (cred, fs) = (Credentials::root(), Arc::clone(fs));
        Self { from, to, pending: Mutex::default(), cred, fs }
    }

    async fn run(&self) {
        let notified = Notified::new();
        let observer: Arc<dyn Observer> = notified.clone();
        let readable = PollEvents::IN | PollEvents::HUP;
        let _reading = self.from.ops().wait_queue().map(|q| q.register(readable, observer.clone()));
        let _writing = self.to.ops().wait_queue().map(|q| q.register(PollEvents::OUT, observer));
        while self.copy() != Progress::Ended {
            notified.wait().await;
        }
    }

    /// Copies as much as it can.
    fn copy(&self) -> Progress {
        let caller = Caller::default();
        let (cred, fs) = (&self.cred, &self.fs);
        let cx = VfsCx { cred, fs, caller, file_size_limit: u64::MAX, will_open: false };
        let mut pending = self.pending.lock();
        loop {
            if pending.is_empty() {
                let mut buffer = [0; CHUNK];
                match self.from.read(&cx, &mut &mut buffer[..]) {
                    Ok(0) => return Progress::Ended,
                    Ok(count) => pending.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                    // EIO: nobody has the terminal open; somebody may open it again.
                    Err(_) => return Progress::Idle,
                }
            }
            match self.to.write(&cx, &mut pending.as_slice()) {
                Ok(count) => drop(pending.drain(..count)),
                Err(Errno::EAGAIN) => return Progress::Blocked,
                Err(_) => return Progress::Ended,
            }
        }
    }
}
