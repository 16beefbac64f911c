//! Memory mapping: mmap, munmap, mprotect, mremap, madvise, brk, mincore, msync, mlock and kin.
//!
//! Calls that change the layout have a first try, which defers the host's part to the way back, and an entry that waits for
//! others who change it in the same address space.

use abi::ids::Fd;
use abi::mman::{MapFlags, MclFlags, MlockFlags, MremapFlags, MsyncFlags, advice};
use abi::rlimit::Resource;
use abi::{Errno, Result, UserAddr};
use base::cred::Caps;
use platform::Prot;
use vfs::file::MapSource;

use crate::cx::Cx;
use crate::error::{SysError, SysResult};
use crate::library;
use crate::loader::profile;
use crate::mm::{Limits, MapRequest, Mm, MmState, Plan, VmaFlags};
use crate::syscalls::args::{FromArg, Render, push_flags};
use crate::syscalls::table::Attempt;
use crate::{loose_flags_arg, strict_flags_arg};

loose_flags_arg!(MapFlags as "MAP_");
strict_flags_arg!(MremapFlags as "MREMAP_");
strict_flags_arg!(MsyncFlags as "MS_");
strict_flags_arg!(MlockFlags as "MLOCK_");
strict_flags_arg!(MclFlags as "MCL_");

/// The protection argument of mmap(2) and mprotect(2), unchecked.
#[derive(Debug, Clone, Copy)]
pub struct ProtWord(u32);

impl FromArg for ProtWord {
    fn from_arg(word: u64) -> Result<Self> {
        Ok(Self(word as u32))
    }
}

impl Render for ProtWord {
    fn render(&self, out: &mut String, _mm: &Mm) {
        if self.0 == 0 {
            out.push_str("PROT_NONE");
        } else {
            push_flags(out, "PROT_", &platform::Prot::from_bits_retain(self.0));
        }
    }
}

/// The advice argument of madvise(2).
#[derive(Debug, Clone, Copy)]
pub struct AdviceWord(i32);

impl FromArg for AdviceWord {
    fn from_arg(word: u64) -> Result<Self> {
        Ok(Self(word as i32))
    }
}

impl Render for AdviceWord {
    fn render(&self, out: &mut String, mm: &Mm) {
        out.push_str(match self.0 {
            advice::NORMAL => "MADV_NORMAL",
            advice::DONTNEED => "MADV_DONTNEED",
            advice::FREE => "MADV_FREE",
            advice::WILLNEED => "MADV_WILLNEED",
            advice::HUGEPAGE => "MADV_HUGEPAGE",
            advice::NOHUGEPAGE => "MADV_NOHUGEPAGE",
            advice::DONTDUMP => "MADV_DONTDUMP",
            advice::DONTFORK => "MADV_DONTFORK",
            other => return other.render(out, mm),
        });
    }
}

impl Cx<'_> {
    /// What a change of the caller's layout must keep to.
    #[must_use]
    pub fn mm_limits(&self) -> Limits {
        let group = &self.thread.group;
        let facts = &self.kernel.host;
        let host = facts.mem_total.saturating_add(facts.swap_total);
        Limits {
            address_space: group.limit(Resource::As),
            data: group.limit(Resource::Data),
            memlock: group.limit(Resource::Memlock),
            may_lock: self.cred().has(Caps::IPC_LOCK),
            memory: match &self.kernel.memory {
                Some(account) => account.room(),
                None if host == 0 => u64::MAX,
                None => host,
            },
        }
    }

    fn try_change(&mut self, plan: impl FnOnce(&mut MmState) -> Result<Plan>) -> Attempt {
        match self.mm().try_change(self.thread, &mut **self.context, plan) {
            Some(result) => Attempt::Done(result.map_err(SysError::from)),
            None => Attempt::WouldBlock { begun: 0 },
        }
    }

    async fn change(
        &mut self,
        plan: impl FnOnce(&mut MmState) -> Result<Plan> + Send,
    ) -> SysResult {
        let mm = self.mm();
        Ok(mm.change(self.thread, &mut **self.context, plan).await?)
    }
}

