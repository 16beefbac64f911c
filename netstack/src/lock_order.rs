//! Lock levels of this crate, outermost first.

base::lock_levels! {
    base = 3000;
    /// State of a unix socket: address, listening, peer.
    UnixSockets,
    /// Names of bound unix sockets.
    UnixNames,
    /// State of a socket of the internet families: address, listening, peer.
    InetSockets,
    /// Ports in use.
    Ports,
    /// One direction of a connection, or the inbox of a datagram socket. Never two at once.
    Channels,
}
