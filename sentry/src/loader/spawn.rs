//! The host's part of loading: a fresh address space, its mappings in one batch, the bytes that go into it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::UserAddr;
use abi::arch::Registers;
use platform::{AddressSpace, Backing, Context, HostOp, Layout, PlatformError};

use crate::kernel::Kernel;
use crate::loader::profile::Mapped;
use crate::loader::{LoadError, Prepared};
use crate::mm::{Mm, MmState};

/// Interrupts enabled, as every user program starts with.
const INITIAL_FLAGS: u64 = 0x202;

/// A program in its own address space, standing before its first instruction.
pub struct Loaded {
    pub context: Box<dyn Context>,
    pub mm: Arc<Mm>,
}

impl Prepared {
    /// Makes an address space of its own. The caller's is untouched.
    ///
    /// # Errors
    /// `Fatal` when the host refuses a mapping, `Platform` when it cannot make an address space.
    pub async fn spawn(&mut self, kernel: &Kernel) -> Result<Loaded, LoadError> {
        let mut context = kernel.platform.spawn().await.map_err(spawn_error)?;
        let mm = self.load(kernel, &mut *context, Vec::new()).await?;
        Ok(Loaded { context, mm })
    }

    /// Loads into the address space of `context`, whose only one it is, in the stead of what is there.
    ///
    /// # Errors
    /// As [`Prepared::spawn`]; what was there is gone then as well.
    pub async fn replace(
        &mut self,
        kernel: &Kernel,
        context: &mut dyn Context,
    ) -> Result<Arc<Mm>, LoadError> {
        let Layout { min_addr, task_size, .. } = *kernel.platform.layout();
        let all = HostOp::Unmap { addr: UserAddr(min_addr), len: task_size - min_addr };
        let mm = self.load(kernel, context, vec![all]).await?;
        context.reset_xstate();
        context.defer(HostOp::SetFsBase(0));
        context.defer(HostOp::SetGsBase(0));
        Ok(mm)
    }

    async fn load(
        &mut self,
        kernel: &Kernel,
        context: &mut dyn Context,
        mut ops: Vec<HostOp>,
    ) -> Result<Arc<Mm>, LoadError> {
        if self.is_public {
            self.share(kernel);
        }
        ops.append(&mut self.image.ops);
        if let Some(program) = &self.program {
            let profile = kernel.profiles.of(program);
            for Mapped { fd, is_public } in profile.files() {
                if is_public {
                    kernel.platform.share(&fd);
                }
                ops.push(HostOp::Hold { fd });
            }
            self.image.state.image.profile = Some(profile);
        }
        if let Err((index, errno)) = context.execute(ops).await.map_err(spawn_error)? {
            tracing::debug!(index, %errno, "host refused a segment");
            return Err(LoadError::Fatal);
        }
        let space = Arc::clone(context.space());
        self.fill(&*space)?;
        *context.regs_mut() = Registers {
            rip: self.image.entry,
            rsp: self.stack.pointer,
            rflags: INITIAL_FLAGS,
            ..Registers::default()
        };
        let bounds = self.image.state.bounds;
        let state = std::mem::replace(&mut self.image.state, MmState::new(bounds));
        Ok(Mm::new(space, state, kernel.memory.clone()))
    }
}

impl Prepared {
    /// Offers what is about to be mapped to the platform.
    fn share(&self, kernel: &Kernel) {
        let mut last: Option<&Arc<OwnedFd>> = None;
        for op in &self.image.ops {
            if let HostOp::Map { backing: Backing::File { fd, .. }, .. } = op
                && last.is_none_or(|last| !Arc::ptr_eq(last, fd))
            {
                kernel.platform.share(fd);
                last = Some(fd);
            }
        }
    }

    /// Writes the bytes that the program begins with: all at once, mostly.
    fn fill(&self, space: &dyn AddressSpace) -> Result<(), LoadError> {
        let zeroes = self
            .image
            .zeroes
            .iter()
            .filter_map(|zero| Some((UserAddr(zero.addr), usize::try_from(zero.len).ok()?)));
        let stack = self.stack.pieces.iter().map(|(addr, bytes)| (UserAddr(*addr), bytes.len()));
        let ranges: Vec<_> = zeroes.clone().chain(stack).collect();
        let zero_bytes: usize = zeroes.map(|(_, len)| len).sum();
        let mut bytes = vec![0; zero_bytes];
        self.stack.pieces.iter().for_each(|(_, piece)| bytes.extend_from_slice(piece));
        if space.write_vectored(&ranges, &bytes) == bytes.len() {
            return Ok(());
        }
        // One by one, to see which.
        for zero in &self.image.zeroes {
            let bytes = vec![0; usize::try_from(zero.len).unwrap_or(0)];
            if space.write(UserAddr(zero.addr), &bytes) != bytes.len() && zero.must {
                return Err(LoadError::Fatal);
            }
        }
        let is_written =
            |(addr, bytes): &(u64, Vec<u8>)| space.write(UserAddr(*addr), bytes) == bytes.len();
        if self.stack.pieces.iter().all(is_written) { Ok(()) } else { Err(LoadError::Fatal) }
    }
}

fn spawn_error(error: PlatformError) -> LoadError {
    match error {
        PlatformError::Exhausted(errno) => LoadError::Errno(errno),
        other => LoadError::Platform(other),
    }
}
