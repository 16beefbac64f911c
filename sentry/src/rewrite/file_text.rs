//! What is known of a file's text.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use abi::addr::PAGE_SIZE;
use base::lock::Mutex;
use platform::rewrite::{
    CONTEXT, Extents, FUNCTION_MAX, Patch, Refusal, SIGRETURN, Site, TRAMPOLINE_MAX, plan,
    plan_alone,
};
use rustix::fs::{MemfdFlags, SealFlags};

use super::functions::{Functions, Read};
use super::questions::{self, AskingPages};
use super::{AREA_LEN, LEARN_AFTER};
use crate::lock_order;

/// How much code around a site is looked at, each way.
const AROUND: u64 = 0x4000;
/// Text beyond this size is not copied for later processes.
const MOST_COPIED: u64 = 64 << 20;
/// A copy costs as much as reading all of the text, and is made when so many bytes of it have met one trap that it spares.
const COPIED_PER_TRAP: u64 = 64 << 10;
/// How much is copied at once.
const COPY_BYTES: usize = 128 << 10;
/// Small pieces of a file, as of its unwind table, are read in blocks of so many bytes.
const BLOCK: u64 = 4096;

/// A file that some process has mapped executable.
#[derive(Debug)]
pub struct FileText {
    fd: Arc<OwnedFd>,
    /// Where the file begins in the descriptor.
    base: u64,
    functions: OnceLock<Option<Functions>>,
    /// Where it asks the processor, by file offsets, and the pages where it does; of texts that were searched for it.
    asking: OnceLock<(Vec<u64>, Option<Arc<AskingPages>>)>,
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
    /// Sites that were learned since the copy was made, and processes that met a learned one, each site counted.
    missed: u64,
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

/// How a file's text will be mapped.
#[derive(Debug)]
pub enum Outlook {
    /// As it is.
    Plain,
    /// From this copy.
    Copy(Arc<SharedText>),
    /// That depends on which part it is.
    Unknown,
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
        Arc::new(Self {
            fd: Arc::clone(fd),
            base,
            functions: OnceLock::new(),
            asking: OnceLock::new(),
            known: Mutex::default(),
        })
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
            State::Learned(_) => {
                known.missed = known.missed.saturating_add(1);
                false
            }
            State::Refused => false,
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
        let blocks = Blocks { file: self, read: RefCell::default() };
        let read = |range| blocks.read(range);
        let from = Source { functions: self.functions(), read: &read };
        let learned = self.learn_from(&from, place, (offset, number), entry);
        if let Err(Some(_)) = &learned {
            self.known.lock().sites.insert(offset, State::Refused);
        }
        learned
    }

    fn functions(&self) -> Option<&Functions> {
        let parse = || Functions::parse(&|range| self.read(range));
        self.functions.get_or_init(parse).as_ref()
    }

    /// The pages of the text at these file offsets that ask the processor, with traps in place of that.
    pub fn asking_pages(&self, text: &Range<u64>) -> Option<Arc<AskingPages>> {
        let find = || {
            let blocks = Blocks { file: self, read: RefCell::default() };
            let read = |range| blocks.read(range);
            let questions = questions::find(self.functions(), text, &read);
            let pages = AskingPages::of(text, &questions, &read).map(Arc::new);
            (questions, pages)
        };
        self.asking.get_or_init(find).1.clone()
    }

    /// Copies of it have traps in place of questions to the processor.
    pub fn has_questions(&self) -> bool {
        self.asking.get().is_some_and(|(questions, _)| !questions.is_empty())
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
        let patch = Self::plan(
            from,
            place,
            (offset, number),
            &islands,
            (area.wrapping_add(trampoline), entry),
        )?;
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
        known.missed = known.missed.saturating_add(1);
        Ok(learned)
    }

    /// How the site is rewritten with a trampoline at the first of `ways`, that leads to the second.
    fn plan(
        from: &Source<'_>,
        place: &Place,
        (offset, number): (u64, u64),
        islands: &[Range<u64>],
        (trampoline, entry): (u64, u64),
    ) -> Result<Patch, Option<Refusal>> {
        let around = from.extents(place, offset);
        let address = |offset: u64| place.origin.wrapping_add(offset);
        let addresses = |range: &Range<u64>| address(range.start)..address(range.end);
        let taken: Vec<Range<u64>> = islands.iter().map(addresses).collect();
        let site = Site {
            text: &[],
            text_addr: 0,
            syscall: address(offset),
            number,
            function: around.as_ref().map(|around| addresses(&around.function)),
            before: around.as_ref().and_then(|around| around.before.as_ref()).map(addresses),
            next: around.as_ref().and_then(|around| around.next).map(address),
            is_signal_return: number == SIGRETURN
                && from.functions.is_some_and(|known| known.is_signal_return(offset, from.read)),
            taken: &taken,
        };
        // Most sites are alike, and little is to be read for them.
        if around.is_some() || site.is_signal_return {
            let (first, end) =
                around.as_ref().map_or((offset, offset.saturating_add(2)), |around| {
                    (around.function.start, around.function.end)
                });
            let start = offset.saturating_sub(CONTEXT).max(place.text.start).min(first);
            let text = (from.read)(start..end).ok_or(None)?;
            let site = Site { text: &text, text_addr: address(start), ..site.clone() };
            if let Some(patch) = plan_alone(&site, trampoline, entry) {
                return Ok(patch);
            }
        }
        let mut span = offset.saturating_sub(AROUND).max(place.text.start)
            ..offset.saturating_add(AROUND).min(place.text.end);
        let known_functions =
            around.iter().flat_map(|around| around.before.iter().chain([&around.function]));
        for function in known_functions {
            span = span.start.min(function.start)..span.end.max(function.end);
        }
        let text = (from.read)(span.clone()).ok_or(None)?;
        let site = Site { text: &text, text_addr: address(span.start), ..site };
        Ok(plan(&site, trampoline, entry)?)
    }

