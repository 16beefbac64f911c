//! What is known of a file's text.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::addr::PAGE_SIZE;
use base::lock::Mutex;
use platform::rewrite::{Extents, FUNCTION_MAX, Patch, Refusal, Site, TRAMPOLINE_MAX, plan};
use rustix::fs::{MemfdFlags, SealFlags};

use super::functions::{Functions, Read};
use super::{AREA_LEN, LEARN_AFTER};
use crate::lock_order;

/// How much code around a site is looked at, each way.
const AROUND: u64 = 0x4000;
/// Text beyond this size is not copied for later processes.
const MOST_COPIED: u64 = 64 << 20;
/// Mappings between two copies of one text: each costs as much as reading all of it.
const COPY_AGAIN_AFTER: u32 = 8;

/// A file that some process has mapped executable.
#[derive(Debug)]
pub struct FileText {
    fd: Arc<OwnedFd>,
    /// Where the file begins in the descriptor.
    base: u64,
    known: Mutex<Known, lock_order::Leaf>,
}

#[derive(Debug, Default)]
struct Known {
    /// By the file offset of the call's instruction.
    sites: HashMap<u64, State>,
    learned: Vec<Arc<Learned>>,
    /// Start of the area minus the address of the file's first byte (wrapping); of the first that was seen.
    distance: Option<u64>,
    /// Bytes of the area that are taken.
    used: u64,
    shared: Option<Arc<SharedText>>,
    /// What of `learned` is in it.
    in_shared: usize,
    mappings: u32,
    /// Padding that is made use of, by file offsets.
    islands: Vec<Range<u64>>,
}

#[derive(Debug)]
enum State {
    /// Processes in which it trapped.
    Seen(u32),
    Learned(Arc<Learned>),
    Refused,
}

/// How a site is rewritten, wherever its file is mapped.
#[derive(Debug)]
pub struct Learned {
    /// For the addresses of the process in which it was learned; all that is relative holds elsewhere, too.
    pub patch: Patch,
    /// File offset of the window.
    pub offset: u64,
    /// Offset of the trampoline in the area.
    pub trampoline: u64,
}

/// Where the file of a site is mapped.
#[derive(Debug, Clone)]
pub struct Place {
    /// Address of the file's first byte, if all of it were mapped as this part is (wrapping).
    pub origin: u64,
    /// Lowest address of the file's adjacent mappings.
    pub lowest: u64,
    /// File offsets of the mapping.
    pub text: Range<u64>,
}

/// A copy of a text with rewritten sites, the area behind it.
#[derive(Debug)]
pub struct SharedText {
    pub fd: Arc<OwnedFd>,
    /// File offsets of the text.
    pub text: Range<u64>,
    /// Start of the area minus the address of the file's first byte (wrapping).
    pub distance: u64,
    /// Where the area begins in `fd`.
    pub area: u64,
}

/// Where a file's bytes come from, and what it says of its functions.
struct Source<'a> {
    functions: Option<&'a Functions>,
    read: &'a Read<'a>,
}

impl Source<'_> {
    /// The function around `offset` and its neighbours, as far as that can be told and looked through.
    fn extents(&self, place: &Place, offset: u64) -> Option<Extents> {
        let is_fit = |function: &Range<u64>| {
            let len = function.end.checked_sub(function.start);
            let is_mapped = function.start >= place.text.start && function.end <= place.text.end;
            is_mapped && len.is_some_and(|len| len <= FUNCTION_MAX)
        };
        let Extents { function, before, next } = self.functions?.around(offset, self.read)?;
        is_fit(&function).then(|| Extents { function, before: before.filter(is_fit), next })
    }
}

impl FileText {
    pub(super) fn new(fd: &Arc<OwnedFd>, base: u64) -> Arc<Self> {
        Arc::new(Self { fd: Arc::clone(fd), base, known: Mutex::default() })
    }

    /// The area for a file that is mapped at `place`.
    pub fn area(&self, place: &Place) -> u64 {
        let mut known = self.known.lock();
        let here = place.lowest.wrapping_sub(AREA_LEN).wrapping_sub(place.origin);
        place.origin.wrapping_add(*known.distance.get_or_insert(here))
    }

    /// A process met the site for the first time; true when enough have, so that it should be learned.
    pub fn note(&self, offset: u64) -> bool {
        let mut known = self.known.lock();
        match known.sites.entry(offset).or_insert(State::Seen(0)) {
            State::Seen(count) => {
                *count += 1;
                *count == LEARN_AFTER
            }
            _ => false,
        }
    }

    /// How the site at file offset `offset` is rewritten, if it was looked into.
    pub fn learned(&self, offset: u64) -> Option<Arc<Learned>> {
        match self.known.lock().sites.get(&offset) {
            Some(State::Learned(learned)) => Some(Arc::clone(learned)),
            _ => None,
        }
    }

    /// How the site at file offset `offset` is rewritten; looked into now if nobody did before.
    ///
    /// # Errors
    /// Why it is not; `None`: that was said before, or the area is full.
    pub fn learn(
        &self,
        place: &Place,
        offset: u64,
        number: u64,
        entry: u64,
    ) -> Result<Arc<Learned>, Option<Refusal>> {
        let read = |range| self.read(range);
        let functions = Functions::parse(&read);
        let from = Source { functions: functions.as_ref(), read: &read };
        let learned = self.learn_from(&from, place, (offset, number), entry);
        if let Err(Some(_)) = &learned {
            self.known.lock().sites.insert(offset, State::Refused);
        }
        learned
    }

