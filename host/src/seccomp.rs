//! Tables of host calls, turned into seccomp filters.
//!
//! A table says which calls a process may make; every other one ends it. See seccomp(2).
//!
//! The host runs a new filter for every call number there is, to learn which it always lets through. A filter that asks
//! for one number after the other makes that a hundred thousand steps, 0.3 ms of a start. This one asks like somebody
//! who looks up a word: numbers in order fall into ranges of one answer, and each question halves what is left.
//!
//! # Safety
//! The one raw call passes a pointer to a live `struct sock_fprog` and its length.

#![expect(unsafe_code, reason = "seccomp(2) has no safe wrapper")]

use std::io;

use crate::bpf::{Assembler, Instruction, Test as BpfTest, Word};

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// What a listed call gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It fails with this errno.
    Refuse(u16),
}

/// A test of one argument, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// Equals the value, as 32 bits.
    Is(u8, u32),
    /// Has none of these bits, as 64 bits.
    Lacks(u8, u64),
}

/// A host call, the arguments it may have, and what it gets then. With other arguments it ends the process.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub number: u32,
    /// Alternatives, each a list of tests that must all hold; empty: any arguments.
    pub when: &'static [&'static [Test]],
    pub verdict: Verdict,
}

/// A filter, ready to be installed.
#[derive(Debug, Clone)]
pub struct Filter(Vec<Instruction>);

/// Call numbers from `first` on, up to the next range, that have one answer.
struct Range {
    first: u32,
    answer: Answer,
}

#[derive(Clone, Copy)]
enum Answer {
    Always(u32),
    /// Depends on the arguments of this rule.
    Tested(Rule),
}

impl Filter {
    /// The filter of a table, in which no number may stand twice; `None` otherwise.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Option<Self> {
        let ranges = ranges(rules.into_iter().collect())?;
        let mut asm = Assembler::default();
        let known = asm.label();
        asm.load(Word::Arch);
        asm.jump_if(BpfTest::Equal(AUDIT_ARCH_X86_64), known);
        asm.ret(RET_KILL_PROCESS);
        asm.place(known);
        // The numbers of x32 are the largest: in the last range, which is not listed.
        asm.load(Word::Number);
        search(&mut asm, &ranges);
        asm.finish().map(Self)
    }

    /// What the host will answer to a call of this architecture.
    #[must_use]
    pub fn verdict(&self, number: u32, args: [u64; 6]) -> Option<Verdict> {
        let call = crate::bpf::Call { number, arch: AUDIT_ARCH_X86_64, pointer: 0, args };
        match crate::bpf::run(&self.0, &call)? {
            RET_ALLOW => Some(Verdict::Allow),
            answer if answer & 0xffff_0000 == RET_ERRNO => Some(Verdict::Refuse(answer as u16)),
            _ => None,
        }
    }

    /// Installs the filter on all threads of the process, for good; none of them can gain privileges any more.
    ///
    /// # Errors
    /// Those of prctl(2) and seccomp(2); `ESRCH` when a thread has filters of its own.
    pub fn install(&self) -> io::Result<()> {
        // SAFETY: plain numbers.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut code: Vec<libc::sock_filter> = self
            .0
            .iter()
            .map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k })
            .collect();
        let len = u16::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len, filter: code.as_mut_ptr() };
        // SAFETY: `program` and the `len` instructions it points to live through the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_TSYNC,
                &raw const program,
            )
        };
        match result {
            0 => Ok(()),
            -1 => Err(io::Error::last_os_error()),
            // The thread that could not be brought along.
            _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }
}

/// All numbers there are, in ranges of one answer; `None` when a number stands twice.
fn ranges(mut rules: Vec<Rule>) -> Option<Vec<Range>> {
    rules.sort_unstable_by_key(|rule| rule.number);
    let rest = Answer::Always(RET_KILL_PROCESS);
    let mut ranges = vec![Range { first: 0, answer: rest }];
    let mut next = 0;
    for rule in rules {
        // Also refuses the largest number, behind which there would be no rest.
        let after = rule.number.checked_add(1)?;
        if rule.number < next {
            return None;
        }
        let answer = match (rule.when, rule.verdict) {
            ([], Verdict::Allow) => Answer::Always(RET_ALLOW),
            ([], Verdict::Refuse(errno)) => Answer::Always(RET_ERRNO | u32::from(errno)),
            _ => Answer::Tested(rule),
        };
        if rule.number > next {
            add(&mut ranges, next, rest);
        }
        add(&mut ranges, rule.number, answer);
        next = after;
    }
    add(&mut ranges, next, rest);
    Some(ranges)
}

/// Adds a range behind the others, or makes the last one longer.
fn add(ranges: &mut Vec<Range>, first: u32, answer: Answer) {
    match (ranges.last_mut(), answer) {
        (Some(Range { answer: Answer::Always(last), .. }), Answer::Always(new)) if *last == new => {
        }
        (Some(last), _) if last.first == first => last.answer = answer,
        _ => ranges.push(Range { first, answer }),
    }
}

