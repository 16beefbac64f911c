//! What programs ask the processor at their start: asked here once for all of them, where that takes long.
//!
//! See `shim/src/processor.rs`. The answers are no secrets, and the same for every processor (`leaf_part`).

use std::arch::x86_64::__cpuid_count;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use shim_abi::{ProcessorAnswer, global_flag, leaf_part};

use super::region::GlobalPage;

/// Leaves and parts that C libraries ask for (`init_cpu_features`, `dl_init_cacheinfo`), those that are asked again and again first.
const QUESTIONS: [(u32, u32); 26] = [
    (BASIC, 0),
    (EXTENDED, 0),
    (4, 0),
    (4, 1),
    (4, 2),
    (4, 3),
    (4, 4),
    (2, 0),
    (7, 0),
    (7, 1),
    (0xd, 0),
    (0xd, 1),
    (0xd, 2),
    (0xd, 3),
    (0xd, 5),
    (0xd, 6),
    (0xd, 7),
    (0x14, 0),
    (0x19, 0),
    (0x8000_0001, 0),
    (0x8000_0007, 0),
    (0x8000_0008, 0),
    (0x8000_001d, 0),
    (0x8000_001d, 1),
    (0x8000_001d, 2),
    (0x8000_001d, 3),
];
/// Leaves that tell the highest leaf of their kind.
const BASIC: u32 = 0;
const EXTENDED: u32 = 0x8000_0000;

const _: () = assert!(QUESTIONS.len() <= shim_abi::MOST_ANSWERS);

/// What was asked so far.
#[derive(Debug, Default)]
pub struct Processor {
    /// There is something to be asked, and somebody has time for it.
    is_wanted: AtomicBool,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    asked: usize,
    answered: usize,
    /// The highest leaves of both kinds.
    basic: u32,
    extended: u32,
    has_begun: bool,
}

impl Processor {
    /// From now on whoever has nothing to do may ask.
    pub fn begin(&self) {
        let mut progress = self.progress.lock();
        if !std::mem::replace(&mut progress.has_begun, true) {
            self.is_wanted.store(true, Ordering::Relaxed);
        }
    }

    /// Asks until all is known, or there is something better to do.
    pub fn ask(&self, global: &GlobalPage, is_needed: &dyn Fn() -> bool) {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return;
        }
        let is_slow = global.get().flags.load(Ordering::Relaxed) & global_flag::SLOW_QUESTIONS != 0;
        let mut progress = self.progress.lock();
        while is_slow && progress.asked < QUESTIONS.len() {
            if is_needed() {
                return;
            }
            progress.ask_next(global);
        }
        self.is_wanted.store(false, Ordering::Relaxed);
    }
}

impl Progress {
    fn ask_next(&mut self, global: &GlobalPage) {
        let Some((leaf, part)) = QUESTIONS.get(self.asked).copied() else { return };
        self.asked += 1;
        // A leaf that is not there is answered in ways that differ.
        let is_there = match leaf {
            BASIC | EXTENDED => true,
            EXTENDED.. => leaf <= self.extended,
            _ => leaf <= self.basic,
        };
        if !is_there || leaf_part(leaf, part) != Some(part) {
            return;
        }
        let answer = __cpuid_count(leaf, part);
        match leaf {
            BASIC => self.basic = answer.eax,
            EXTENDED => self.extended = answer.eax,
            _ => {}
        }
        let Some(place) = global.get().answers.get(self.answered) else { return };
        publish(place, (leaf, part), [answer.eax, answer.ebx, answer.ecx, answer.edx]);
        self.answered += 1;
        // What is counted is there.
        global.get().answer_count.store(self.answered as u32, Ordering::Release);
    }
}

fn publish(place: &ProcessorAnswer, (leaf, part): (u32, u32), registers: [u32; 4]) {
    let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    let [eax, ebx, ecx, edx] = registers;
    place.question.store(pair(leaf, part), Ordering::Relaxed);
    place.registers[0].store(pair(eax, ebx), Ordering::Relaxed);
    place.registers[1].store(pair(ecx, edx), Ordering::Relaxed);
}
