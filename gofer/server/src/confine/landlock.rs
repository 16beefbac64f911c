//! Landlock rules: reading below the trees, writing below the writable ones. See landlock(7).
//!
//! A rule names a directory and holds for everything below it, through mount points, so it does not matter what the
//! host has mounted in a tree.

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};

use crate::tree::ServedTree;

/// Restricts the calling thread and its descendants. Rights that the host's Landlock does not know yet are left
/// unrestricted; without Landlock nothing happens.
pub fn restrict(trees: &[ServedTree]) -> Result<(), RulesetError> {
    let handled = AccessFs::from_all(ABI::V5);
    let reading: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    // Devices are never made, nothing is executed, and ioctls on devices have no business here.
    let writing: BitFlags<AccessFs> = handled
        & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        .scope(Scope::from_all(ABI::V6))?
        .create()?;
    for tree in trees {
        let rights = if tree.is_writable() { writing } else { reading };
        // A rule on a single file may only name what can be done to a file.
        let rights = if tree.is_file() { rights & AccessFs::from_file(ABI::V5) } else { rights };
        rules = rules.add_rule(PathBeneath::new(tree.root(), rights))?;
    }
    let status = rules.restrict_self()?;
    tracing::debug!(ruleset = ?status.ruleset, "landlock");
    Ok(())
}
