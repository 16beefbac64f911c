//! Hostile ELF files: whatever the bytes, an error or a plan, never a panic.

use abi::elf::{Header, ProgramHeader};
use proptest::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

use super::*;

struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn read_exact_at(&self, pos: u64, into: &mut [u8]) -> Result<bool> {
        let Ok(pos) = usize::try_from(pos) else { return Ok(false) };
        let Some(end) = pos.checked_add(into.len()) else { return Ok(false) };
        let Some(bytes) = self.0.get(pos..end) else { return Ok(false) };
        into.copy_from_slice(bytes);
        Ok(true)
    }
}

/// A static program of two segments, as a linker makes it.
fn sample() -> Vec<u8> {
    let mut header = Header::new_zeroed();
    header.ident[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (header.kind, header.machine, header.entry) = (abi::elf::ET_EXEC, 62, 0x40_1000);
    (header.phoff, header.phentsize, header.phnum) = (64, 56, 3);
    let load = |flags, offset: u64, size, more| ProgramHeader {
        kind: abi::elf::PT_LOAD,
        flags,
        offset,
        vaddr: 0x40_0000 + offset,
        paddr: 0,
        filesz: size,
        memsz: size + more,
        align: 4096,
    };
    let mut interpreter = load(4, 0x200, 8, 0);
    interpreter.kind = abi::elf::PT_INTERP;
    let headers = [load(5, 0, 0x1100, 0), load(6, 0x1100, 0x300, 0x2000), interpreter];
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(headers.as_bytes());
    bytes.resize(0x1400, 0);
    bytes[0x200..0x208].copy_from_slice(b"/lib/ld\0");
    bytes
}

#[test]
fn sound_headers_are_understood() {
    let file = Bytes(sample());
    let elf = Elf::read(&file).unwrap();
    assert_eq!(elf.loads().count(), 2);
    assert_eq!(elf.extent(), Ok((0x40_0000, 0x4000)));
    assert_eq!(elf.interpreter(&file), Ok(Some(b"/lib/ld".to_vec())));
}

#[test]
fn other_machines_and_classes_are_enoexec() {
    for (at, value) in [(0, 1), (18, 3), (16, 1), (54, 32), (56, 0)] {
        let mut bytes = sample();
        bytes[at] = value;
        assert_eq!(Elf::read(&Bytes(bytes)).map(|_| ()), Err(Errno::ENOEXEC), "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_headers_never_panic(
        changes in prop::collection::vec((0usize..240, any::<u8>()), 0..12),
        length in 0usize..0x1400,
        cut in any::<bool>(),
    ) {
        let mut bytes = sample();
        for (at, value) in changes {
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(length);
        }
        let file = Bytes(bytes);
        if let Ok(elf) = Elf::read(&file) {
            let _ = elf.interpreter(&file);
            let _ = image::tests::plan(&elf);
        }
    }

    #[test]
    fn any_first_line_is_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 254)) {
        let mut head = [0; HEAD_BYTES];
        head[..2].copy_from_slice(b"#!");
        head[2..].copy_from_slice(&bytes);
        let _ = script::parse(&head);
    }
}
