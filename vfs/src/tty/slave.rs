//! The program's end: /dev/pts/N, /dev/tty, /dev/console.

use std::any::Any;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, Result, ioctl};
use base::cred::Caps;
use base::{Sink, Source, WaitQueue};

use super::access;
use super::ioctl::{Command, Side, stops_background_output};
use super::pair::Tty;
use super::sessions::Terminals;
use crate::context::VfsCx;
use crate::file::{File, FileOps, UserMemory};
use crate::fs::devfs::Device;

/// One open description of a terminal.
pub struct Slave {
    tty: Arc<Tty>,
}

impl Slave {
    /// open(2) of the terminal. It becomes the caller's controlling terminal as tty(4) says, unless `O_NOCTTY`.
    ///
    /// # Errors
    /// `EIO`: locked or hung up; `EBUSY`: exclusive.
    pub fn open(cx: &VfsCx<'_>, tty: &Arc<Tty>, flags: OpenFlags) -> Result<Arc<Self>> {
        let is_exclusive = tty.with(|state| state.is_exclusive && state.slaves > 0);
        if is_exclusive && !cx.cred.has(Caps::SYS_ADMIN) {
            return Err(Errno::EBUSY);
        }
        let slave = Self::attach(tty)?;
        if !flags.contains(OpenFlags::NOCTTY) {
            tty.terminals().take_if_free(tty, cx.caller);
        }
        Ok(slave)
    }

    /// Opens it for nobody in particular: the first process's descriptors.
    ///
    /// # Errors
    /// `EIO`: locked or hung up.
    pub fn attach(tty: &Arc<Tty>) -> Result<Arc<Self>> {
        tty.open_slave()?;
        Ok(Arc::new(Self { tty: Arc::clone(tty) }))
    }

    #[must_use]
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        self.tty.close_slave();
    }
}

impl FileOps for Slave {
    fn read(&self, cx: &VfsCx<'_>, file: &File, sink: &mut dyn Sink, _pos: u64) -> Result<usize> {
        access::check_read(&self.tty, cx.caller)?;
        self.tty.read_slave(sink, file.is_nonblocking())
    }

    fn write(&self, cx: &VfsCx<'_>, _: &File, src: &mut dyn Source, _pos: u64) -> Result<usize> {
        if stops_background_output(&self.tty) {
            access::check_change(&self.tty, cx.caller)?;
        }
        self.tty.write_slave(src)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: &VfsCx<'_>, _: &File) -> PollEvents {
        self.tty.poll_slave()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.tty.slave_queue)
    }

    fn ioctl(
        &self,
        cx: &VfsCx<'_>,
        _: &File,
        command: u32,
        arg: u64,
        memory: &dyn UserMemory,
    ) -> Result<u64> {
        if self.tty.with(|state| state.is_hung_up) {
            return Err(Errno::EIO);
        }
        let asked = Command { cx, tty: &self.tty, side: Side::Slave, command, arg, memory };
        match command {
            ioctl::FIONREAD => {
                asked.put_int(self.tty.with(|state| state.discipline.pending()) as i32)
            }
            ioctl::TIOCOUTQ => asked.put_int(self.tty.with(|state| state.output.len()) as i32),
            ioctl::TIOCGDEV => asked.put_int(self.tty.rdev() as i32),
            _ => asked.run(),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// /dev/tty: whatever terminal controls the caller's session.
pub struct ControllingTerminal {
    terminals: Arc<Terminals>,
}

impl ControllingTerminal {
    #[must_use]
    pub fn new(terminals: Arc<Terminals>) -> Self {
        Self { terminals }
    }
}

impl Device for ControllingTerminal {
    fn open(&self, cx: &VfsCx<'_>, _: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let tty = self.terminals.of_session(cx.caller.sid).ok_or(Errno::ENXIO)?;
        Ok(Slave::attach(&tty)?)
    }
}

/// A terminal as a device of its own: /dev/console.
pub struct SlaveDevice {
    tty: Arc<Tty>,
}

impl SlaveDevice {
    #[must_use]
    pub fn new(tty: Arc<Tty>) -> Self {
        Self { tty }
    }
}

impl Device for SlaveDevice {
    fn open(&self, cx: &VfsCx<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(Slave::open(cx, &self.tty, flags)?)
    }
}
