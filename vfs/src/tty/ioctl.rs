//! Commands that both ends understand. See ioctl_tty(2).

use std::sync::Arc;

use abi::ids::Tid;
use abi::termios::{LocalFlags, Termios, WinSize};
use abi::{Errno, Result, UserAddr, ioctl};
use base::cred::Caps;
use zerocopy::{FromBytes, IntoBytes};

use super::access;
use super::pair::{Tty, packet};
use crate::context::VfsCx;
use crate::file::UserMemory;

/// `struct termios2`: settings, then input and output speed.
const TERMIOS2_SPEEDS: usize = 8;
/// `B38400` in bits per second.
const SPEED: u32 = 38400;

/// Which end was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Master,
    Slave,
}

/// One command.
pub struct Command<'a> {
    pub cx: &'a VfsCx<'a>,
    pub tty: &'a Arc<Tty>,
    pub side: Side,
    pub command: u32,
    pub arg: u64,
    pub memory: &'a dyn UserMemory,
}

impl Command<'_> {
    /// `ENOTTY` for what is not a terminal's.
    pub fn run(&self) -> Result<u64> {
        match self.command {
            ioctl::TCGETS | ioctl::TCGETS2 => self.get_termios(),
            ioctl::TCSETS..=ioctl::TCSETSF | ioctl::TCSETS2..=ioctl::TCSETSF2 => self.set_termios(),
            ioctl::TIOCGWINSZ => self.put(self.tty.size().as_bytes()),
            ioctl::TIOCSWINSZ => {
                let mut size = WinSize::default();
                self.memory.read(UserAddr(self.arg), size.as_mut_bytes())?;
                self.tty.resize(size);
                Ok(0)
            }
            ioctl::TIOCGPGRP => self.get_foreground(),
            ioctl::TIOCSPGRP => self.set_foreground(),
            ioctl::TIOCGSID => self.get_session(),
            ioctl::TIOCSCTTY => self.acquire(),
            ioctl::TIOCNOTTY => self.give_up(),
            ioctl::TCFLSH => self.flush(),
            ioctl::TCXONC => self.flow(),
            ioctl::TCSBRK | ioctl::TCSBRKP => {
                // Output is at the master at once: there is nothing to drain, and no line to break.
                access::check_change(self.tty, self.cx.caller)?;
                Ok(0)
            }
            ioctl::TIOCEXCL | ioctl::TIOCNXCL => {
                let is_exclusive = self.command == ioctl::TIOCEXCL;
                self.tty.with(|state| state.is_exclusive = is_exclusive);
                Ok(0)
            }
            ioctl::TIOCGEXCL => self.put_int(self.tty.with(|state| i32::from(state.is_exclusive))),
            // N_TTY is the only discipline.
            ioctl::TIOCGETD => self.put_int(0),
            ioctl::TIOCSETD if self.take_int()? == 0 => Ok(0),
            ioctl::TIOCSETD => Err(Errno::EINVAL),
            ioctl::TIOCSTI => Err(Errno::EIO),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn put(&self, bytes: &[u8]) -> Result<u64> {
        self.memory.write(UserAddr(self.arg), bytes)?;
        Ok(0)
    }

    pub fn put_int(&self, value: i32) -> Result<u64> {
        self.put(&value.to_ne_bytes())
    }

    pub fn take_int(&self) -> Result<i32> {
        let mut bytes = [0; size_of::<i32>()];
        self.memory.read(UserAddr(self.arg), &mut bytes)?;
        Ok(i32::from_ne_bytes(bytes))
    }

    fn get_termios(&self) -> Result<u64> {
        let mut bytes = self.tty.termios().as_bytes().to_vec();
        if self.command == ioctl::TCGETS2 {
            // The struct has padding after the control characters: 36 bytes become 36, then two words.
            bytes.extend_from_slice(&SPEED.to_ne_bytes());
            bytes.extend_from_slice(&SPEED.to_ne_bytes());
        }
        self.put(&bytes)
    }

    fn set_termios(&self) -> Result<u64> {
        access::check_change(self.tty, self.cx.caller)?;
        let mut bytes = [0; size_of::<Termios>() + TERMIOS2_SPEEDS];
        let is_wide = (ioctl::TCSETS2..=ioctl::TCSETSF2).contains(&self.command);
        let len = if is_wide { bytes.len() } else { size_of::<Termios>() };
        let part = bytes.get_mut(..len).ok_or(Errno::EINVAL)?;
        self.memory.read(UserAddr(self.arg), part)?;
        let (termios, _) = Termios::read_from_prefix(&bytes).map_err(|_| Errno::EINVAL)?;
        if matches!(self.command, ioctl::TCSETSF | ioctl::TCSETSF2) {
            self.tty.with(|state| state.discipline.flush_input());
        }
        self.tty.set_termios(termios);
        Ok(0)
    }

    fn is_own(&self) -> bool {
        self.tty.terminals().controls(self.tty, self.cx.caller)
    }

    fn get_foreground(&self) -> Result<u64> {
        if self.side == Side::Slave && !self.is_own() {
            return Err(Errno::ENOTTY);
        }
        self.put_int(self.tty.foreground().0)
    }

    fn set_foreground(&self) -> Result<u64> {
        access::check_change(self.tty, self.cx.caller).map_err(|errno| match errno {
            Errno::EIO => Errno::ENOTTY,
            errno => errno,
        })?;
        if !self.is_own() {
            return Err(Errno::ENOTTY);
        }
        let pgid = Tid(self.take_int()?);
        if pgid.0 < 0 {
            return Err(Errno::EINVAL);
        }
        let session = self.tty.terminals().jobs().session_of_group(pgid).ok_or(Errno::ESRCH)?;
        if session != self.cx.caller.sid {
            return Err(Errno::EPERM);
        }
        self.tty.set_foreground(pgid);
        Ok(0)
    }

    fn get_session(&self) -> Result<u64> {
        if self.side == Side::Slave && !self.is_own() {
            return Err(Errno::ENOTTY);
        }
        match self.tty.session() {
            Tid(0) => Err(Errno::ENOTTY),
            sid => self.put_int(sid.0),
        }
    }

    fn acquire(&self) -> Result<u64> {
        if self.side == Side::Master {
            return Err(Errno::ENOTTY);
        }
        let may_steal = self.arg == 1 && self.cx.cred.has(Caps::SYS_ADMIN);
        self.tty.terminals().acquire(self.tty, self.cx.caller, may_steal)?;
        Ok(0)
    }

    /// A leader gives the terminal up for its whole session. (On Linux others give it up for themselves; here they
    /// keep it, which only opening /dev/tty shows.)
    fn give_up(&self) -> Result<u64> {
        if !self.is_own() {
            return Err(Errno::ENOTTY);
        }
        let caller = self.cx.caller;
        if caller.tgid == caller.sid {
            self.tty.terminals().session_ended(caller.sid);
        }
        Ok(0)
    }

    /// TCIFLUSH 0, TCOFLUSH 1, TCIOFLUSH 2.
    fn flush(&self) -> Result<u64> {
        access::check_change(self.tty, self.cx.caller)?;
        // The master's input is the slave's output.
        let (input, output) = match (self.arg, self.side) {
            (0, Side::Slave) | (1, Side::Master) => (true, false),
            (1, Side::Slave) | (0, Side::Master) => (false, true),
            (2, _) => (true, true),
            _ => return Err(Errno::EINVAL),
        };
        self.tty.with(|state| {
            if input {
                state.discipline.flush_input();
                state.packet_status |= packet::FLUSHREAD;
            }
            if output {
                state.output.clear();
                state.packet_status |= packet::FLUSHWRITE;
            }
        });
        self.tty.tell_all();
        Ok(0)
    }

    /// TCOOFF 0, TCOON 1; TCIOFF and TCION would send a character to a device that is none.
    fn flow(&self) -> Result<u64> {
        access::check_change(self.tty, self.cx.caller)?;
        match self.arg {
            0 | 1 => self.tty.with(|state| state.stop(self.arg == 0)),
            2 | 3 => {}
            _ => return Err(Errno::EINVAL),
        }
        self.tty.tell_all();
        Ok(0)
    }
}

/// `TOSTOP`: output of background processes stops them.
pub fn stops_background_output(tty: &Tty) -> bool {
    tty.with(|state| state.has_local(LocalFlags::TOSTOP))
}
