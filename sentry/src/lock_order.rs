//! Lock levels of this crate, outermost first.

// Before everything, also what vfs holds around whole operations: what is typed makes signals.
base::lock_levels! {
    base = 800;
    /// One direction of the console.
    Console,
}

base::lock_levels! {
    base = 1000;
    /// Pid table, process groups, sessions, parent-child links: one lock, as Linux's tasklist_lock.
    Tasks,
    /// Signal state of a thread group: its threads, the shared queue, stop and exit state.
    Signals,
    /// Signal state of one thread: mask, private queue, alternate stack.
    ThreadSignals,
    /// Signal actions, which CLONE_SIGHAND shares.
    SignalActions,
    /// Replaceable parts of a thread: credentials, descriptor table, fs context, mm.
    ThreadParts,
    /// VMA tree and counters of an address space.
    MmState,
    /// A futex bucket.
    Futexes,
    /// Timers of a thread group.
    Timers,
    /// Small leaf states: names, accounting.
    Leaf,
}
