//! Argument words that are one of a list of names: checked by their handlers, named by `--strace`.

use std::fmt::Write as _;

use abi::poll::{PollEvents, PollFd};
use abi::{Result, UserAddr, epoll, fcntl, ioctl};

use crate::mm::{Mm, UserRef};
use crate::syscalls::args::{FromArg, FromArgs, Left, Render, push_flags};
use crate::syscalls::strace::LateArg;

macro_rules! named_words {
    ($($(#[$doc:meta])* $type:ident { $($module:ident::$name:ident),* $(,)? })*) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $type(pub u32);

        impl FromArg for $type {
            fn from_arg(word: u64) -> Result<Self> {
                // Linux takes these as int or unsigned int.
                Ok(Self(word as u32))
            }
        }

        impl Render for $type {
            fn render(&self, out: &mut String, _mm: &Mm) {
                match self.0 {
                    $($module::$name => out.push_str(stringify!($name)),)*
                    other => {
                        let _ = write!(out, "{other:#x}");
                    }
                }
            }
        })*
    };
}

named_words! {
    /// Command of fcntl(2).
    FcntlCommand {
        fcntl::F_DUPFD, fcntl::F_GETFD, fcntl::F_SETFD, fcntl::F_GETFL, fcntl::F_SETFL, fcntl::F_GETLK,
        fcntl::F_SETLK, fcntl::F_SETLKW, fcntl::F_SETOWN, fcntl::F_GETOWN, fcntl::F_SETSIG, fcntl::F_GETSIG,
        fcntl::F_SETOWN_EX, fcntl::F_GETOWN_EX, fcntl::F_OFD_GETLK, fcntl::F_OFD_SETLK, fcntl::F_OFD_SETLKW,
        fcntl::F_SETLEASE, fcntl::F_GETLEASE, fcntl::F_NOTIFY, fcntl::F_DUPFD_QUERY, fcntl::F_CREATED_QUERY,
        fcntl::F_DUPFD_CLOEXEC, fcntl::F_SETPIPE_SZ, fcntl::F_GETPIPE_SZ, fcntl::F_ADD_SEALS,
        fcntl::F_GET_SEALS, fcntl::F_GET_RW_HINT, fcntl::F_SET_RW_HINT,
    }

    /// Origin of lseek(2).
    SeekOrigin {
        fcntl::SEEK_SET, fcntl::SEEK_CUR, fcntl::SEEK_END, fcntl::SEEK_DATA, fcntl::SEEK_HOLE,
    }

    /// Operation of epoll_ctl(2).
    EpollOperation { epoll::EPOLL_CTL_ADD, epoll::EPOLL_CTL_DEL, epoll::EPOLL_CTL_MOD }

    /// Request of ioctl(2).
    IoctlRequest {
        ioctl::TCGETS, ioctl::TCSETS, ioctl::TCSETSW, ioctl::TCSETSF, ioctl::TCSBRK, ioctl::TCXONC,
        ioctl::TCFLSH, ioctl::TIOCEXCL, ioctl::TIOCNXCL, ioctl::TIOCSCTTY, ioctl::TIOCGPGRP,
        ioctl::TIOCSPGRP, ioctl::TIOCOUTQ, ioctl::TIOCSTI, ioctl::TIOCGWINSZ, ioctl::TIOCSWINSZ,
        ioctl::FIONREAD, ioctl::FIONBIO, ioctl::TIOCNOTTY, ioctl::TIOCGSID, ioctl::TIOCGPTN,
        ioctl::TIOCSPTLCK, ioctl::TIOCGPTPEER, ioctl::FIONCLEX, ioctl::FIOCLEX, ioctl::FIOASYNC,
        ioctl::FIOQSIZE, ioctl::FIBMAP, ioctl::FIGETBSZ, ioctl::FS_IOC_GETFLAGS, ioctl::FS_IOC_SETFLAGS,
    }
}

bitflags::bitflags! {
    /// Mode of access(2); 0 is F_OK.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct AccessMode: u32 {
        const X_OK = 1;
        const W_OK = 2;
        const R_OK = 4;
        // access(2) refuses other bits itself.
        const _ = !0;
    }

    /// Operation of flock(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct FlockOperation: u32 {
        const LOCK_SH = fcntl::LOCK_SH;
        const LOCK_EX = fcntl::LOCK_EX;
        const LOCK_NB = fcntl::LOCK_NB;
        const LOCK_UN = fcntl::LOCK_UN;
        const _ = !0;
    }
}

crate::loose_flags_arg!(FlockOperation as "");

impl FromArg for AccessMode {
    fn from_arg(word: u64) -> Result<Self> {
        Ok(Self::from_bits_retain(word as u32))
    }
}

impl Render for AccessMode {
    fn render(&self, out: &mut String, _mm: &Mm) {
        if self.is_empty() { out.push_str("F_OK") } else { push_flags(out, "", self) }
    }
}

/// Two words of poll(2) and ppoll(2): the array and its length.
#[derive(Debug, Clone, Copy)]
pub struct PollFds {
    pub at: UserRef<PollFd>,
    pub count: u32,
}

impl FromArgs for PollFds {
    fn from_args(words: &mut Left) -> Result<Self> {
        let at = UserRef::new(UserAddr(words.next().unwrap_or(0)));
        Ok(Self { at, count: u32::from_args(words)? })
    }
}

impl PollFds {
    fn push(&self, out: &mut String, mm: &Mm, is_done: bool) {
        let shown = self.count.min(16);
        let Ok(fds) = self.at.read_array(mm, shown as usize) else {
            self.at.render(out, mm);
            let _ = write!(out, ", {}", self.count);
            return;
        };
        out.push('[');
        for (index, fd) in fds.iter().enumerate() {
            out.push_str(if index > 0 { ", {" } else { "{" });
            let _ = write!(out, "fd={}, events=", fd.fd);
            push_flags(out, "POLL", &PollEvents::from_bits_retain(fd.events.into()));
            if is_done {
                out.push_str(", revents=");
                push_flags(out, "POLL", &PollEvents::from_bits_retain(fd.revents.into()));
            }
            out.push('}');
        }
        out.push_str(if shown < self.count { ", ...]" } else { "]" });
        let _ = write!(out, ", {}", self.count);
    }
}

impl Render for PollFds {
    fn render(&self, out: &mut String, mm: &Mm) {
        self.push(out, mm, false);
    }

    fn late(&self) -> Option<Box<dyn LateArg>> {
        Some(Box::new(*self))
    }
}

impl LateArg for PollFds {
    fn render_late(&self, out: &mut String, mm: &Mm, _result: u64) {
        self.push(out, mm, true);
    }

    fn render_failed(&self, out: &mut String) {
        let _ = write!(out, "{}, {}", self.at.addr, self.count);
    }
}
