//! Every system call of the binaries at hand is planned, with and without what is known of functions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind};
use platform::rewrite::{CONTEXT, Patch, Refusal, Site, plan, plan_alone};

use crate::binary::Binary;

/// As much text on either side is given when the function is not known; all of it would take its time.
const GUESSED_TEXT: u64 = 0x1_0000;

/// The same for calls that are not really there.
const PLANTED_TEXT: u64 = 4096;

/// A system call found by decoding its function.
struct Found {
    addr: u64,
    /// What the nearest `mov $imm,%eax` before it loads; nonsense if there is none.
    number: u64,
    function: Range<u64>,
    /// Where instructions of the function begin.
    starts: Vec<u64>,
}

fn decode(text: &[u8], text_addr: u64, function: &Range<u64>) -> Vec<Instruction> {
    let range = (function.start - text_addr) as usize..(function.end - text_addr) as usize;
    let Some(bytes) = text.get(range) else { return Vec::new() };
    Decoder::with_ip(64, bytes, function.start, DecoderOptions::NONE).into_iter().collect()
}

fn find_calls(text: &[u8], text_addr: u64, function: &Range<u64>) -> Vec<Found> {
    let instructions = decode(text, text_addr, function);
    let starts: Vec<u64> = instructions.iter().map(Instruction::ip).collect();
    let mut number = 1 << 40;
    let mut found = Vec::new();
    for instruction in &instructions {
        match instruction.code() {
            Code::Mov_r32_imm32 if instruction.op0_register() == iced_x86::Register::EAX => {
                number = instruction.immediate32().into();
            }
            Code::Syscall => found.push(Found {
                addr: instruction.ip(),
                number,
                function: function.clone(),
                starts: starts.clone(),
            }),
            _ => {}
        }
    }
    found
}

/// How often each outcome occurred.
#[derive(Default)]
struct Tally(BTreeMap<String, usize>);

impl Tally {
    fn count(&mut self, outcome: &Result<Patch, Refusal>) {
        let name = match outcome {
            Ok(patch) if patch.is_single => "patched, single".to_owned(),
            Ok(_) => "patched, several".to_owned(),
            Err(refusal) => format!("{refusal:?}").split('(').next().unwrap_or_default().to_owned(),
        };
        *self.0.entry(name).or_default() += 1;
    }

    fn sites(&self) -> usize {
        self.0.values().sum()
    }

    fn patched(&self) -> usize {
        let patched = self.0.iter().filter(|(name, _)| name.starts_with("patched"));
        patched.map(|(_, count)| count).sum()
    }
}

/// Plans all sites of a binary: with its functions known, and not.
fn survey(path: &Path) -> Option<(Tally, Tally)> {
    let binary = Binary::open(path)?;
    let functions = binary.functions();
    let (mut known, mut unknown) = (Tally::default(), Tally::default());
    for (text, text_addr) in binary.texts() {
        let end = text_addr + text.len() as u64;
        let sites = functions.iter().filter(|f| text_addr <= f.start && f.end <= end);
        let may_call = |f: &&Range<u64>| {
            let range = (f.start - text_addr) as usize..(f.end - text_addr) as usize;
            text[range].windows(2).any(|pair| pair == [0x0f, 0x05])
        };
        for found in sites.filter(may_call).flat_map(|f| find_calls(text, text_addr, f)) {
            let Found { addr: syscall, number, function, starts } = found;
            let trampoline = end + (1 << 20);
            let mut site = Site {
                text,
                text_addr,
                syscall,
                number,
                before: functions.iter().rev().find(|f| f.end <= function.start).cloned(),
                next: functions.iter().map(|f| f.start).find(|next| *next >= function.end),
                function: Some(function),
                is_signal_return: false,
                taken: &[],
            };
            check_island(&site, &starts);
            let informed = plan(&site, trampoline, 0x1000);
            check_alone(&site, &informed);
            site.function = None;
            let near = syscall.saturating_sub(GUESSED_TEXT).max(text_addr);
            site.text = &text[(near - text_addr) as usize..];
            site.text = &site.text[..site.text.len().min(2 * GUESSED_TEXT as usize)];
            site.text_addr = near;
            let guessed = plan(&site, trampoline, 0x1000);
            known.count(&informed);
            unknown.count(&guessed);
            if std::env::var_os("VERBOSE").is_some() {
                println!("{syscall:#x} {informed:?} {guessed:?}");
            }
            if let Ok(patch) = guessed {
                assert!(starts.contains(&patch.at), "{syscall:#x}: not a boundary: {patch:x?}");
            }
        }
    }
    Some((known, unknown))
}

/// A short jump replaces a whole instruction, and leads to whole instructions of padding.
fn check_island(site: &Site<'_>, starts: &[u64]) {
    let trampoline = site.text_addr + site.text.len() as u64 + (1 << 20);
    let met = plan(site, trampoline, 0x1000);
    if let Ok(Patch { at, island: Some(island), .. }) = met {
        assert!(starts.contains(&at));
        let inside =
            |start: &u64| island.at < *start && *start < island.at + island.bytes.len() as u64;
        let code = decode_from(site, island.at, island.bytes.len());
        assert!(code.iter().all(|i| i.mnemonic() == iced_x86::Mnemonic::Nop), "{code:?}");
        assert!(!starts.iter().filter(|s| inside(s)).any(|s| !code.iter().any(|i| i.ip() == *s)));
    }
}