    /// The file's bytes, as far as there are any.
    fn read(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let len = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let mut bytes = vec![0; len];
        let done = self.read_into(&mut bytes, range.start)?;
        bytes.truncate(done);
        Some(bytes)
    }

    /// How many bytes there are at `offset`, at most as many as there is room for.
    fn read_into(&self, bytes: &mut [u8], offset: u64) -> Option<usize> {
        let mut done = 0;
        while done < bytes.len() {
            let at = self.base.checked_add(offset)?.checked_add(done as u64)?;
            match rustix::io::pread(&self.fd, bytes.get_mut(done..)?, at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        Some(done)
    }

    /// The copy of the text at `offset` for one more mapping, made anew when enough was learned since.
    pub fn shared(&self, offset: u64, len: u64) -> Option<Arc<SharedText>> {
        let end = offset.checked_add(len)?.checked_next_multiple_of(PAGE_SIZE)?;
        let text = offset..end;
        let stale = {
            let mut known = self.known.lock();
            let is_stale = known.in_shared < known.learned.len()
                && known.missed.saturating_mul(COPIED_PER_TRAP) >= end - offset;
            if is_stale {
                known.in_shared = known.learned.len();
                known.missed = 0;
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

    /// What [`FileText::shared`] would say to who maps the text now.
    pub fn outlook(&self) -> Outlook {
        let (range, is_new) = {
            let known = self.known.lock();
            let range = known.shared.as_ref().map(|shared| shared.text.clone());
            (range, known.in_shared < known.learned.len())
        };
        match range {
            Some(text) => self
                .shared(text.start, text.end - text.start)
                .map_or(Outlook::Unknown, Outlook::Copy),
            None if is_new => Outlook::Unknown,
            None => Outlook::Plain,
        }
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
        let area = text.end - text.start;
        let questions = self.asking.get().map_or(&[][..], |(questions, _)| questions);
        let fd = self.copy_bytes(&text, &questions::beside(questions, learned))?;
        let mut trampolines = vec![0xcc; AREA_LEN as usize];
        for learned in learned {
            let Learned { patch, offset, trampoline } = &**learned;
            for (addr, original, new) in patch.edits() {
                let at =
                    offset.wrapping_add(addr.wrapping_sub(patch.at)).checked_sub(text.start)?;
                let is_inside = at.checked_add(new.len() as u64).is_some_and(|end| end <= area);
                let mut now = vec![0; original.len()];
                let count = rustix::io::pread(&fd, &mut now, at).ok()?;
                if !is_inside || count != now.len() || now != *original {
                    return None;
                }
                write_at(&fd, new, at)?;
            }
            let at = usize::try_from(*trampoline).ok()?;
            let place = trampolines.get_mut(at..at.checked_add(patch.trampoline.len())?)?;
            place.copy_from_slice(&patch.trampoline);
        }
        write_at(&fd, &trampolines, area)?;
        seal(&fd)?;
        let fd = Arc::new(fd);
        Some(Arc::new(SharedText { fd, text, distance: distance?, area }))
    }

    /// Memory with the text's bytes, and room for trampolines behind it. In pieces, which the processor's cache holds.
    fn copy_bytes(&self, text: &Range<u64>, questions: &[u64]) -> Option<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("text", flags).ok()?;
        let len = text.end - text.start;
        rustix::fs::ftruncate(&fd, len.checked_add(AREA_LEN)?).ok()?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        while at < len {
            let want = usize::try_from(len - at).map_or(COPY_BYTES, |rest| rest.min(COPY_BYTES));
            let bytes = buffer.get_mut(..want)?;
            let start = text.start.checked_add(at)?;
            let count = self.read_into(bytes, start)?;
            questions::replace(bytes.get_mut(..count)?, start, questions);
            write_at(&fd, bytes.get(..count)?, at)?;
            at += count as u64;
            if count < want {
                // The file ends in the middle of its last page.
                break;
            }
        }
        Some(fd)
    }
}

/// Guests that attack their shim get the descriptor: nobody can change these bytes any more.
pub(super) fn seal(fd: &OwnedFd) -> Option<()> {
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(fd, seals).ok()
}

pub(super) fn write_at(fd: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Option<()> {
    while !bytes.is_empty() {
        let count = rustix::io::pwrite(fd, bytes, at).ok().filter(|count| *count > 0)?;
        bytes = bytes.get(count..)?;
        at = at.checked_add(count as u64)?;
    }
    Some(())
}

/// Reads small pieces of a file that lie close together, each block once.
struct Blocks<'a> {
    file: &'a FileText,
    read: RefCell<Vec<(u64, Vec<u8>)>>,
}

impl Blocks<'_> {
    fn read(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let start = range.start - range.start % BLOCK;
        let end = start.checked_add(BLOCK)?;
        if range.end > end || range.start > range.end {
            return self.file.read(range);
        }
        let mut blocks = self.read.borrow_mut();
        let found = blocks.iter().position(|(at, _)| *at == start);
        let index = match found {
            Some(index) => index,
            None => {
                blocks.push((start, self.file.read(start..end)?));
                blocks.len() - 1
            }
        };
        let (_, bytes) = blocks.get(index)?;
        // As of the file: what is behind its end is not there.
        let place = |at: u64| usize::try_from(at - start).map(|at| at.min(bytes.len()));
        Some(bytes.get(place(range.start).ok()?..place(range.end).ok()?)?.to_vec())
    }
}
