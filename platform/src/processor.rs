//! What programs ask the processor at their start: asked once for all of them, where that takes long.
//!
//! On a virtual machine cpuid stops for the host to answer: 1 to 2 microseconds, or some 10 where that is a virtual machine itself.
//! C libraries ask some 70 times before main() begins. The shim can answer instead (`shim/src/questions.rs`), in the texts that
//! [`rewrite`](crate::rewrite) has changed. The answers are no secrets, and the same for all processors (`shim_abi::leaf_part`).

use std::arch::x86_64::__cpuid_count;
use std::time::{Duration, Instant};

use shim_abi::leaf_part;

/// A signal and the way back take 1.5 microseconds or two.
const LONG_FOR_A_QUESTION: Duration = Duration::from_micros(4);

/// What cpuid said of a leaf, or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub leaf: u32,
    pub part: u32,
    /// eax, ebx, ecx, edx.
    pub registers: [u32; 4],
}

/// Leaves that tell the highest leaf of their kind.
const BASIC: u32 = 0;
const EXTENDED: u32 = 0x8000_0000;

/// Leaves and parts that C libraries ask for (`init_cpu_features`, `dl_init_cacheinfo`), those that are asked again and again first.
const QUESTIONS: [(u32, u32); 24] = [
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

const _: () = assert!(QUESTIONS.len() + 2 <= shim_abi::MOST_ANSWERS);

/// All that is worth being known, where it takes long to ask; else nothing.
#[must_use]
pub fn answers() -> Vec<Answer> {
    let (basic, took) = ask_timed(BASIC, 0);
    if took < LONG_FOR_A_QUESTION {
        return Vec::new();
    }
    let extended = ask(EXTENDED, 0);
    let [highest, ..] = basic.registers;
    let [highest_extended, ..] = extended.registers;
    // A leaf that is not there is answered in ways that differ.
    let is_there = |(leaf, part): &(u32, u32)| {
        let highest = if *leaf < EXTENDED { highest } else { highest_extended };
        *leaf <= highest && leaf_part(*leaf, *part) == Some(*part)
    };
    let others = QUESTIONS.into_iter().filter(is_there).map(|(leaf, part)| ask(leaf, part));
    [basic, extended].into_iter().chain(others).collect()
}

fn ask(leaf: u32, part: u32) -> Answer {
    let answer = __cpuid_count(leaf, part);
    Answer { leaf, part, registers: [answer.eax, answer.ebx, answer.ecx, answer.edx] }
}

fn ask_timed(leaf: u32, part: u32) -> (Answer, Duration) {
    let before = Instant::now();
    let answer = ask(leaf, part);
    (answer, before.elapsed())
}

/// What the processor has of a leaf that is there, and whether it took longer than a signal to say so.
pub(crate) fn features(leaf: u32) -> ([u32; 4], bool) {
    let (answer, took) = ask_timed(leaf, 0);
    (answer.registers, took > LONG_FOR_A_QUESTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_the_processors() {
        // None where it is quick.
        for answer in answers() {
            assert_eq!(answer, ask(answer.leaf, answer.part));
        }
    }

    #[test]
    fn what_is_of_one_processor_is_not_told() {
        for leaf in [1, 0xb, 0x1f, 0x8000_001e] {
            assert_eq!(leaf_part(leaf, 0), None);
        }
    }
}
