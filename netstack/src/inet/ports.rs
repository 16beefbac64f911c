//! Which socket has which port.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use abi::{Errno, Result};
use base::lock::Mutex;

use super::socket::{InetSocket, Kind};
use crate::lock_order;

/// net.ipv4.ip_local_port_range.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// Ports of one network namespace.
pub struct Ports(Mutex<State, lock_order::Ports>);

struct State {
    bound: HashMap<(Kind, u16), Vec<Binding>>,
    next: u16,
}

/// A socket at a port.
#[derive(Clone)]
pub(super) struct Binding {
    /// Unspecified: every address of its family, and for IPv6 those of IPv4 too unless `is_v6_only`.
    pub ip: IpAddr,
    pub is_v6_only: bool,
    /// SO_REUSEADDR or SO_REUSEPORT.
    pub is_shared: bool,
    pub socket: Weak<InetSocket>,
}

impl Binding {
    fn covers(&self, ip: IpAddr) -> bool {
        self.ip == ip
            || match self.ip {
                IpAddr::V4(own) => own.is_unspecified() && ip.is_ipv4(),
                IpAddr::V6(own) => own.is_unspecified() && (ip.is_ipv6() || !self.is_v6_only),
            }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.covers(other.ip) || other.covers(self.ip)
    }

    fn conflicts(&self, other: &Self, kind: Kind) -> bool {
        if !self.overlaps(other) {
            return false;
        }
        let Some(held) = self.socket.upgrade() else { return false };
        // A listener shares its port with nobody that did not ask; see socket(7), SO_REUSEADDR.
        let is_listening = kind == Kind::Stream && held.is_listening() && !held.shares_port();
        !(self.is_shared && other.is_shared) || is_listening
    }
}

impl Ports {
    #[must_use]
    pub fn new() -> Arc<Self> {
        let state = State { bound: HashMap::new(), next: *EPHEMERAL.start() };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Gives `binding` the port, or a free one for 0; returns it.
    ///
    /// # Errors
    /// `EADDRINUSE`.
    pub(super) fn bind(&self, kind: Kind, port: u16, binding: &Binding) -> Result<u16> {
        if port != 0 {
            return self.take(kind, port, binding).then_some(port).ok_or(Errno::EADDRINUSE);
        }
        for _ in EPHEMERAL {
            let candidate = {
                let mut state = self.0.lock();
                let candidate = state.next;
                let is_last = candidate >= *EPHEMERAL.end();
                state.next = if is_last { *EPHEMERAL.start() } else { candidate + 1 };
                if state.bound.contains_key(&(kind, candidate)) {
                    continue;
                }
                candidate
            };
            if self.take(kind, candidate, binding) {
                return Ok(candidate);
            }
        }
        Err(Errno::EADDRINUSE)
    }

    fn take(&self, kind: Kind, port: u16, binding: &Binding) -> bool {
        // Asking a socket whether it listens takes its lock, which comes before ours: look first, then take.
        let held = self.0.lock().bound.get(&(kind, port)).cloned().unwrap_or_default();
        if held.iter().any(|held| held.conflicts(binding, kind)) {
            return false;
        }
        let mut state = self.0.lock();
        let place = state.bound.entry((kind, port)).or_default();
        if place.len() > held.len() && !binding.is_shared {
            return false;
        }
        place.push(binding.clone());
        true
    }

    /// Forgets the socket at `address`.
    pub(super) fn release(&self, kind: Kind, port: u16, socket: *const InetSocket) {
        let mut state = self.0.lock();
        if let Some(place) = state.bound.get_mut(&(kind, port)) {
            place.retain(|held| !std::ptr::eq(held.socket.as_ptr(), socket));
            if place.is_empty() {
                state.bound.remove(&(kind, port));
            }
        }
    }

    /// Who has `to`: those bound to the very address first.
    pub(super) fn find(&self, kind: Kind, to: SocketAddr) -> Vec<Arc<InetSocket>> {
        let mut found: Vec<(bool, Arc<InetSocket>)> = {
            let state = self.0.lock();
            let place = state.bound.get(&(kind, to.port())).map_or(&[][..], Vec::as_slice);
            place
                .iter()
                .filter(|held| held.covers(to.ip()))
                .filter_map(|held| Some((held.ip != to.ip(), held.socket.upgrade()?)))
                .collect()
        };
        found.sort_by_key(|(is_wild, _)| *is_wild);
        found.into_iter().map(|(_, socket)| socket).collect()
    }
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ports({} in use)", self.0.lock().bound.len())
    }
}
