//! Rings of pipes that two guests have: bytes that go through them, limits, ends; and guests that say what they like.

use std::sync::Arc;

use abi::UserAddr;
use base::SharedRing;
use base::shared_ring::Progress;
use platform::{Context, Event, HostOp, NewContext, Platform, Prot};
use shim_abi::{LOANS_ADDR, STREAM_STRIDE, STREAMS_ADDR, STREAMS_OFFSET, Streams};

use crate::fast::load_fast;
use crate::harness::{DATA, block_on, platform, step};

const CAPACITY: usize = 64 << 10;
/// Where guests have their bytes, and how many they move at a time.
const BUFFER: UserAddr = UserAddr(DATA + 0x1000);
const PIECE: usize = 4096;
/// The writer's word as its process sees it; and the reader's.
const HEAD: UserAddr = UserAddr(STREAMS_ADDR + CAPACITY as u64);
const TAIL: UserAddr =
    UserAddr(LOANS_ADDR + STREAMS_OFFSET + std::mem::offset_of!(Streams, words) as u64);

/// Moves a piece by descriptor 5 (write(2) for 1, read(2) for 0 in r13) again and again; after each a call 39 with the result in rbx.
fn mover(platform: &Arc<dyn Platform>, call: u64) -> Option<Box<dyn Context>> {
    let code = snippet!(
        "2:",
        "mov rax, r13",
        "mov edi, 5",
        "mov rsi, r14",
        "mov edx, 4096",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "mov rbx, rax",
        "mov eax, 39",
        "lea rcx, [rip + 4f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "4:",
        "jmp 2b",
    );
    let mut context = load_fast(platform, code)?;
    (context.regs_mut().r13, context.regs_mut().r14) = (call, BUFFER.0);
    context.kicker().set_alone(true);
    Some(context)
}

/// The next call: its number, and what the last transfer returned.
fn call(context: &mut dyn Context) -> (u64, i64) {
    assert_eq!(step(context), Event::Syscall);
    (context.call().number, context.regs().rbx.cast_signed())
}

struct Guests {
    ring: Arc<dyn SharedRing>,
    writer: Box<dyn Context>,
    reader: Box<dyn Context>,
}

impl Guests {
    /// Both have joined, and stand in a transfer that was a call.
    fn joined(platform: &Arc<dyn Platform>) -> Option<Self> {
        let (mut writer, mut reader) = (mover(platform, 1)?, mover(platform, 0)?);
        let ring = writer.space().make_ring(CAPACITY).expect("there are few");
        assert_eq!((call(&mut *writer).0, call(&mut *reader).0), (1, 0));
        assert!(reader.space().join_ring(&ring, 5, false).is_none() && !ring.seal(), "too early");
        writer.defer(writer.space().join_ring(&ring, 5, true).expect("a place"));
        assert_eq!((call(&mut *writer).0, call(&mut *writer).0), (39, 1));
        assert!(ring.seal());
        assert!(writer.space().join_ring(&ring, 5, true).is_none(), "sealed");
        reader.defer(reader.space().join_ring(&ring, 5, false).expect("a place"));
        assert_eq!((call(&mut *reader).0, call(&mut *reader).0), (39, 0));
        Some(Self { ring, writer, reader })
    }

    fn begun(platform: &Arc<dyn Platform>) -> Option<Self> {
        let guests = Self::joined(platform)?;
        assert!(guests.ring.begin(&[]));
        Some(guests)
    }

    /// The writer writes a piece of these bytes; whether without a call.
    fn write(&mut self, byte: u8) -> bool {
        if self.writer.call().number == 1 {
            assert_eq!(call(&mut *self.writer).0, 39);
        }
        self.writer.space().write(BUFFER, &[byte; PIECE]);
        call(&mut *self.writer) == (39, PIECE as i64)
    }

    /// What the reader reads without a call.
    fn read(&mut self) -> Option<Vec<u8>> {
        if self.reader.call().number == 0 {
            assert_eq!(call(&mut *self.reader).0, 39);
        }
        let (number, count) = call(&mut *self.reader);
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
        (number == 39).then(|| {
            self.reader.space().read(BUFFER, &mut bytes);
            bytes
        })
    }
}

fn progress(read: usize, written: usize) -> Option<Progress> {
    Some(Progress { read: read as u64, written: written as u64 })
}

#[test]
fn bytes_go_through_without_a_call() {
    let platform = platform();
    let Some(mut guests) = Guests::joined(&platform) else { return };
    assert!(guests.ring.begin(b"begun"));
    assert!(!guests.ring.begin(b"again"));
    assert_eq!(guests.read(), Some(b"begun".to_vec()));
    assert_eq!(guests.read(), None);
    for round in 0..200 {
        assert!(guests.write(round));
        assert_eq!(guests.read(), Some(vec![round; PIECE]), "round {round}");
        if round % 10 == 0 {
            // The writer hears how far the reader is.
            assert!(guests.ring.advance(0));
        }
    }
    let at = 5 + 200 * PIECE;
    assert_eq!(guests.ring.progress(), progress(at, at));
    assert!(guests.ring.advance(0));
    assert!((0..16).all(|round| guests.write(round)));
    assert!(!guests.write(99));
    assert_eq!(guests.ring.progress(), progress(at, at + CAPACITY));
    assert_eq!(guests.ring.peek(3), Some(vec![0; 3]));
    assert!(guests.ring.advance(PIECE) && guests.ring.put(&[16; 10]));
    assert!((1..16).all(|round| guests.read() == Some(vec![round; PIECE])));
    assert_eq!((guests.read(), guests.read()), (Some(vec![16; 10]), None));
}

