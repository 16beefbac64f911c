//! Futexes: wait queues that are named by a word of guest memory. See futex(2), futex(7).
//!
//! How Linux does it: waiters hang in hash buckets by key; a waiter takes the bucket's lock, reads the word again,
//! and sleeps only if it still holds the expected value; a waker changes the word first and takes the lock after.
//! So no wake-up is lost. A key is (address space, address) for private futexes and (object, offset) for memory
//! that several address spaces share. Here it is the same; the word is read through the sentry's copy of guest memory,
//! and a waiter is a future that leaves its queue when it is dropped. Most waits for private futexes never come here: threads
//! sleep and wake each other on the host (`platform::Futexes`); what is done here for such a word reaches these, too.
//!
//! | module | what |
//! | --- | --- |
//! | `table` | buckets, waiters, wake and requeue |
//! | `pi` | locks whose word names their owner |
//! | `wake_op` | the encoded operation of FUTEX_WAKE_OP |

pub mod pi;
mod table;
mod wake_op;

pub use table::{Chosen, FutexTable, Wait, Woken};
pub use wake_op::WakeOp;

/// What a futex word is known by.
pub use crate::mm::SharedKey as Key;
