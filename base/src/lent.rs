//! A file's position while guest code may read by itself.

/// Whoever has a position on loan. It says where it stands when it is asked, and never waits for anybody: its methods may be
/// called under any lock.
pub trait Lent: Send + Sync {
    /// Takes the position back for a while, for whoever may use it now; nobody else does until [`Lent::give`].
    fn take(&self) -> Taken;

    /// Gives it back; false when the loan is over: then it stays with the caller.
    fn give(&self, at: u64) -> bool;

    /// Ends the loan for good. What guest code reads from now on it reads by a call.
    fn end(&self);

    /// Guest code has given it up, and stood at `at` as it counts: what [`Lent::take`] says from now on.
    fn left(&self, at: u64) {
        let _ = at;
    }

    /// Whether it has ended.
    fn is_over(&self) -> bool;
}

/// See [`Lent::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Where it stood, or so guest code says: any position that files can have.
    pub at: u64,
    /// The loan is over: there is nothing to give back.
    pub is_over: bool,
}
