//! Resource limits of a process.

use abi::rlimit::{RLIM_NLIMITS, Resource, Rlimit};

/// One value per resource.
#[derive(Debug, Clone)]
pub struct Rlimits([Rlimit; RLIM_NLIMITS]);

impl Rlimits {
    #[must_use]
    pub const fn get(&self, resource: Resource) -> Rlimit {
        self.0[resource as usize]
    }

    /// No check; see prlimit64(2) for that.
    pub const fn set(&mut self, resource: Resource, limit: Rlimit) {
        self.0[resource as usize] = limit;
    }
}

impl Default for Rlimits {
    /// What a process gets on a host with an ordinary configuration.
    fn default() -> Self {
        let mut limits = Self([Rlimit::INFINITE; RLIM_NLIMITS]);
        limits.set(Resource::Stack, Rlimit { cur: 8 << 20, max: u64::MAX });
        limits.set(Resource::Core, Rlimit { cur: 0, max: u64::MAX });
        limits.set(Resource::Nofile, Rlimit { cur: 1024, max: 1 << 20 });
        limits.set(Resource::Memlock, Rlimit { cur: 8 << 20, max: 8 << 20 });
        limits.set(Resource::Nproc, Rlimit { cur: 127_000, max: 127_000 });
        limits.set(Resource::Sigpending, Rlimit { cur: 127_000, max: 127_000 });
        limits.set(Resource::Msgqueue, Rlimit { cur: 819_200, max: 819_200 });
        limits.set(Resource::Nice, Rlimit { cur: 0, max: 0 });
        limits.set(Resource::Rtprio, Rlimit { cur: 0, max: 0 });
        limits
    }
}
