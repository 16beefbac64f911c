//! Lock levels of this crate, outermost first.

base::lock_levels! {
    base = 2000;
    /// Mount tree of a namespace.
    Mounts,
    /// Root, cwd and umask of a task.
    FsContexts,
    /// Descriptor table.
    FileTable,
    /// Position of a file description.
    FilePosition,
    /// Children of a dentry, its name and parent. Nested: ancestor first.
    Dentries,
    /// An overlay's inode; it calls into the layers below it.
    OverlayInode,
    /// State of a filesystem's inode.
    InodeState,
    /// State of an open file (pipe, eventfd, tty...).
    FileState,
    /// FIFOs that are open somewhere, by device and inode.
    FifoTable,
}
