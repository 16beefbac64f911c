//! What `--stats` prints when the sandbox ends.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use abi::arch::x86_64_calls;

use crate::kernel::Kernel;

/// How often each call reached the sentry; only there when somebody wants to know.
#[derive(Debug)]
pub struct CallCounts(Box<[AtomicU64]>);

/// System calls have lower numbers.
const NUMBERS: usize = 512;
/// So many are told, the most frequent first.
const TOLD: usize = 12;

impl Default for CallCounts {
    fn default() -> Self {
        Self((0..NUMBERS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl CallCounts {
    /// One more of `number`; what is no call's number is not counted.
    pub fn note(&self, number: u64) {
        let count = usize::try_from(number).ok().and_then(|number| self.0.get(number));
        if let Some(count) = count {
            count.fetch_add(1, Relaxed);
        }
    }

    /// The most frequent ones, as `count name` lines.
    fn tell(&self, text: &mut String) {
        let counts = self.0.iter().enumerate().map(|(number, count)| (count.load(Relaxed), number));
        let mut counts: Vec<_> = counts.filter(|(count, _)| *count > 0).collect();
        counts.sort_unstable_by(|one, other| other.cmp(one));
        for (count, number) in counts.into_iter().take(TOLD) {
            let name = x86_64_calls::name(number as u64).unwrap_or("unknown");
            let _ = writeln!(text, "    {count:>8} {name}");
        }
    }
}

/// Writes the figures as `name: value` lines.
pub fn write(kernel: &Kernel, out: &OwnedFd) {
    let mut text = String::from("sandbox: statistics\n");
    match &kernel.rewriter {
        None => text.push_str("  call sites: not rewritten\n"),
        Some(rewriter) => {
            let stats = &rewriter.stats;
            let (direct, trapped) = (stats.direct.load(Relaxed), stats.trapped.load(Relaxed));
            let answered = kernel.platform.answered_calls();
            let trapped_only = stats.trapped_only.load(Relaxed);
            let rewritten = direct.saturating_add(answered).saturating_sub(trapped_only);
            let share = 100.0 * rewritten as f64 / rewritten.saturating_add(trapped).max(1) as f64;
            let _ = writeln!(text, "  through rewritten sites: {rewritten} calls ({share:.2} %)");
            let _ = writeln!(text, "  answered by shims: {answered}");
            let _ = writeln!(text, "  calls that reached the sentry through such sites: {direct}");
            let _ = writeln!(text, "  calls that trapped: {trapped}");
            let _ = writeln!(
                text,
                "  sites: {} learned for later processes, {} left alone, {} rewritten in place",
                stats.learned.load(Relaxed),
                stats.refused.load(Relaxed),
                stats.patches.load(Relaxed),
            );
            let _ =
                writeln!(text, "  mappings with rewritten text: {}", stats.mappings.load(Relaxed));
        }
    }
    let rings = kernel.platform.rings();
    let _ = writeln!(text, "  rings of the doorbell: {rings}");
    if let Some(counts) = &kernel.call_counts {
        text.push_str("  calls that reached the sentry most:\n");
        counts.tell(&mut text);
    }
    // Nobody is left to be told that it could not be written.
    let _ = rustix::io::write(out, text.as_bytes());
}
