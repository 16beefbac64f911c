//! What the host lets us do, found out by doing it in a throwaway child.

use host::clone::{Namespaces, fork};
use rustix::process::{WaitOptions, waitpid};

/// Whether a child can be made with these namespaces of its own; root does without the user namespace.
pub fn can_enter(namespaces: Namespaces) -> bool {
    let without_user = namespaces - Namespaces::USER;
    child_succeeds(namespaces, || 0)
        || !without_user.is_empty() && child_succeeds(without_user, || 0)
}

/// Whether the platform gets up: filter, listener, zygote, memory access. The errors are the platform's own.
pub fn platform_starts() -> bool {
    child_succeeds(Namespaces::empty(), || {
        let config = platform::seccomp::Config::default();
        i32::from(platform::seccomp::SeccompPlatform::new(config).is_err())
    })
}

/// Whether the kernel has Landlock switched on.
pub fn has_landlock() -> bool {
    use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok()
}

fn child_succeeds(namespaces: Namespaces, body: impl FnOnce() -> i32) -> bool {
    let Ok(child) = fork(namespaces, &[], body) else { return false };
    matches!(
        waitpid(Some(child.pid), WaitOptions::empty()),
        Ok(Some((_, status))) if status.exit_status() == Some(0)
    )
}
