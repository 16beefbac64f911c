//! The terminal emulator's end: what /dev/ptmx opens.

use std::any::Any;
use std::sync::Arc;

use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::{Errno, Result, ioctl};
use base::{Sink, Source, WaitQueue};

use super::ioctl::{Command, Side};
use super::pair::Tty;
use crate::context::VfsCx;
use crate::file::{File, FileOps, UserMemory};

/// The one master of a pair; dropping it hangs the slave up.
pub struct Master {
    tty: Arc<Tty>,
    /// Runs when it is closed: devpts forgets the slave.
    on_close: Option<Box<dyn Fn(&Tty) + Send + Sync>>,
}

impl Master {
    #[must_use]
    pub fn new(tty: Arc<Tty>, on_close: Option<Box<dyn Fn(&Tty) + Send + Sync>>) -> Arc<Self> {
        Arc::new(Self { tty, on_close })
    }

    #[must_use]
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }

    /// Lets the slave be opened, as unlockpt(3) does.
    pub fn unlock(&self) {
        self.tty.with(|state| state.is_locked = false);
    }

    /// Told when there is something to read or room to write.
    #[must_use]
    pub fn queue(&self) -> &WaitQueue {
        &self.tty.master_queue
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.tty.hang_up();
        if let Some(on_close) = &self.on_close {
            on_close(&self.tty);
        }
    }
}

impl FileOps for Master {
    fn read(&self, _: &VfsCx<'_>, _: &File, sink: &mut dyn Sink, _pos: u64) -> Result<usize> {
        self.tty.read_master(sink)
    }

    fn write(&self, _: &VfsCx<'_>, _: &File, src: &mut dyn Source, _pos: u64) -> Result<usize> {
        self.tty.write_master(src)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: &VfsCx<'_>, _: &File) -> PollEvents {
        self.tty.poll_master()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.tty.master_queue)
    }

    fn ioctl(
        &self,
        cx: &VfsCx<'_>,
        _: &File,
        command: u32,
        arg: u64,
        memory: &dyn UserMemory,
    ) -> Result<u64> {
        let asked = Command { cx, tty: &self.tty, side: Side::Master, command, arg, memory };
        match command {
            ioctl::TIOCGPTN => asked.put_int(self.tty.index() as i32),
            ioctl::TIOCSPTLCK => {
                let is_locked = asked.take_int()? != 0;
                self.tty.with(|state| state.is_locked = is_locked);
                Ok(0)
            }
            ioctl::TIOCGPTLCK => asked.put_int(self.tty.with(|state| i32::from(state.is_locked))),
            ioctl::TIOCPKT => {
                let is_on = asked.take_int()? != 0;
                self.tty.with(|state| {
                    state.packet_mode = is_on;
                    state.packet_status = 0;
                });
                Ok(0)
            }
            ioctl::TIOCGPKT => asked.put_int(self.tty.with(|state| i32::from(state.packet_mode))),
            ioctl::TIOCSIG => {
                let signal = Signal::new(arg).ok_or(Errno::EINVAL)?;
                let allowed = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP];
                if !allowed.contains(&signal) {
                    return Err(Errno::EINVAL);
                }
                let foreground = self.tty.foreground();
                self.tty.terminals().jobs().signal_group(foreground, signal);
                Ok(0)
            }
            ioctl::FIONREAD => asked.put_int(self.tty.with(|state| state.output.len()) as i32),
            ioctl::TIOCGDEV => asked.put_int(abi::stat::makedev(5, 2) as i32),
            _ => asked.run(),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
