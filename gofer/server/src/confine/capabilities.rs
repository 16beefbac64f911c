//! Capabilities a gofer keeps. An ordinary user's has none to begin with.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// For every tree: root reads what modes hide.
const READING: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;
/// For writable trees: root writes what modes forbid, gives files away, changes foreign ones, keeps set-group-id bits.
const WRITING: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// Keeps of the present capabilities only those above. What the set cannot regain needs no bounding set: the
/// process executes nothing.
pub fn drop(can_write: bool) -> rustix::io::Result<()> {
    let wanted = if can_write { READING | WRITING } else { READING };
    let kept = capabilities(None)?.permitted & wanted;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )
}
