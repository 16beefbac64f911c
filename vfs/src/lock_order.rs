//! Lock levels of this crate, outermost first.

// Held around whole operations of a filesystem, which may ask the layer above (procfs asks about tasks): so they
// come before everybody's.
base::lock_levels! {
    base = 900;
    /// Position of a file description.
    FilePosition,
    /// Renames between directories of one filesystem.
    Renames,
    /// Changes of a directory's entries. Nested: ancestor first, else by address.
    DirectoryOps,
}

base::lock_levels! {
    base = 2000;
    /// Mount tree of a namespace.
    Mounts,
    /// Root, cwd and umask of a task.
    FsContexts,
    /// Descriptor table.
    FileTable,
    /// Children of a dentry.
    Dentries,
    /// Name and parent of a dentry.
    DentryPlace,
    /// An overlay's inode; it calls into the layers below it.
    OverlayInode,
    /// Entries of an overlay's directory, and which inode stands for which of the lower layer.
    OverlayEntries,
    OverlayKnown,
    /// What the guest code of an address space was entrusted with.
    Ledgers,
    /// State of a filesystem's inode.
    InodeState,
    /// Which session has which terminal.
    Sessions,
    /// Additions of an epoll to an epoll.
    EpollNesting,
    /// State of an open file (pipe, eventfd, tty...).
    FileState,
    /// Interest of an epoll in one file.
    EpollItem,
    /// Ready list of an epoll.
    EpollReady,
    /// Watches of inodes.
    Watches,
    /// Record locks of an inode, and the table of such inodes.
    RecordLocks,
    /// FIFOs that are open somewhere, by device and inode.
    FifoTable,
    /// All files that are lent to guest code.
    Loans,
    /// Bounds of a gofer filesystem's caches.
    GoferCaches,
    /// A connection to the gofer, for one round trip. A leaf.
    GoferConnection,
}