#[test]
fn who_is_held_makes_calls() {
    let platform = platform();
    let Some(mut guests) = Guests::begun(&platform) else { return };
    assert!(guests.write(1));
    assert_eq!(guests.ring.hold_writer(2 * PIECE), progress(0, PIECE));
    assert!(guests.write(2) && !guests.write(3));
    assert_eq!(guests.ring.hold_reader(PIECE), progress(0, 2 * PIECE));
    assert_eq!((guests.read(), guests.read()), (Some(vec![1; PIECE]), None));
    // Less than what is there already.
    assert_eq!(guests.ring.hold_writer(0), progress(PIECE, 2 * PIECE));
    assert!(!guests.write(3));
    // What is done here lets both go on.
    assert!(guests.ring.put(b"three"));
    assert!(guests.write(4));
    assert_eq!(guests.read(), Some(vec![2; PIECE]));
}

#[test]
fn what_was_published_counts_when_it_ends() {
    let platform = platform();
    let Some(mut guests) = Guests::begun(&platform) else { return };
    assert!(guests.write(1) && guests.write(2));
    assert_eq!(guests.read(), Some(vec![1; PIECE]));
    assert!(guests.ring.rest().is_empty(), "not before");
    guests.ring.end();
    assert_eq!(guests.ring.rest(), [2; PIECE]);
    assert!(!guests.write(3));
    assert_eq!(guests.read(), None);
    assert_eq!((guests.ring.progress(), guests.ring.peek(1)), (None, None));
    assert!(!guests.ring.put(b"x") && !guests.ring.advance(1) && !guests.ring.begin(b"x"));
    assert_eq!(guests.ring.rest(), [2; PIECE]);
    // Its places are free again; its memory is another one's then.
    let ring = guests.writer.space().make_ring(CAPACITY).expect("there are few");
    assert!(guests.writer.space().join_ring(&ring, 5, true).is_some());
    assert!(guests.reader.space().make_ring(CAPACITY + 1).is_none());
}

#[test]
fn a_bad_buffer_and_a_second_thread_make_calls() {
    let platform = platform();
    let Some(mut guests) = Guests::begun(&platform) else { return };
    for bad in [0, DATA - 2048, 0x7e00_0000_0000 - 100, LOANS_ADDR, u64::MAX - 5] {
        guests.writer.regs_mut().r14 = bad;
        assert!(!guests.write(1), "{bad:#x}");
    }
    guests.writer.regs_mut().r14 = BUFFER.0;
    assert!(guests.write(1));
    guests.reader.regs_mut().r14 = DATA - 2048;
    assert_eq!(guests.read(), None);
    guests.reader.regs_mut().r14 = BUFFER.0;
    guests.reader.kicker().set_alone(false);
    assert_eq!(guests.read(), None);
    guests.reader.kicker().set_alone(true);
    assert_eq!(guests.read(), Some(vec![1; PIECE]));
    // A copy has nothing.
    let regs = *guests.writer.regs();
    let new = NewContext { regs, fs_base: None };
    let mut child = block_on(guests.writer.fork(new)).expect("a copy of the process");
    child.kicker().set_alone(true);
    assert_eq!(call(&mut *child).0, 1);
}

#[test]
fn the_reader_cannot_write_the_ring() {
    let platform = platform();
    let Some(mut guests) = Guests::begun(&platform) else { return };
    let at = |offset: usize| UserAddr(STREAMS_ADDR + offset as u64);
    for offset in [0, CAPACITY - 8, CAPACITY] {
        assert_eq!(guests.reader.space().write(at(offset), &[1; 8]), 0);
        assert_eq!(guests.writer.space().write(at(offset), &[0; 8]), 8);
    }
    assert_eq!(guests.writer.space().write(UserAddr(STREAMS_ADDR + STREAM_STRIDE), &[1; 8]), 0);
    // Nor make it writable, as it could without us.
    let (addr, len, prot) = (at(0), 4096, Prot::READ | Prot::WRITE);
    let protect = vec![HostOp::Protect { addr, len, prot }];
    let done = block_on(guests.reader.execute(protect)).expect("alive");
    assert_eq!(done, Err((0, abi::Errno::EACCES)));
}

#[test]
fn who_says_what_cannot_be_ends_the_ring() {
    let platform = platform();
    let words = |at: u64| {
        let lent = |at| Streams::word(3, at);
        [0, 1, u64::MAX, at, lent(at - 1), lent(0), lent(CAPACITY as u64 + at + 1), lent(u64::MAX)]
    };
    let uses: [fn(&dyn SharedRing) -> bool; 6] = [
        |ring| ring.progress().is_some(),
        |ring| ring.put(b"x"),
        |ring| ring.advance(1),
        |ring| ring.peek(1).is_some(),
        |ring| ring.hold_writer(0).is_some(),
        |ring| ring.hold_reader(0).is_some(),
    ];
    let at = PIECE as u64;
    for (index, word) in words(at).into_iter().chain(words(at)).enumerate() {
        let is_writer = index < 8;
        let Some(mut guests) = Guests::begun(&platform) else { return };
        assert!(guests.write(1) && guests.read().is_some() && guests.write(2));
        assert!(guests.ring.progress() == progress(PIECE, 2 * PIECE));
        let bytes = word.to_le_bytes();
        let liar = if is_writer { (&guests.writer, HEAD) } else { (&guests.reader, TAIL) };
        assert_eq!(liar.0.space().write(liar.1, &bytes), 8);
        // The other one goes on, or has a call: with whatever bytes of its own pipe.
        let _ = if is_writer { guests.read().is_some() } else { guests.write(3) };
        assert!(!uses[index % uses.len()](&*guests.ring), "{word:#x}");
        assert!(guests.ring.is_over() && guests.ring.rest().is_empty());
        assert_eq!(guests.read(), None);
        assert!(!guests.write(4));
    }
}
