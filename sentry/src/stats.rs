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
            let share = 100.0 * direct as f64 / (direct + trapped).max(1) as f64;
            let _ = writeln!(text, "  calls through rewritten sites: {direct} ({share:.2} %)");
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