/// Little text is enough for windows of one instruction, and for no others.
fn check_alone(site: &Site<'_>, planned: &Result<Patch, Refusal>) {
    let trampoline = site.text_addr + site.text.len() as u64 + (1 << 20);
    let Some(function) = &site.function else { return };
    let start = site.syscall.saturating_sub(CONTEXT).max(site.text_addr).min(function.start);
    let cut = (start - site.text_addr) as usize..(function.end - site.text_addr) as usize;
    let little = Site { text: &site.text[cut], text_addr: start, ..site.clone() };
    let whole = planned.as_ref().ok().filter(|patch| patch.is_single && patch.island.is_none());
    let moved = plan(site, trampoline, 0x1000).ok();
    assert_eq!(plan_alone(&little, trampoline, 0x1000).is_some(), whole.is_some());
    if let Some(alone) = plan_alone(&little, trampoline, 0x1000) {
        assert_eq!(Some(alone), moved);
    }
}

fn decode_from(site: &Site<'_>, at: u64, len: usize) -> Vec<Instruction> {
    decode(site.text, site.text_addr, &(at..at + len as u64))
}

fn report(path: &Path) -> Option<(Tally, Tally)> {
    let (known, unknown) = survey(path)?;
    println!("{}: {} functions", path.display(), Binary::open(path)?.functions().len());
    for (how, tally) in [("functions known", &known), ("unknown", &unknown)] {
        let (patched, sites) = (tally.patched(), tally.sites());
        println!("{} ({how}): {patched} of {sites} patched, {:?}", path.display(), tally.0);
    }
    Some((known, unknown))
}

/// A file that dynamically linked programs have mapped. Tests themselves may be static.
fn mapped(name: &str) -> Option<PathBuf> {
    let output = Command::new("cat").arg("/proc/self/maps").output().ok()?;
    let maps = String::from_utf8(output.stdout).ok()?;
    maps.lines().find_map(|line| {
        let path = line.split_whitespace().nth(5)?;
        path.rsplit('/').next()?.starts_with(name).then(|| path.into())
    })
}

/// A program of the path, through links and wrappers.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file())?;
    found.canonicalize().ok()
}

fn python() -> Option<PathBuf> {
    let script = "import sys; print(sys.executable)";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.canonicalize().ok()
}

#[test]
fn most_sites_of_the_c_library_are_patched() {
    // Not every host has glibc.
    let Some(path) = mapped("libc.so") else { return };
    let (known, _unknown) = report(&path).expect("an ELF file with a table of functions");
    assert!(known.patched() * 100 >= known.sites() * 95);
}

#[test]
fn guessed_boundaries_of_programs_are_true() {
    let paths = [mapped("ld-linux"), program("bash"), python(), program("node")];
    for path in paths.into_iter().flatten() {
        report(&path);
    }
}

/// System calls are rare; a call put in place of any short instruction is as good a question.
#[test]
fn guessed_boundaries_before_planted_calls_are_true() {
    let paths = [mapped("libc.so"), program("bash"), program("node")];
    for path in paths.into_iter().flatten() {
        let Some(binary) = Binary::open(&path) else { continue };
        let functions = binary.functions();
        let (mut asked, mut answered) = (0, 0);
        for (text, text_addr) in binary.texts() {
            let end = text_addr + text.len() as u64;
            let sample = functions.iter().filter(|f| text_addr <= f.start && f.end <= end);
            for function in sample.step_by(functions.len() / 700 + 1) {
                let instructions = decode(text, text_addr, function);
                let starts: Vec<u64> = instructions.iter().map(Instruction::ip).collect();
                let targets = branch_targets(&instructions);
                for place in instructions.iter().filter(is_plain).step_by(5) {
                    asked += 1;
                    let Ok(patch) = plan_planted(text, text_addr, place.ip()) else { continue };
                    answered += 1;
                    let at = patch.at;
                    assert!(starts.contains(&at) || at < function.start, "{place:x?} {patch:x?}");
                    let inside = at + 1..place.ip();
                    assert!(!targets.iter().any(|t| inside.contains(t)), "{place:x?} {patch:x?}");
                }
            }
        }
        println!("{}: {answered} of {asked} planted calls patched", path.display());
    }
}

/// As long as a call, and no branch that the call would do away with.
fn is_plain(instruction: &&Instruction) -> bool {
    instruction.len() == 2 && instruction.op0_kind() != OpKind::NearBranch64
}

/// Where a function's short enough jumps lead.
fn branch_targets(instructions: &[Instruction]) -> Vec<u64> {
    let jumps = instructions.iter().filter(|i| i.op0_kind() == OpKind::NearBranch64);
    let is_near = |i: &&Instruction| i.ip().abs_diff(i.near_branch_target()) < PLANTED_TEXT - 100;
    jumps.filter(is_near).map(Instruction::near_branch_target).collect()
}

fn plan_planted(text: &[u8], text_addr: u64, syscall: u64) -> Result<Patch, Refusal> {
    let offset = (syscall - text_addr) as usize;
    let from = offset.saturating_sub(PLANTED_TEXT as usize);
    let mut copy = text[from..text.len().min(offset + PLANTED_TEXT as usize)].to_vec();
    copy[offset - from..][..2].copy_from_slice(&[0x0f, 0x05]);
    let text_addr = text_addr + from as u64;
    let site = Site {
        text: &copy,
        text_addr,
        syscall,
        number: 1 << 40,
        function: None,
        before: None,
        next: None,
        is_signal_return: false,
        taken: &[],
    };
    plan(&site, syscall + (1 << 20), 0x1000)
}
