//! Requests whose answers are heard later, while the gofer works on another processor.
//!
//! A connection owes the answers to one such request and to those that go on from there. Until these have come, requests for
//! something else take the other connections; if there is none, they wait for them and put them by. Answers that nobody hears are
//! dropped with the next request of this kind.

use std::os::fd::OwnedFd;

use abi::Result;
use base::lock::MutexGuard;
use gofer_protocol::wire::{Decoded, Reader};
use gofer_protocol::{MAX_MESSAGE, NO_CPU, Op, TreePath, transport};

use super::{Client, Connection, Failure, Ordering, decode, unheard};

/// A request that was sent.
#[derive(Clone, Copy)]
pub struct Asked {
    connection: usize,
    /// Its number, which no other one on that connection has for long.
    pub seq: u32,
}

/// An answer that was put by.
pub struct Late {
    seq: u32,
    heard: std::result::Result<(Vec<u8>, Vec<OwnedFd>), Failure>,
}

/// Whether to wait for an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    Wait,
    Look,
}

/// What became of a request.
pub enum Later<T> {
    Answer(T),
    /// The gofer still works on it.
    NotYet,
    /// Something else was asked meanwhile.
    Lost,
}

impl Client {
    /// Asks, and leaves the answer for later; `None` when that cannot be: there is no other processor or no idle connection.
    pub fn ask(&self, tree: u16, path: &[u8], op: Op<'_>) -> Option<Asked> {
        let here = transport::current_cpu()?;
        let after = self.cpus.iter().position(|cpu| *cpu == here)? + 1;
        let there = *self.cpus.get(after).or_else(|| self.cpus.first())?;
        let count = self.connections.len();
        let (own, other) = (usize::from(here) % count, usize::from(there) % count);
        let other = if other == own { (own + 1) % count } else { other };
        if there == here || other == own || self.is_broken.load(Ordering::Relaxed) {
            return None;
        }
        let path = TreePath::new(path).ok()?;
        let mut connection = self.connections.get(other)?.try_lock().and_then(Connection::idle)?;
        connection.late.clear();
        let sent = self.send(&mut connection, other, there, (tree, path, op));
        drop(connection);
        self.judge(sent).ok()
    }

    /// Asks on the connection of `asked` for what comes after that, which may not be answered yet.
    pub fn ask_on(&self, asked: Asked, tree: u16, op: Op<'_>) -> Option<Asked> {
        if self.is_broken.load(Ordering::Relaxed) {
            return None;
        }
        let at = asked.connection;
        let there = u16::try_from(at).ok().filter(|cpu| self.cpus.contains(cpu));
        let mut connection = self.connections.get(at)?.try_lock()?;
        let request = (tree, TreePath::ROOT, op);
        let sent = self.send(&mut connection, at, there.unwrap_or(NO_CPU), request);
        drop(connection);
        self.judge(sent).ok()
    }

    fn send(
        &self,
        connection: &mut Connection,
        at: usize,
        cpu: u16,
        (tree, path, op): (u16, TreePath<'_>, Op<'_>),
    ) -> std::result::Result<Asked, Failure> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        connection.ask(cpu, tree, path, op)?;
        connection.owed.push_back(connection.seq);
        Ok(Asked { connection: at, seq: connection.seq })
    }

    /// The answer to what was asked, as [`Client::call`] does it.
    pub fn hear<T>(
        &self,
        asked: &Asked,
        patience: Patience,
        read: impl FnOnce(Reader<'_>, Vec<OwnedFd>) -> Decoded<T>,
    ) -> Result<Later<T>> {
        let Some(connection) = self.connections.get(asked.connection) else {
            return Ok(Later::Lost);
        };
        let outcome = connection.lock().hear_later(asked.seq, patience, read);
        self.judge(outcome)
    }
}

type Guard<'g> = MutexGuard<'g, Connection>;

impl Connection {
    /// Itself, unless it owes an answer that has not come.
    pub(super) fn idle(mut guard: Guard<'_>) -> Option<Guard<'_>> {
        guard.put_by(Patience::Look);
        guard.owed.is_empty().then_some(guard)
    }

    /// Puts the answers by that it owes.
    pub(super) fn put_by(&mut self, patience: Patience) {
        while let Some(seq) = self.owed.front().copied() {
            let Some(heard) = self.receive(patience).transpose() else { return };
            let heard = heard
                .map(|(length, fds)| (self.reply.get(..length).unwrap_or_default().to_vec(), fds));
            self.owed.pop_front();
            self.late.push_back(Late { seq, heard });
        }
    }

    fn receive(
        &mut self,
        patience: Patience,
    ) -> std::result::Result<Option<(usize, Vec<OwnedFd>)>, Failure> {
        let room = self.reply.get_mut(..MAX_MESSAGE).unwrap_or_default();
        match patience {
            Patience::Wait => transport::receive(&self.socket, room).map(Some),
            Patience::Look => transport::receive_now(&self.socket, room),
        }
        .map_err(unheard)
    }

    fn hear_later<T>(
        &mut self,
        seq: u32,
        patience: Patience,
        read: impl FnOnce(Reader<'_>, Vec<OwnedFd>) -> Decoded<T>,
    ) -> std::result::Result<Later<T>, Failure> {
        if let Some(late) = self.late.pop_front_if(|late| late.seq == seq) {
            let (message, fds) = late.heard?;
            return decode(&message, seq, fds, read).map(Later::Answer);
        }
        if self.owed.front() != Some(&seq) {
            return Ok(Later::Lost);
        }
        let came = self.receive(patience);
        if let Ok(None) = came {
            return Ok(Later::NotYet);
        }
        self.owed.pop_front();
        let Some((length, fds)) = came? else { return Ok(Later::NotYet) };
        let message = self.reply.get(..length).unwrap_or_default();
        decode(message, seq, fds, read).map(Later::Answer)
    }
}

#[cfg(test)]
mod tests;
