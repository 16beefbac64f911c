//! Terminal settings as the kernel's `struct termios` holds them. See termios(3).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags::bitflags! {
    /// `c_iflag`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct InputFlags: u32 {
        const IGNBRK = 0o1;
        const BRKINT = 0o2;
        const IGNPAR = 0o4;
        const PARMRK = 0o10;
        const INPCK = 0o20;
        const ISTRIP = 0o40;
        const INLCR = 0o100;
        const IGNCR = 0o200;
        const ICRNL = 0o400;
        const IUCLC = 0o1000;
        const IXON = 0o2000;
        const IXANY = 0o4000;
        const IXOFF = 0o10000;
        const IMAXBEL = 0o20000;
        const IUTF8 = 0o40000;
        const _ = !0;
    }
}

bitflags::bitflags! {
    /// `c_oflag`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct OutputFlags: u32 {
        const OPOST = 0o1;
        const OLCUC = 0o2;
        const ONLCR = 0o4;
        const OCRNL = 0o10;
        const ONOCR = 0o20;
        const ONLRET = 0o40;
        const OFILL = 0o100;
        const OFDEL = 0o200;
        /// The field of tab delays; all ones is `XTABS`: tabs become spaces.
        const TABDLY = 0o14000;
        const _ = !0;
    }
}

bitflags::bitflags! {
    /// `c_cflag`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct ControlFlags: u32 {
        const B38400 = 0o17;
        const CS8 = 0o60;
        const CSTOPB = 0o100;
        const CREAD = 0o200;
        const PARENB = 0o400;
        const PARODD = 0o1000;
        const HUPCL = 0o2000;
        const CLOCAL = 0o4000;
        const _ = !0;
    }
}

bitflags::bitflags! {
    /// `c_lflag`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct LocalFlags: u32 {
        const ISIG = 0o1;
        const ICANON = 0o2;
        const XCASE = 0o4;
        const ECHO = 0o10;
        const ECHOE = 0o20;
        const ECHOK = 0o40;
        const ECHONL = 0o100;
        const NOFLSH = 0o200;
        const TOSTOP = 0o400;
        const ECHOCTL = 0o1000;
        const ECHOPRT = 0o2000;
        const ECHOKE = 0o4000;
        const FLUSHO = 0o10000;
        const PENDIN = 0o40000;
        const IEXTEN = 0o100_000;
        const EXTPROC = 0o200_000;
        const _ = !0;
    }
}

/// Indices into [`Termios::cc`].
pub mod cc {
    pub const VINTR: usize = 0;
    pub const VQUIT: usize = 1;
    pub const VERASE: usize = 2;
    pub const VKILL: usize = 3;
    pub const VEOF: usize = 4;
    pub const VTIME: usize = 5;
    pub const VMIN: usize = 6;
    pub const VSWTC: usize = 7;
    pub const VSTART: usize = 8;
    pub const VSTOP: usize = 9;
    pub const VSUSP: usize = 10;
    pub const VEOL: usize = 11;
    pub const VREPRINT: usize = 12;
    pub const VDISCARD: usize = 13;
    pub const VWERASE: usize = 14;
    pub const VLNEXT: usize = 15;
    pub const VEOL2: usize = 16;
    pub const COUNT: usize = 19;
}

/// `struct termios` of the kernel: 36 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Termios {
    pub iflag: u32,
    pub oflag: u32,
    pub cflag: u32,
    pub lflag: u32,
    pub line: u8,
    pub cc: [u8; cc::COUNT],
}

impl Default for Termios {
    /// What a new pty has: `tty_std_termios` with the changes that `pty` makes.
    fn default() -> Self {
        let mut chars = [0; cc::COUNT];
        let defaults = [
            (cc::VINTR, 3),
            (cc::VQUIT, 28),
            (cc::VERASE, 127),
            (cc::VKILL, 21),
            (cc::VEOF, 4),
            (cc::VMIN, 1),
            (cc::VSTART, 17),
            (cc::VSTOP, 19),
            (cc::VSUSP, 26),
            (cc::VREPRINT, 18),
            (cc::VDISCARD, 15),
            (cc::VWERASE, 23),
            (cc::VLNEXT, 22),
        ];
        for (index, value) in defaults {
            chars[index] = value;
        }
        let local = LocalFlags::ISIG
            | LocalFlags::ICANON
            | LocalFlags::ECHO
            | LocalFlags::ECHOE
            | LocalFlags::ECHOK
            | LocalFlags::ECHOCTL
            | LocalFlags::ECHOKE
            | LocalFlags::IEXTEN;
        let control = ControlFlags::B38400 | ControlFlags::CS8 | ControlFlags::CREAD;
        Self {
            iflag: (InputFlags::ICRNL | InputFlags::IXON).bits(),
            oflag: (OutputFlags::OPOST | OutputFlags::ONLCR).bits(),
            cflag: control.bits(),
            lflag: local.bits(),
            line: 0,
            cc: chars,
        }
    }
}

/// `struct winsize`.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct WinSize {
    pub rows: u16,
    pub cols: u16,
    pub xpixel: u16,
    pub ypixel: u16,
}
