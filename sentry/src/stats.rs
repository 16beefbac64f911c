//! What `--stats` prints when the sandbox ends.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;

use crate::kernel::Kernel;

/// Writes the figures as `name: value` lines.
pub fn write(kernel: &Kernel, out: &OwnedFd) {
    let mut text = String::from("sandbox: statistics\n");
    match &kernel.rewriter {
        None => text.push_str("  call sites: not rewritten\n"),
        Some(rewriter) => {
            let stats = &rewriter.stats;
            let (direct, trapped) = (stats.direct.load(Relaxed), stats.trapped.load(Relaxed));
            let answered = kernel.platform.answered_calls();
            let rewritten = direct.saturating_add(answered);
            let share = 100.0 * rewritten as f64 / rewritten.saturating_add(trapped).max(1) as f64;
            let _ = writeln!(text, "  through rewritten sites: {rewritten} calls ({share:.2} %)");
            let _ = writeln!(text, "    answered by shims: {answered}");
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
    // Nobody is left to be told that it could not be written.
    let _ = rustix::io::write(out, text.as_bytes());
}
