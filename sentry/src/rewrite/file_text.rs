//! What is known of a file's text.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::addr::PAGE_SIZE;
use base::lock::Mutex;
use platform::rewrite::{FUNCTION_MAX, Patch, Refusal, Site, TRAMPOLINE_MAX, plan};
use rustix::fs::{MemfdFlags, SealFlags};

use super::{AREA_LEN, LEARN_AFTER, functions};
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
        let area = self.area(place);
        let trampoline = {
            let known = self.known.lock();
            match known.sites.get(&offset) {
                Some(State::Learned(learned)) => return Ok(Arc::clone(learned)),
                Some(State::Refused) => return Err(None),
                Some(State::Seen(_)) | None => known.used,
            }
        };
        if trampoline + TRAMPOLINE_MAX as u64 > AREA_LEN {
            return Err(None);
        }
        let mut start = offset.saturating_sub(AROUND).max(place.text.start);
        let mut end = offset.saturating_add(AROUND).min(place.text.end);
        let function = self.function(place, offset);
        if let Some(function) = &function {
            (start, end) = (start.min(function.start), end.max(function.end));
        }
        let text = self.read(start..end).ok_or(None)?;
        let address = |offset: u64| place.origin.wrapping_add(offset);
        let site = Site {
            text: &text,
            text_addr: address(start),
            syscall: address(offset),
            number,
            function: function.map(|function| address(function.start)..address(function.end)),
        };
        let planned = plan(&site, area.wrapping_add(trampoline), entry);
        let mut known = self.known.lock();
        match planned {
            // Somebody else took the place meanwhile: next time.
            Ok(_) if known.used != trampoline => Err(None),
            Ok(patch) => {
                let window = patch.at.wrapping_sub(place.origin);
                known.used += (patch.trampoline.len() as u64).next_multiple_of(16);
                let learned = Arc::new(Learned { patch, offset: window, trampoline });
                known.sites.insert(offset, State::Learned(Arc::clone(&learned)));
                known.learned.push(Arc::clone(&learned));
                Ok(learned)
            }
            Err(refusal) => {
                known.sites.insert(offset, State::Refused);
                Err(Some(refusal))
            }
        }
    }

    /// File offsets of the function around `offset`, if that can be told and looked through.
    fn function(&self, place: &Place, offset: u64) -> Option<Range<u64>> {
        let function = functions::around(offset, &|range| self.read(range))?;
        let is_mapped = function.start >= place.text.start && function.end <= place.text.end;
        (is_mapped && function.end.checked_sub(function.start)? <= FUNCTION_MAX).then_some(function)
    }

    /// The file's bytes.
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
        let area = bytes.len();
        bytes.resize(area + AREA_LEN as usize, 0xcc);
        for learned in learned {
            let Learned { patch, offset, trampoline } = &**learned;
            let at = usize::try_from(offset.checked_sub(text.start)?).ok()?;
            let window = bytes.get_mut(at..at + patch.bytes.len()).filter(|_| at < area)?;
            if *window != patch.original[..] {
                return None;
            }
            window.copy_from_slice(&patch.bytes);
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const ENTRY: u64 = 0x7e00_0001_1000;

    /// A nameless file of two pages with `mov eax, 39; syscall; ret` at 0x1010.
    fn text() -> Arc<FileText> {
        let fd = rustix::fs::memfd_create("program", MemfdFlags::CLOEXEC).unwrap();
        let mut bytes = vec![0x90; 0x2000];
        bytes[0x1010..0x1018].copy_from_slice(&[0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3]);
        let mut file = std::fs::File::from(fd);
        file.write_all(&bytes).unwrap();
        FileText::new(&Arc::new(OwnedFd::from(file)), 0)
    }

    /// The file's first page at 0x40_0000, its text behind it.
    fn place() -> Place {
        Place { origin: 0x40_0000, lowest: 0x40_0000, text: 0x1000..0x2000 }
    }

    #[test]
    fn a_learned_site_is_in_the_copy_and_nobody_can_change_that() {
        let text = text();
        assert!(text.shared(0x1000, 0x1000).is_none(), "nothing is known");
        let learned = text.learn(&place(), 0x1015, 39, ENTRY).unwrap();
        assert_eq!((learned.offset, learned.trampoline), (0x1010, 0));
        let shared = text.shared(0x1000, 0x1000).unwrap();
        assert_eq!((shared.text.clone(), shared.area), (0x1000..0x2000, 0x1000));
        assert_eq!(shared.distance, 0_u64.wrapping_sub(AREA_LEN));
        let mut bytes = [0; 8];
        rustix::io::pread(&shared.fd, &mut bytes, 0x10).unwrap();
        // A jump down to the area, and the instruction still there.
        let jump = i64::from(i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]));
        assert_eq!((bytes[0], 0x1015 + jump), (0xe9, -(AREA_LEN as i64)));
        assert_eq!(bytes[5..], [0x0f, 0x05, 0xc3]);
        assert!(rustix::io::pwrite(&shared.fd, &[0], 0).is_err());
        assert!(text.shared(0x1000, 0x2000).is_none(), "another part of the file");
    }

    #[test]
    fn a_refused_site_is_not_looked_at_again() {
        let text = text();
        assert!(matches!(text.learn(&place(), 0x1013, 39, ENTRY), Err(Some(_))));
        assert!(matches!(text.learn(&place(), 0x1013, 39, ENTRY), Err(None)));
    }

    #[test]
    fn functions_of_a_program_are_known() {
        // This very program.
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let len = file.metadata().unwrap().len();
        let text = FileText::new(&Arc::new(OwnedFd::from(file)), 0);
        let place = Place { origin: 0, lowest: 0, text: 0..u64::MAX };
        // Wherever its text is: many of these offsets lie in some function.
        let known = (0..len).step_by(0x1003).filter_map(|at| {
            let function = text.function(&place, at)?;
            assert!(function.contains(&at));
            Some(function)
        });
        assert!(known.count() > 100);
    }

    #[test]
    fn enough_processes_make_a_site_worth_learning() {
        let text = text();
        let noted: Vec<bool> = (0..LEARN_AFTER + 2).map(|_| text.note(0x1015)).collect();
        assert_eq!(noted.iter().position(|due| *due), Some(LEARN_AFTER as usize - 1));
        assert_eq!(noted.iter().filter(|due| **due).count(), 1);
    }

    #[test]
    fn the_area_keeps_its_distance() {
        let text = text();
        assert_eq!(text.area(&place()), 0x40_0000 - AREA_LEN);
        let elsewhere = Place { origin: 0x7000_0000, lowest: 0x7000_1000, ..place() };
        assert_eq!(text.area(&elsewhere), 0x7000_0000 - AREA_LEN);
    }
}