    fn learn_from(
        &self,
        from: &Source<'_>,
        place: &Place,
        (offset, number): (u64, u64),
        entry: u64,
    ) -> Result<Arc<Learned>, Option<Refusal>> {
        let area = self.area(place);
        let (trampoline, islands) = {
            let known = self.known.lock();
            match known.sites.get(&offset) {
                Some(State::Learned(learned)) => return Ok(Arc::clone(learned)),
                Some(State::Refused) => return Err(None),
                Some(State::Seen(_)) | None => (known.used, known.islands.clone()),
            }
        };
        if trampoline + TRAMPOLINE_MAX as u64 > AREA_LEN {
            return Err(None);
        }
        let around = from.extents(place, offset);
        let mut span = offset.saturating_sub(AROUND).max(place.text.start)
            ..offset.saturating_add(AROUND).min(place.text.end);
        let known_functions =
            around.iter().flat_map(|around| around.before.iter().chain([&around.function]));
        for function in known_functions {
            span = span.start.min(function.start)..span.end.max(function.end);
        }
        let text = (from.read)(span.clone()).ok_or(None)?;
        let address = |offset: u64| place.origin.wrapping_add(offset);
        let addresses = |range: &Range<u64>| address(range.start)..address(range.end);
        let taken: Vec<Range<u64>> = islands.iter().map(addresses).collect();
        let site = Site {
            text: &text,
            text_addr: address(span.start),
            syscall: address(offset),
            number,
            function: around.as_ref().map(|around| addresses(&around.function)),
            before: around.as_ref().and_then(|around| around.before.as_ref()).map(addresses),
            next: around.as_ref().and_then(|around| around.next).map(address),
            taken: &taken,
        };
        let patch = plan(&site, area.wrapping_add(trampoline), entry)?;
        let mut known = self.known.lock();
        // Somebody else took the place meanwhile: next time.
        if known.used != trampoline {
            return Err(None);
        }
        let window = patch.at.wrapping_sub(place.origin);
        known.used += (patch.trampoline.len() as u64).next_multiple_of(16);
        if let Some(island) = &patch.island {
            let start = island.at.wrapping_sub(place.origin);
            known.islands.push(start..start + island.bytes.len() as u64);
        }
        let learned = Arc::new(Learned { patch, offset: window, trampoline });
        known.sites.insert(offset, State::Learned(Arc::clone(&learned)));
        known.learned.push(Arc::clone(&learned));
        Ok(learned)
    }

    /// The file's bytes, as far as there are any.
    fn read(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let len = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let at = self.base.checked_add(range.start)?.checked_add(done as u64)?;
            match rustix::io::pread(&self.fd, bytes.get_mut(done..)?, at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        bytes.truncate(done);
        Some(bytes)
    }

    /// The copy of the text at `offset` for one more mapping, made anew when enough was learned since.
    pub fn shared(&self, offset: u64, len: u64) -> Option<Arc<SharedText>> {
        let end = offset.checked_add(len)?.checked_next_multiple_of(PAGE_SIZE)?;
        let text = offset..end;
        let stale = {
            let mut known = self.known.lock();
            known.mappings = known.mappings.saturating_add(1);
            let is_stale = known.in_shared < known.learned.len()
                && (known.shared.is_none() || known.mappings >= COPY_AGAIN_AFTER);
            if is_stale {
                known.in_shared = known.learned.len();
                known.mappings = 0;
            }
            is_stale.then(|| (known.learned.clone(), known.distance))
        };
        let made = stale.map(|(learned, distance)| self.copy(&learned, distance, text.clone()));
        let mut known = self.known.lock();
        if let Some(made) = made {
            known.shared = made;
        }
        known.shared.as_ref().filter(|shared| shared.text == text).cloned()
    }

    fn copy(
        &self,
        learned: &[Arc<Learned>],
        distance: Option<u64>,
        text: Range<u64>,
    ) -> Option<Arc<SharedText>> {
        if text.end - text.start > MOST_COPIED {
            return None;
        }
        let mut bytes = self.read(text.clone())?;
        let area = usize::try_from(text.end - text.start).ok()?;
        bytes.resize(area, 0);
        bytes.resize(area + AREA_LEN as usize, 0xcc);
        for learned in learned {
            let Learned { patch, offset, trampoline } = &**learned;
            for (addr, original, new) in patch.edits() {
                let offset = offset.wrapping_add(addr.wrapping_sub(patch.at));
                let at = usize::try_from(offset.checked_sub(text.start)?).ok()?;
                let place = bytes.get_mut(at..at + new.len()).filter(|_| at < area)?;
                if *place != *original {
                    return None;
                }
                place.copy_from_slice(new);
            }
            let at = area + usize::try_from(*trampoline).ok()?;
            bytes.get_mut(at..at + patch.trampoline.len())?.copy_from_slice(&patch.trampoline);
        }
        let fd = sealed_memory(&bytes)?;
        let (fd, area) = (Arc::new(fd), area as u64);
        Some(Arc::new(SharedText { fd, text, distance: distance?, area }))
    }
}

/// Memory with these bytes that nobody can change any more: guests that attack their shim get the descriptor.
fn sealed_memory(bytes: &[u8]) -> Option<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("text", flags).ok()?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = rustix::io::write(&fd, rest).ok().filter(|count| *count > 0)?;
        rest = rest.get(count..)?;
    }
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).ok()?;
    Some(fd)
}