fn map_request(
    cx: &Cx<'_>,
    addr: UserAddr,
    len: u64,
    prot: ProtWord,
    flags: MapFlags,
    fd: Fd,
    offset: u64,
) -> Result<MapRequest> {
    if !offset.is_multiple_of(abi::addr::PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let file =
        if flags.contains(MapFlags::ANONYMOUS) { None } else { Some(cx.thread.files().get(fd)?) };
    if flags.contains(MapFlags::HUGETLB) {
        // No huge page pool; as on a host with nr_hugepages = 0.
        return Err(if file.is_some() { Errno::EINVAL } else { Errno::ENOMEM });
    }
    let noexec = file.as_ref().is_some_and(|file| vfs::path::is_no_exec(file.path()));
    let offset = if file.is_some() { offset } else { 0 };
    Ok(MapRequest {
        addr: addr.0,
        len,
        prot: prot.0,
        flags,
        file,
        offset,
        noexec,
        shared_text: None,
    })
}

/// mmap, when it need not wait for others in the address space.
pub fn try_mmap(
    cx: &mut Cx<'_>,
    addr: UserAddr,
    len: u64,
    prot: ProtWord,
    flags: MapFlags,
    fd: Fd,
    offset: u64,
) -> Attempt {
    let prepared = map_request(cx, addr, len, prot, flags, fd, offset)
        .and_then(|request| request.source().map(|source| (request, source)));
    let (request, source) = match prepared {
        Ok(prepared) => prepared,
        Err(errno) => return Attempt::Done(Err(errno.into())),
    };
    let limits = cx.mm_limits();
    let lendable = library::lendable(&request, source.as_ref());
    let request = with_shared_text(cx, request, source.as_ref());
    let attempt = cx.try_change(|state| state.plan_map(&request, source, &limits));
    if let (Some(source), Attempt::Done(Ok(addr))) = (lendable, &attempt) {
        library::lend(cx, *addr, &request, source, fd.0.cast_unsigned());
    }
    attempt
}

/// A text that is known may come with rewritten call sites.
fn with_shared_text(cx: &Cx<'_>, request: MapRequest, source: Option<&MapSource>) -> MapRequest {
    let Some(source @ MapSource::Host { fd, .. }) = source else { return request };
    let profile = cx.mm().with_state(|state| state.image.profile.clone());
    let is_public = || request.file.as_ref().is_some_and(|file| profile::is_public(file.path()));
    if let Some(profile) = &profile {
        profile.note(fd, is_public);
    }
    let Some(rewriter) = &cx.kernel.rewriter else { return request };
    if request.flags.map_type() != MapFlags::TYPE_PRIVATE {
        return request;
    }
    let prot = Prot::from_bits_truncate(request.prot);
    let shared_text = rewriter.shared_text(source, prot, (request.offset, request.len), false);
    if let (Some(profile), Some(text)) = (&profile, &shared_text) {
        profile.note(&text.fd, is_public);
    }
    MapRequest { shared_text, ..request }
}

/// mmap: maps files or anonymous memory. See [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html).
pub async fn mmap(
    cx: &mut Cx<'_>,
    addr: UserAddr,
    len: u64,
    prot: ProtWord,
    flags: MapFlags,
    fd: Fd,
    offset: u64,
) -> SysResult {
    let request = map_request(cx, addr, len, prot, flags, fd, offset)?;
    let source = request.source()?;
    let request = with_shared_text(cx, request, source.as_ref());
    let limits = cx.mm_limits();
    cx.change(|state| state.plan_map(&request, source, &limits)).await
}

/// munmap, when it need not wait for others in the address space.
pub fn try_munmap(cx: &mut Cx<'_>, addr: UserAddr, len: u64) -> Attempt {
    cx.try_change(|state| state.plan_unmap(addr.0, len))
}

/// munmap: removes mappings. See [munmap(2)](https://man7.org/linux/man-pages/man2/munmap.2.html).
pub async fn munmap(cx: &mut Cx<'_>, addr: UserAddr, len: u64) -> SysResult {
    cx.change(|state| state.plan_unmap(addr.0, len)).await
}

/// mprotect, when it need not wait for others in the address space.
pub fn try_mprotect(cx: &mut Cx<'_>, addr: UserAddr, len: u64, prot: ProtWord) -> Attempt {
    let limits = cx.mm_limits();
    cx.try_change(|state| state.plan_protect(addr.0, len, prot.0, &limits))
}

/// mprotect: sets protection. See [mprotect(2)](https://man7.org/linux/man-pages/man2/mprotect.2.html).
pub async fn mprotect(cx: &mut Cx<'_>, addr: UserAddr, len: u64, prot: ProtWord) -> SysResult {
    let limits = cx.mm_limits();
    cx.change(|state| state.plan_protect(addr.0, len, prot.0, &limits)).await
}

/// mremap, when it need not wait for others in the address space.
pub fn try_mremap(
    cx: &mut Cx<'_>,
    old: UserAddr,
    old_len: u64,
    new_len: u64,
    flags: MremapFlags,
    new: UserAddr,
) -> Attempt {
    let limits = cx.mm_limits();
    cx.try_change(|state| state.plan_remap(old.0, old_len, new_len, flags, new.0, &limits))
}

/// mremap: resizes or moves a mapping. See [mremap(2)](https://man7.org/linux/man-pages/man2/mremap.2.html).
pub async fn mremap(
    cx: &mut Cx<'_>,
    old: UserAddr,
    old_len: u64,
    new_len: u64,
    flags: MremapFlags,
    new: UserAddr,
) -> SysResult {
    let limits = cx.mm_limits();
    cx.change(|state| state.plan_remap(old.0, old_len, new_len, flags, new.0, &limits)).await
}

/// brk, when it need not wait for others in the address space.
pub fn try_brk(cx: &mut Cx<'_>, end: UserAddr) -> Attempt {
    let limits = cx.mm_limits();
    cx.try_change(|state| Ok(state.plan_brk(end.0, &limits)))
}

/// brk: moves the end of the heap. See [brk(2)](https://man7.org/linux/man-pages/man2/brk.2.html).
pub async fn brk(cx: &mut Cx<'_>, end: UserAddr) -> SysResult {
    let limits = cx.mm_limits();
    cx.change(|state| Ok(state.plan_brk(end.0, &limits))).await
}

/// madvise, when it need not wait for others in the address space.
pub fn try_madvise(cx: &mut Cx<'_>, addr: UserAddr, len: u64, advice: AdviceWord) -> Attempt {
    cx.try_change(|state| state.plan_advise(addr.0, len, advice.0))
}

/// madvise: tells how memory will be used. See [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html).
pub async fn madvise(cx: &mut Cx<'_>, addr: UserAddr, len: u64, advice: AdviceWord) -> SysResult {
    cx.change(|state| state.plan_advise(addr.0, len, advice.0)).await
}

/// mincore: which pages are in memory. See [mincore(2)](https://man7.org/linux/man-pages/man2/mincore.2.html).
pub fn mincore(cx: &mut Cx<'_>, addr: UserAddr, len: u64, vec: UserAddr) -> SysResult {
    const CHUNK: u64 = 4096;
    let mm = cx.mm();
    let pages = mm.with_state(|state| state.incore_pages(addr.0, len))?;
    let ones = [1u8; CHUNK as usize];
    let mut done = 0;
    while done < pages {
        let count = (pages - done).min(CHUNK);
        let at = vec.checked_add(done).ok_or(Errno::EFAULT)?;
        mm.write(at, ones.get(..count as usize).unwrap_or_default())?;
        done += count;
    }
    Ok(0)
}

/// msync: writes mapped files back. See [msync(2)](https://man7.org/linux/man-pages/man2/msync.2.html).
pub fn msync(cx: &mut Cx<'_>, addr: UserAddr, len: u64, flags: MsyncFlags) -> SysResult {
    let (files, outcome) = cx.mm().with_state(|state| state.plan_sync(addr.0, len, flags))?;
    for file in files {
        match file.ops().sync(true) {
            // Files without fsync have nothing to write back.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(outcome?)
}

/// mlock: counts memory as locked. See [mlock(2)](https://man7.org/linux/man-pages/man2/mlock.2.html).
pub fn mlock(cx: &mut Cx<'_>, addr: UserAddr, len: u64) -> SysResult {
    let limits = cx.mm_limits();
    cx.mm().with_state(|state| state.lock_range(addr.0, len, VmaFlags::LOCKED, &limits))?;
    Ok(0)
}

/// mlock2: mlock with flags. See [mlock2(2)](https://man7.org/linux/man-pages/man2/mlock2.2.html).
pub fn mlock2(cx: &mut Cx<'_>, addr: UserAddr, len: u64, flags: MlockFlags) -> SysResult {
    let limits = cx.mm_limits();
    let mut kind = VmaFlags::LOCKED;
    kind.set(VmaFlags::LOCK_ON_FAULT, flags.contains(MlockFlags::ONFAULT));
    cx.mm().with_state(|state| state.lock_range(addr.0, len, kind, &limits))?;
    Ok(0)
}

/// munlock: undoes mlock. See [munlock(2)](https://man7.org/linux/man-pages/man2/munlock.2.html).
pub fn munlock(cx: &mut Cx<'_>, addr: UserAddr, len: u64) -> SysResult {
    cx.mm().with_state(|state| state.unlock_range(addr.0, len))?;
    Ok(0)
}

/// mlockall: locks everything. See [mlockall(2)](https://man7.org/linux/man-pages/man2/mlockall.2.html).
pub fn mlockall(cx: &mut Cx<'_>, flags: MclFlags) -> SysResult {
    let limits = cx.mm_limits();
    cx.mm().with_state(|state| state.lock_all(flags, &limits))?;
    Ok(0)
}

/// munlockall: undoes mlockall. See [munlockall(2)](https://man7.org/linux/man-pages/man2/munlockall.2.html).
pub fn munlockall(cx: &mut Cx<'_>) -> SysResult {
    cx.mm().with_state(MmState::unlock_all);
    Ok(0)
}
