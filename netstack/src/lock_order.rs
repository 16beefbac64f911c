//! Lock levels of this crate, outermost first.

base::lock_levels! {
    base = 3000;
    /// State of a unix socket: address, listening, peer.
    UnixSockets,
    /// Names of bound unix sockets.
    UnixNames,
    /// One direction of a unix connection, or the inbox of a datagram socket. Never two at once.
    UnixChannels,
}
