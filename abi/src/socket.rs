//! Sockets: families, types, options, messages. See socket(2), socket(7), unix(7), cmsg(3).

pub const AF_UNSPEC: u16 = 0;
pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const AF_NETLINK: u16 = 16;

pub const SOCK_STREAM: u32 = 1;
pub const SOCK_DGRAM: u32 = 2;
pub const SOCK_RAW: u32 = 3;
pub const SOCK_RDM: u32 = 4;
pub const SOCK_SEQPACKET: u32 = 5;

bitflags::bitflags! {
    /// Flags of socket(2), socketpair(2) and accept4(2); beside the type in the former two.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct SocketFlags: u32 {
        const NONBLOCK = 0o4000;
        const CLOEXEC = 0o2_000_000;
    }
}

/// Type part of socket(2)'s second argument.
pub const SOCK_TYPE_MASK: u32 = 0xf;

bitflags::bitflags! {
    /// Flags of send(2) and recv(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MsgFlags: u32 {
        const OOB = 0x1;
        const PEEK = 0x2;
        const DONTROUTE = 0x4;
        const CTRUNC = 0x8;
        const TRUNC = 0x20;
        const DONTWAIT = 0x40;
        const EOR = 0x80;
        const WAITALL = 0x100;
        const CONFIRM = 0x800;
        const ERRQUEUE = 0x2000;
        const NOSIGNAL = 0x4000;
        const MORE = 0x8000;
        const WAITFORONE = 0x10000;
        const CMSG_CLOEXEC = 0x4000_0000;
        // Bits without a name are ignored, as Linux does.
        const _ = !0;
    }
}

pub const IPPROTO_ICMP: u32 = 1;
pub const IPPROTO_TCP: u32 = 6;
pub const IPPROTO_UDP: u32 = 17;

pub const SHUT_RD: u32 = 0;
pub const SHUT_WR: u32 = 1;
pub const SHUT_RDWR: u32 = 2;

pub const SOL_SOCKET: i32 = 1;
pub const SO_DEBUG: i32 = 1;
pub const SO_REUSEADDR: i32 = 2;
pub const SO_TYPE: i32 = 3;
pub const SO_ERROR: i32 = 4;
pub const SO_DONTROUTE: i32 = 5;
pub const SO_BROADCAST: i32 = 6;
pub const SO_SNDBUF: i32 = 7;
pub const SO_RCVBUF: i32 = 8;
pub const SO_KEEPALIVE: i32 = 9;
pub const SO_OOBINLINE: i32 = 10;
pub const SO_PRIORITY: i32 = 12;
pub const SO_LINGER: i32 = 13;
pub const SO_REUSEPORT: i32 = 15;
pub const SO_PASSCRED: i32 = 16;
pub const SO_PEERCRED: i32 = 17;
pub const SO_RCVLOWAT: i32 = 18;
pub const SO_SNDLOWAT: i32 = 19;
pub const SO_RCVTIMEO: i32 = 20;
pub const SO_SNDTIMEO: i32 = 21;
pub const SO_TIMESTAMP: i32 = 29;
pub const SO_ACCEPTCONN: i32 = 30;
pub const SO_PEERSEC: i32 = 31;
pub const SO_SNDBUFFORCE: i32 = 32;
pub const SO_RCVBUFFORCE: i32 = 33;
pub const SO_PASSSEC: i32 = 34;
pub const SO_PROTOCOL: i32 = 38;
pub const SO_DOMAIN: i32 = 39;
pub const SO_PEEK_OFF: i32 = 42;
pub const SO_PEERGROUPS: i32 = 59;
pub const SO_PEERPIDFD: i32 = 77;

pub const SCM_RIGHTS: i32 = 1;
pub const SCM_CREDENTIALS: i32 = 2;
/// Most descriptors in one message.
pub const SCM_MAX_FD: usize = 253;

/// Bytes of `sun_path`.
pub const UNIX_PATH_MAX: usize = 108;
/// `SOMAXCONN`, also the default of net.core.somaxconn.
pub const SOMAXCONN: u32 = 4096;

crate::abi_struct! {
    /// `struct ucred`.
    pub struct Ucred {
        pub pid: i32,
        pub uid: u32,
        pub gid: u32,
    }

    /// `struct user_msghdr`.
    pub struct MsgHdr {
        pub name: u64,
        pub name_len: i32,
        pub pad0: u32,
        pub iov: u64,
        pub iov_len: u64,
        pub control: u64,
        pub control_len: u64,
        pub flags: u32,
        pub pad1: u32,
    }

    /// `struct mmsghdr`.
    pub struct MmsgHdr {
        pub header: MsgHdr,
        pub len: u32,
        pub pad: u32,
    }

    /// `struct cmsghdr`; data follows, aligned to 8 bytes.
    pub struct CmsgHdr {
        /// With this header, without the padding behind the data.
        pub len: u64,
        pub level: i32,
        pub kind: i32,
    }

    /// `struct linger`.
    pub struct Linger {
        pub on: i32,
        pub seconds: i32,
    }
}

impl Ucred {
    /// What a receiver sees of a sender it cannot name.
    pub const NOBODY: Self = Self { pid: 0, uid: 65534, gid: 65534 };
}

/// Rounds up to where the next control message starts (`CMSG_ALIGN`).
#[must_use]
pub const fn cmsg_align(len: usize) -> usize {
    len.saturating_add(7) & !7
}