/// Finds the range that the accumulator's number lies in, and answers.
fn search(asm: &mut Assembler, ranges: &[Range]) {
    let (low, high) = ranges.split_at(ranges.len() / 2);
    match (low, high) {
        ([], [range]) => match range.answer {
            Answer::Always(verdict) => asm.ret(verdict),
            Answer::Tested(rule) => test(asm, &rule),
        },
        (_, [middle, ..]) => {
            let above = asm.label();
            asm.jump_if(BpfTest::AtLeast(middle.first), above);
            search(asm, low);
            asm.place(above);
            search(asm, high);
        }
        (_, []) => {}
    }
}

/// Answers by the arguments.
fn test(asm: &mut Assembler, rule: &Rule) {
    for alternative in rule.when {
        let next = asm.label();
        for test in *alternative {
            match *test {
                Test::Is(index, value) => {
                    asm.load(Word::ArgLow(u32::from(index)));
                    asm.jump_unless(BpfTest::Equal(value), next);
                }
                Test::Lacks(index, bits) => {
                    let halves = [
                        (Word::ArgLow(u32::from(index)), bits as u32),
                        (Word::ArgHigh(u32::from(index)), (bits >> 32) as u32),
                    ];
                    for (word, bits) in halves {
                        asm.load(word);
                        asm.and(bits);
                        asm.jump_unless(BpfTest::Equal(0), next);
                    }
                }
            }
        }
        asm.ret(match rule.verdict {
            Verdict::Allow => RET_ALLOW,
            Verdict::Refuse(errno) => RET_ERRNO | u32::from(errno),
        });
        asm.place(next);
    }
    asm.ret(RET_KILL_PROCESS);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(number: u32, when: &'static [&'static [Test]], verdict: Verdict) -> Rule {
        Rule { number, when, verdict }
    }

    fn allow(number: u32) -> Rule {
        rule(number, &[], Verdict::Allow)
    }

    #[test]
    fn only_what_is_listed_passes() {
        let listed = [0, 1, 2, 5, 7, 8, 9, 63, 64, 200, 334, 452];
        let filter = Filter::new(listed.map(allow)).expect("a valid table");
        for number in (0..2000).chain([1 << 30, (1 << 30) | 1, u32::MAX]) {
            let expected = listed.contains(&number).then_some(Verdict::Allow);
            assert_eq!(filter.verdict(number, [0; 6]), expected, "{number}");
        }
        assert_eq!(Filter::new([]).expect("nothing").verdict(0, [0; 6]), None);
    }

    #[test]
    fn arguments_and_refusals_are_told_apart() {
        const FLAGS: &[&[Test]] =
            &[&[Test::Is(1, 7), Test::Is(2, 8)], &[Test::Lacks(3, 1 << 40 | 4)]];
        let rules = [
            allow(4),
            rule(5, FLAGS, Verdict::Allow),
            rule(6, &[], Verdict::Refuse(13)),
            rule(7, &[&[Test::Is(0, 1)]], Verdict::Refuse(1)),
        ];
        let filter = Filter::new(rules).expect("a valid table");
        let five = |args: [u64; 4]| {
            let [a, b, c, d] = args;
            filter.verdict(5, [a, b, c, d, 0, 0])
        };
        assert_eq!(five([0, 7, 8, 4]), Some(Verdict::Allow));
        // 32 bits are compared.
        assert_eq!(five([0, 7 | 1 << 32, 8, 4]), Some(Verdict::Allow));
        assert_eq!(five([0, 7, 9, 4]), None);
        assert_eq!(five([0, 0, 0, 3]), Some(Verdict::Allow));
        assert_eq!(five([0, 0, 0, 1 << 40]), None);
        assert_eq!(filter.verdict(6, [9; 6]), Some(Verdict::Refuse(13)));
        assert_eq!(filter.verdict(7, [1; 6]), Some(Verdict::Refuse(1)));
        assert_eq!(filter.verdict(7, [2; 6]), None);
        assert_eq!(filter.verdict(3, [0; 6]), None);
        assert_eq!(filter.verdict(8, [0; 6]), None);
    }

    #[test]
    fn a_number_that_stands_twice_is_refused() {
        assert!(Filter::new([allow(3), allow(3)]).is_none());
        assert!(Filter::new([allow(u32::MAX)]).is_none());
    }

    #[test]
    fn foreign_architectures_are_killed() {
        let filter = Filter::new([allow(1)]).expect("a valid table");
        let call = crate::bpf::Call { number: 1, arch: 0x4000_0003, pointer: 0, args: [0; 6] };
        assert_eq!(crate::bpf::run(&filter.0, &call), Some(RET_KILL_PROCESS));
    }

    #[test]
    fn an_answer_takes_few_steps() {
        // Every other number: as many ranges as can be.
        let filter = Filter::new((0..100).map(|n| allow(2 * n))).expect("a valid table");
        let returns = filter.0.iter().filter(|i| i.code == 0x06).count();
        assert!(filter.0.len() < 4 * returns, "{} instructions", filter.0.len());
    }
}
